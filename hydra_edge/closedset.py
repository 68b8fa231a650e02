"""Closed sets: which answers can be members of one, and which of them are the same.

Knows no task: ``tasks`` decides by these what a user's answers make of one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from hydra_edge.spelling import fold_label, number
from hydra_edge.types import Kind

MOST = 0.95  # of a closed set's answers: the others are slips
# An answer that a closed set takes up is one line within these bounds: every prompt names it, and
# in the system role. A longer one (a paragraph, a slip of a column) is no label.
LABEL_WORDS, LABEL_CHARS = 30, 240
# Of what the user's own answers may add to a prompt, in bytes: half of a small LLM's context.
ADDED_BYTES = 4000
# Thousands with points: 1.000 and 2.500 beside 500.
_THOUSANDS = re.compile(r"[+\-\u2212]?[1-9]\d{0,2}(\.\d{3})+")
# A code: 007 is not 7.
_CODE = re.compile(r"[+\-\u2212]?0\d")


def answer_key(answer: str, kind: Kind) -> str | float:
    """Return what equal answers of a closed set share: a rating's number, a label's letters.

    4 and 4.0 are one rating; FOOD and Food are one label.
    """
    value = number(answer) if kind == "rating" else None
    return fold_label(answer) if value is None else value


def each_once(answers: Iterable[str], kind: Kind) -> dict[str | float, str]:
    """Return each answer of a closed set once, by its key, in its most frequent spelling.

    Of spellings that are as frequent it is the first in order.
    """
    times = Counter(answer.strip() for answer in answers)
    out: dict[str | float, str] = {}
    for answer in sorted(times):
        key = answer_key(answer, kind)
        if key not in out or times[answer] > times[out[key]]:
            out[key] = answer
    return out


def _in_thousands(numbers: Iterable[str]) -> bool:
    """Tell whether numbers seem to be thousands written with points, which have no order here."""
    odd = [n for n in numbers if not n.lstrip("+-\u2212").isdecimal()]
    return bool(odd) and all(map(_THOUSANDS.fullmatch, odd))


def is_scale(answers: Sequence[str]) -> bool:
    """Tell whether answers are numbers with an order: neither codes nor in thousands, but slips."""
    given = [answer.strip() for answer in answers]
    numbers = [a for a in given if number(a) is not None]
    ordered = [a for a in numbers if not _CODE.match(a)]
    return len(ordered) >= MOST * len(given) and not _in_thousands(numbers)


def is_label(answer: str) -> bool:
    """Tell whether an answer can be named in a prompt's closed set: one line, and short."""
    answer = answer.strip()
    short = len(answer) <= LABEL_CHARS and len(answer.split()) <= LABEL_WORDS
    return short and len(answer.splitlines()) <= 1


def room_of(answer: str) -> int:
    """Return how many bytes it takes to name an answer in a prompt."""
    return len(f"{answer}, ".encode("utf-8", "replace"))


def fit_a_prompt(answers: Iterable[str]) -> bool:
    """Tell whether a prompt has room to name all of these answers."""
    return sum(map(room_of, answers)) <= ADDED_BYTES
