"""What each of many outputs is like: its length, style, number; and which of them are one answer.

Worked out for an output when it is first asked for. A long history has far more than are ever
looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from hydra_edge.spelling import fold_label, number
from hydra_edge.types import Bool1d, Int1d
from hydra_edge.utility import tokens

STYLE_NAMES = ("starts_upper", "title_case", "ends_with_stop", "has_colon", "has_digit")
CASING = slice(0, 2)
PUNCTUATION = slice(2, 4)
_NO_DIGITS = str.maketrans("0123456789", " " * 10)
_LONGEST_NUMBER = 400  # letters; a longer text is read as no number


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


def length_of(text: str) -> int:
    """Count the tokens of a text."""
    return len(tokens(text))


def value_of(text: str) -> float:
    """Return the number a text is, or nan."""
    value = number(text) if len(text) <= _LONGEST_NUMBER else None
    return np.nan if value is None else value


class Numbering:
    """Gives equal names one number, so that many are compared and counted at once."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name
        self._numbers: dict[str, int] = {}
        self._next = count()  # any thread may meet a new name

    def __call__(self, text: str) -> int:
        """Return the number of a text's name."""
        name = self._name(text)
        known = self._numbers.get(name)
        return self._numbers.setdefault(name, next(self._next)) if known is None else known

    def known(self, text: str) -> int:
        """Return the number of a text's name, -1 where no text given before has it."""
        return self._numbers.get(self._name(text), -1)


@dataclass(frozen=True, eq=False)
class Column:
    """One property of each text, worked out when it is first asked for: few of many ever are.

    ``values`` (n, ...) holds what ``of`` said of each text where ``known`` (n,), else nothing.
    Any thread may ask: what is known is written after the value, and copied before it.
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
        kind: type[np.number] = np.float32,
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
        known = np.concatenate((self.known, more.known))
        return Column(texts, self.of, np.concatenate((self.values, more.values)), known)

    def only(self, index: Int1d) -> Column:
        """Return the rows at these positions."""
        texts = [self.texts[i] for i in index.tolist()]
        known = self.known[index]
        return Column(texts, self.of, self.values[index], known)

    def cut(self, n: int) -> Column:
        """Return the first ``n`` rows; what is worked out for one column, both know."""
        return Column(self.texts, self.of, self.values[:n], self.known[:n])


@dataclass(frozen=True, eq=False)
class Outputs:
    """What features need to know of each output, one row a record.

    ``answer`` (n,) has one number, of ``labels``, for outputs that are one label, ``opening``
    (n,) for those that begin alike; ``length`` (n,) in tokens; ``style`` (n, 5); ``value`` (n,)
    the number an output is, or nan.
    """

    text: tuple[str, ...]
    labels: Numbering
    answer: Column
    length: Column
    style: Column
    opening: Column
    value: Column

    @classmethod
    def of(cls, texts: Sequence[str]) -> Outputs:
        """Describe outputs."""
        labels = Numbering(fold_label)
        return cls(
            text=tuple(t.strip() for t in texts),
            labels=labels,
            answer=Column.blank(texts, labels, kind=np.int64),
            length=Column.blank(texts, length_of),
            style=Column.blank(texts, style_of, (len(STYLE_NAMES),)),
            opening=Column.blank(texts, Numbering(opening_of), kind=np.int64),
            value=Column.blank(texts, value_of),
        )

    def extended(self, texts: Sequence[str]) -> Outputs:
        """Return these and more outputs; all are given, old ones first."""
        return Outputs(
            (*self.text, *(t.strip() for t in texts[len(self.text) :])),
            self.labels,
            self.answer.extended(texts),
            self.length.extended(texts),
            self.style.extended(texts),
            self.opening.extended(texts),
            self.value.extended(texts),
        )

    def only(self, index: Int1d) -> Outputs:
        """Return those at these positions."""
        return Outputs(
            tuple(self.text[i] for i in index.tolist()),
            self.labels,
            self.answer.only(index),
            self.length.only(index),
            self.style.only(index),
            self.opening.only(index),
            self.value.only(index),
        )

    def cut(self, n: int) -> Outputs:
        """Return the first ``n``."""
        return Outputs(
            self.text[:n],
            self.labels,
            self.answer.cut(n),
            self.length.cut(n),
            self.style.cut(n),
            self.opening.cut(n),
            self.value.cut(n),
        )
