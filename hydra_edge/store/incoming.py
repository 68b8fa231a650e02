"""A backup looked at before it takes a history's place: ours, whole, and of this release's schema.

That is seen on a copy of it beside the file, so that the backup itself stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra_edge.errors import DiskFullError, StoreError
from hydra_edge.privatefiles import temporary_beside
from hydra_edge.store import records
from hydra_edge.store.backup import copy_pages, take_task_files
from hydra_edge.store.check import damage
from hydra_edge.store.database import Database, file_uri, side_files
from hydra_edge.store.faults import RESTORE, explain, primary_code
from hydra_edge.store.schema import APPLICATION_ID, APPLICATION_ID_OFFSET, MAGIC, reindex
from hydra_edge.store.values import DamagedValueError

# Faults of the place, and not of the file: to replace it would help nobody.
_IN_THE_WAY = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contents:
    """What a history holds, as far as it tells one from another."""

    records: int
    choices: int
    heads: int  # in use
    answers: int  # in the log
    newest: float | None  # when its newest record was made, in unix seconds


@dataclass(frozen=True, slots=True)
class Restored:
    """What a backup holds, and what it took the place of, or would."""

    backup: Contents
    before: Contents | None  # None: there was no file, or it cannot be read
    fault: str = ""  # why it cannot
    kept: Path | None = None  # where what was there is now
    task_files: Mapping[str, str] = field(default_factory=dict)  # the backup's, by task


def _header(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(APPLICATION_ID_OFFSET + 4)


def _mark(header: bytes) -> int:
    """Return the number by which SQLite's files tell whose they are."""
    return int.from_bytes(header[APPLICATION_ID_OFFSET:], "big")


def _application(path: Path) -> int | None:
    """Return the number of the program a file is of, as SQLite reads it; None if it cannot.

    Read through SQLite: to close a descriptor of one's own would drop the locks that others in
    this process hold.
    """
    try:
        with contextlib.closing(sqlite3.connect(file_uri(path) + "?mode=rw", uri=True)) as opened:
            return int(opened.execute("PRAGMA application_id").fetchone()[0])
    except sqlite3.Error:
        return None


def _require_backup(source: Path, path: Path) -> None:
    """Refuse what is no backup of ours."""
    if not source.is_file():
        raise StoreError(
            f"Cannot restore from {source}: got {'no file' if source.exists() else 'nothing'} of "
            "that name; expected a backup. Give the one that `hydra-edge history backup` wrote."
        )
    if path.exists() and path.samefile(source):
        raise StoreError(
            f"Cannot restore from {source}: it is the history itself; expected a backup of it. "
            "Give the one that `hydra-edge history backup` wrote."
        )
    header = _header(source)
    if header.startswith(MAGIC) and _mark(header) == APPLICATION_ID:
        return
    got, advice = "something else", "Give the one that `hydra-edge history backup` wrote."
    if not header:
        got = "an empty file"
    elif header.startswith(MAGIC):
        got = f"an SQLite database of another program (application id {_mark(header):#x})"
    elif header.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        advice = "Records that `history export` wrote are read by `hydra-edge import jsonl`."
    raise StoreError(
        f"Cannot restore from {source}: got {got}; expected a backup of hydra-edge. {advice}"
    )


@contextlib.contextmanager
def checked(source: Path, path: Path) -> Iterator[tuple[Restored, Database]]:
    """Copy a backup beside a file, and give what both hold, and the copy, opened and sound."""
    try:
        _require_backup(source, path)
        before, fault = _look_at(path)
        with temporary_beside(path) as temporary:
            with _told_of(source, temporary):
                _fetch(source, temporary)
                db = Database.open(temporary, create=False)
            with contextlib.closing(db):
                with _told_of(source, temporary):
                    _require_sound(db, source)
                    with db.writing() as connection:
                        task_files = take_task_files(connection)
                        contents = _contents(connection)
                yield Restored(contents, before, fault, task_files=task_files), db
    except OSError as err:
        raise StoreError(
            f"Cannot restore from {source}: {err.strerror or err}. Expected a file you may read, "
            f"and room for it in {path.parent}. Check both."
        ) from err


@contextlib.contextmanager
def _told_of(source: Path, temporary: Path) -> Iterator[None]:
    """Name the backup, and not its copy, where that is at fault."""
    try:
        yield
    except DiskFullError:
        raise
    except StoreError as err:
        told = str(err).replace(RESTORE, "Nothing was changed. Give another backup.")
        raise StoreError(told.replace(str(temporary), str(source))) from err


def _fetch(source: Path, temporary: Path) -> None:
    """Copy a backup, without leaving anything beside it where nobody has it open."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as copy:
        if not any(part.exists() for part in side_files(source)):
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, copy)
            return
    # Its newest records are in its -wal, or a program writes to it.
    try:
        with (
            contextlib.closing(sqlite3.connect(file_uri(source) + "?mode=rw", uri=True)) as opened,
            contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copied,
        ):
            copied.execute("PRAGMA journal_mode = OFF")
            copy_pages(opened, copied, None)
    except sqlite3.Error as err:
        raise explain(err, source) from err


def _require_sound(db: Database, source: Path) -> None:
    """Refuse a backup that is damaged; a search index is made anew."""
    if damage(db):
        with contextlib.suppress(StoreError), db.writing() as connection:
            reindex(connection)
            records.mark_changed(connection, rewritten=True)
        if problems := damage(db):
            raise StoreError(
                f"Cannot restore from {source}: {' '.join(problems)} Expected a sound backup. "
                "Nothing was changed. Give another backup."
            )


def _contents(connection: sqlite3.Connection) -> Contents:
    def one(query: str) -> Any:
        return connection.execute(query).fetchone()[0]

    return Contents(
        records=int(one("SELECT COUNT(*) FROM records")),
        choices=int(one("SELECT COUNT(*) FROM choices")),
        heads=int(one("SELECT COUNT(*) FROM heads WHERE current")),
        answers=int(one("SELECT COUNT(*) FROM log")),
        newest=one("SELECT MAX(COALESCE(time, added)) FROM records"),
    )


def _look_at(path: Path) -> tuple[Contents | None, str]:
    """Say what a user's file holds, or why it cannot be read.

    Raises
    ------
    StoreError
        If it is another program's, or if something is in the way that is no fault of the file.
    """
    if not path.exists():
        return None, ""
    try:
        with (
            contextlib.closing(Database.open(path, create=False)) as db,
            db.reading() as connection,
        ):
            return _contents(connection), ""
    except StoreError as err:
        cause = err.__cause__
        if cause is None:
            # SQLite would throw away the -wal of one that is empty.
            unreadable = not path.stat().st_size or _application(path) in (None, 0, APPLICATION_ID)
        elif isinstance(cause, sqlite3.Error):
            unreadable = primary_code(cause) not in _IN_THE_WAY
        else:
            unreadable = isinstance(cause, DamagedValueError)
        if not unreadable:
            raise
        return None, str(err).replace(RESTORE, "").strip()
