"""BM25 over one task's inputs at a bounded cost, remembering what it read of the file.

BM25 follows Robertson & Zaragoza (2009) with Lucene's idf, which is never negative. Within
the budget every quantity in it (how many records, how long, how many hold a word) is taken
over the records that may be returned and no others. Words too frequent for the budget only
help to order what the others found, by how frequent they are in the whole file; where the
others found nothing, the newest records that hold such a word are ordered.

The order of records and the postings of words stay in memory until a record changes: the
words of one query are mostly those of the next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from sqlite3 import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from hydra_edge.store.records import ORDER, Revision, by_seq, revision, unknown_record
from hydra_edge.store.schema import index_words
from hydra_edge.store.values import DamagedValueError, bind, text_of
from hydra_edge.types import Bool1d, Double1d, Int1d

K1, B = 1.5, 0.75  # as rank-bm25's BM25Okapi
# Distinct words of a query that are looked at; a longer one is judged by its opening.
MAX_TERMS = 256
# How many records found by rare words are ordered by all words, and how much of each is read.
_REORDERED = 100
_REORDERED_CHARS = 20_000
# Postings kept in memory at most, 8 bytes each, and how many of them a kept word itself is worth.
_KEPT = 2_000_000
_ENTRY = 50
# Words whose count is kept; and records whose words are, some 5 kB each.
_KEPT_WORDS = 20_000
_KEPT_RECORDS = 2_000
# A word that stands in no more places than this is counted by reading them all.
_FEW = 200
# Rows read at once on the way to the newest records of a scope.
_STEP = 1_000


def quoted(word: str) -> str:
    """Make a word a string of FTS5's query language; our words hold no quotes."""
    return f'"{word}"'


def _table(rows: Sequence[Sequence[Any]], columns: int) -> npt.NDArray[np.float64]:
    """Return rows of numbers as an array, shape ``(n, columns)``."""
    try:
        return np.array(rows, dtype=np.float64).reshape(-1, columns)
    except (TypeError, ValueError) as err:
        raise DamagedValueError("a record's time or length is not a number") from err


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """The records of one task in history order; all arrays ``(n,)``.

    ``words`` are their lengths, ``total`` these summed up to and including each. ``by_seq``
    are places in order of ``seq``, ``sorted_seq`` these rows.
    """

    seq: Int1d
    moment: Double1d
    words: Double1d
    total: Double1d
    by_seq: Int1d
    sorted_seq: Int1d

    @classmethod
    def read(cls, connection: Connection, task: str) -> _Order:
        rows = connection.execute(
            f"SELECT seq, {ORDER}, words FROM records INDEXED BY records_by_task "
            f"WHERE task = ? ORDER BY {ORDER}, seq",
            (bind(task),),
        ).fetchall()
        table = _table(rows, 3)
        seq, moment, words = table[:, 0].astype(np.int64), table[:, 1].copy(), table[:, 2].copy()
        by_seq = np.argsort(seq)
        return cls(seq, moment, words, np.cumsum(words), by_seq, seq[by_seq])

    def places(self, seqs: Int1d) -> tuple[Int1d, Bool1d]:
        """Return the places of rows, and which of the rows are in this task at all."""
        if not len(self.seq):
            return np.zeros(0, dtype=np.int64), np.zeros(len(seqs), dtype=bool)
        near = np.minimum(np.searchsorted(self.sorted_seq, seqs), len(self.seq) - 1)
        inside = self.sorted_seq[near] == seqs
        return self.by_seq[near[inside]], inside

    def before(self, moment: float, seq: int) -> int:
        """Count the records that come before a place in time."""
        low = int(np.searchsorted(self.moment, moment, side="left"))
        high = int(np.searchsorted(self.moment, moment, side="right"))
        return low + int(np.searchsorted(self.seq[low:high], seq))


@dataclass(frozen=True, slots=True)
class _Scope:
    """The records that may be returned: the first ``n``, and their mean length."""

    n: int
    mean_words: float

    def idf(self, held_by: float) -> float:
        """Weigh a word by how few of the records hold it."""
        return math.log1p((self.n - held_by + 0.5) / (held_by + 0.5))

    def gain(self, times: Double1d, words: Double1d, idf: Double1d | float) -> Double1d:
        """Score a word in records that hold it ``times`` times and are ``words`` long."""
        length = 1.0 - B + B * words / self.mean_words
        return idf * times * (K1 + 1.0) / (times + K1 * length)


@dataclass(frozen=True, slots=True, eq=False)
class _Postings:
    """The records of one task that hold a word, and how often: both ``(k,)``."""

    place: npt.NDArray[np.int32]
    times: npt.NDArray[np.float32]


@dataclass(slots=True)
class _Memory:
    """What was read of the file at one revision; ``read`` only by the search under way."""

    revision: Revision
    newest: int
    total: int
    orders: dict[str, _Order] = field(default_factory=dict)
    counts: dict[tuple[str, int], int] = field(default_factory=dict)
    read: dict[str, Counter[int]] = field(default_factory=dict)
    postings: dict[tuple[str, str], _Postings] = field(default_factory=dict)
    latest: dict[tuple[str, str, int, int], Int1d] = field(default_factory=dict)
    held: dict[int, Counter[str]] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    kept: int = 0

    def keep(self, n: int) -> None:
        """Count postings about to be kept; forget the others where it would be too much."""
        self.kept += n + _ENTRY
        if self.kept > _KEPT:
            self.postings.clear()
            self.latest.clear()
            self.kept = n + _ENTRY


class Bm25:
    """BM25 over one file; must be used within a transaction that holds the file still."""

    def __init__(self) -> None:
        self._memory: _Memory | None = None

    def search(
        self,
        connection: Connection,
        query: str,
        task: str,
        limit: int,
        *,
        before: str | None,
        postings: int,
    ) -> list[tuple[str, float]]:
        """Score records by their inputs; see ``Store.bm25``."""
        memory = self._remember(connection)
        order = self._order(connection, memory, task)
        scope = _scope(connection, order, before)
        if not scope.n:
            return []
        asked = list(dict.fromkeys(index_words(query)))[:MAX_TERMS]
        counts = _rarest_first(connection, memory, asked, postings)
        words = list(counts)
        affordable = int(np.searchsorted(np.cumsum(list(counts.values())), postings, side="right"))
        places, scores = _find(connection, memory, task, scope, words[:affordable])
        frequent = {word: counts[word] for word in words[affordable:]}
        if frequent:
            wanted = max(_REORDERED, 2 * limit)
            if not len(places):
                places = _newest(connection, memory, task, scope, list(frequent), wanted, postings)
                scores = np.zeros(len(places))
            top = _best(order.seq[places], scores, wanted)
            places, scores = places[top], scores[top]
            scores = scores + _frequent_gain(connection, memory, order, scope, places, frequent)
        top = _best(order.seq[places], scores, limit)
        seqs = order.seq[places[top]].tolist()
        if missing := [seq for seq in seqs if seq not in memory.ids]:
            memory.ids |= {s: text_of(i) for s, (i,) in by_seq(connection, missing, "id").items()}
        return [
            (memory.ids[seq], score)
            for seq, score in zip(seqs, scores[top].tolist(), strict=True)
            if score > 0.0
        ]

    def _remember(self, connection: Connection) -> _Memory:
        known = revision(connection)
        if self._memory is None or self._memory.revision != known:
            newest, total = connection.execute("SELECT MAX(seq), COUNT(*) FROM records").fetchone()
            self._memory = _Memory(known, newest or 0, total)
        self._memory.read.clear()  # what the search before counted and did not need
        return self._memory

    @staticmethod
    def _order(connection: Connection, memory: _Memory, task: str) -> _Order:
        order = memory.orders.get(task) or _Order.read(connection, task)
        if len(order.seq):  # of tasks that do not exist there is no end
            memory.orders[task] = order
        return order


def _scope(connection: Connection, order: _Order, before: str | None) -> _Scope:
    n = len(order.seq)
    if before is not None:
        row = connection.execute(
            f"SELECT {ORDER}, seq FROM records WHERE id = ?", (bind(before),)
        ).fetchone()
        if row is None:
            raise unknown_record(connection, before)
        n = order.before(*_table([row], 2)[0])
    mean = float(order.total[n - 1]) / n if n else 0.0
    return _Scope(n, mean or 1.0)


def _rarest_first(
    connection: Connection, memory: _Memory, words: Sequence[str], postings: int
) -> dict[str, int]:
    """Count the records of the whole file that hold each word, rarest first.

    Counting stops just beyond the budget: how far into the file that was says about how
    many there are in all.
    """
    counts = {}
    for word in words:
        key = word, postings
        if key not in memory.counts:
            if len(memory.counts) >= _KEPT_WORDS:
                memory.counts.clear()
            memory.counts[key] = _count(connection, memory, word, postings)
        counts[word] = memory.counts[key]
    return {word: counts[word] for word in sorted(counts, key=counts.__getitem__) if counts[word]}


def _count(connection: Connection, memory: _Memory, word: str, postings: int) -> int:
    few = min(_FEW, postings)
    held = _held(connection, word, few + 1)
    if held.total() <= few:
        if held:  # it will find records: that is what rare words are for
            memory.read[word] = held
        return len(held)
    n, reached = connection.execute(
        "SELECT COUNT(*), MAX(doc) FROM (SELECT rowid AS doc FROM records_fts "
        "WHERE records_fts MATCH ? ORDER BY rowid LIMIT ?)",
        (f"input : {quoted(word)}", postings + 1),
    ).fetchone()
    return int(n if n <= postings else n * memory.newest // reached)


def _held(connection: Connection, word: str, limit: int) -> Counter[int]:
    """Count how often each row's input holds a word; stop after so many places (-1: never)."""
    rows = connection.execute(
        "SELECT doc FROM records_terms WHERE term = ? AND col = 'input' LIMIT ?", (word, limit)
    )
    return Counter(chain.from_iterable(rows))  # rows of one number each


def _postings(connection: Connection, memory: _Memory, task: str, word: str) -> _Postings:
    key = task, word
    if key not in memory.postings:
        held = memory.read.pop(word, None) or _held(connection, word, -1)
        seqs = np.fromiter(held, dtype=np.int64, count=len(held))
        times = np.fromiter(held.values(), dtype=np.int64, count=len(held))
        places, inside = memory.orders[task].places(seqs)
        memory.keep(len(places))
        memory.postings[key] = _Postings(places.astype(np.int32), times[inside].astype(np.float32))
    return memory.postings[key]


def _find(
    connection: Connection,
    memory: _Memory,
    task: str,
    scope: _Scope,
    chosen: Sequence[str],
) -> tuple[Int1d, Double1d]:
    """Score all records that hold one of the chosen words; return their places."""
    if not chosen:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    known = [_postings(connection, memory, task, word) for word in chosen]
    place = np.concatenate([postings.place for postings in known])
    visible = place < scope.n
    ends = np.cumsum([0, *(len(postings.place) for postings in known)])
    held_by = np.diff(np.concatenate(([0], np.cumsum(visible)))[ends])
    place = place[visible]
    times = np.concatenate([postings.times for postings in known])[visible].astype(np.float64)
    idf = np.repeat([scope.idf(n) for n in held_by.tolist()], held_by)
    gains = scope.gain(times, memory.orders[task].words[place], idf)
    sums = np.bincount(place, weights=gains, minlength=1)
    places = np.flatnonzero(sums)  # a record that holds a word has a gain above 0
    return places.astype(np.int64), sums[places].astype(np.float64, copy=False)


def _newest(
    connection: Connection,
    memory: _Memory,
    task: str,
    scope: _Scope,
    words: Sequence[str],
    wanted: int,
    postings: int,
) -> Int1d:
    """Return the places of the newest records that hold the first word that any of them holds."""
    order = memory.orders[task]
    n = scope.n
    if len(order.seq) <= postings:
        # They may be far apart in the file: what is read once serves every part of the task.
        n = wanted = len(order.seq)
    for word in words:
        key = task, word, n, wanted
        if key not in memory.latest:
            found = _newest_with(connection, order, n, word, wanted)
            memory.keep(len(found))
            memory.latest[key] = found
        places = memory.latest[key]
        places = places[places < scope.n]
        if len(places):
            return places
    return np.zeros(0, dtype=np.int64)


def _newest_with(connection: Connection, order: _Order, n: int, word: str, wanted: int) -> Int1d:
    """Return the places of the newest among the first ``n`` records that hold a word.

    At least ``wanted``, if there are so many. Other tasks' records are passed over here: SQLite
    would have to look every row up that holds the word.
    """
    seqs, found = order.seq[:n], np.zeros(0, dtype=np.int64)
    rows = connection.execute(
        "SELECT rowid FROM records_fts WHERE records_fts MATCH ? AND rowid BETWEEN ? AND ? "
        "ORDER BY rowid DESC",
        (f"input : {quoted(word)}", int(seqs.min()), int(seqs.max())),
    )
    with closing(rows):
        while len(found) < wanted and (step := rows.fetchmany(_STEP)):
            places, _ = order.places(np.array(step, dtype=np.int64).ravel())
            found = np.concatenate((found, places[places < n]))
    return found


def _best(seqs: Int1d, scores: Double1d, limit: int) -> Int1d:
    """Return the indices of the best scores, among equals the newest record first."""
    if 0 < limit < len(scores):  # sort only those that can be among the best
        last = len(scores) - limit
        chosen = np.flatnonzero(scores >= np.partition(scores, last)[last])
        order: Int1d = chosen[np.lexsort((-seqs[chosen], -scores[chosen]))[:limit]]
        return order
    return np.lexsort((-seqs, -scores))[: max(limit, 0)]


def _frequent_gain(
    connection: Connection,
    memory: _Memory,
    order: _Order,
    scope: _Scope,
    places: Int1d,
    counts: Mapping[str, int],
) -> Double1d:
    """Score words beyond the budget in records already found, by reading these."""
    seqs = order.seq[places].tolist()
    held = {seq: memory.held[seq] for seq in seqs if seq in memory.held}
    missing = [seq for seq in seqs if seq not in held]
    for seq, (text,) in by_seq(connection, missing, "input").items():
        held[seq] = Counter(index_words(text_of(text)[:_REORDERED_CHARS]))
    if len(memory.held) + len(missing) > _KEPT_RECORDS:
        memory.held.clear()
    memory.held |= held
    times = np.zeros((len(seqs), len(counts)))
    for row, words in zip(times, map(held.__getitem__, seqs), strict=True):
        row[:] = [words.get(word, 0) for word in counts]
    gains = np.zeros(len(seqs))
    length = order.words[places]
    for word, column in zip(counts, times.T, strict=True):
        share = min(counts[word] / memory.total, 1.0)
        gains += scope.gain(column, length, scope.idf(scope.n * share))
    return gains
