"""When the answers of a closed set that are still to come can no longer change the choice.

A server that draws answers one by one is paid, and waited for, for each of them. Owns the proof
that the rest cannot matter; it is exact, so that an answer stopped early is the full pool's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hydra_edge.active import ActiveHead
from hydra_edge.adapter import merge, pool_features
from hydra_edge.features import Pool
from hydra_edge.features.adapter import ADAPTER_FEATURES, FLOOR
from hydra_edge.history import History
from hydra_edge.types import Completion, Double1d, Double2d, Float2d
from hydra_edge.utility import agreement_matrix

# All that votes move. Answers with log-probabilities move another, without bounds.
_MOVED = [ADAPTER_FEATURES.index(name) for name in ("consensus", "votes", "log_votes")]
_LEAD = 1e-3  # nats by which the winner must lead in the worst case: scores are float32


def is_settled(
    head: ActiveHead, pool: Pool, history: History, heard: Sequence[Completion], n: int
) -> bool:
    """Say whether the choice is the same whatever the answers to come are, or if none comes.

    Parameters
    ----------
    head
        What will choose.
    pool
        The closed set's, with the records shown; how its candidates were voted for is ignored.
    heard
        The answers so far, of ``n`` at most; those to come are drawn with records shown.

    Returns
    -------
    bool
        False also where it cannot be told: before the greedy answer is there, with
        log-probabilities, or where a personal head might let another answer stand than its best.
    """
    if any(c.logprob is not None for c in heard):
        return False
    candidates = merge(heard, history.task)
    if not any(c.greedy for c in candidates):
        return False
    phi = pool_features(head.features, replace(pool, candidates=candidates), history)
    counts = np.array([c.count for c in candidates], dtype=np.float64)
    agreement = agreement_matrix([c.text for c in candidates], history.task).astype(np.float64)
    ends = np.stack([
        head.features.scale(_with_moved(phi.shape, moved))[:, _MOVED]
        for moved in _ends(counts, agreement, max(n - len(heard), 0))
    ])  # fmt: skip
    # Where a personal head is not sure of its best, the best by the other weights stands instead.
    weights = [head.weight] if head.posterior is None else [head.weight, head.otherwise]
    winners = {_winner(phi.astype(np.float64), ends, w.astype(np.float64)) for w in weights}
    return len(winners) == 1 and None not in winners


def _winner(phi: Double2d, ends: NDArray[np.floating], weight: Double1d) -> int | None:
    """Return the row that scores best wherever the votes end; None if that cannot be told.

    ``ends`` has shape ``(2, m, 3)``: the bounds of what votes move, scaled.
    """
    best = int(np.argmax(phi @ weight))
    moved = ends * weight[_MOVED]
    fixed = phi @ weight - phi[:, _MOVED] @ weight[_MOVED]
    lowest = fixed + moved.min(axis=0).sum(axis=1)
    highest = fixed + moved.max(axis=0).sum(axis=1)
    leads = lowest[best] - np.delete(highest, best).max(initial=-np.inf) > _LEAD
    return best if leads else None


def _ends(counts: Double1d, agreement: Double2d, rest: int) -> list[Double2d]:
    """Bound what votes move, for each candidate by itself: both shape ``(m, 3)``.

    Each is monotone in the votes to come, so its bounds are where all of them agree with the
    candidate, or as little as any answer can.
    """
    total = counts.sum() + rest
    least = (agreement @ counts + rest * agreement.min(axis=1)) / total
    most = (agreement @ counts + rest) / total
    few, many = counts / total, (counts + rest) / total
    return [
        np.stack([least, few, np.log(few + FLOOR)], axis=1),
        np.stack([most, many, np.log(many + FLOOR)], axis=1),
    ]


def _with_moved(shape: tuple[int, ...], moved: Double2d) -> Float2d:
    """Put moved features into rows that can be scaled; the others are nothing."""
    raw = np.zeros(shape, dtype=np.float32)
    raw[:, _MOVED] = moved
    return raw


class Votes:
    """Hears the answers of a closed set as they come, and knows when they are enough.

    Parameters
    ----------
    head, pool, history, n
        As for ``is_settled``.
    """

    def __init__(self, head: ActiveHead, pool: Pool, history: History, n: int) -> None:
        self._head, self._pool, self._history, self._n = head, pool, history, n
        self._heard: list[Completion] = []
        self._settled = False

    def hear(self, completion: Completion) -> None:
        """Take one more answer; called by one thread."""
        self._heard.append(completion)
        self._settled = self._settled or is_settled(
            self._head, self._pool, self._history, self._heard, self._n
        )

    def cut(self, k: int) -> None:
        """Take note, before any answer, that only the first ``k`` records had room."""
        self._pool = replace(
            self._pool, shown=self._pool.shown[:k], shown_vectors=self._pool.shown_vectors[:k]
        )

    def settled(self) -> bool:
        """Whether the rest cannot matter; may be asked by any thread."""
        return self._settled
