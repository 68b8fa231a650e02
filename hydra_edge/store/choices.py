"""What the user took of what was generated: choices, and the records kept of them.

They hold ids of the records shown, never their texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from hydra_edge.store.log import candidates_of, pack_candidates
from hydra_edge.store.records import revision
from hydra_edge.store.values import bind, older_than, text_of, texts_from_json, to_json, where
from hydra_edge.types import Candidate

_COLUMNS = "seq, generation_id, task, query, candidates, record_ids, picked, text, record_id, time"


@dataclass(frozen=True, slots=True)
class StoredChoice:
    """What the user took: candidate ``picked`` as it was, or (None) a text of their own."""

    generation_id: str
    task: str
    query: str
    candidates: tuple[Candidate, ...]
    record_ids: tuple[str, ...]  # of those in the prompt
    picked: int | None  # an index of ``candidates``
    text: str
    record_id: str | None  # the record kept of it, if any
    time: float  # when it was made, in unix seconds
    seq: int = 0  # a later choice has a higher one, whatever the clock said; 0: not stored yet


def put(connection: Connection, choice: StoredChoice) -> StoredChoice:
    """Store a choice, in place of an earlier one for its generation; return it as stored.

    The same said again, as of the same moment, keeps its number: it is no later choice.
    """
    # Before the earlier one goes: its number is not given to another.
    seq = connection.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM choices").fetchone()[0]
    if choice.generation_id:
        before = of_generation(connection, choice.generation_id)
        if before is not None and _said(before) == _said(choice):
            seq = before.seq
        connection.execute(
            "DELETE FROM choices WHERE generation_id = ?", (bind(choice.generation_id),)
        )
    connection.execute(
        f"INSERT INTO choices ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            seq,
            bind(choice.generation_id),
            bind(choice.task),
            bind(choice.query),
            pack_candidates(choice.candidates),
            to_json(list(choice.record_ids)),
            choice.picked,
            bind(choice.text),
            None if choice.record_id is None else bind(choice.record_id),
            choice.time,
        ),
    )
    return _choice_of(
        connection.execute(f"SELECT {_COLUMNS} FROM choices WHERE seq = ?", (seq,)).fetchone()
    )


def _said(choice: StoredChoice) -> tuple[int | None, str, float]:
    return choice.picked, choice.text, choice.time


def _choice_of(row: tuple[Any, ...]) -> StoredChoice:
    seq, generation_id, task, query, candidates, record_ids, picked, text, record_id, moment = row
    return StoredChoice(
        generation_id=text_of(generation_id),
        task=text_of(task),
        query=text_of(query),
        candidates=candidates_of(candidates),
        record_ids=texts_from_json(record_ids),
        picked=picked,
        text=text_of(text),
        record_id=None if record_id is None else text_of(record_id),
        time=moment,
        seq=seq,
    )


def newest(connection: Connection, task: str) -> int:
    """Return the number of the newest choice of a task, 0 if there is none."""
    row = connection.execute(
        "SELECT COALESCE(MAX(seq), 0) FROM choices WHERE task = ?", (bind(task),)
    ).fetchone()
    return int(row[0])


def find(connection: Connection, task: str | None) -> list[StoredChoice]:
    """Return the choices, of one task if given, oldest first."""
    clause, texts = where(task=task)
    rows = connection.execute(f"SELECT {_COLUMNS} FROM choices {clause}ORDER BY seq", texts)
    return [_choice_of(row) for row in rows]


def of_generation(connection: Connection, generation_id: str) -> StoredChoice | None:
    """Return what was chosen of one answer; see ``Store.choice``."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM choices WHERE generation_id = ?", (bind(generation_id),)
    ).fetchone()
    return None if row is None else _choice_of(row)


def last(connection: Connection) -> StoredChoice | None:
    """Return what was chosen last, of any answer."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM choices ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else _choice_of(row)


def drop(connection: Connection, choice: StoredChoice) -> None:
    """Delete a choice."""
    connection.execute("DELETE FROM choices WHERE seq = ?", (choice.seq,))


@dataclass(frozen=True, slots=True)
class Dropped:
    """Choices that were deleted: how many, their texts, and since which answer heads know them.

    ``since`` holds by task the answer's number in the log and its time, 0 where the log tells no
    more. A choice may have taken the place of an earlier one of the same answer, which taught as
    well: what counts is when the answer was given.
    """

    count: int
    texts: set[str]
    since: dict[str, tuple[int, float]]


def drop_unkept(
    connection: Connection, before: float | None, generation_id: str | None = None
) -> Dropped:
    """Delete the choices no record was kept of: made before a moment, of one answer (None: all)."""
    older, wanted = older_than(before, "choices.time")
    unkept = f"WHERE record_id IS NULL AND {older}"
    values: list[float | str | bytes] = [*wanted]
    if generation_id is not None:
        unkept += " AND generation_id = ?"
        values.append(bind(generation_id))
    since = {
        text_of(task): (number, moment)
        for task, number, moment in connection.execute(
            "SELECT choices.task, MIN(COALESCE(log.seq, 0)), MIN(COALESCE(log.time, 0)) "
            "FROM choices LEFT JOIN log ON log.id = generation_id "
            f"{unkept} GROUP BY choices.task",
            values,
        )
    }
    texts: set[str] = set()
    for query, text, candidates in connection.execute(
        f"SELECT query, text, candidates FROM choices {unkept}", values
    ):
        texts |= {text_of(query), text_of(text), *(c.text for c in candidates_of(candidates))}
    dropped = connection.execute(f"DELETE FROM choices {unkept}", values).rowcount
    return Dropped(dropped, texts, since)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The records that were kept of one answer, and the ids of those its LLM was shown."""

    record_ids: tuple[str, ...]
    shown: frozenset[str]


def answer_id(generation_id: str) -> str:
    """Return the id of the record that is kept of an answer; others of it begin so."""
    return f"choice-{generation_id}"


def kept_answers(connection: Connection) -> list[KeptAnswer]:
    """Return the answers that were kept as records, by when they were last chosen.

    One may have been shown another that was chosen again after it. An application and the user
    may each have kept what they made of one.
    """
    found = []
    for generation_id, record_id, shown in connection.execute(
        "SELECT generation_id, record_id, record_ids FROM choices "
        "WHERE record_id IS NOT NULL ORDER BY seq"
    ).fetchall():
        name = answer_id(text_of(generation_id))
        rows = connection.execute(
            "SELECT id FROM records WHERE id >= ? AND id < ?", (bind(name), bind(f"{name}\x7f"))
        )
        ids = dict.fromkeys((text_of(record_id), *(text_of(row[0]) for row in rows)))
        found.append(KeptAnswer(tuple(ids), frozenset(texts_from_json(shown))))
    return found


def answers_made_from(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Return the records kept of answers that were shown one of these, or one made from it."""
    known = set(ids)
    answers, before = kept_answers(connection), -1
    while before < len(known):  # what is kept may be shown for another answer
        before = len(known)
        for answer in answers:
            if not answer.shown.isdisjoint(known):
                known.update(answer.record_ids)
    return known - set(ids)


class Helped:
    """How often each record was shown and helped, of choices that are read but once.

    Must be used within a transaction that holds the file still.
    """

    def __init__(self) -> None:
        self._rewrites = 0
        self._forget()

    def _forget(self) -> None:
        self._counts: dict[str, dict[str, tuple[int, int]]] = {}  # by task
        self._read = 0
        self._last: tuple[int, float] | None = None  # row and time of the newest choice read

    def counts(self, connection: Connection, task: str) -> dict[str, tuple[int, int]]:
        """Return the counts of a task; see ``Store.helped_counts``."""
        if (rewrites := revision(connection).rewrites) != self._rewrites:
            self._forget()  # their task may have another name
            self._rewrites = rewrites
        new = self._new(connection)
        if new is None:  # some of those read are gone
            self._forget()
            new = self._new(connection) or []
        for seq, moment, of_task, record_ids, picked in new:
            counts = self._counts.setdefault(of_task, {})
            for record_id in record_ids:
                shown, helped = counts.get(record_id, (0, 0))
                counts[record_id] = shown + 1, helped + picked
            self._last = seq, moment
        self._read += len(new)
        return dict(self._counts.get(task, {}))

    def _new(
        self, connection: Connection
    ) -> list[tuple[int, float, str, tuple[str, ...], bool]] | None:
        """Read the choices put since the last reading; None where others of them vanished.

        A row's number may be given again after its choice is deleted, but not with its time,
        unless the same was chosen again. One without candidates helped nobody to choose.
        """
        seq, moment = self._last or (0, 0.0)
        if self._last:
            row = connection.execute("SELECT time FROM choices WHERE seq = ?", (seq,)).fetchone()
            if row != (moment,):
                return None
        rows = connection.execute(
            "SELECT seq, time, task, CASE candidates WHEN '[]' THEN '[]' ELSE record_ids END, "
            "picked FROM choices WHERE seq > ? ORDER BY seq",
            (seq,),
        ).fetchall()
        total = connection.execute("SELECT COUNT(*) FROM choices").fetchone()[0]
        if self._read + len(rows) != total:
            return None
        return [
            (row, at, text_of(task), tuple(dict.fromkeys(texts_from_json(ids))), picked is not None)
            for row, at, task, ids, picked in rows
        ]
