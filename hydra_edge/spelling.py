"""How answers are written: which text is a number, JSON's too, and which texts are one label."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import NoReturn

# A decimal comma: 1,3 is a grade; 1,300 may be a thousand.
_COMMA = re.compile(r"[+-]?\d+,\d{1,2}")


def number(text: str) -> float | None:
    """Read a finite number, or None. It may have a decimal comma or a typographic minus."""
    plain = text.strip().replace("\u2212", "-")
    if "_" in plain:  # 1_000 is a name to everyone but Python
        return None
    if _COMMA.fullmatch(plain):
        plain = plain.replace(",", ".")
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def rating_value(text: str) -> float:
    """Return the number a rating is, in whatever spelling; nan where it is none."""
    value = number(text)
    return math.nan if value is None else value


def refuse_constant(word: str) -> NoReturn:
    """Refuse ``NaN`` and ``Infinity``, which are not JSON: a ``parse_constant`` for ``json``.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError(f"{word} is not a number of JSON")


def fold_label(text: str) -> str:
    """Return what spellings of one label share: no case, no outer space, one Unicode form.

    An accented letter can be written as one character or as a letter and a mark; both look alike.
    """
    return unicodedata.normalize("NFC", text.strip().casefold())
