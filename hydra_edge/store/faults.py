"""What SQLite, or a value it stored, has run into, in words: what it was, and what to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path

from hydra_edge.errors import DiskFullError, StoreError
from hydra_edge.store.values import DamagedValueError

# SQLite makes the -shm file in steps of 32 KB; where fewer bytes than this are free it may fail so.
_FULL_BELOW = 64 * 1024

RESTORE = (
    "Nothing was overwritten. Restore the file from a backup, which keeps what is there beside: "
    "`hydra-edge history restore BACKUP`, with --user NAME for another than you. Without a backup, "
    "end all programs that use it and remove it together with its -wal and -shm to begin again."
)
_REASONS = {
    sqlite3.SQLITE_FULL: "no space is left on its disk. Free some space and try again",
    sqlite3.SQLITE_READONLY: (
        "it is read-only. Make the file and its folder writable, or set HYDRA_EDGE_HOME to a "
        "writable place"
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened. Expected a file in a folder you may write to; check both, or set "
        "HYDRA_EDGE_HOME to a writable place"
    ),
    sqlite3.SQLITE_PERM: "permission is denied. Check who owns the file and its folder",
    sqlite3.SQLITE_BUSY: (
        "another program is writing to it and did not finish in time. Try again when it is done"
    ),
    sqlite3.SQLITE_IOERR: "its disk does not work as it should. Check the disk and try again",
    sqlite3.SQLITE_TOOBIG: "a text is longer than 1 GB. Leave that one out",
}


def primary_code(err: sqlite3.Error) -> int:
    """Return which of SQLite's kinds of error it is; 0 for those of Python's own module."""
    return int(getattr(err, "sqlite_errorcode", 0)) & 0xFF


def _is_full(path: Path | None) -> bool:
    """Tell whether the disk a file is on has no room left."""
    try:
        return path is not None and shutil.disk_usage(path.parent).free < _FULL_BELOW
    except OSError:
        return False


def _is_read_only(path: Path | None) -> bool:
    """Tell whether nothing can be made beside a file, which SQLite calls not to be opened."""
    if path is None:
        return False
    if not os.access(path.parent, os.W_OK):
        return True
    try:  # root may write anywhere, but to a disk that is read-only
        return hasattr(os, "statvfs") and bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def told(
    err: Exception, path: Path | None, interrupted: threading.Event
) -> StoreError | KeyboardInterrupt:
    """Return what to raise for an error: Ctrl-C in a function of ours is no fault of the file."""
    if interrupted.is_set():
        interrupted.clear()
        return KeyboardInterrupt()
    return explain(err, path)


def explain(err: Exception, path: Path | None) -> StoreError:
    """Say in words what SQLite, or a value it stored, has run into."""
    label = "the history in memory" if path is None else str(path)
    code = primary_code(err) if isinstance(err, sqlite3.Error) else 0
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(
            f"{label} is not a hydra-edge file: got something that is no SQLite database at all, "
            f"or one whose beginning is damaged. {RESTORE}"
        )
    if isinstance(err, sqlite3.OperationalError) and "decode" in str(err):
        # Python's message quotes the text itself, which has no place in an error.
        return StoreError(f"{label} is damaged: a text in it is not UTF-8. {RESTORE}")
    if code == sqlite3.SQLITE_CORRUPT or isinstance(err, DamagedValueError):
        return StoreError(f"{label} is damaged: {err}. {RESTORE}")
    # SQLite says these two where it cannot make or enlarge the files beside it. A disk that is
    # read-only may have no room left, too, but it is not room that is wanting.
    if code == sqlite3.SQLITE_CANTOPEN and _is_read_only(path):
        code = sqlite3.SQLITE_READONLY
    elif code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and _is_full(path):
        code = sqlite3.SQLITE_FULL
    reason = _REASONS.get(code)
    if reason is None:
        return StoreError(
            f"Cannot use {label}: SQLite says {str(err)!r}. Run `hydra-edge doctor` to check it."
        )
    kind = DiskFullError if code == sqlite3.SQLITE_FULL else StoreError
    return kind(f"Cannot use {label}: {reason}.")
