"""How values stand in the columns of a user's file, and how they are asked for."""

from __future__ import annotations

import json
from typing import Any

# Most values bound at once in an IN (...) list.
CHUNK = 500


class DamagedValueError(ValueError):
    """A stored value is not what we write; ``Database`` turns it into a StoreError."""


def bind(text: str) -> str | bytes:
    """Return a text as SQLite takes it; one that is not valid Unicode is kept as bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def text_of(value: Any) -> str:
    """Return a stored text, whichever way ``bind`` stored it."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as err:
            raise DamagedValueError(f"a text is not UTF-8 ({err.reason})") from err
    if not isinstance(value, str):
        raise DamagedValueError(f"got {type(value).__name__}, expected a text")
    return value


def to_json(value: Any) -> str | bytes:
    """Return a value as the JSON text that is stored."""
    return bind(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def from_json(value: Any, kind: type) -> Any:
    """Read stored JSON whose outermost value is of a kind."""
    try:
        parsed = json.loads(text_of(value))
    except (json.JSONDecodeError, RecursionError) as err:
        raise DamagedValueError("a stored list is not JSON") from err
    if not isinstance(parsed, kind):
        raise DamagedValueError(f"got {type(parsed).__name__}, expected {kind.__name__}")
    return parsed


def texts_from_json(value: Any) -> tuple[str, ...]:
    """Read a stored list of texts."""
    items = from_json(value, list)
    if set(map(type, items)) <= {str}:  # lists are many and long, and hardly ever damaged
        return tuple(items)
    return tuple(map(text_of, items))


def as_float(value: float | None) -> float | None:
    """Return a number as a plain float, whatever type it is of."""
    return None if value is None else float(value)


def where(**wanted: str | None) -> tuple[str, list[str | bytes]]:
    """Return the clause that asks for columns' texts, and these texts; None asks for nothing."""
    given = {name: bind(text) for name, text in wanted.items() if text is not None}
    clause = f"WHERE {' AND '.join(f'{name} = ?' for name in given)} " if given else ""
    return clause, list(given.values())


def older_than(moment: float | None, column: str = "time") -> tuple[str, list[float]]:
    """Return the condition that asks for rows of before a moment, and it; None asks for all."""
    return ("TRUE", []) if moment is None else (f"{column} < ?", [moment])
