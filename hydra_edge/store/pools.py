"""Pools: candidates already sampled for a prompt, so that none is paid for twice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from hydra_edge.store.records import as_read
from hydra_edge.store.values import (
    DamagedValueError,
    as_float,
    bind,
    from_json,
    text_of,
    texts_from_json,
    to_json,
    where,
)
from hydra_edge.types import Completion

_COLUMNS = "key, task, model, purpose, query_id, record_ids, completions"


@dataclass(frozen=True, slots=True)
class StoredPool:
    """The answers sampled for one prompt, in the order they were drawn.

    ``query_id`` is the record asked about, or empty; ``record_ids`` were in the prompt;
    ``purpose`` tells pools of different prompts for one record apart.
    """

    key: str
    task: str
    model: str
    purpose: str
    query_id: str
    record_ids: tuple[str, ...]
    completions: tuple[Completion, ...]


def put(connection: Connection, pool: StoredPool, rewrites: int | None) -> bool:
    """Store one pool if records stayed as they were; see ``Store.put_pool``."""
    if not as_read(connection, rewrites):
        return False
    packed = [
        [c.text, bool(c.greedy), int(c.tokens), as_float(c.logprob), c.finish, bool(c.zero_shot)]
        for c in pool.completions
    ]
    connection.execute(
        f"REPLACE INTO pools ({_COLUMNS}, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *map(bind, (pool.key, pool.task, pool.model, pool.purpose, pool.query_id)),
            to_json(list(pool.record_ids)),
            to_json(packed),
            time.time(),
        ),
    )
    return True


def completions_of(value: Any) -> tuple[Completion, ...]:
    """Read a stored list of completions."""
    try:
        return tuple(
            Completion(
                text_of(text),
                bool(greedy),
                int(tokens),
                as_float(logprob),
                text_of(finish),
                zero_shot=any(rest),  # pools of older releases do not tell
            )
            for text, greedy, tokens, logprob, finish, *rest in from_json(value, list)
        )
    except (TypeError, ValueError) as err:
        raise DamagedValueError("a pool does not hold completions") from err


def answers_of(completions: Iterable[Completion]) -> set[str]:
    """Return the texts of completions, and of the candidates they become: vectors are of those."""
    return {text for c in completions for text in (c.text, c.text.strip())}


def get(connection: Connection, key: str) -> tuple[Completion, ...] | None:
    """Return a pool if it has been paid for."""
    row = connection.execute("SELECT completions FROM pools WHERE key = ?", (bind(key),)).fetchone()
    return None if row is None else completions_of(row[0])


def find(
    connection: Connection, task: str | None, model: str | None, purpose: str | None
) -> list[StoredPool]:
    """Return pools, oldest first; see ``Store.pools``."""
    clause, texts = where(task=task, model=model, purpose=purpose)
    rows = connection.execute(f"SELECT {_COLUMNS} FROM pools {clause}ORDER BY rowid", texts)
    return [
        StoredPool(
            key=text_of(key),
            task=text_of(of_task),
            model=text_of(by_model),
            purpose=text_of(kind),
            query_id=text_of(query_id),
            record_ids=texts_from_json(record_ids),
            completions=completions_of(completions),
        )
        for key, of_task, by_model, kind, query_id, record_ids, completions in rows
    ]


def naming(connection: Connection) -> Iterator[tuple[int, tuple[str, ...], Any]]:
    """Walk over the pools: row, ids of the record asked about and those shown, completions.

    The completions are as they are stored, for ``completions_of`` to read.
    """
    for row, query_id, record_ids, completions in connection.execute(
        "SELECT rowid, query_id, record_ids, completions FROM pools"
    ):
        yield row, (text_of(query_id), *texts_from_json(record_ids)), completions


def drop_naming(connection: Connection, ids: Set[str]) -> set[str]:
    """Delete the pools that ask about one of the records or show it; return their answers."""
    gone = [
        (row, completions)
        for row, named, completions in naming(connection)
        if not ids.isdisjoint(named)
    ]
    connection.executemany("DELETE FROM pools WHERE rowid = ?", [(row,) for row, _ in gone])
    return {text for _, packed in gone for text in answers_of(completions_of(packed))}
