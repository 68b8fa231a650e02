"""Forgetting: erasing records and all they left behind, down to the bytes of the file.

What is to go is found first (``traces``), while others may write; one transaction makes it
unreachable, and its bytes are erased (``erasure``). The log alone goes in portions: it may take
more room than a disk has left. What a file system or a backup still holds outside the file is
beyond this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from hydra_edge.errors import (
    DiskFullError,
    StoreError,
    UnknownUserError,
)
from hydra_edge.paths import other_users
from hydra_edge.records import clean_text, is_import
from hydra_edge.store import choices, erasure, heads, holders, log, pools, records, vectors
from hydra_edge.store.choices import StoredChoice
from hydra_edge.store.database import Database, side_files
from hydra_edge.store.restore import kept_copies
from hydra_edge.store.schema import (
    APPLICATION_ID,
    APPLICATION_ID_OFFSET,
    MAGIC,
)
from hydra_edge.store.traces import Found, Trail, find
from hydra_edge.store.values import bind
from hydra_edge.types import ForgetReceipt, Progress

# How long removing a file may wait for other programs before it goes as it is.
_REMOVE_WAIT_S = 5.0
# Log entries deleted in one go: each passes through the WAL, which is emptied in between.
_PORTION = 500
# All that holds anything of a user, but for what ``meta`` says of the file itself.
_TABLES = ("holders", "records", "vectors", "bases", "pools", "choices", "log", "heads")


def _delete(connection: Connection, table: str, trails: Sequence[Trail]) -> int:
    connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(t.row,) for t in trails])
    return len(trails)


def _drop_heads(connection: Connection, task: str | None) -> int:
    """Delete the heads of a task that goes as a whole."""
    if task is None:
        return 0
    return connection.execute("DELETE FROM heads WHERE task = ?", (bind(task),)).rowcount


def _count_heads(connection: Connection, task: str | None) -> int:
    if task is None:
        return 0
    row = connection.execute("SELECT COUNT(*) FROM heads WHERE task = ?", (bind(task),)).fetchone()
    return int(row[0])


def _delete_all(connection: Connection, found: Found) -> ForgetReceipt:
    """Delete what was found, and the vectors of its texts; mark the heads that may know it."""
    connection.executemany("DELETE FROM records WHERE seq = ?", [(seq,) for seq in found.seqs])
    if found.source is not None:
        holders.drop(connection, found.source)
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
        heads=_drop_heads(connection, found.whole_task),
    )
    if log.newest_id(connection) != last:  # or an older answer would be taken for the last one
        log.mark_missing(connection)
    return receipt


def foresee(
    db: Database,
    ids: Sequence[str],
    source: str | None,
    task: str | None,
    progress: Progress | None,
) -> ForgetReceipt:
    """Count what ``forget`` would erase; see ``Store.would_forget``."""
    with db.reading() as connection:
        found = find(connection, ids, source, task, progress)
        return ForgetReceipt(
            records=len(found.seqs),
            vectors=vectors.count_of(connection, found.texts),
            pools=len(found.trails["pools"]),
            choices=len(found.trails["choices"]),
            log_entries=len(found.trails["log"]),
            repeats=found.repeats,
            tasks=heads.with_heads(connection, sorted(found.tasks)),
            heads=_count_heads(connection, found.whole_task),
        )


def forget(
    db: Database,
    ids: Sequence[str],
    source: str | None,
    task: str | None,
    progress: Progress | None,
    on_deleted: Callable[[ForgetReceipt], None] | None,
) -> ForgetReceipt:
    """Erase records and what they left behind; see ``Store.forget``."""
    # Looked through while others may write, which takes the longest; again if they did.
    with db.reading() as connection:
        found, moment = find(connection, ids, source, task, progress), db.moment()
    mark = None
    try:
        with db.writing() as connection:
            if db.moment() != moment:
                found = find(connection, ids, source, task, progress)
            receipt = _delete_all(connection, found)
            mark = erasure.mark_erasing(connection)
    except (KeyboardInterrupt, SystemExit):
        # Either may come when all of it is stored.
        if mark is not None and on_deleted is not None and _is_stored(db, mark):
            on_deleted(receipt)
        raise
    except DiskFullError as err:
        erasure.empty_wal(db)
        raise DiskFullError(
            f"{err} Nothing is erased. `hydra-edge history clear-log` needs hardly any room, and "
            "makes some."
        ) from err
    if on_deleted is not None:
        on_deleted(receipt)
    erasure.erase_bytes(db, receipt=receipt)
    return receipt


def _is_stored(db: Database, mark: str) -> bool:
    """Tell whether the deletion with this mark was stored, its bytes being there still."""
    with contextlib.suppress(StoreError), db.reading() as connection:
        return erasure.mark(connection) == mark
    return False


def clear_log(
    db: Database,
    *,
    with_choices: bool,
    before: float | None,
    generation_id: str | None,
    progress: Progress | None,
) -> int:
    """Erase the log and, if wanted, the choices no record was kept of; see ``Store.clear_log``."""
    cleared = 0
    if with_choices:  # first: the log tells since when heads may have learned from them
        with db.writing() as connection:
            cleared = _drop_unkept_choices(connection, before, generation_id)
            erasure.mark_erasing(connection)
    with db.reading() as connection:
        entries = log.numbers(connection, before, generation_id)
    cleared += _drop_entries(db, entries, progress)
    erasure.erase_bytes(db, cleared=cleared)
    return cleared


def _drop_entries(db: Database, entries: Sequence[int], progress: Progress | None) -> int:
    """Delete log entries a portion at a time; return how many there were.

    Others may write in between, and the WAL stays small: what is deleted is overwritten, which
    takes its whole size there. Where even that is too much the portions become smaller.

    Raises
    ------
    DiskFullError
        If there is no room for a single one; those before it are gone.
    """
    size, done, dropped = _PORTION, 0, 0
    while done < len(entries):
        part = entries[done : done + size]
        try:
            with db.writing() as connection:
                erasure.mark_erasing(connection)  # each time: another program may have finished it
                there = log.drop(connection, part)
        except DiskFullError as err:
            erasure.empty_wal(db)
            if len(part) == 1:
                raise DiskFullError(
                    f"Cannot clear the log of {db.label} for want of room on its disk: got "
                    f"{done:,} of {len(entries):,} answers deleted; expected all. Free a megabyte "
                    "and run it again: it goes on with the others, or with --before TIME with "
                    "what is older."
                ) from err
            size = max(1, len(part) // 8)
            continue
        erasure.empty_wal(db)
        dropped += there
        done += len(part)
        if progress is not None and len(entries) > _PORTION:
            progress("answers", done, len(entries))
    return dropped


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A choice that was taken back, and whether the record that was kept of it went with it."""

    choice: StoredChoice
    with_record: bool


def withdraw(db: Database, generation_id: str | None) -> Withdrawn | None:
    """Take a choice back; see ``Store.withdraw_choice``."""
    with db.writing() as connection:
        choice = (
            choices.last(connection)
            if generation_id is None
            else choices.of_generation(connection, generation_id)
        )
        if choice is None:
            return None
        choices.drop(connection, choice)
        texts = {choice.query, choice.text, *(c.text for c in choice.candidates)}
        kept = _own_record(connection, choice)
        if kept is not None:
            connection.execute("DELETE FROM records WHERE seq = ?", (kept.seq,))
            texts |= set(records.texts_of(kept.record))
            texts |= pools.drop_naming(connection, {kept.record.id})
        vectors.drop(connection, texts - records.still_used(connection, texts))
        heads.unlearn(connection, choice)
        records.mark_changed(connection, rewritten=True)
        erasure.mark_erasing(connection)
    erasure.finish(db)
    return Withdrawn(choice, kept is not None)


def _own_record(connection: Connection, choice: StoredChoice) -> records.Stored | None:
    """Return the record that was kept of a choice, if it still says what was chosen."""
    own = choices.answer_id(choice.generation_id)
    if choice.record_id is None or not choice.record_id.startswith(own):
        return None
    stored = records.find(connection, choice.record_id)
    if stored is None or is_import(stored.record.source):
        return None
    chosen = (clean_text(choice.query), clean_text(choice.text))
    same = stored.record.task == choice.task and records.texts_of(stored.record) == chosen
    return stored if same else None


def _drop_unkept_choices(
    connection: Connection, before: float | None, generation_id: str | None
) -> int:
    """Delete them with the vectors of their texts, and mark the heads that may know them."""
    gone = choices.drop_unkept(connection, before, generation_id)
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
        # They take what belongs to each record away one by one, all of which is about to go.
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name IN ('records_removed', "
            "'holders_removed')"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("INSERT INTO records_fts (records_fts) VALUES ('delete-all')")
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table}")
        log.mark_missing(connection)
        for _, trigger in triggers:
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
        link = [path] if path.is_symlink() else []  # else what has the name by then is another's
        for part in (*kept_copies(target), *side_files(target), target, *link):
            part.unlink(missing_ok=True)
    except OSError as err:
        raise StoreError(
            f"Cannot remove {path}: {err.strerror or err}. Expected a file in a folder you may "
            "write to. Check who owns both."
        ) from err
