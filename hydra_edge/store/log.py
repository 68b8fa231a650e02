"""What was generated: log entries. They hold ids of the records shown, never their texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from sqlite3 import Connection
from typing import Any

from hydra_edge.store.schema import META_LOGGED, META_UNLOGGED
from hydra_edge.store.values import (
    DamagedValueError,
    as_float,
    bind,
    from_json,
    older_than,
    text_of,
    texts_from_json,
    to_json,
    where,
)
from hydra_edge.types import Candidate, Generation, Usage

WHOLE = "stop"  # how most answers end, which is not stored
_FIRST = 20  # entries looked at for the oldest
_COLUMNS = "id, task, query, text, model, candidates, record_ids, usage, time"


@dataclass(frozen=True, slots=True)
class LoggedGeneration:
    """A past answer as the log keeps it; candidates without contributions."""

    id: str
    task: str
    query: str
    text: str
    model: str
    candidates: tuple[Candidate, ...]
    record_ids: tuple[str, ...]
    usage: Usage
    time: float  # unix seconds


def pack_candidates(candidates: Sequence[Candidate]) -> str | bytes:
    """Return candidates as they are stored, without their contributions."""
    return to_json(
        [
            [
                *(c.text, int(c.count), bool(c.greedy), as_float(c.logprob), float(c.score)),
                *(bool(c.zero_shot), *([] if c.finish == WHOLE else [str(c.finish)])),
            ]
            for c in candidates
        ]
    )


def candidates_of(value: Any) -> tuple[Candidate, ...]:
    """Read a stored list of candidates."""
    try:
        return tuple(
            Candidate(
                text_of(text),
                int(count),
                bool(greedy),
                as_float(logprob),
                float(score),
                zero_shot=any(rest[:1]),  # logs of older releases do not tell
                finish=text_of(rest[1]) if rest[1:] else WHOLE,
            )
            for text, count, greedy, logprob, score, *rest in from_json(value, list)
        )
    except (TypeError, ValueError) as err:
        raise DamagedValueError("a list of candidates is not one") from err


def counts_of(value: Any) -> list[tuple[str, int]]:
    """Read the texts of a stored list of candidates, and how often each was drawn."""
    try:
        return [(text_of(text), int(count)) for text, count, *_ in from_json(value, list)]
    except (TypeError, ValueError) as err:
        raise DamagedValueError("a list of candidates is not one") from err


def newest_number(connection: Connection) -> int:
    """Return the highest number an entry ever had: none is given again, though the log be cleared.

    It tells what came first where the clock was set back.
    """
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (META_LOGGED,)).fetchone()
    kept = 0 if row is None else text_of(row[0])
    there = int(connection.execute("SELECT COALESCE(MAX(seq), 0) FROM log").fetchone()[0])
    try:
        return max(int(kept), there)  # an earlier release kept none
    except ValueError as err:
        raise DamagedValueError(f"the number of the newest log entry is {kept!r}") from err


def _keep_number(connection: Connection, number: int) -> None:
    connection.execute("REPLACE INTO meta VALUES (?, ?)", (META_LOGGED, str(number)))


def put(connection: Connection, generation: Generation, model: str) -> None:
    """Store one log entry; see ``Store.log_generation``."""
    number = newest_number(connection) + 1
    _keep_number(connection, number)
    connection.execute(
        f"REPLACE INTO log (seq, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            bind(generation.id),
            bind(generation.task),
            bind(generation.query),
            bind(generation.text),
            bind(model),
            pack_candidates(generation.candidates),
            to_json([ranked.record.id for ranked in generation.records]),
            to_json(asdict(generation.usage)),
            time.time(),
        ),
    )


def _generation_of(row: tuple[Any, ...]) -> LoggedGeneration:
    generation_id, task, query, text, model, candidates, record_ids, usage, moment = row
    # A later release may tell more, or less.
    stored = from_json(usage, dict)
    known = {field.name: stored[field.name] for field in fields(Usage) if field.name in stored}
    return LoggedGeneration(
        id=text_of(generation_id),
        task=text_of(task),
        query=text_of(query),
        text=text_of(text),
        model=text_of(model),
        candidates=candidates_of(candidates),
        record_ids=texts_from_json(record_ids),
        usage=Usage(**known),
        time=moment,
    )


def get(connection: Connection, generation_id: str) -> LoggedGeneration | None:
    """Return one log entry, if kept."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM log WHERE id = ?", (bind(generation_id),)
    ).fetchone()
    return None if row is None else _generation_of(row)


def last(connection: Connection, task: str | None) -> LoggedGeneration | None:
    """Return the newest log entry, of one task if given."""
    clause, texts = where(task=task)
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM log {clause}ORDER BY seq DESC LIMIT 1", texts
    ).fetchone()
    return None if row is None else _generation_of(row)


def newest(
    connection: Connection,
    task: str | None,
    limit: int | None,
    is_hidden: Callable[[LoggedGeneration], bool],
) -> tuple[list[LoggedGeneration], int]:
    """Return log entries, the newest first, and how many were passed over.

    See ``Store.generations``.
    """
    clause, texts = where(task=task)
    found: list[LoggedGeneration] = []
    hidden = 0
    for row in connection.execute(f"SELECT {_COLUMNS} FROM log {clause}ORDER BY seq DESC", texts):
        if limit is not None and len(found) >= limit:
            break
        entry = _generation_of(row)
        if is_hidden(entry):
            hidden += 1
        else:
            found.append(entry)
    return found, hidden


def count(connection: Connection, task: str | None) -> int:
    """Count the log entries, of one task if given."""
    clause, texts = where(task=task)
    return int(connection.execute(f"SELECT COUNT(*) FROM log {clause}", texts).fetchone()[0])


def newest_id(connection: Connection) -> str | bytes | None:
    """Return the id of the newest log entry as it is stored, None if the log is empty."""
    row = connection.execute("SELECT id FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else row[0]


def oldest_time(connection: Connection) -> float | None:
    """Return when the oldest of the first entries was put, None if the log is empty.

    Of several: the clock may have been wrong when one was. Few, as the time stands behind the
    texts of an entry, and in no index.
    """
    row = connection.execute(
        "SELECT MIN(time) FROM (SELECT time FROM log ORDER BY seq LIMIT ?)", (_FIRST,)
    ).fetchone()
    return None if row[0] is None else float(row[0])


def last_is_missing(connection: Connection) -> bool:
    """Tell whether the newest entry is not of the last answer: that one is not in the log."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (META_UNLOGGED,)).fetchone()
    return row is not None and row[0] == newest_id(connection)


def mark_missing(connection: Connection) -> None:
    """Remember that the last answer is not in the log, which is true until the next is.

    What is kept is the entry before it. An entry put later is another, whichever release wrote
    it, so that nobody need take the mark away.
    """
    newest = newest_id(connection)
    if newest is None:  # no entry that could be taken for it
        connection.execute("DELETE FROM meta WHERE name = ?", (META_UNLOGGED,))
    else:
        connection.execute("REPLACE INTO meta VALUES (?, ?)", (META_UNLOGGED, newest))


def numbers(
    connection: Connection, before: float | None, generation_id: str | None = None
) -> list[int]:
    """Return the numbers of log entries, oldest first.

    Of answers given before a moment, or the one of an id (None: of all).
    """
    clause, moments = older_than(before)
    values: list[float | str | bytes] = [*moments]
    if generation_id is not None:
        clause += " AND id = ?"
        values.append(bind(generation_id))
    rows = connection.execute(f"SELECT seq FROM log WHERE {clause} ORDER BY seq", values)
    return [number for (number,) in rows]


def drop(connection: Connection, gone: Sequence[int]) -> int:
    """Delete the log entries of these numbers; return how many there were."""
    _keep_number(connection, newest_number(connection))
    newest = newest_id(connection)
    dropped = connection.executemany(
        "DELETE FROM log WHERE seq = ?", [(number,) for number in gone]
    ).rowcount
    if newest_id(connection) != newest:  # or an older answer would be taken for the last one
        mark_missing(connection)
    return dropped
