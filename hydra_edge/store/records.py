"""Records in the user's file: reading and counting them, and how often they have changed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from hydra_edge.errors import RecordNotFoundError
from hydra_edge.records import beside, stored_id
from hydra_edge.store.schema import META_REVISION
from hydra_edge.store.values import CHUNK, DamagedValueError, bind, text_of, where
from hydra_edge.types import Record

COLUMNS = "records.id, task, time, private, source, records.input, records.output"
ORDER = "COALESCE(time, added)"
_HINTS = 5


@dataclass(frozen=True, slots=True)
class Revision:
    """How often the records have changed; what was read stands while it stays the same.

    ``rewrites`` counts the changes that were more than records being added.
    """

    changes: int = 0
    rewrites: int = 0


def revision(connection: Connection) -> Revision:
    """Return how often the records have changed since the file was made."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (META_REVISION,)).fetchone()
    if row is None:
        return Revision()
    changes, _, rewrites = text_of(row[0]).partition(" ")
    if not (changes.isdecimal() and rewrites.isdecimal()):
        raise DamagedValueError(f"the revision is {row[0]!r}")
    return Revision(int(changes), int(rewrites))


def mark_changed(connection: Connection, *, rewritten: bool) -> None:
    """Count a change of records, in the transaction that makes it."""
    known = revision(connection)
    value = f"{known.changes + 1} {known.rewrites + rewritten}"
    connection.execute("REPLACE INTO meta VALUES (?, ?)", (META_REVISION, value))


def as_read(connection: Connection, rewrites: int | None) -> bool:
    """Tell whether records were neither rewritten nor forgotten since; None: it does not matter."""
    return rewrites in (None, revision(connection).rewrites)


def record_of(row: Sequence[Any]) -> Record:
    """Read one row of ``COLUMNS``."""
    record_id, task, moment, private, source, text, output = row
    if not (
        type(record_id) is type(task) is type(source) is type(text) is type(output) is str
    ):  # seldom, and asking for each costs as much as all else
        record_id, task, source = text_of(record_id), text_of(task), text_of(source)
        text, output = text_of(text), text_of(output)
    if moment is not None and not isinstance(moment, float):
        raise DamagedValueError(f"got {type(moment).__name__}, expected a time")
    return Record(text, output, task, record_id, moment, bool(private), source)


@dataclass(frozen=True, slots=True)
class Stored:
    """A record and its row."""

    seq: int
    record: Record


def texts_of(record: Record) -> tuple[str, str]:
    """Return a record's two texts."""
    return record.input, record.output


def find(connection: Connection, record_id: str) -> Stored | None:
    """Return the record that has an id, if any."""
    return find_all(connection, [record_id])[record_id]


def find_same(connection: Connection, record: Record) -> Record | None:
    """Return the record that says the same; see ``Store.find_same``."""
    name = stored_id(record)
    while (stored := find(connection, name)) is not None:
        if stored.record.content_hash == record.content_hash:
            return stored.record
        name = beside(name, record)
    return None


def find_all(connection: Connection, ids: Sequence[str]) -> dict[str, Stored | None]:
    """Look many ids up at once; None for those that no record has."""
    found: dict[str, Stored | None] = dict.fromkeys(ids)
    names = list(found)
    for start in range(0, len(names), CHUNK):
        part = names[start : start + CHUNK]
        rows = connection.execute(
            f"SELECT seq, {COLUMNS} FROM records WHERE id IN ({', '.join('?' * len(part))})",
            [bind(name) for name in part],
        )
        for row in rows:
            stored = Stored(row[0], record_of(row[1:]))
            found[stored.record.id] = stored
    return found


def still_used(connection: Connection, texts: set[str], without: Container[int] = ()) -> set[str]:
    """Return those of the texts that some record has as its input or output.

    ``without``: rows that are not looked at.
    """
    if not texts:
        return set()
    if len(texts) <= CHUNK:  # SQLite finds a few faster than it hands every record over
        rows = connection.execute(
            f"WITH asked (text) AS (VALUES {', '.join(['(?)'] * len(texts))}) "
            "SELECT seq, input, output FROM records WHERE input IN asked OR output IN asked",
            [bind(text) for text in texts],
        )
    else:
        rows = connection.execute("SELECT seq, input, output FROM records")
    return {
        text
        for seq, *both in rows
        if seq not in without
        for text in map(text_of, both)
        if text in texts
    }


def count(connection: Connection, task: str | None, source: str | None, until: float | None) -> int:
    """Count the records of a task and a source, up to a moment; see ``Store.count``."""
    clause, texts = where(task=task, source=source)
    if until is not None:
        clause += f"{'AND' if clause else 'WHERE'} {ORDER} <= ?"
    values = texts if until is None else [*texts, until]
    row = connection.execute(f"SELECT COUNT(*) FROM records {clause}", values).fetchone()
    return int(row[0])


def counts_until(connection: Connection, task: str, moments: Sequence[float]) -> list[int]:
    """Count the records of a task up to each of some moments; see ``Store.counts_until``."""
    if len(moments) < 2:
        return [count(connection, task, None, moment) for moment in moments]
    rows = connection.execute(f"SELECT {ORDER} FROM records WHERE task = ?", (bind(task),))
    made = sorted(moment for (moment,) in rows if isinstance(moment, int | float))
    return [bisect_right(made, moment) for moment in moments]


def counts_by(connection: Connection, column: str, *, public_only: bool = False) -> dict[str, int]:
    """Count the records, or the public ones, for each value of ``task`` or ``source``.

    Returns
    -------
    dict
        The most frequent first.
    """
    rows = connection.execute(
        f"SELECT {column}, COUNT(*) AS n FROM records {'WHERE NOT private' * public_only} "
        f"GROUP BY {column} ORDER BY n DESC, {column}"
    )
    return {text_of(value): int(n) for value, n in rows}


class TaskCounts:
    """How many records each task has, counted anew only after a record has changed.

    Must be used within a transaction that holds the file still.
    """

    def __init__(self) -> None:
        self._counted: tuple[Revision, dict[str, int]] | None = None

    def counts(self, connection: Connection) -> dict[str, int]:
        """Return the counts, the most frequent first; see ``Store.tasks``."""
        now = revision(connection)
        if self._counted is None or self._counted[0] != now:
            self._counted = now, counts_by(connection, "task")
        return dict(self._counted[1])


def get(connection: Connection, record_id: str) -> Record:
    """Return one record; see ``Store.get``."""
    stored = find(connection, record_id)
    if stored is None:
        raise unknown_record(connection, record_id)
    return stored.record


def unknown_record(connection: Connection, record_id: str) -> RecordNotFoundError:
    """Return the error for an id that no record has, with ids that begin like it."""
    start = record_id[:4]
    rows = connection.execute(
        "SELECT id FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (bind(start), bind(start + "\U0010ffff"), _HINTS),
    )
    near = [text_of(row[0]) for row in rows] if start else []
    hint = f" Ids that begin like it: {', '.join(near)}." if near else ""
    return RecordNotFoundError(
        f"There is no record {record_id!r:.80}.{hint} `hydra-edge history list` shows every id."
    )


def in_order(
    connection: Connection,
    *,
    task: str | None,
    source: str | None,
    limit: int | None,
    offset: int,
    newest_first: bool,
) -> list[Record]:
    """Return records in history order; see ``Store.records``."""
    clause, texts = where(task=task, source=source)
    way = "DESC" if newest_first else "ASC"
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM records {clause}ORDER BY {ORDER} {way}, seq {way} LIMIT ? OFFSET ?",
        (*texts, -1 if limit is None else max(limit, 0), max(offset, 0)),
    )
    return [record_of(row) for row in rows]


def outputs(connection: Connection, task: str) -> list[str]:
    """Return the outputs of a task's records in history order."""
    rows = connection.execute(
        f"SELECT output FROM records WHERE task = ? ORDER BY {ORDER}, seq", (bind(task),)
    )
    return [text_of(output) for (output,) in rows]


def by_seq(connection: Connection, seqs: Sequence[int], columns: str) -> dict[int, tuple[Any, ...]]:
    """Return columns of the given rows, by row number."""
    found: dict[int, tuple[Any, ...]] = {}
    for start in range(0, len(seqs), CHUNK):
        part = seqs[start : start + CHUNK]
        rows = connection.execute(
            f"SELECT seq, {columns} FROM records WHERE seq IN ({', '.join('?' * len(part))})", part
        )
        found.update((row[0], row[1:]) for row in rows)
    return found


def of_seqs(connection: Connection, seqs: Sequence[int]) -> dict[int, Record]:
    """Return the records of the given rows, by row number."""
    return {seq: record_of(row) for seq, row in by_seq(connection, seqs, COLUMNS).items()}


def seqs_of(connection: Connection, ids: Iterable[str]) -> list[int]:
    """Return the row numbers of ids, without repeats.

    Raises
    ------
    RecordNotFoundError
        If one of them is unknown.
    """
    found: dict[int, None] = {}
    for record_id in ids:
        row = connection.execute(
            "SELECT seq FROM records WHERE id = ?", (bind(record_id),)
        ).fetchone()
        if row is None:
            raise unknown_record(connection, record_id)
        found[row[0]] = None
    return list(found)
