"""What a staged change says about itself, as a query: files, names, and the prose it adds.

A commit's message does not exist yet when a subject is to be proposed, so the query is made of
the change. It reads like the opening of a commit's body, because that is what the records of
``import git`` are: plain words first, no diff syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from hydra_edge.githook.repository import Repository

_PATCH_BYTES = 1 << 18  # of a larger change the beginning has to do
_DIFF = (
    "diff", "--cached", "--no-ext-diff", "--no-textconv", "--no-color",
    "--ignore-submodules=all", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
_VERBS = {"A": "Add", "D": "Delete", "R": "Rename", "C": "Add"}
_FILES, _NAMES, _PROSE_WORDS = 6, 8, 60
_HUNK = re.compile(r"@@ [^@]* @@ ?(.*)")
_NAME = re.compile(
    r"\b(?:def|class|fn|func|function|struct|enum|trait|interface|type|module|namespace)\s+"
    r"(?:\([^()]*\)\s*)?([A-Za-z_]\w*)"
)
# No lazy group before its optional end: a long run of blanks would be read once for each of them.
_COMMENT = re.compile(
    r"\s*(?:#+(?!!|include\b|define\b|if\w*\b|endif\b|else\b|pragma\b|import\b)|//+|/\*+"
    r"|\*(?=\s)|--(?=\s)|;+(?=\s)|<!--|[rRbBfFuU]?(?:\"\"\"|'''))\s*(.*)"
)
_COMMENT_ENDS = ("*/", "-->", '"""', "'''")
_PROSE_FILES = {".md", ".rst", ".txt", ".adoc", ".org", ""}
_MARKUP = re.compile(r"^[#>*+\-=~\s|`]+|[`*_]+")
_NO_PROSE = re.compile(r"noqa|type: ignore|pylint|eslint|SPDX|[Cc]opyright|https?://|fmt: ")


@dataclass
class _Change:
    """One changed file: how it changed, and what its patch tells."""

    verb: str
    path: PurePosixPath
    old: PurePosixPath | None = None
    added: list[str] = field(default_factory=list)  # names, in order
    touched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    lines: int = 0

    @property
    def is_test(self) -> bool:
        """Whether it tests; what is tested says more of a commit than its tests."""
        return any(part.startswith("test") for part in self.path.parts)


def describe_staged(repository: Repository) -> str:
    """Describe what is staged in words, as a query for the task ``commit_subject``.

    Returns
    -------
    str
        Empty if nothing is staged. At most some 120 words, whatever the size of the change.
    """
    # Renames are found by comparing texts, which a partial clone may not have.
    for renames in ("--find-renames", "--no-renames"):
        raw = repository.read(*_DIFF, renames, "--raw", "-z", limit=_PATCH_BYTES)
        if raw:
            patch = repository.read(*_DIFF, renames, "--unified=0", "--patch", limit=_PATCH_BYTES)
            return describe(raw, patch)
    return ""


def describe(raw: str, patch: str) -> str:
    """Describe a change from git's ``--raw -z`` list and its ``--unified=0`` patch."""
    changes = {str(change.path): change for change in _files(raw)}
    _read_patch(patch, changes)
    ordered = sorted(changes.values(), key=lambda change: (change.is_test, -change.lines))
    sentences = [*_file_sentences(ordered), _prose(ordered), *_name_sentences(ordered)]
    return " ".join(sentence for sentence in sentences if sentence)


def _files(raw: str) -> Iterator[_Change]:
    parts = iter(raw.split("\0"))
    for meta in parts:
        letter = meta.rpartition(" ")[2][:1]
        path = next(parts, "")
        if not meta.startswith(":") or not path:
            return
        old = PurePosixPath(path) if letter in "RC" else None
        if old is not None:
            path = next(parts, "") or path
        yield _Change(_VERBS.get(letter, "Change"), PurePosixPath(path), old)


def _read_patch(patch: str, changes: dict[str, _Change]) -> None:
    """Fill in what the patch tells of each file."""
    change, old, in_hunk = None, "", False
    for line in patch.split("\n"):
        if line.startswith("diff --git "):
            change, in_hunk = None, False
        elif not in_hunk and line.startswith("--- "):
            old = _patch_path(line)
        elif not in_hunk and line.startswith("+++ "):
            new = _patch_path(line)
            change = changes.get(old if new == "/dev/null" else new)
        elif hunk := _HUNK.match(line):
            in_hunk = True
            if change is not None:
                change.touched += _NAME.findall(hunk[1])[:1]
        elif in_hunk and change is not None and line[:1] in {"+", "-"}:
            _read_line(line[1:], change, removed=line[0] == "-")


def _patch_path(line: str) -> str:
    name = line[4:].rstrip("\t").strip('"')
    return name if name == "/dev/null" else name.partition("/")[2]


def _read_line(text: str, change: _Change, *, removed: bool) -> None:
    change.lines += 1
    comment = _COMMENT.fullmatch(text)
    if comment is None:
        (change.removed if removed else change.added).extend(_NAME.findall(text)[:1])
    if removed:
        return
    prose = _within(comment[1]) if comment else text if change.path.suffix in _PROSE_FILES else ""
    prose = _MARKUP.sub("", prose).strip()
    words = [word for word in prose.split() if word.strip(".,:;()'\"").isalpha()]
    if len(words) >= 3 and 2 * len(words) > len(prose.split()) and not _NO_PROSE.search(prose):
        change.prose.append(prose)


def _within(comment: str) -> str:
    """Take the closing mark off a comment, if it has one."""
    text = comment.rstrip()
    end = next((mark for mark in _COMMENT_ENDS if text.endswith(mark)), "")
    return text.removesuffix(end).rstrip()


def _some(items: Iterable[str], limit: int) -> str:
    distinct = list(dict.fromkeys(items))
    more = f" and {len(distinct) - limit} more" if len(distinct) > limit else ""
    return ", ".join(distinct[:limit]) + more


def _file_sentences(changes: list[_Change]) -> list[str]:
    sentences = []
    for verb in ("Change", "Add", "Delete", "Rename"):
        names = [
            f"{change.old.name} to {change.path.name}" if verb == "Rename" and change.old
            else change.path.name
            for change in changes if change.verb == verb
        ]  # fmt: skip
        if names:
            sentences.append(f"{verb} {_some(names, _FILES)}.")
    return sentences


def _name_sentences(changes: list[_Change]) -> list[str]:
    """Name what was added, removed and touched; what was both added and removed was changed."""
    added = dict.fromkeys(name for change in changes for name in change.added)
    removed = dict.fromkeys(name for change in changes for name in change.removed)
    touched = [name for change in changes for name in change.touched]
    changed = [name for name in (*added, *touched) if name in removed or name not in added]
    groups = (
        ("Add", [name for name in added if name not in removed]),
        ("Remove", [name for name in removed if name not in added]),
        ("Change", changed),
    )
    return [f"{verb} {_some(names, _NAMES)}." for verb, names in groups if names]


def _prose(changes: list[_Change]) -> str:
    words = " ".join(line for change in changes for line in change.prose).split()
    text = " ".join(words[:_PROSE_WORDS])
    return text if not text or text.endswith((".", "!", "?")) else text + "."
