"""Forgetting: erasing records and all they left behind, down to the bytes of the file.

First one transaction makes them unreachable; then the index is merged and the file rewritten,
because deleted words linger in index segments and copies of moved rows in unused space. If the
second step is interrupted a mark in the file says so, and the next opening finishes it. What a
file system or a backup still holds outside the file is beyond this module.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from hydra_edge.errors import (
    BytesRemainError,
    DiskFullError,
    RecordNotFoundError,
    StoreError,
    UnknownUserError,
)
from hydra_edge.prompt import SHOT_WORDS, cut, fold
from hydra_edge.store import choices, heads, log, pools, records, vectors
from hydra_edge.store.database import Database, side_files
from hydra_edge.store.schema import (
    APPLICATION_ID,
    APPLICATION_ID_OFFSET,
    MAGIC,
    META_ERASING,
)
from hydra_edge.store.values import CHUNK, bind, text_of, texts_from_json
from hydra_edge.types import ForgetReceipt, Progress, Record

# A forgotten text at least this long is also sought inside other texts; a shorter one (a
# label, a rating, "yes") only as a whole: it says nothing of anyone where it stands by chance.
DISTINCTIVE = 16
# So many texts are sought one after the other, which is faster than to look a text through for
# all of them at once; of several times as many it would be slower.
_FEW = 32
# Of a text that is looked through each so-manieth place is, for so many letters: wherever one that
# is sought begins, such a place is within its first ``DISTINCTIVE`` letters.
_STEP = 7
_PART = DISTINCTIVE - _STEP + 1
# Answers looked through between two words of how far it is: a fraction of a second.
_TOLD_EACH = 1000
# How long opening a file may wait to finish an interrupted erasure.
_FINISH_WAIT_S = 0.2
# How long emptying the WAL may wait for other programs where the disk is full.
_EMPTY_WAIT_S = 0.2
# What SQLite keeps of each page in the WAL (24 bytes) and its index (8) besides the page itself.
_WAL_BYTES_PER_PAGE = 32
# How long removing a file may wait for other programs before it goes as it is.
_REMOVE_WAIT_S = 5.0
# All that holds anything of a user, but for what ``meta`` says of the file itself.
_TABLES = ("records", "vectors", "bases", "pools", "choices", "log", "heads")


def _plain(text: str) -> str:
    """Fold the spacing of a text: prompts and models change it."""
    return " ".join(text.split())


class Traces:
    """What forgotten records may be recognized by elsewhere: their ids and their texts."""

    def __init__(self, ids: Iterable[str], texts: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._texts = frozenset(filter(None, map(_plain, texts)))
        self._long = [text for text in self._texts if len(text) >= DISTINCTIVE]
        self._by_start: dict[str, list[str]] = {}
        for text in self._long:
            self._by_start.setdefault(text[:DISTINCTIVE], []).append(text)
        # Where in such a beginning its parts stand.
        self._parts: dict[str, set[int]] = {}
        for start in self._by_start:
            for offset in range(_STEP):
                self._parts.setdefault(start[offset : offset + _PART], set()).add(offset)

    def touch(self, ids: Iterable[str | None], texts: Iterable[str]) -> bool:
        """Tell whether something names one of the ids or holds one of the texts."""
        if not self._ids.isdisjoint(ids):
            return True
        folded = [_plain(text) for text in texts]
        if not self._texts.isdisjoint(folded):
            return True
        # In one go, which is faster: no folded text goes on behind the end of a line.
        return any(True for _ in self.long_ones_in("\n".join(folded)))

    def long_ones_in(self, text: str) -> Iterator[str]:
        """Walk over the distinctive texts that a text, its spacing folded, holds."""
        if len(self._long) <= _FEW:
            yield from (whole for whole in self._long if whole in text)
            return
        parts = self._parts
        places = range(0, len(text) - _PART + 1, _STEP)
        for place in [i for i in places if text[i : i + _PART] in parts]:
            for offset in parts[text[place : place + _PART]]:
                begin = place - offset
                if begin < 0:
                    continue
                for whole in self._by_start.get(text[begin : begin + DISTINCTIVE], ()):
                    if text.startswith(whole, begin):
                        yield whole


@dataclass(frozen=True, slots=True)
class _Trail:
    """One stored choice, log entry or pool, as far as forgetting is concerned."""

    row: int
    generation_id: str
    ids: tuple[str | None, ...]
    texts: tuple[str, ...]
    drawn: tuple[str, ...]  # those of the texts that an LLM answered

    @property
    def sampled(self) -> frozenset[str]:
        """What an LLM answered, spacing folded."""
        return frozenset(map(_plain, self.drawn))


# By table: the columns of its answers' ids, of the records kept of them, of queries and candidates;
# and the table. What a choice shares with its log entry is told by that: both go, or neither.
_ANSWERS = {
    "choices": (
        "generation_id",
        "record_id",
        "CASE WHEN log.id IS NULL THEN choices.query ELSE '' END",
        "CASE WHEN log.id IS NULL THEN choices.candidates ELSE '[]' END",
        "choices LEFT JOIN log ON log.id = generation_id AND generation_id <> '' "
        "AND log.query = choices.query AND log.candidates = choices.candidates",
    ),
    "log": ("id", "NULL", "query", "candidates", "log"),
}


def _answer_trails(
    connection: Connection,
    table: str,
    generations: Sequence[str] | None = None,
    known: Container[int] = (),
) -> Iterator[_Trail]:
    """Walk over ``choices`` or ``log``, of some answers if given, but for the rows known."""
    generation_column, record_column, queries, pools_column, joined = _ANSWERS[table]
    clause = ""
    if generations is not None:
        clause = f" WHERE {generation_column} IN ({', '.join('?' * len(generations))})"
    for row, generation_id, record_id, record_ids, query, text, candidates in connection.execute(
        f"SELECT {table}.seq, {generation_column}, {record_column}, {table}.record_ids, {queries}, "
        f"{table}.text, {pools_column} FROM {joined}{clause}",
        [bind(generation_id) for generation_id in generations or ()],
    ):
        if row in known:
            continue
        own = () if record_id is None else (text_of(record_id),)
        counts = log.counts_of(candidates)
        yield _Trail(
            row,
            text_of(generation_id),
            (*own, *texts_from_json(record_ids)),
            (text_of(query), text_of(text), *(of_pool for of_pool, _ in counts)),
            tuple(of_pool for of_pool, count in counts if count),
        )


def _pool_trails(connection: Connection) -> Iterator[_Trail]:
    for row, ids, completions in pools.naming(connection):
        texts = tuple(pools.answers_of(pools.completions_of(completions)))
        yield _Trail(row, "", ids, texts, texts)


def _tasks_of(connection: Connection, table: str, trails: Sequence[_Trail]) -> set[str]:
    """Return the tasks of some pools or choices."""
    select = f"SELECT task FROM {table} WHERE rowid = ?"
    return {text_of(connection.execute(select, (t.row,)).fetchone()[0]) for t in trails}


def _delete(connection: Connection, table: str, trails: Sequence[_Trail]) -> int:
    connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(t.row,) for t in trails])
    return len(trails)


def _watched(
    connection: Connection, progress: Progress | None
) -> Callable[[Iterator[_Trail]], Iterator[_Trail]]:
    """Let walks over all choices, log entries and pools tell how far they are, taken together."""
    if progress is None:
        return iter
    counts = "SELECT (SELECT COUNT(*) FROM choices) + (SELECT COUNT(*) FROM log) + COUNT(*)"
    total = int(connection.execute(f"{counts} FROM pools").fetchone()[0])
    done = 0

    def watch(trails: Iterator[_Trail]) -> Iterator[_Trail]:
        nonlocal done
        for trail in trails:
            yield trail
            done += 1
            if done % _TOLD_EACH == 0 or (done == total and total > _TOLD_EACH):
                progress("answers", done, total)

    return watch


def _find_trails(
    connection: Connection, ids: set[str], texts: set[str], progress: Progress | None
) -> dict[str, list[_Trail]]:
    """Find what mentions the records or holds their texts, by table."""
    traces, watched = Traces(ids, texts), _watched(connection, progress)
    found = {
        table: [
            t for t in watched(_answer_trails(connection, table)) if traces.touch(t.ids, t.texts)
        ]
        for table in ("choices", "log")
    }
    # A choice and the log entry it answers share their texts: both go, or neither.
    generations = list({t.generation_id for trails in found.values() for t in trails} - {""})
    for table, trails in found.items():
        known = {t.row for t in trails}
        for start in range(0, len(generations), CHUNK):
            part = generations[start : start + CHUNK]
            trails.extend(_answer_trails(connection, table, part, known))
    # The pool such an answer was chosen from names neither it nor its query; its samples do.
    chosen_from = {
        t.sampled
        for trails in found.values()
        for t in trails
        if any(len(text) >= DISTINCTIVE for text in t.sampled)
    }
    touched = [
        t
        for t in watched(_pool_trails(connection))
        if t.sampled in chosen_from or traces.touch(t.ids, t.texts)
    ]
    return found | {"pools": touched}


def _rows_of(connection: Connection, ids: Sequence[str], source: str | None) -> list[int]:
    """Return the rows to forget; an unknown id or source raises before anything is erased."""
    seqs = dict.fromkeys(records.seqs_of(connection, ids))
    if source is not None:
        rows = connection.execute(
            "SELECT seq FROM records WHERE source = ?", (bind(source),)
        ).fetchall()
        if not rows:
            known = ", ".join(map(repr, records.counts_by(connection, "source"))) or "none"
            raise RecordNotFoundError(
                f"There is no record from source {source!r:.80}. Known sources: {known}."
            )
        seqs.update(dict.fromkeys(row[0] for row in rows))
    if not seqs:
        raise RecordNotFoundError("Cannot forget: got no record id and no source; expected one.")
    return list(seqs)


def _repeats(connection: Connection, gone: Mapping[int, Record]) -> dict[int, Record]:
    """Find the answers that were kept as records, were shown one of those gone, and repeat one.

    An answer kept is the user's own word, but where an LLM copied a record into it, that record
    would live on in it; and so in answers that were shown this one.
    """
    found: dict[int, Record] = {}
    known = {record.id: record for record in gone.values()}
    answers, before = choices.kept_answers(connection), -1
    while before < len(found):  # one that repeats may itself be repeated
        before = len(found)
        traces = Traces((), _shown_texts(known.values()))
        shown = [answer for answer in answers if not known.keys().isdisjoint(answer.shown)]
        ids = [i for answer in shown for i in answer.record_ids]
        for record_id, stored in records.find_all(connection, ids).items():
            if stored is None or record_id in known:
                continue
            record = stored.record
            # What the user's own query says is no repetition: it may be asked again and again.
            query, output = _plain(record.input), _plain(record.output)
            if any(text not in query for text in traces.long_ones_in(output)):
                found[stored.seq] = known[record_id] = record
    return found


def _shown_texts(gone: Iterable[Record]) -> Iterator[str]:
    """Walk over records' texts, whole and as much of them as an LLM is shown."""
    for record in gone:
        yield from records.texts_of(record)
        yield cut(record.input, SHOT_WORDS)
        yield from (fold(record.output, multiline=multiline) for multiline in (False, True))


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to go, as the file was when it was looked through."""

    seqs: tuple[int, ...]  # of records
    repeats: int  # of these
    trails: dict[str, list[_Trail]]  # by table
    texts: set[str]  # no record to stay has them
    tasks: set[str]  # whose heads may have learned from it


def _find(
    connection: Connection, ids: Sequence[str], source: str | None, progress: Progress | None
) -> _Found:
    """Find records and what they left behind."""
    named = records.of_seqs(connection, _rows_of(connection, ids, source))
    repeats = _repeats(connection, named)
    gone = {**named, **repeats}
    texts = {text for record in gone.values() for text in records.texts_of(record)}
    texts -= records.still_used(connection, texts, gone)
    trails = _find_trails(connection, {record.id for record in gone.values()}, texts, progress)
    derived = {text for found in trails.values() for t in found for text in t.texts} - texts
    texts |= derived - records.still_used(connection, derived, gone)
    tasks = {record.task for record in gone.values()}
    for table in ("pools", "choices"):
        tasks |= _tasks_of(connection, table, trails[table])
    return _Found(tuple(gone), len(repeats), trails, texts, tasks)


def _delete_all(connection: Connection, found: _Found) -> ForgetReceipt:
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
        found, moment = _find(connection, ids, source, progress), db.moment()
    with db.writing() as connection:
        if db.moment() != moment:
            found = _find(connection, ids, source, progress)
        receipt = _delete_all(connection, found)
        _mark_erasing(connection)
    _erase_bytes(db, receipt=receipt)
    return receipt


def clear_log(db: Database, *, with_choices: bool, before: float | None) -> int:
    """Erase the log and, if wanted, the choices no record was kept of; see ``Store.clear_log``."""
    with db.writing() as connection:
        # First: the log tells since when heads may have learned from them.
        cleared = _drop_unkept_choices(connection, before) if with_choices else 0
        cleared += log.clear(connection, before)
        _mark_erasing(connection)
    _erase_bytes(db, cleared=cleared)
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


def _mark_erasing(connection: Connection) -> None:
    """Remember, in the transaction that deletes, that bytes are still to be erased."""
    connection.execute("REPLACE INTO meta VALUES (?, '1')", (META_ERASING,))


def erasing(connection: Connection) -> bool:
    """Tell whether an erasure was begun and not finished."""
    row = connection.execute("SELECT 1 FROM meta WHERE name = ?", (META_ERASING,)).fetchone()
    return row is not None


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


def _empty_wal(db: Database) -> None:
    """Give back what room the WAL takes, as far as other programs let it be emptied."""
    with contextlib.suppress(sqlite3.Error), db.waiting_at_most(_EMPTY_WAIT_S):
        db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _require_room(db: Database) -> None:
    """Refuse to rewrite a file that would fill its disk: other programs write there as well."""
    if _lack_of_room(db):
        _empty_wal(db)
        if lack := _lack_of_room(db):
            raise DiskFullError(f"Cannot rewrite {db.label}: {lack}. Free some space.")


def _erase_bytes(db: Database, *, receipt: ForgetReceipt | None = None, cleared: int = 0) -> None:
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
            connection.execute("INSERT INTO records_fts (records_fts) VALUES ('optimize')")
        db.rewrite()
        with db.writing() as connection:
            connection.execute("DELETE FROM meta WHERE name = ?", (META_ERASING,))
    except StoreError as err:
        if isinstance(err, DiskFullError):
            _empty_wal(db)  # or what was written in vain would go on filling the disk
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
        _erase_bytes(db)


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
        _mark_erasing(connection)
    _erase_bytes(db)


def forget_user(path: Path) -> None:
    """Remove one user's files; see ``Store.forget_user``."""
    if not path.exists():
        raise UnknownUserError(f"There is no user {path.stem!r} in {path.parent}; nothing removed.")
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
