"""What an OpenAI-compatible API says when it will not do something, each in words of its own.

Reads error bodies with suspicion: whatever is missing or of another type says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hydra_edge.types import JsonDict

# How an API says that it does not know a parameter, and how it names one.
_UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not support|unexpected|extra[_ ]|not permitted|forbidden"
    r"|deprecated|\bonly \S+ is (?:allowed|supported)",  # Claude's and Kimi's of a temperature
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z_]{2,40}")
_QUOTED = re.compile(r"[\"'`]([a-z_]{2,40})[\"'`]")
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
# How those without such a code say that a prompt did not fit: the first API's words, Anthropic's,
# and LM Studio's.
_TOO_LONG = re.compile(
    r"maximum context length|prompt is too long|keep the first [0-9]+ tokens|tokens to keep from",
    re.IGNORECASE,
)
# How a model's chat template, or an API, says that there is no system role.
_NO_SYSTEM = re.compile(
    r"system[\"'` ]+roles?\b|\broles?\b(?![\"'] ?:).{0,40}\bsystem\b|only user and assistant"
    r"|roles must alternate|(system|developer) (message|prompt|instruction)s?\b.{0,20}\bnot\b",
    re.IGNORECASE,
)
# How OpenAI says that a model's thoughts left no room for an answer.
_NO_ROOM = re.compile(r"max_tokens or model output limit was reached", re.IGNORECASE)


class Refused(Exception):
    """The API answered, but not with 200; all it says is safe to show. Stays in this package."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str = "",
        named: frozenset[str] = frozenset(),
        unknown: bool = False,
    ) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.named = named  # what it may be about, where no param says so
        self.unknown = unknown  # it does not know what it names

    @property
    def too_long(self) -> bool:
        """Whether the prompt did not fit."""
        return (
            self.status == 413
            or self.code in _CONTEXT_CODES
            or bool(_TOO_LONG.search(self.message))
        )

    @property
    def out_of_room(self) -> bool:
        """Whether the model thought until its tokens were spent."""
        return self.status == 400 and bool(_NO_ROOM.search(self.message))

    @property
    def no_system(self) -> bool:
        """Whether the model takes the user's and the assistant's words only."""
        # A template that raises is a fault of the server to some; in a stream it comes with 200.
        return self.status in {200, 400, 422, 500} and bool(_NO_SYSTEM.search(self.message))


def read_refusal(
    status: int, said: Any, clean: Callable[[str], str], otherwise: str = "no reason given"
) -> Refused:
    """Understand an error body.

    ``clean`` makes foreign text fit to be shown; ``otherwise`` is the message if it has none.
    """
    if isinstance(said, list) and len(said) == 1:
        (said,) = said
    error = said.get("error", said) if isinstance(said, dict) else {}
    if not isinstance(error, dict):
        return Refused(status, clean(str(error)))
    # Servers put the machine-readable word in either place, and a bare status in the other.
    codes = [c for c in (error.get("code"), error.get("type")) if isinstance(c, str)]
    code = next((c for c in codes if c in _CONTEXT_CODES), codes[0] if codes else "")
    message = error.get("message") or error.get("detail") or otherwise
    named, unknown = _named(error)
    return Refused(
        _status_of(error) if status == 200 else status,
        clean(str(message)),
        code=clean(code),
        param=clean(str(error.get("param") or "")),
        named=named,
        unknown=unknown,
    )


def reported(raw: bytes, clean: Callable[[str], str]) -> Refused | None:
    """Read a reply of 200 that is an error all the same; None for any other."""
    if b'"error"' not in raw:
        return None
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    is_error = isinstance(said, dict) and said.get("error") and not said.get("choices")
    return read_refusal(200, said, clean) if is_error else None


def _named(error: JsonDict) -> tuple[frozenset[str], bool]:
    """Return the parameters an error body names, and whether it says that it knows them not."""
    detail = error.get("detail")
    entries = [e for e in detail if isinstance(e, dict)] if isinstance(detail, list) else []
    # Not the entries as they are: they may repeat the request, which names every parameter.
    parts = [error.get("message"), detail, *(e.get(k) for e in entries for k in ("type", "msg"))]
    said = " ".join(part for part in parts if isinstance(part, str))
    unknown = bool(_UNKNOWN.search(said))
    names = set((_WORD if unknown else _QUOTED).findall(said))
    places = [e["loc"] for e in entries if isinstance(e.get("loc"), list)]
    names |= {name for place in places for name in place if isinstance(name, str)}
    if "stop_sequences" in said:  # what an API is told that a server hands ``stop`` on to
        names.add("stop")
    return frozenset(names), unknown


def _status_of(error: JsonDict) -> int:
    """Return the status an error body carries; 200 if it has none."""
    code = str(error.get("code"))
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 200
