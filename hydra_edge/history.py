"""A user's history for one task as arrays, and the profile drawn from it.

Everything features need of the past is here, and can be cut at any point in time: a
pseudo-query sees exactly what a real query at that moment would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hydra_edge.closedset import answer_key
from hydra_edge.outputs import STYLE_NAMES, Column, Outputs, opening_of
from hydra_edge.spelling import fold_label
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Float2d, Int1d, Record
from hydra_edge.utility import near

# A record this many places back counts half: habits change, old ones should fade.
HALF_LIFE = 30.0
# Further back a weight is 0 in float32.
FORGOTTEN = int(150 * HALF_LIFE)
_BEYOND_CACHE = 16_384  # rows, 25 MB: from here on a product a row takes half the time


def _recency(n: int) -> Float1d:
    age = np.arange(n - 1, -1, -1, dtype=np.float32)
    return np.asarray(0.5 ** (age / HALF_LIFE), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Picked:
    """Some rows of a matrix, copied only as they are asked for.

    Those of a long history would take as much memory again. ``index`` (n,) ascending.
    """

    matrix: Float2d
    index: Int1d

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: int | slice | Int1d) -> npt.NDArray[np.float32]:
        return np.asarray(self.matrix[self.index[rows]])

    @property
    def shape(self) -> tuple[int, int]:
        """As a matrix has it."""
        return len(self.index), self.matrix.shape[1]


@dataclass(frozen=True, eq=False)
class History:
    """One user's records of one task in time order, with the vectors of both their sides.

    ``inputs`` and ``outputs`` have shape ``(n, dim)``, float32, unit rows. ``edge`` is the id
    of the first later record, where the history was cut before one.
    """

    task: TaskSpec
    records: tuple[Record, ...]
    inputs: Float2d | Picked
    outputs: Float2d | Picked
    described: Outputs
    edge: str | None = None

    @classmethod
    def build(
        cls, task: TaskSpec, records: Sequence[Record], inputs: Float2d, outputs: Float2d
    ) -> History:
        """Put records (oldest first) and their vectors together."""
        described = Outputs.of([r.output for r in records])
        return cls(task, tuple(records), inputs, outputs, described)

    def extended(self, records: Sequence[Record], inputs: Float2d, outputs: Float2d) -> History:
        """Return this history with more records at its end; all are given, old ones first."""
        described = self.described.extended([r.output for r in records])
        return History(self.task, tuple(records), inputs, outputs, described)

    def __len__(self) -> int:
        return len(self.records)

    def before(self, n: int) -> History:
        """Return the history as it was when it held ``n`` records."""
        return History(
            self.task,
            self.records[:n],
            self.inputs[:n],
            self.outputs[:n],
            self.described.cut(n),
            self.records[n].id if n < len(self) else self.edge,
        )

    def only(self, index: Int1d, task: TaskSpec) -> History:
        """Return the history as if it held the records at these positions alone.

        ``task`` is theirs; the vectors stay where they are.
        """
        return History(
            task,
            tuple(self.records[i] for i in index.tolist()),
            Picked(self.inputs[:], index),
            Picked(self.outputs[:], index),
            self.described.only(index),
            self.edge,
        )

    @cached_property
    def place(self) -> dict[str, int]:
        """Each record's position by its id."""
        return {record.id: i for i, record in enumerate(self.records)}

    @cached_property
    def firsts(self) -> Int1d:
        """Positions of the records that repeat no earlier one, ``(m,)``, ascending.

        A record that is there twice (a note under a new name, commits after a rebase) would show
        a query its own answer: only the first of them can be learned from or judged by.
        """
        seen: dict[tuple[str, str], int] = {}
        for i, record in enumerate(self.records):
            seen.setdefault((record.input, record.output), i)
        return np.array(list(seen.values()), dtype=np.int64)

    @cached_property
    def outsiders(self) -> Int1d:
        """Positions of the records whose answers are not of the task's closed set: ``(m,)``."""
        kind, labels = self.task.kind, self.task.labels
        if kind == "text" or not labels:
            return np.zeros(0, dtype=np.int64)
        known = {answer_key(label, kind) for label in labels}
        texts = enumerate(self.described.text)
        found = [i for i, text in texts if answer_key(text, kind) not in known]
        return np.array(found, dtype=np.int64)

    @cached_property
    def queries(self) -> Int1d:
        """Positions of the records that can be learned from and judged by, ``(m,)``, ascending.

        Those that repeat no earlier one, and whose answers the task has: nothing agrees with any
        other.
        """
        return np.asarray(self.firsts[~np.isin(self.firsts, self.outsiders)], dtype=np.int64)

    @cached_property
    def recency(self) -> Float1d:
        """Weights of records by age, shape ``(n,)``, newest 1, half after ``HALF_LIFE``."""
        return _recency(len(self))

    @cached_property
    def profile(self) -> Profile:
        """Statistics of this history."""
        return Profile(self)

    def cosines(self, query: Float1d, before: int | None = None) -> Float1d:
        """Compare a query, shape ``(dim,)``, with the records' inputs: shape ``(n,)``.

        ``before`` leaves out the records from that position on.
        """
        n = len(self) if before is None else min(before, len(self))
        if n <= _BEYOND_CACHE:
            return np.asarray(self.inputs[:n] @ query, dtype=np.float32)
        # BLAS reads several rows at a time, and stalls once they no longer fit a core's cache.
        out = np.empty(n, dtype=np.float32)
        for start in range(0, n, _BEYOND_CACHE):  # picked rows are copied: never all at once
            rows = slice(start, min(start + _BEYOND_CACHE, n))
            out[rows] = np.vecdot(self.inputs[rows], query)
        return out

    def agreement(self, answer: str, value: float | None, index: Int1d) -> Float1d:
        """Compare a label or rating with the outputs at ``index``: shape ``(len(index),)``."""
        if self.task.kind == "rating":
            if value is None:
                return np.zeros(len(index), dtype=np.float32)
            agreement = near(self.described.value[index], value, self.task.span)
            return np.asarray(agreement, dtype=np.float32)
        answers = self.described.answer[index]  # first: it gives them their numbers
        return np.asarray(answers == self.described.labels.known(answer), dtype=np.float32)

    def agreements(self, index: Int1d) -> Float2d:
        """Compare the labels or ratings at ``index`` with each other: ``(m, m)``; see above."""
        if self.task.kind == "rating":
            value = self.described.value[index]
            agreement = near(value[None], value[:, None], self.task.span)
            return np.asarray(agreement, dtype=np.float32)
        answer = self.described.answer[index]
        return np.asarray(answer[None] == answer[:, None], dtype=np.float32)


class Profile:
    """What a user's outputs for one task have in common; all recency-weighted.

    Drawn as far as it is asked for: fitting draws a profile for every query left out.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.n = len(history)
        self._known = slice(max(0, self.n - FORGOTTEN), self.n)

    @cached_property
    def _weight(self) -> Float1d:
        recency = _recency(min(self.n, FORGOTTEN))
        return np.asarray(recency / recency.sum(), dtype=np.float32)

    @cached_property
    def centroid(self) -> Float1d:
        """Mean output vector, shape ``(dim,)``, unit norm; zeros for an empty history."""
        if not self.n:
            return np.zeros(self._history.outputs.shape[1], dtype=np.float32)
        mean = self._weight @ self._history.outputs[self._known]
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), dtype=np.float32)

    @cached_property
    def _log_length(self) -> tuple[float, float]:
        if not self.n:
            return 2.0, 1.0
        log_length = np.log1p(self._history.described.length[self._known])
        mean = float(self._weight @ log_length)
        # Three pseudo-observations of spread .5 keep the deviation of a short history sane.
        spread = float(self._weight @ (log_length - mean) ** 2)
        return mean, float(np.sqrt((spread * self.n + 0.25 * 3) / (self.n + 3)))

    @property
    def log_length_mean(self) -> float:
        """Mean log of one plus an output's tokens."""
        return self._log_length[0]

    @property
    def log_length_std(self) -> float:
        """Deviation of the same."""
        return self._log_length[1]

    @cached_property
    def style(self) -> Float1d:
        """How outputs are written, in the order of ``STYLE_NAMES``."""
        if not self.n:
            return np.full(len(STYLE_NAMES), 0.5, dtype=np.float32)
        style = self._weight @ self._history.described.style[self._known]
        return np.asarray(style, dtype=np.float32)

    @cached_property
    def openings(self) -> dict[str, float]:
        """Share of each opening (see ``opening_of``)."""
        return self._shares(self._history.described.opening, opening_of)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of each output, as ``fold_label`` has it."""
        return self._shares(self._history.described.answer, fold_label)

    def _shares(self, column: Column, name: Callable[[str], str]) -> dict[str, float]:
        """Return the share of each name, those met first at the beginning."""
        if not self.n:
            return {}
        numbers = column[self._known]
        shares = np.bincount(numbers, weights=self._weight)
        distinct, first = np.unique(numbers, return_index=True)
        met = np.argsort(first)
        return {
            name(column.texts[self._known.start + at]): share
            for at, share in zip(first[met].tolist(), shares[distinct[met]].tolist(), strict=True)
        }
