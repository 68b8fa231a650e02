"""Forgetting: erasing records and all they left behind, down to the bytes of the file.

What is to go is found first (``traces``), while others may write; one transaction makes it
unreachable, and its bytes are erased (``erasure``). What a file system or a backup still holds
outside the file is beyond this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

from hydra_edge.errors import (
    StoreError,
    UnknownUserError,
)
from hydra_edge.paths import other_users
from hydra_edge.store import choices, erasure, heads, log, records, vectors
from hydra_edge.store.database import Database, side_files
from hydra_edge.store.schema import (
    APPLICATION_ID,
    APPLICATION_ID_OFFSET,
    MAGIC,
)
from hydra_edge.store.traces import Found, Trail, find
from hydra_edge.types import ForgetReceipt, Progress

# How long removing a file may wait for other programs before it goes as it is.
_REMOVE_WAIT_S = 5.0
# All that holds anything of a user, but for what ``meta`` says of the file itself.
_TABLES = ("records", "vectors", "bases", "pools", "choices", "log", "heads")


def _delete(connection: Connection, table: str, trails: Sequence[Trail]) -> int:
    connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(t.row,) for t in trails])
    return len(trails)


def _delete_all(connection: Connection, found: Found) -> ForgetReceipt:
    """Delete what was found, and the vectors of its texts; mark the heads that may know it."""
    connection.executemany("DELETE FROM records WHERE seq = ?", [(seq,) for seq in found.seqs])
    records.mark_changed(connection, rewritten=True)
    last = log.newest_id(connection)
    receipt = ForgetReceipt(
        records=len(found.seqs),
        vectors=vectors.drop(connection, found.texts),
        pools=_delete(connection, "pools", found.trails["pools"]),
        choices=_delete(connection, "choices", found.trails["choices"]),
        log_entries=_delete(connection, "log", found.trails["log"]),
        repeats=found.repeats,
        tasks=heads.mark_stale(connection, sorted(found.tasks)),
    )
    if log.newest_id(connection) != last:  # or an older answer would be taken for the last one
        log.mark_missing(connection)
    return receipt


def forget(
    db: Database, ids: Sequence[str], source: str | None, progress: Progress | None
) -> ForgetReceipt:
    """Erase records and what they left behind; see ``Store.forget``."""
    # Looked through while others may write, which takes the longest; again if they did.
    with db.reading() as connection:
        found, moment = find(connection, ids, source, progress), db.moment()
    with db.writing() as connection:
        if db.moment() != moment:
            found = find(connection, ids, source, progress)
        receipt = _delete_all(connection, found)
        erasure.mark_erasing(connection)
    erasure.erase_bytes(db, receipt=receipt)
    return receipt


def clear_log(db: Database, *, with_choices: bool, before: float | None) -> int:
    """Erase the log and, if wanted, the choices no record was kept of; see ``Store.clear_log``."""
    with db.writing() as connection:
        # First: the log tells since when heads may have learned from them.
        cleared = _drop_unkept_choices(connection, before) if with_choices else 0
        cleared += log.clear(connection, before)
        erasure.mark_erasing(connection)
    erasure.erase_bytes(db, cleared=cleared)
    return cleared


def _drop_unkept_choices(connection: Connection, before: float | None) -> int:
    """Delete them with the vectors of their texts, and mark the heads that may know them."""
    gone = choices.drop_unkept(connection, before)
    for task, (answer, moment) in gone.since.items():
        heads.mark_stored_since(connection, task, answer, moment)
    if gone.count:  # and who is learning from one in another program is to begin anew
        vectors.drop(connection, gone.texts - records.still_used(connection, gone.texts))
        records.mark_changed(connection, rewritten=True)
    return gone.count


def _is_ours(path: Path) -> bool:
    with path.open("rb") as stream:
        header = stream.read(APPLICATION_ID_OFFSET + 4)
    mark = header[APPLICATION_ID_OFFSET:]
    return not header or (
        header.startswith(MAGIC) and int.from_bytes(mark, "big") == APPLICATION_ID
    )


def _erase_all(db: Database) -> None:
    """Delete every row and erase its bytes: who has the file open finds an empty history."""
    with db.writing() as connection:
        # It takes each record's words out of the index one by one, which is about to be emptied.
        triggers = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'records_removed'"
        ).fetchall()
        connection.execute("DROP TRIGGER IF EXISTS records_removed")
        connection.execute("INSERT INTO records_fts (records_fts) VALUES ('delete-all')")
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table}")
        log.mark_missing(connection)
        for (trigger,) in triggers:
            connection.execute(trigger)
        records.mark_changed(connection, rewritten=True)
        erasure.mark_erasing(connection)
    erasure.erase_bytes(db)


def forget_user(path: Path) -> None:
    """Remove one user's files; see ``Store.forget_user``."""
    if not path.exists():
        raise UnknownUserError(
            f"There is no user {path.stem!r} in {path.parent}; nothing removed. Known users: "
            f"{other_users(path) or 'none yet'}."
        )
    try:
        target = path.resolve()
        if not target.is_file() or not _is_ours(target):
            raise StoreError(
                f"{path} was not removed: it is not a hydra-edge file. Remove it by hand if you "
                "are sure."
            )
        # One that is damaged, or in use for too long, is removed as it is.
        with contextlib.suppress(StoreError):
            db = Database.open(target, create=False, wait_s=_REMOVE_WAIT_S)
            with contextlib.closing(db):
                _erase_all(db)
        # The file last: while it is there, a stopped removal can be repeated.
        for part in (*side_files(target), target, path):
            part.unlink(missing_ok=True)
    except OSError as err:
        raise StoreError(
            f"Cannot remove {path}: {err.strerror or err}. Expected a file in a folder you may "
            "write to. Check who owns both."
        ) from err
