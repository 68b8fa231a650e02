"""A folder of Markdown notes: the text -> the title its author gave it.

Owns finding the notes below a folder and telling title from text. Front matter between ``---``
is read by hand for the few keys that matter here, as it need not be YAML; between ``+++`` it is
TOML. Never follows a link out of the folder.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shown

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import (
    Origin,
    build_record,
    content_id,
    parse_name,
    parse_private,
    parse_time,
    readable,
)
from hydra_edge.importers.globs import Globs
from hydra_edge.importers.log import ImportLog
from hydra_edge.records import AssumedTime
from hydra_edge.types import Record

SUFFIXES = frozenset({".md", ".markdown"})
MAX_NOTE_BYTES = 64 * 2**20
MAX_TOML_CHARS = 16_384  # of a front matter: reading a key of many dots is quadratic
_EXPECTED = "a folder of Markdown notes (*.md)"
_KEYS = frozenset({"title", "date", "tags"})
_KEY_LINE = re.compile(r"([A-Za-z]\w*)[ \t]*:(?:[ \t]+(.*))?$")
_BLOCK = re.compile(r"^[>|][-+0-9]*$")  # the value is in the lines below
# The mark at any depth, be it YAML or TOML; and a line that is meant as one, but cannot be read.
_PRIVATE = re.compile(
    r"""^(?:[ \t]*(["']?)private\1[ \t]*[:=][ \t]*(?:\n[ \t]+)?(?P<value>.*)|private\b[^:=\n]*)$""",
    re.IGNORECASE | re.MULTILINE,
)
# The same within braces, and as the last of a dotted key.
_PRIVATE_IN_FLOW = re.compile(
    r"""(?:[{,]|\.)[ \t]*(["']?)private\1[ \t]*[:=][ \t]*(?P<value>[^,}\n]*)""", re.IGNORECASE
)
# What stands for a note that iCloud has taken off this device.
_AWAY = re.compile(r"\.(.+)\.icloud", re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)#.*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}#{1,6}(?:[ \t]+(.*))?$")
_SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")


def read_markdown(
    folder: Path,
    log: ImportLog,
    *,
    task: str = "note_title",
    private: bool = False,
    exclude: Sequence[str] = (),
) -> Iterator[Record]:
    """Read notes: text -> title, from ``*.md`` and ``*.markdown`` at any depth.

    The title is the front matter's ``title``, else the first heading, else the file's name
    if that has letters and a space or dash; the title is taken out of the text. Hidden files
    and folders, and links that leave the folder, are skipped.

    Parameters
    ----------
    folder
        Where the notes are.
    log
        Filled while iterating; progress in notes.
    task
        For every record.
    private
        Marks every record private; a note can mark itself so by ``private: true`` or the tag
        ``private`` in its front matter, but not undo this. One whose mark cannot be read is
        reported and left out.
    exclude
        Globs of notes and folders that are left out; see ``Globs``. One that matches nothing is
        noted.

    Yields
    ------
    Record
        In path order; ``id`` is the path below the folder (NFC), ``time`` the front
        matter's ``date``, else when the file was last changed.

    Raises
    ------
    ImportFormatError
        At the first step if the folder cannot be read.
    ConfigError
        If a glob is empty.
    """
    globs = Globs(exclude)
    with readable(folder, _EXPECTED):
        if not folder.is_dir():
            raise ImportFormatError(
                f"{folder} is not a folder. Expected {_EXPECTED}. Give the folder they are in."
            )
        root = folder.resolve(strict=True)
        notes = sorted(_find_notes(root, globs, log))
    log.begin(item="note", unit="notes", total=len(notes))
    origin = Origin.of("markdown", root, task, private=private)
    for path in notes:
        log.step()
        relative = path.relative_to(root).as_posix()
        try:
            fields = _read_note(path, root, relative, log)
            record = build_record(fields, origin, log) if fields else None
        except (OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) else str(err)
            log.reject(log.done, f"{repr(relative)[1:-1]}: {reason}")
            continue
        if record is not None:
            yield record
    log.notes += [f"--exclude {repr(glob)[:80]} matches no note or folder" for glob in globs.unused]


def _find_notes(root: Path, globs: Globs, log: ImportLog) -> Iterator[Path]:
    def refuse(err: OSError) -> None:
        if err.filename == str(root):  # a locked subfolder is only one that is not read
            raise err
        log.miss(f"folder {shown(Path(err.filename).name)}, which cannot be read")

    def is_wanted(path: Path, *, folder: bool) -> bool:
        if path.name.startswith(".") or not (folder or path.suffix.lower() in SUFFIXES):
            return False
        if globs.match(path.relative_to(root).as_posix(), folder=folder):
            log.skip("folder left out by --exclude" if folder else "left out by --exclude")
            return False
        return True

    for place, folders, files in os.walk(root, onerror=refuse):
        below = Path(place).relative_to(root)
        away = [found[1] for name in files if (found := _AWAY.fullmatch(name))]
        if below.parts and all(name.startswith(".") for name in folders + files) and not away:
            log.empty.append(_spelled_alike(f"{below.as_posix()}/"))
        folders[:] = [name for name in folders if is_wanted(Path(place, name), folder=True)]
        for name in folders:
            if Path(place, name).is_symlink():
                log.miss(f"folder {shown(name)}, a link, which is not followed")
        for name in away:
            if is_wanted(Path(place, name), folder=False):
                _leave_out("not on this device", (below / name).as_posix(), log)
        yield from (path for name in files if is_wanted(path := Path(place, name), folder=False))


def _read_note(path: Path, root: Path, relative: str, log: ImportLog) -> dict[str, object] | None:
    status = path.stat()
    if not path.resolve().is_relative_to(root):
        _leave_out("link out of the folder", relative, log)
        return None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise ValueError("not a regular file")
    if status.st_size > MAX_NOTE_BYTES:
        raise ValueError(f"larger than {MAX_NOTE_BYTES // 2**20} MiB")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ValueError("not UTF-8") from err
    note = parse_note(text.replace("\r\n", "\n"))
    title = note.title or _title_of_name(path.stem)
    if not note.text:
        _leave_out("empty note", relative, log)
        return None
    if not title:
        _leave_out("no title", relative, log)
        return None
    return {
        "input": note.text,
        "output": title,
        "id": _stable_id(relative),
        "time": _time(note.front.get("date"), status.st_mtime),
        "private": parse_private(note.front.get("private")) or "private" in note.tags,
    }


def _leave_out(reason: str, relative: str, log: ImportLog) -> None:
    log.skip(reason)
    log.hold(_stable_id(relative))


def _title_of_name(stem: str) -> str:
    telling = any(c.isalpha() for c in stem) and any(c in " -" for c in stem)
    return _spelled_alike(stem) if telling else ""


def _spelled_alike(name: str) -> str:
    """Return a name with each letter and its accents as one: file systems keep them either way."""
    return unicodedata.normalize("NFC", name)


def _stable_id(relative: str) -> str:
    try:
        return parse_name(_spelled_alike(relative), "id")
    except ValueError:  # too long, or not printable
        return content_id(relative)


def _time(date: str | None, changed: float) -> float | None:
    try:
        seconds = parse_time(date)
    except ValueError:  # dates in notes are written in many ways
        seconds = None
    return AssumedTime(changed) if seconds is None else seconds


@dataclass(frozen=True, slots=True)
class Note:
    """A note taken apart: ``text`` is without front matter and without its title."""

    title: str
    text: str
    front: dict[str, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


def parse_note(text: str) -> Note:
    """Take a note apart into title, text, and the front matter's known keys.

    Raises
    ------
    ValueError
        If its front matter is TOML that cannot be read.
    """
    front, tags, lines = _split_front_matter(text.split("\n"))
    heading = _first_heading(lines)
    title = front.get("title", "")
    # The text must not contain the answer, so a heading that repeats the title goes too.
    if heading is not None and (not title or heading.title == title):
        title = heading.title
        lines = lines[: heading.first] + lines[heading.after :]
    return Note(title, "\n".join(lines).strip(), front, tags)


def _split_front_matter(
    lines: list[str],
) -> tuple[dict[str, str], frozenset[str], list[str]]:
    """Return the known keys, the tags, and the lines below the front matter."""
    opening = lines[0].rstrip()
    ends = {"---": {"---", "..."}, "+++": {"+++"}}.get(opening, set())
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() in ends), None)
    if end is None:
        if opening == "+++":  # a mere --- is a rule
            raise ValueError("front matter after +++ has no end")
        return {}, frozenset(), lines
    read = _read_toml if opening == "+++" else _read_keys
    front, tags = read(lines[1:end])
    marks = map(_mark, _PRIVATE.finditer("\n".join(lines[1:end])))
    flows = (mark["value"] for mark in _PRIVATE_IN_FLOW.finditer("\n".join(lines[1:end])))
    said = [*marks, *map(_unquoted, flows)]
    front["private"] = next((mark for mark in said if not _is_no(mark)), front.get("private", ""))
    return front, frozenset(map(_tag, tags)), lines[end + 1 :]


def _mark(found: re.Match[str]) -> str:
    value = found["value"]
    return found[0] if value is None else _unquoted(_COMMENT.sub("", value))


def _is_no(mark: str) -> bool:
    """Tell whether a mark says no for certain; one that cannot be read is reported later."""
    try:
        return not parse_private(mark)
    except ValueError:
        return False


def _read_keys(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Read a front matter line by line for the known keys, and the tags."""
    front: dict[str, str] = {}
    tags: list[str] = []
    key = ""
    for line in lines:
        if match := _KEY_LINE.match(line.rstrip()):
            key = match[1].lower()
            if key in _KEYS:
                front.setdefault(key, _BLOCK.sub("", _unquoted(match[2] or "")))
        elif key == "tags" and line.lstrip().startswith("-"):
            tags.append(line.lstrip()[1:])
    return front, tags + re.split(r"[,\s]+", front.get("tags", "").strip("[]"))


def _read_toml(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Read a front matter that is TOML for the same keys, and the tags."""
    import tomllib

    text = "\n".join(lines)
    if len(text) > MAX_TOML_CHARS:
        raise ValueError(f"front matter is longer than {MAX_TOML_CHARS} characters")
    try:
        found = {key.lower(): value for key, value in tomllib.loads(text).items()}
    except (ValueError, RecursionError) as err:
        raise ValueError("front matter after +++ is not TOML") from err
    title, date = found.get("title"), found.get("date")
    front = {
        "title": " ".join(title.split()) if isinstance(title, str) else "",
        "date": "" if date is None else str(date),
    }
    tags: list[str] = []
    for table in (found, found.get("taxonomies")):  # where Zola has them
        given = table.get("tags", []) if isinstance(table, dict) else []
        tags += map(str, given) if isinstance(given, list) else re.split(r"[,\s]+", str(given))
    return front, tags


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _tag(value: str) -> str:
    return _unquoted(value).lstrip("#").lower()


@dataclass(frozen=True, slots=True)
class _Heading:
    title: str
    first: int
    after: int


def _first_heading(lines: list[str]) -> _Heading | None:
    """Find the first heading with words in it, ``# so`` or underlined, outside code fences."""
    fence = ""
    for place, line in enumerate(lines):
        if match := _FENCE.match(line):
            if not fence:
                fence = match[1]
            elif match[1].startswith(fence):
                fence = ""
            continue
        if fence:
            continue
        if match := _ATX.match(line):
            title = re.sub(r"(?:^|[ \t])#+[ \t]*$", "", match[1] or "").strip()
            if title:
                return _Heading(title, place, place + 1)
        underlined = place + 1 < len(lines) and _SETEXT.match(lines[place + 1])
        if underlined and line.strip() and not line.startswith((" ", "\t", "-", ">", "|", "#")):
            alone = place == 0 or not lines[place - 1].strip()
            if alone:  # else the line ends a paragraph
                return _Heading(line.strip(), place, place + 2)
    return None
