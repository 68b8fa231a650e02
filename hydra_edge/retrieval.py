"""First stage: which records are worth scoring at all.

The union of BM25's best and the nearest by exact cosine. Two lexical indexes serve one
Protocol: SQLite FTS5 for a stored history, rank-bm25's Okapi for one held in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hydra_edge.history import History
from hydra_edge.store import Store
from hydra_edge.types import Bool1d, Float1d, Int1d
from hydra_edge.utility import tokens

FIRST_STAGE = 50  # records taken from each list


class LexicalIndex(Protocol):
    """BM25 over the inputs of one history."""

    def search(self, query: str, limit: int, before: int) -> tuple[Int1d, Float1d]:
        """Find the best matches among the first ``before`` records.

        Returns
        -------
        tuple of Int1d and Float1d
            Positions in the history and their positive scores, best first, at most ``limit``.
        """
        ...


def _empty() -> tuple[Int1d, Float1d]:
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)


class StoreIndex:
    """BM25 by the user's own file: always in step with its records, bounded in cost.

    How rare a word is, the file says of all records of the task, also for a history of some only.
    """

    def __init__(self, store: Store, history: History) -> None:
        self._store = store
        self._history = history

    def search(self, query: str, limit: int, before: int) -> tuple[Int1d, Float1d]:
        """See ``LexicalIndex.search``."""
        if before <= 0:
            return _empty()
        history = self._history
        edge = history.records[before].id if before < len(history) else history.edge
        wanted = limit
        while True:
            found = self._store.bm25(query, history.task.name, wanted, before=edge)
            # No part of it are records it hides, and those added since it was read.
            kept = [(history.place[i], score) for i, score in found if i in history.place]
            if len(kept) >= limit or len(found) < wanted:
                break
            wanted *= 4
        if not kept:
            return _empty()
        index, score = zip(*kept[:limit], strict=True)
        return np.array(index, dtype=np.int64), np.array(score, dtype=np.float32)


class OkapiIndex:
    """rank-bm25's Okapi, for histories in memory; a full scan, right for small ones.

    rank-bm25 raises on an empty corpus and gives a word in half of the texts no weight and
    one in most of them a negative weight; here such words keep a small positive one.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        words = [tokens(text) for text in inputs]
        self._model = None
        if any(words):
            from rank_bm25 import BM25Okapi

            self._model = BM25Okapi(words)
            n = len(words)
            containing: dict[str, int] = {}
            for text in words:
                for word in set(text):
                    containing[word] = containing.get(word, 0) + 1
            self._model.idf = {
                word: math.log(1.0 + (n - df + 0.5) / (df + 0.5)) for word, df in containing.items()
            }

    def search(self, query: str, limit: int, before: int) -> tuple[Int1d, Float1d]:
        """See ``LexicalIndex.search``."""
        if self._model is None or before <= 0:
            return _empty()
        scores = np.asarray(
            self._model.get_batch_scores(sorted(set(tokens(query))), list(range(before)))
        )
        order = np.argsort(-scores, kind="stable")[:limit]
        order = order[scores[order] > 0.0]
        return order.astype(np.int64), scores[order].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The records a reranker will score, best first by the two lists' mean reciprocal rank.

    ``index`` (m,) positions in the history; ``bm25`` (m,) score over the query's best, 0 where
    BM25 did not list the record; ``bm25_rank`` (m,) reciprocal rank, likewise; ``cosine`` (m,)
    between the query and the record's input.
    """

    index: Int1d
    bm25: Float1d
    bm25_rank: Float1d
    cosine: Float1d

    def __len__(self) -> int:
        return len(self.index)


def first_stage(
    query: str,
    vector: Float1d,
    history: History,
    lexical: LexicalIndex,
    *,
    before: int | None = None,
    limit: int = FIRST_STAGE,
    hidden: Bool1d | None = None,
) -> Shortlist:
    """Shortlist the records for a query: BM25's best united with the nearest by cosine.

    Parameters
    ----------
    query, vector
        The query and its unit vector, shape ``(dim,)``.
    history, lexical
        The user's records, and BM25 over them.
    before
        Only records at earlier positions exist (all, if None).
    limit
        Records taken from each list.
    hidden
        Records that take no place in either list, shape ``(len(history),)``; None hides none.
    """
    n = len(history) if before is None else before
    cosine = history.cosines(vector, n)
    masked = 0 if hidden is None else int(np.count_nonzero(hidden[:n]))
    if hidden is not None:
        cosine = np.where(hidden[:n], -np.inf, cosine)
    least = np.partition(cosine, n - limit)[n - limit] if n > limit else -np.inf
    nearest = np.flatnonzero(cosine >= least)
    nearest = nearest[np.argsort(-cosine[nearest], kind="stable")[: min(limit, n - masked)]]
    found, score = lexical.search(query, limit + masked, n)
    if hidden is not None:
        visible = np.flatnonzero(~hidden[found])[:limit]
        found, score = found[visible], score[visible]
    index = np.union1d(nearest, found).astype(np.int64)
    merit, rank, relative = np.zeros((3, len(index)), dtype=np.float32)
    merit[np.searchsorted(index, nearest)] = _reciprocal(len(nearest))
    if len(found):
        place = np.searchsorted(index, found)
        rank[place] = _reciprocal(len(found))
        relative[place] = score / score[0]
    order = np.argsort(-(merit + rank), kind="stable")
    index = index[order]
    return Shortlist(index, relative[order], rank[order], cosine[index].astype(np.float32))


def _reciprocal(n: int) -> Float1d:
    """Return 1, 1/2, 1/3 ..., shape ``(n,)``."""
    return np.asarray(1.0 / np.arange(1, n + 1, dtype=np.float32), dtype=np.float32)
