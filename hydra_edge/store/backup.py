"""A copy of one user's whole file, made beside others that write to it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from hydra_edge.errors import StoreError
from hydra_edge.privatefiles import replacing_path
from hydra_edge.store.database import Database, side_files
from hydra_edge.store.faults import explain, primary_code
from hydra_edge.types import Progress

# Pages copied between two looks at the progress.
_BACKUP_PAGES = 4096


def back_up(db: Database, target: Path, progress: Progress | None) -> None:
    """Copy a file, within ``reading`` and once something was read; see ``Store.back_up``.

    Else what others write meanwhile would have the copying begin again.
    """
    try:
        target = target.resolve()
        if target.exists() and not target.is_file():
            raise StoreError(
                f"Cannot write {target}: it is no file; expected one. Give the name of a file."
            )
        # SQLite would take what such a file says for the newest of the backup's.
        if left := [part.name for part in side_files(target) if part.exists()]:
            raise StoreError(
                f"Cannot write {target}: got {', '.join(left)} beside it, of a file in use or "
                "of one that was; expected none. Give another name."
            )
        with replacing_path(target) as new:
            new.touch(0o600, exist_ok=False)  # SQLite would let others read it
            _copy_to(db, new, progress)
    except OSError as err:
        raise StoreError(
            f"Cannot write {target}: {err.strerror or err}. Expected a file in a folder you "
            "may write to. Give another one."
        ) from err


def _copy_to(db: Database, target: Path, progress: Progress | None) -> None:
    def tell(_status: int, left: int, total: int) -> None:
        if progress is not None:
            progress("pages", total - left, total)

    try:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")  # nothing is there to go back to
            db.connection.backup(copy, pages=_BACKUP_PAGES, progress=tell)
    except sqlite3.Error as err:
        damaged = primary_code(err) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        raise explain(err, db.path if damaged else target) from err
