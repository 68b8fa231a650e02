"""Reading a JSON body field by field: every oddity is named, nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from hydra_edge.errors import HydraError
from hydra_edge.records import clean_text
from hydra_edge.server.refusal import Refusal
from hydra_edge.spelling import refuse_constant
from hydra_edge.types import JsonDict


def bad_field(name: str, got: Any, expected: str, *, code: str = "invalid_value") -> HydraError:
    """Return the error that says what is wrong with a field; its value is not repeated whole."""
    shown = (
        json.dumps(got)[:60] if isinstance(got, str | int | float | bool) else type(got).__name__
    )
    return Refusal(
        HTTPStatus.BAD_REQUEST, code,
        f"Field {name!r} cannot be used: got {shown}; expected {expected}. Correct the request.",
        param=name,
    )  # fmt: skip


class Fields:
    """A JSON object's fields; ``null`` counts as left out, as OpenAI has it.

    Parameters
    ----------
    prefix
        Put before a field's name in errors, for an object inside another.
    """

    def __init__(self, values: JsonDict, prefix: str = "") -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._prefix = prefix

    @classmethod
    def parse(cls, body: bytes) -> Fields:
        """Read a request's body.

        Raises
        ------
        Refusal
            If it is not one JSON object.
        """
        try:
            values = json.loads(body, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as err:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "invalid_json",
                f"The request's body is no JSON ({type(err).__name__}). Expected one JSON object.",
            ) from None  # fmt: skip
        if not isinstance(values, dict):
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "invalid_json",
                f"The request's body is a {type(values).__name__}; expected one JSON object.",
            )  # fmt: skip
        return cls(values)

    def raw(self, name: str) -> Any:
        """Return a field as it is, None if it is left out."""
        return self._values.get(name)

    def _bad(self, name: str, expected: str) -> HydraError:
        return bad_field(self._prefix + name, self._values.get(name), expected)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; it must be there unless there is a default.

        Half a character, as JavaScript leaves of an emoji it cuts, is replaced: a record of it
        could be handed on by no other door.
        """
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise self._bad(name, "a text")
        return clean_text(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value."""
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            raise self._bad(name, "true or false")
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number within bounds, None if it is left out."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._bad(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a number within bounds, None if it is left out."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._bad(name, f"a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise self._bad(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def moment(self, name: str) -> float | None:
        """Return a moment in Unix seconds, told in them or as an import takes it."""
        from hydra_edge.importers.base import parse_time

        try:
            return parse_time(self._values.get(name))
        except ValueError as err:
            raise self._bad(name, "Unix seconds or an ISO date such as 2023-12-31") from err

    def inner(self, name: str) -> Fields:
        """Return the fields of an object inside this one; none if it is left out."""
        value = self._values.get(name, {})
        if not isinstance(value, dict):
            raise self._bad(name, "an object")
        return Fields(value, f"{self._prefix}{name}.")

    def refuse_others(self, known: Iterable[str]) -> None:
        """Refuse a field that nobody reads: a slip of the finger must not pass for a wish."""
        known = set(known)
        for name in self._values:
            if name not in known:
                raise Refusal(
                    HTTPStatus.BAD_REQUEST, "unknown_parameter",
                    f"Unknown parameter {(self._prefix + name)[:60]!r}. Known: "
                    f"{', '.join(sorted(known))}.",
                    param=self._prefix + name[:60],
                )  # fmt: skip
