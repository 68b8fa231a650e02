"""Putting a backup in the place of a user's file: all of it in one step, or nothing.

What SQLite can read is overwritten as one transaction of SQLite's own, under a lock that lets
nobody else have the file open; what it cannot is copied aside and replaced. Either way what was
there is kept under a name with a date.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hydra_edge.errors import StoreError
from hydra_edge.privatefiles import make_private_dir, replacing_path
from hydra_edge.store.backup import copy_pages
from hydra_edge.store.database import Database, file_uri, side_files
from hydra_edge.store.faults import explain, primary_code
from hydra_edge.store.incoming import Restored, checked
from hydra_edge.types import Progress

# How long other programs may take to let go of the file: commands end by themselves.
_WAIT_S = 5.0
_LOOK_AGAIN_S = 0.02
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_HEADER_BYTES = 100  # of SQLite's files, as they begin
_PART_BYTES = 1 << 20
_DATE = "%Y-%m-%d-%H%M%S"
_KEPT = re.compile(r"\.before-\d{4}-\d\d-\d\d-\d{6}(-\d+)?(-wal|-shm|-journal)?")


def kept_copies(path: Path) -> list[Path]:
    """Return what was kept of a user's file where a backup took its place."""
    found = path.parent.glob(f"{glob.escape(path.name)}.before-*")
    return sorted(part for part in found if _KEPT.fullmatch(part.name[len(path.name) :]))


def foresee(path: Path, source: Path) -> Restored:
    """Say what ``restore`` would do, and do nothing; see ``Store.would_restore``."""
    path = _place_of(path)
    with checked(source, path) as (found, _):
        return found


def restore(path: Path, source: Path, progress: Progress | None) -> Restored:
    """Put a backup in the place of a file; see ``Store.restore``."""
    path = _place_of(path)
    with checked(source, path) as (found, db):
        try:
            # SQLite would throw away the -wal of one that is empty.
            if path.exists() and path.stat().st_size:
                try:
                    return replace(found, kept=_overwrite(path, db, progress))
                except sqlite3.DatabaseError as err:
                    if primary_code(err) not in _DAMAGED:
                        raise explain(err, path) from err
            return replace(found, kept=_put_in_place(path, db))
        except OSError as err:
            raise StoreError(
                f"Cannot restore {path}: {err.strerror or err}. Expected a file in a folder you "
                "may write to. Check both."
            ) from err


def _place_of(path: Path) -> Path:
    """Return where a user's file is, or is to be; its folder is made."""
    if path.is_symlink() and not path.exists():
        raise StoreError(
            f"Cannot restore {path}: it is a link to {path.readlink()}, which is not there; "
            "expected a file, or none. Bring that file back, or remove the link."
        )
    if not path.parent.exists():
        make_private_dir(path.parent)
    return path.resolve()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file that nobody else has open, and let nobody else meanwhile.

    Who has one in WAL mode open holds a lock on it all the time, so that the mode cannot be left.
    """
    name = file_uri(path) + "?mode=rw"
    with contextlib.closing(
        sqlite3.connect(name, uri=True, timeout=0, isolation_level=None)
    ) as connection:
        for pragma in ("secure_delete = ON", "temp_store = MEMORY", "locking_mode = EXCLUSIVE"):
            connection.execute(f"PRAGMA {pragma}")
        deadline = time.monotonic() + _WAIT_S
        while not _taken(connection):
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"Cannot restore {path}: another program has it open; expected none. End "
                    "`serve`, `mcp` and applications that use it, then run this again."
                )
            time.sleep(_LOOK_AGAIN_S)
        try:
            yield connection
        finally:
            journal = path.with_name(path.name + "-journal")
            # SQLite leaves it there, empty, where a lock was kept. On Windows nobody can remove it.
            with contextlib.suppress(OSError):
                if not journal.stat().st_size:
                    journal.unlink()


def _taken(connection: sqlite3.Connection) -> bool:
    """Take a file for oneself; tell whether nobody was in the way."""
    try:
        # Truncated at each commit: what is overwritten is not to be left in it.
        (mode,) = connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as err:
        if primary_code(err) not in _BUSY:
            raise
        return False
    return bool(mode == "truncate")


def _kept_name(path: Path) -> Path:
    """Return a name with the date under which nothing is kept yet."""
    first = name = path.with_name(f"{path.name}.before-{time.strftime(_DATE)}")
    number = 2
    while any(part.exists() for part in (name, *side_files(name))):
        name = first.with_name(f"{first.name}-{number}")
        number += 1
    return name


def _overwrite(path: Path, db: Database, progress: Progress | None) -> Path:
    """Keep what is in a file, and overwrite it as one transaction; return where it is kept."""
    kept = None
    try:
        with _alone(path) as connection:
            kept = _kept_name(path)
            with replacing_path(kept) as new:
                new.touch(0o600, exist_ok=False)
                with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as copy:
                    copy.execute("PRAGMA journal_mode = OFF")
                    copy_pages(connection, copy, progress)
            copy_pages(db.connection, connection, progress)
    except BaseException:
        # Ctrl-C may come once all is overwritten.
        if kept is not None and kept.exists() and _same_pages(kept, path):
            kept.unlink()
        raise
    return kept


def _same_pages(one: Path, other: Path) -> bool:
    """Tell whether two files of SQLite differ in no more than how often they were written to."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(_HEADER_BYTES)
        second.seek(_HEADER_BYTES)
        while part := first.read(_PART_BYTES):
            if part != second.read(_PART_BYTES):
                return False
    return True


def _put_in_place(path: Path, db: Database) -> Path | None:
    """Put a copy where no readable file is; return where what was there is kept, if anything."""
    if db.path is None:
        raise StoreError("Cannot restore a history that is in memory; expected one in a file.")
    db.close()  # which leaves all in one file
    with db.path.open("r+b") as stream:
        os.fsync(stream.fileno())
    parts = [part for part in (path, *side_files(path)) if part.exists()]
    kept = _copy_aside(path, parts) if any(part.stat().st_size for part in parts) else None
    for part in parts:
        if part != path:  # else it would be taken for the new one's
            part.unlink(missing_ok=True)
    db.path.replace(path)
    return kept


def _copy_aside(path: Path, parts: Sequence[Path]) -> Path:
    """Copy what cannot be read as it stands, with what SQLite kept beside it."""
    kept = _kept_name(path)
    done: list[Path] = []
    try:
        for part in parts:
            target = kept.with_name(kept.name + part.name[len(path.name) :])
            done.append(target)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as copy, part.open("rb") as stream:
                shutil.copyfileobj(stream, copy)
                copy.flush()
                os.fsync(copy.fileno())
    except BaseException:
        for target in done:
            target.unlink(missing_ok=True)
        raise
    return kept
