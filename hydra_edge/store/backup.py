"""A copy of one user's whole file, made beside others that write to it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from hydra_edge.errors import StoreError
from hydra_edge.privatefiles import replacing_path
from hydra_edge.store.database import Database, side_files
from hydra_edge.store.faults import explain, primary_code
from hydra_edge.types import Progress

# Under which a backup, and no history, remembers the person's task files.
_META_TASK_FILES = "task_files"
_VERSION = 1  # of how it does
# Pages copied between two looks at the progress.
_BACKUP_PAGES = 4096


def back_up(
    db: Database, target: Path, task_files: Mapping[str, str], progress: Progress | None
) -> None:
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
            try:
                with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as copy:
                    copy.execute("PRAGMA journal_mode = OFF")  # nothing is there to go back to
                    copy_pages(db.connection, copy, progress)
                    if task_files:
                        _put_task_files(copy, task_files)
            except sqlite3.Error as err:
                damaged = primary_code(err) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
                raise explain(err, db.path if damaged else new) from err
    except OSError as err:
        raise StoreError(
            f"Cannot write {target}: {err.strerror or err}. Expected a file in a folder you "
            "may write to. Give another one."
        ) from err


def copy_pages(
    source: sqlite3.Connection, target: sqlite3.Connection, progress: Progress | None
) -> None:
    """Copy all of one file over all of another, as one transaction of the other's.

    What ``progress`` raises leaves that as it was, if it keeps a journal.
    """

    def tell(_status: int, left: int, total: int) -> None:
        if progress is not None:
            progress("pages", total - left, total)

    source.backup(target, pages=_BACKUP_PAGES, progress=tell)


def _put_task_files(copy: sqlite3.Connection, texts: Mapping[str, str]) -> None:
    copy.execute("PRAGMA journal_mode = MEMORY")  # a statement is to be all or nothing
    value = json.dumps({"version": _VERSION, "files": dict(texts)})
    copy.execute("REPLACE INTO meta VALUES (?, ?)", (_META_TASK_FILES, value))


def take_task_files(connection: sqlite3.Connection) -> dict[str, str]:
    """Take the task files out of a backup, within ``writing``: a history holds none."""
    found = connection.execute(
        "SELECT value FROM meta WHERE name = ?", (_META_TASK_FILES,)
    ).fetchone()
    connection.execute("DELETE FROM meta WHERE name = ?", (_META_TASK_FILES,))
    try:
        kept = json.loads(found[0]) if found else {}
        if not kept or kept["version"] != _VERSION:  # a later release has others to say
            return {}
        return {str(name): str(text) for name, text in kept["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
