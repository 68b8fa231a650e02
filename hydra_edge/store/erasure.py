"""Erasing what was deleted from a file's bytes too, at once or at its next opening.

Deleted words linger in index segments, and copies of moved rows in unused space: the index is
merged and the file rewritten, which takes room. A mark in the file says that it is still to be
done.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
import sqlite3
from sqlite3 import Connection

from hydra_edge.errors import (
    BytesRemainError,
    DiskFullError,
    StoreError,
)
from hydra_edge.store.database import Database
from hydra_edge.store.schema import (
    META_ERASING,
)
from hydra_edge.types import ForgetReceipt

# How long opening a file may wait to finish an interrupted erasure.
_FINISH_WAIT_S = 0.2
# How long emptying the WAL may wait for other programs where the disk is full.
_EMPTY_WAIT_S = 0.2
# What SQLite keeps of each page in the WAL (24 bytes) and its index (8) besides the page itself.
_WAL_BYTES_PER_PAGE = 32


def mark_erasing(connection: Connection) -> str:
    """Remember, in the transaction that deletes, that bytes are still to be erased.

    The mark is this deletion's own: who erases the bytes of one before it leaves it.
    """
    own = secrets.token_hex(8)
    connection.execute("REPLACE INTO meta VALUES (?, ?)", (META_ERASING, own))
    return own


def erasing(connection: Connection) -> bool:
    """Tell whether an erasure was begun and not finished."""
    return mark(connection) is not None


def mark(connection: Connection) -> str | None:
    """Return the mark of the latest deletion whose bytes are still to be erased."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (META_ERASING,)).fetchone()
    return None if row is None else str(row[0])


def _room(db: Database) -> tuple[int, int] | None:
    """Return the bytes free for rewriting a file, and those it takes; None where nobody knows."""
    if db.path is None:
        return None
    try:
        with db.reading() as connection:
            pages, unused, page_size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        free = shutil.disk_usage(db.path.parent).free
    except (OSError, StoreError):
        return None
    # The pages in use are copied to the WAL, and from there over the file, which does not grow.
    return free, (pages - unused) * (page_size + _WAL_BYTES_PER_PAGE)


def lacking_mb(db: Database) -> int:
    """Return how many MB are to be freed before a file can be rewritten, 0 if none are."""
    room = _room(db)
    return 0 if room is None else max(0, math.ceil((room[1] - room[0]) / 1e6))


def _lack_of_room(db: Database) -> str:
    """Say what is free and what rewriting takes; nothing where there is room enough."""
    room = _room(db)
    if room is None or room[0] >= room[1]:
        return ""
    free, needed = room
    return (
        f"got {math.floor(free / 1e6):,} MB free on its disk; expected "
        f"{math.ceil(needed / 1e6):,} MB, which rewriting it takes"
    )


def empty_wal(db: Database) -> None:
    """Give back what room the WAL takes, as far as other programs let it be emptied."""
    with contextlib.suppress(sqlite3.Error), db.waiting_at_most(_EMPTY_WAIT_S):
        db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _require_room(db: Database) -> None:
    """Refuse to rewrite a file that would fill its disk: other programs write there as well."""
    if _lack_of_room(db):
        empty_wal(db)
        if lack := _lack_of_room(db):
            raise DiskFullError(f"Cannot rewrite {db.label}: {lack}. Free some space.")


def erase_bytes(db: Database, *, receipt: ForgetReceipt | None = None, cleared: int = 0) -> None:
    """Rewrite the index and the file without what was deleted, and empty the WAL.

    Raises
    ------
    BytesRemainError
        If another program is in the way, or the disk is full; the mark stays and the next
        opening tries again. It says what was deleted as it is given here.
    """
    try:
        _require_room(db)
        with db.writing() as connection:
            done = mark(connection)
            connection.execute("INSERT INTO records_fts (records_fts) VALUES ('optimize')")
        db.rewrite()
        with db.writing() as connection:
            connection.execute(
                "DELETE FROM meta WHERE name = ? AND value = ?", (META_ERASING, done)
            )
    except StoreError as err:
        if isinstance(err, DiskFullError):
            empty_wal(db)  # or what was written in vain would go on filling the disk
            why = f"{_lack_of_room(db) or 'no space is left on its disk'}. Free some space"
        else:
            why = f"{err} Close other programs that use the file"
        raise BytesRemainError(
            f"Deleted, but its bytes may remain in {db.label}: {why} and run `hydra-edge doctor`: "
            "opening the file finishes the erasure.",
            receipt=receipt,
            cleared=cleared,
        ) from err


def finish(db: Database) -> None:
    """Finish an interrupted erasure if nothing is in the way; else leave it for next time."""
    with db.reading() as connection:
        if not erasing(connection):
            return
    with contextlib.suppress(StoreError), db.waiting_at_most(_FINISH_WAIT_S):
        erase_bytes(db)
