"""A git repository: what a commit's message explains -> the subject its author gave it.

Runs the user's own git, read-only: no shell, no pager, no hooks, no network, and none of the
repository's settings that would start another program. Refuses to overrule git's own check
that the repository belongs to the caller.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers import gitprogram
from hydra_edge.importers.base import Origin, build_record, parse_time
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import Record

_GIT_OPTIONS = (*gitprogram.OPTIONS, "-c", "core.hooksPath=/dev/null")
# A subject is one line, so what comes after it is the body.
LOG = (
    "log", "--no-patch", "--no-notes", "--no-color", "--no-decorate", "--no-show-signature",
    "--encoding=UTF-8", "--format=tformat:%H%n%at%n%an%n%ae%n%s%n%b",
)  # fmt: skip
_HEAD = ("--end-of-options", "HEAD", "--")
_UNFINISHED = ("fixup!", "squash!", "amend!")
_TRAILER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*[ \t]*:[ \t]*\S|\(cherry picked from commit ")
_CHUNK_BYTES = 1 << 16
_CHOOSE = "Choose one of them: --author NAME (a part of the name or e-mail will do)."


@dataclass(frozen=True, slots=True)
class Commit:
    """What git's log says of a commit, each part as it is written there."""

    sha: str
    time: str
    name: str
    email: str
    subject: str
    body: str


def read_git(
    repo: Path,
    log: ImportLog,
    *,
    author: str | None = None,
    limit: int | None = None,
    task: str = "commit_subject",
    private: bool = False,
) -> Iterator[Record]:
    """Read one author's commits, newest first, but those of one second as they were made.

    A record is body -> subject.

    Merge commits and trailers (``Signed-off-by:`` and the like) are dropped; commits by
    others, without a body, or meant to be squashed are counted as skipped.

    Parameters
    ----------
    repo
        A repository, bare or not, or a folder inside one.
    log
        Filled while iterating; progress in commits.
    author
        A plain part of the name or e-mail, in any case; by default exactly the
        ``user.email`` configured for the repository.
    limit
        At most this many records.
    task
        For every record.
    private
        Marks every record private.

    Yields
    ------
    Record
        ``id`` is the full commit hash, ``time`` when it was authored.

    Raises
    ------
    ImportFormatError
        At the first step if there is no git, repository, commit or author to go by; at the
        end if git broke off, or no commit is by that author.
    ConfigError
        If ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"The limit is {limit}; expected at least 1. Leave it out for all.")
    repo = Path(os.path.realpath(repo))  # unlike resolve, never raises on a loop of links
    _check_repo(repo)
    wanted = _default_email(repo) if author is None else author
    exact = author is None
    # A damaged history cannot be counted; what precedes the damage can be read all the same.
    count = _run(repo, "rev-list", "--count", "--no-merges", *_HEAD, may_fail=True).strip()
    log.begin(item="commit", unit="commits", total=int(count) if count else None)
    origin = Origin.of("git", repo, task, private=private)
    yield from _as_made(_records_by(repo, wanted, origin, log, exact=exact, limit=limit))
    if log.held is not None:
        _hold_all(repo, log)


def _hold_all(repo: Path, log: ImportLog) -> None:
    """Name every commit that is still there: of other authors, and on other branches."""
    if _run(repo, "rev-parse", "--is-shallow-repository").strip() == "true":
        log.miss("what a shallow clone lacks of the history, see git fetch --unshallow")
    log.hold(*_run(repo, "rev-list", "--all", *_HEAD).split())


def _records_by(
    repo: Path, wanted: str, origin: Origin, log: ImportLog, *, exact: bool, limit: int | None
) -> Iterator[Record]:
    """Read an author's commits in git's order."""
    others: Counter[str] = Counter()
    taken = 0
    for commit in _commits(repo):
        log.step()
        if not is_by(commit, wanted, exact=exact):
            others[f"{commit.name} <{commit.email}>"] += 1
            log.skip("by another author")
            continue
        record = to_record(commit, origin, log)
        if record is None:
            continue
        taken += 1
        yield record
        if taken == limit:
            return
    if others and others.total() == log.done:
        raise ImportFormatError(
            f"No commit in {repo} is by {wanted!r}. The most frequent authors are "
            f"{_listed(others)}. {_CHOOSE}"
        )


def _as_made(records: Iterable[Record]) -> Iterator[Record]:
    """Turn records of one moment round: what is stored last of them counts as the latest."""
    alike: list[Record] = []
    try:
        for record in records:
            if alike and alike[-1].time != record.time:
                yield from reversed(alike)
                alike = []
            alike.append(record)
    except ImportFormatError:  # what precedes the damage can be read all the same
        yield from reversed(alike)
        raise
    yield from reversed(alike)


def commit_of(text: str) -> Commit:
    """Read one commit of what git answers to ``LOG``."""
    parts = text.split("\n", 5)
    return Commit(*parts, *[""] * (6 - len(parts)))


def is_by(commit: Commit, wanted: str, *, exact: bool) -> bool:
    """Return whether an author is wanted: by the whole address, or a part of it or of the name."""
    wanted = wanted.casefold()
    if exact:
        return commit.email.casefold() == wanted
    return wanted in commit.name.casefold() or wanted in commit.email.casefold()


def is_unfinished(commit: Commit) -> bool:
    """Return whether a commit is to be squashed into another one: its subject is not its own."""
    return commit.subject.startswith(_UNFINISHED)


def to_record(
    commit: Commit, origin: Origin, log: ImportLog, *, without_body: str = ""
) -> Record | None:
    """Turn a commit into a record and count it; None if it is none.

    ``without_body`` stands in for the body of a commit that has none.
    """
    if is_unfinished(commit):
        log.skip("fixup, squash or amend commit")
        return None
    body = drop_trailers(commit.body) or without_body
    if not body or not commit.subject.strip():
        log.skip("no body" if not body else "no subject")
        return None
    try:
        time = parse_time(commit.time)
    except ValueError:  # a forged date is no reason to lose the message
        time = None
    fields = {"input": body, "output": commit.subject, "id": commit.sha, "time": time}
    return build_record(fields, origin, log)


def drop_trailers(body: str) -> str:
    """Return a commit's body without its last paragraph if that is trailers only."""
    text = body.replace("\r\n", "\n").strip()
    head, _, last = text.rpartition("\n\n")
    lines = [line for line in last.split("\n") if line[:1] not in {" ", "\t"}]  # unfold
    if lines and all(_TRAILER.match(line) for line in lines):
        text = head
    return text.strip()


def _check_repo(repo: Path) -> None:
    if not repo.is_dir():
        raise ImportFormatError(
            f"{repo} is not a folder. Expected a git repository. Check the path."
        )
    _run(repo, "rev-parse", "--git-dir")
    if not _run(repo, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", may_fail=True).strip():
        raise ImportFormatError(
            f"{repo} has no commits on its current branch. Expected a history to read. "
            "Check out the branch that holds it."
        )


def _default_email(repo: Path) -> str:
    email = _run(repo, "config", "--get", "user.email", may_fail=True).strip()
    if email:
        return email
    counts = Counter(f"{c.name} <{c.email}>" for c in _commits(repo))
    raise ImportFormatError(
        f"Whose commits of {repo} are meant is unknown: git has no user.email there. The most "
        f"frequent authors are {_listed(counts)}. {_CHOOSE}"
    )


def _listed(authors: Counter[str]) -> str:
    return ", ".join(f"{repr(name)[1:-1]} ({n})" for name, n in authors.most_common(5))


def _command(repo: Path, *arguments: str) -> list[str]:
    program = gitprogram.program()
    if program is None:
        raise ImportFormatError(
            "git is not installed. Expected the git program to read a repository with. "
            "Install it, for example: apt install git."
        )
    return [program, *_GIT_OPTIONS, "-C", str(repo), *arguments]


def _run(repo: Path, *arguments: str, may_fail: bool = False) -> str:
    done = subprocess.run(  # noqa: S603 - a list of our own words, never a shell
        _command(repo, *arguments),
        env=gitprogram.environment(keep_git=False),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode and not may_fail:
        raise _failure(repo, done.stderr)
    return done.stdout.decode("utf-8", "replace")


def _failure(repo: Path, stderr: bytes) -> ImportFormatError:
    said = stderr.decode("utf-8", "replace").strip()
    if "dubious ownership" in said:
        return ImportFormatError(
            f"git refuses {repo} because it belongs to another user. Expected a repository of "
            f"your own. If you trust it: git config --global --add safe.directory {repo}"
        )
    if "not a git repository" in said:
        return ImportFormatError(
            f"{repo} is not a git repository. Expected one, or a folder inside one. Check the path."
        )
    first = repr(said.partition("\n")[0])[1:-1] or "no reason given"
    return ImportFormatError(
        f"git could not read {repo}: {first}. Expected an intact repository. Try: git fsck"
    )


def _commits(repo: Path) -> Iterator[Commit]:
    """Stream the commits of HEAD, merges left out; git is stopped when the caller is."""
    command = _command(repo, *LOG, "-z", "--no-merges", *_HEAD)
    with (
        tempfile.TemporaryFile() as complaints,  # a pipe nobody reads could fill up and block
        subprocess.Popen(  # noqa: S603 - a list of our own words, never a shell
            command,
            env=gitprogram.environment(keep_git=False),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        try:
            for message in _split_nul(cast("IO[bytes]", process.stdout)):
                yield commit_of(message.decode("utf-8", "replace"))
            code = process.wait()
        finally:
            process.kill()  # does nothing once it has ended by itself
        if code:
            complaints.seek(0)
            raise _failure(repo, complaints.read())


def _split_nul(stream: IO[bytes]) -> Iterator[bytes]:
    """Split a stream at NUL bytes; a last piece without one was cut off and is dropped."""
    piece: list[bytes] = []
    while chunk := stream.read(_CHUNK_BYTES):
        *ended, rest = chunk.split(b"\0")
        for end in ended:
            yield b"".join((*piece, end))
            piece.clear()
        piece.append(rest)
