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
# The same in words that are taken for it only where a request was at fault.
_TOO_LONG_HERE = re.compile(
    r"(exceed|longer than|larger than|too (long|large)|reduce).{0,80}context (length|window|size)"
    r"|longer than the (model|maximum)|input length.{0,40}exceed|too long to fit"  # SGLang, vLLM
    r"|`inputs` (tokens \+|must have less)"  # Hugging Face's; of `max_new_tokens` alone it is not
    r"|exceeds the maximum number of (input )?tokens|maximum prompt length"  # Google's, xAI's
    r"|exceeded model token limit|range of input length"  # Kimi's, Alibaba's
    r"|input is too long|tokens in (this|the) prompt cannot exceed",  # Amazon's, Cohere's
    re.IGNORECASE,
)
_AT_FAULT = frozenset({200, 400, 413, 422})
# How a model's chat template, or an API, says that there is no system role.
_NO_SYSTEM = re.compile(
    r"system[\"'` ]+roles?\b|\broles?\b(?![\"'] ?:).{0,40}\bsystem\b|only user and assistant"
    r"|roles must alternate|(system|developer) (message|prompt|instruction)s?\b.{0,20}\bnot\b",
    re.IGNORECASE,
)
# What others call what we send.
_ALIASES = {"stop_sequences": "stop", "reasoningEffort": "reasoning_effort"}
_DEPTH = 4  # bodies within bodies that are opened
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
            or (self.status in _AT_FAULT and bool(_TOO_LONG_HERE.search(self.message)))
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
    error, inner_status = _innermost(said)
    # Servers put the machine-readable word in either place, and a bare status in the other.
    codes = [c for c in (error.get("code"), error.get("type")) if isinstance(c, str)]
    code = next((c for c in codes if c in _CONTEXT_CODES), codes[0] if codes else "")
    named, unknown = _named(error)
    return Refused(
        inner_status if status == 200 else status,
        clean(_shown(error) or otherwise),
        code=clean(code),
        param=clean(str(error.get("param") or "")),
        named=named,
        unknown=unknown,
    )


def _innermost(said: Any) -> tuple[JsonDict, int]:
    """Return what an error body says, and the status it carries (200 if none).

    A server that hands requests on puts the body it got into its own: the innermost says most.
    """
    error: JsonDict = {}
    status = 200
    for _ in range(_DEPTH):
        body = _object(said)
        inner = body.get("error")
        if isinstance(inner, dict):
            body = inner
        elif inner and not body.get("message"):
            body = body | {"message": str(inner)}
        status = _status_of(body) if status == 200 else status
        error |= {name: value for name, value in body.items() if value not in (None, "")}
        metadata, message, detail = (error.pop(n, None) for n in ("metadata", "message", "detail"))
        raw = metadata.get("raw") if isinstance(metadata, dict) else None
        nested = [_object(raw), _object(message), detail if isinstance(detail, dict) else {}]
        said = next(filter(None, nested), None)
        if said is None:
            message = message or error.get("message")
            message = ": ".join(str(part) for part in (message, raw) if part)
            return error | {"message": message, "detail": detail}, status
        if isinstance(message, str) and said is not nested[1]:
            error["message"] = message  # for what is inside and says nothing
        if detail is not None and not isinstance(detail, dict):
            error["detail"] = detail
    return error, status


def _object(said: Any) -> JsonDict:
    """Return an object, also one in a list of one or written as text; empty for all else."""
    if isinstance(said, str) and said.lstrip()[:1] in {"{", "["}:
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            return {}
    if _entries(said):  # what is wrong, one by one, and no word around it
        return {"detail": said}
    if isinstance(said, list) and len(said) == 1:
        (said,) = said
    return said if isinstance(said, dict) else {}


def _entries(detail: Any) -> list[JsonDict]:
    """Return what is wrong, one by one, where that is what a list says."""
    listed = detail if isinstance(detail, list) else []
    return [e for e in listed if isinstance(e, dict) and ("loc" in e or "msg" in e)]


def _shown(error: JsonDict) -> str:
    """Return an error's words. An entry may repeat the request: only its place and words count."""
    said = error.get("message") or error.get("detail") or ""
    return "; ".join(map(_place, _entries(said))) or str(said)


def _place(entry: JsonDict) -> str:
    """Say what an entry finds wrong, and where."""
    loc = entry.get("loc")
    where = ".".join(map(str, loc)) if isinstance(loc, list) else ""
    what = entry.get("msg") or entry.get("type") or "refused"
    return f"{where}: {what}" if where else str(what)


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
    entries = _entries(detail)
    # Not the entries as they are: they may repeat the request, which names every parameter.
    parts = [error.get("message"), detail, *(e.get(k) for e in entries for k in ("type", "msg"))]
    said = " ".join(part for part in parts if isinstance(part, str))
    unknown = bool(_UNKNOWN.search(said))
    names = set((_WORD if unknown else _QUOTED).findall(said))
    places = [e["loc"] for e in entries if isinstance(e.get("loc"), list)]
    names |= {name for place in places for name in place if isinstance(name, str)}
    # What an API calls them that a server hands a request on to.
    names |= {ours for theirs, ours in _ALIASES.items() if theirs in said}
    return frozenset(names), unknown


def _status_of(error: JsonDict) -> int:
    """Return the status an error body carries; 200 if it has none."""
    code = str(error.get("code"))
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 200
