"""Finding records by their words: search as the user asks, and BM25 at a bounded cost.

BM25 follows Robertson & Zaragoza (2009) with Lucene's idf, which is never negative. Within
the budget every quantity in it (how many records, how long, how many hold a word) is taken
over the records that may be returned and no others. Words too frequent for the budget find
no records; they only help to order those found, by how frequent they are in the whole file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection

import numpy as np

from hydra_edge.store.database import bind, text_of
from hydra_edge.store.records import COLUMNS, ORDER, by_seq, record_of, unknown_record
from hydra_edge.store.schema import index_words
from hydra_edge.types import Double1d, Int1d, Record

K1, B = 1.5, 0.75  # as rank-bm25's BM25Okapi
# Distinct words of a query that are looked at; a longer one is judged by its opening.
MAX_TERMS = 256
# How many records found by rare words are ordered by all words, and how much of each is read.
_REORDERED = 100
_REORDERED_CHARS = 20_000


def _quoted(word: str) -> str:
    """Make a word a string of FTS5's query language; our words hold no quotes."""
    return f'"{word}"'


def search(connection: Connection, query: str, task: str | None, limit: int) -> list[Record]:
    """Return the records that hold the query's words; see ``Store.search``."""
    words = list(dict.fromkeys(index_words(query)))[:MAX_TERMS]
    in_task, values = ("", ()) if task is None else ("AND task = ? ", (bind(task),))
    if not words:
        return _containing(connection, query.strip(), in_task, values, limit)
    for joint in (" AND ", " OR "):
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM records_fts CROSS JOIN records ON seq = records_fts.rowid "
            f"WHERE records_fts MATCH ? {in_task}ORDER BY records_fts.rank, seq DESC LIMIT ?",
            (joint.join(map(_quoted, words)), *values, max(limit, 0)),
        ).fetchall()
        if rows:
            return [record_of(row) for row in rows]
    return []


def _containing(
    connection: Connection,
    text: str,
    in_task: str,
    values: tuple[str | bytes, ...],
    limit: int,
) -> list[Record]:
    """Look for signs (an emoji, say) as they stand, newest first: no index knows them."""
    if not text:
        return []
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM records "
        f"WHERE (instr(input, ?) OR instr(output, ?)) {in_task}"
        f"ORDER BY {ORDER} DESC, seq DESC LIMIT ?",
        (bind(text), bind(text), *values, max(limit, 0)),
    )
    return [record_of(row) for row in rows]


@dataclass(frozen=True, slots=True)
class _Scope:
    """The records that may be returned: how many, how long, and the condition for them."""

    n: int
    mean_words: float
    condition: str
    values: tuple[str | bytes | float, ...]

    def gain(self, times: Double1d, words: Double1d, held_by: float) -> Double1d:
        """Score one word in records that hold it ``times`` times and are ``words`` long."""
        idf = math.log1p((self.n - held_by + 0.5) / (held_by + 0.5))
        length = 1.0 - B + B * words / self.mean_words
        return idf * times * (K1 + 1.0) / (times + K1 * length)


def _scope(connection: Connection, task: str, before: str | None) -> _Scope:
    moment, seq = math.inf, 0
    if before is not None:
        row = connection.execute(
            f"SELECT {ORDER}, seq FROM records WHERE id = ?", (bind(before),)
        ).fetchone()
        if row is None:
            raise unknown_record(connection, before)
        moment, seq = row
    condition = f"task = ? AND ({ORDER}, seq) < (?, ?)"
    values = (bind(task), moment, seq)
    n, mean = connection.execute(
        f"SELECT COUNT(*), AVG(words) FROM records WHERE {condition}", values
    ).fetchone()
    return _Scope(n, mean or 1.0, condition, values)


def _rarest_first(connection: Connection, words: Sequence[str], postings: int) -> dict[str, int]:
    """Count the records of the whole file that hold each word, rarest first.

    Counting stops just beyond the budget: how far into the file that was says about how
    many there are in all.
    """
    newest = connection.execute("SELECT MAX(seq) FROM records").fetchone()[0] or 0
    counts = {}
    for word in words:
        n, reached = connection.execute(
            "SELECT COUNT(*), MAX(doc) FROM (SELECT rowid AS doc FROM records_fts "
            "WHERE records_fts MATCH ? ORDER BY rowid LIMIT ?)",
            (f"input : {_quoted(word)}", postings + 1),
        ).fetchone()
        counts[word] = n if n <= postings else n * newest // reached
    return {word: counts[word] for word in sorted(counts, key=counts.__getitem__) if counts[word]}


def _find(
    connection: Connection, scope: _Scope, weights: Mapping[str, int], chosen: Sequence[str]
) -> tuple[Int1d, Double1d]:
    """Score all records that hold one of the chosen words; return them by row number."""
    found, gains = [], []
    for word in chosen:
        rows = connection.execute(
            "SELECT seq, times, CAST(words AS REAL) FROM "
            "(SELECT doc, COUNT(*) AS times FROM records_terms "
            "WHERE term = ? AND col = 'input' GROUP BY doc) "
            f"CROSS JOIN records INDEXED BY records_short ON seq = doc WHERE {scope.condition}",
            (word, *scope.values),
        ).fetchall()
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        found.append(table[:, 0])
        gains.append(weights[word] * scope.gain(table[:, 1], table[:, 2], len(rows)))
    return _summed(np.concatenate(found), np.concatenate(gains))


def _newest_with(
    connection: Connection, scope: _Scope, word: str, postings: int
) -> tuple[Int1d, Double1d]:
    """Return the newest records that hold a word too frequent for the budget."""
    rows = connection.execute(
        "SELECT seq FROM (SELECT rowid AS doc FROM records_fts WHERE records_fts MATCH ? "
        "ORDER BY rowid DESC LIMIT ?) "
        f"CROSS JOIN records INDEXED BY records_short ON seq = doc WHERE {scope.condition}",
        (f"input : {_quoted(word)}", postings, *scope.values),
    ).fetchall()
    return _summed(np.array(rows, dtype=np.float64).reshape(-1), np.zeros(len(rows)))


def _summed(seqs: Double1d, gains: Double1d) -> tuple[Int1d, Double1d]:
    unique, where = np.unique(seqs, return_inverse=True)
    sums = np.bincount(where, weights=gains, minlength=len(unique))
    return unique.astype(np.int64), sums.astype(np.float64, copy=False)


def _best(seqs: Int1d, scores: Double1d, limit: int) -> Int1d:
    """Return the places of the best scores, among equals the newest record first."""
    order: Int1d = np.lexsort((-seqs, -scores))[: max(limit, 0)]
    return order


def _frequent_gain(
    connection: Connection,
    scope: _Scope,
    seqs: Int1d,
    weights: Mapping[str, int],
    counts: Mapping[str, int],
) -> Double1d:
    """Score words beyond the budget in records already found, by reading these."""
    total = connection.execute("SELECT COUNT(*) FROM records").fetchone()[0]
    rows = by_seq(connection, seqs.tolist(), "CAST(words AS REAL), input")
    lengths = np.array([rows[seq][0] for seq in seqs.tolist()], dtype=np.float64)
    times = np.zeros((len(counts), len(seqs)))
    for i, seq in enumerate(seqs.tolist()):
        held = Counter(index_words(text_of(rows[seq][1])[:_REORDERED_CHARS]))
        times[:, i] = [held[word] for word in counts]
    gains = np.zeros(len(seqs))
    for word, row in zip(counts, times, strict=True):
        share = min(counts[word] / total, 1.0)
        gains += weights[word] * scope.gain(row, lengths, scope.n * share)
    return gains


def bm25(
    connection: Connection,
    query: str,
    task: str,
    limit: int,
    *,
    before: str | None,
    postings: int,
) -> list[tuple[str, float]]:
    """Score records by their inputs; see ``Store.bm25``."""
    scope = _scope(connection, task, before)
    weights = Counter(index_words(query))
    counts = _rarest_first(connection, list(weights)[:MAX_TERMS], postings)
    words = list(counts)
    if not words or not scope.n:
        return []
    affordable = int(np.searchsorted(np.cumsum(list(counts.values())), postings, side="right"))
    if affordable:
        seqs, scores = _find(connection, scope, weights, words[:affordable])
    else:
        seqs, scores = _newest_with(connection, scope, words[0], postings)
    frequent = {word: counts[word] for word in words[affordable:]}
    if frequent:
        top = _best(seqs, scores, max(_REORDERED, 2 * limit))
        seqs, scores = seqs[top], scores[top]
        scores = scores + _frequent_gain(connection, scope, seqs, weights, frequent)
    top = _best(seqs, scores, limit)
    ids = by_seq(connection, seqs[top].tolist(), "id")
    return [(text_of(ids[int(seqs[i])][0]), float(scores[i])) for i in top if scores[i] > 0.0]
