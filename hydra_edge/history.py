"""A user's history for one task as arrays, and the profile drawn from it.

Everything features need of the past is here, and can be cut at any point in time: a
pseudo-query sees exactly what a real query at that moment would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hydra_edge.spelling import fold_label, number
from hydra_edge.tasks import TaskSpec, answer_key
from hydra_edge.types import Bool1d, Float1d, Float2d, Int1d, Record
from hydra_edge.utility import tokens

# A record this many places back counts half: habits change, old ones should fade.
HALF_LIFE = 30.0
# Further back a weight is 0 in float32.
FORGOTTEN = int(150 * HALF_LIFE)
_LONGEST_NUMBER = 400  # letters; a longer text is read as no number
_BEYOND_CACHE = 16_384  # rows, 25 MB: from here on a product a row takes half the time
STYLE_NAMES = ("starts_upper", "title_case", "ends_with_stop", "has_colon", "has_digit")
CASING = slice(0, 2)
PUNCTUATION = slice(2, 4)
_NO_DIGITS = str.maketrans("0123456789", " " * 10)


def style_of(text: str) -> list[float]:
    """Describe how a text is written, in the order of ``STYLE_NAMES``, each in [0, 1]."""
    head = text[:2000]
    starts = [w[0] for w in head.split() if w[0].isalpha()]
    stripped = text.strip()
    plain = head.isascii()  # then it is several times faster to look at the text as a whole
    digit = head.translate(_NO_DIGITS) != head if plain else any(map(str.isdigit, head))
    return [
        float(stripped[:1].isupper()),
        sum(map(str.isupper, starts)) / len(starts) if starts else 0.0,
        float(stripped[-1:] in {".", "!", "?", "。"}),
        float(":" in text),
        float(digit),
    ]


def opening_of(text: str) -> str:
    """Return the first word of a text, lower case; with its colon where it is a prefix."""
    first = text.split(maxsplit=1)[:1]
    return first[0].lower() if first else ""


def _recency(n: int) -> Float1d:
    age = np.arange(n - 1, -1, -1, dtype=np.float32)
    return np.asarray(0.5 ** (age / HALF_LIFE), dtype=np.float32)


def length_of(text: str) -> int:
    """Count the tokens of a text."""
    return len(tokens(text))


def value_of(text: str) -> float:
    """Return the number a text is, or nan."""
    value = number(text) if len(text) <= _LONGEST_NUMBER else None
    return np.nan if value is None else value


@dataclass(frozen=True, eq=False)
class Column:
    """One property of each text, worked out when it is first asked for: few of many ever are.

    ``values`` (n, ...) holds what ``of`` said of each text where ``known`` (n,), else nothing.
    """

    texts: Sequence[str]
    of: Callable[[str], Any]
    values: npt.NDArray[Any]
    known: Bool1d

    @classmethod
    def blank(
        cls,
        texts: Sequence[str],
        of: Callable[[str], Any],
        shape: tuple[int, ...] = (),
        kind: type[np.generic] = np.float32,
    ) -> Column:
        """Return a column of which nothing is known yet."""
        n = len(texts)
        return cls(texts, of, np.empty((n, *shape), dtype=kind), np.zeros(n, dtype=np.bool_))

    def __getitem__(self, rows: slice | Int1d) -> npt.NDArray[Any]:
        """Return the property of these rows, ``(len(rows), ...)``."""
        known = self.known[rows]
        if not known.all():
            for i in np.arange(len(self.known))[rows][~known].tolist():
                self.values[i] = self.of(self.texts[i])
                self.known[i] = True
        return np.asarray(self.values[rows])

    def extended(self, texts: Sequence[str]) -> Column:
        """Return this column with rows for more texts at its end; all are given, old ones first."""
        shape, kind = self.values.shape[1:], self.values.dtype.type
        more = Column.blank(texts[len(self.known) :], self.of, shape, kind)
        values = np.concatenate((self.values, more.values))
        return Column(texts, self.of, values, np.concatenate((self.known, more.known)))

    def only(self, index: Int1d) -> Column:
        """Return the rows at these positions."""
        texts = [self.texts[i] for i in index.tolist()]
        return Column(texts, self.of, self.values[index], self.known[index])

    def cut(self, n: int) -> Column:
        """Return the first ``n`` rows; what is worked out for one column, both know."""
        return Column(self.texts, self.of, self.values[:n], self.known[:n])


@dataclass(frozen=True, eq=False)
class Outputs:
    """What features need to know of each output, one row a record.

    ``folded`` (n,) as labels are compared, ``opening`` (n,) the first words; ``length`` (n,) in
    tokens; ``style`` (n, 5); ``value`` (n,) the number an output is, or nan.
    """

    text: tuple[str, ...]
    folded: Column
    length: Column
    style: Column
    opening: Column
    value: Column

    @classmethod
    def of(cls, texts: Sequence[str]) -> Outputs:
        """Describe outputs."""
        return cls(
            text=tuple(t.strip() for t in texts),
            folded=Column.blank(texts, fold_label, kind=np.object_),
            length=Column.blank(texts, length_of),
            style=Column.blank(texts, style_of, (len(STYLE_NAMES),)),
            opening=Column.blank(texts, opening_of, kind=np.object_),
            value=Column.blank(texts, value_of),
        )

    def extended(self, texts: Sequence[str]) -> Outputs:
        """Return these and more outputs; all are given, old ones first."""
        return Outputs(
            (*self.text, *(t.strip() for t in texts[len(self.text) :])),
            self.folded.extended(texts),
            self.length.extended(texts),
            self.style.extended(texts),
            self.opening.extended(texts),
            self.value.extended(texts),
        )

    def only(self, index: Int1d) -> Outputs:
        """Return those at these positions."""
        return Outputs(
            tuple(self.text[i] for i in index.tolist()),
            self.folded.only(index),
            self.length.only(index),
            self.style.only(index),
            self.opening.only(index),
            self.value.only(index),
        )

    def cut(self, n: int) -> Outputs:
        """Return the first ``n``."""
        return Outputs(
            self.text[:n],
            self.folded.cut(n),
            self.length.cut(n),
            self.style.cut(n),
            self.opening.cut(n),
            self.value.cut(n),
        )


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
            gap = np.abs(self.described.value[index] - value) / self.task.span
            agreement = np.clip(1.0 - np.nan_to_num(gap, nan=1.0), 0.0, 1.0)
            return np.asarray(agreement, dtype=np.float32)
        same = self.described.folded[index] == fold_label(answer)
        return np.asarray(same, dtype=np.float32)


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
        return self._shares(self._history.described.opening[self._known])

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of each output, as ``fold_label`` has it."""
        return self._shares(self._history.described.folded[self._known])

    def _shares(self, names: Iterable[str]) -> dict[str, float]:
        out: dict[str, float] = {}
        if self.n:
            for weight, name in zip(self._weight.tolist(), names, strict=True):
                out[name] = out.get(name, 0.0) + weight
        return out
