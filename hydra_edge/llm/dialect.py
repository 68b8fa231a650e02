"""How a request is put to an OpenAI-compatible server, and which parts of it a server turns down.

Owns the request's body. What a server does not take, whoever asks it remembers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hydra_edge.llm.firstline import chat_stops
from hydra_edge.llm.refusal import Refused
from hydra_edge.llm.request import without_system
from hydra_edge.llm.text import well_formed
from hydra_edge.prompt import Prompt
from hydra_edge.types import JsonDict

_SYSTEM = "system role"  # no parameter, and no word of a refusal could be taken for it
_EFFORT = "reasoning_effort"
# What a server may say it does not take, and what is sent in its place (None: nothing; what the
# system would have said, the user says).
_DIALECT = {
    "max_tokens": "max_completion_tokens", "temperature": None, "stop": None, "seed": None,
    "stream_options": None, _EFFORT: None, _SYSTEM: None,
}  # fmt: skip
# Whatever is amiss with one of these, an answer asked for without it is the answer.
_SPARE = frozenset({"seed", "stop", "stream_options"})
# How a server says which values it would have taken.
_OTHERS = re.compile(r"\buse\b|\bone of\b|(supported|valid|allowed) values", re.IGNORECASE)
# Fewer are refused by some: an answer of a closed set needs no more, but may be given them.
_FEWEST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for answers; by default for the greedy one.

    ``effort`` is how hard a model is told to think; empty: it is told nothing.
    """

    prompt: Prompt
    max_tokens: int
    seed: int
    n: int = 1
    temperature: float = 0.0
    stream: bool = False
    effort: str = ""


def write_body(model: str, ask: Ask, unspoken: frozenset[str]) -> bytes:
    """Write a request's body, without what the server does not take."""
    messages, task = ask.prompt.messages(), ask.prompt.task
    fewest = 1 if task.kind == "text" else _FEWEST_TOKENS
    body: JsonDict = {
        "model": model,
        "messages": without_system(messages) if _SYSTEM in unspoken else messages,
        "max_tokens": max(ask.max_tokens, fewest),
        "temperature": ask.temperature,
        "stop": list(chat_stops(task)),
        "seed": ask.seed,
    }
    if not body["stop"]:
        del body["stop"]  # an empty list is refused by some
    if ask.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if ask.effort:
        body[_EFFORT] = ask.effort
    for name in unspoken & body.keys():
        value, other = body.pop(name), _DIALECT[name]
        if other is not None:
            body[other] = value
    if ask.n > 1:
        body["n"] = ask.n
    return well_formed(json.dumps(body, ensure_ascii=False)).encode("utf-8")


def turned_down(refusal: Refused) -> set[str]:
    """Return what a server names that can be left out next time."""
    names: set[str] = set()
    if refusal.code in {"unsupported_parameter", "unsupported_value"}:
        names.add(refusal.param)
    # Servers without such codes only say the name, each in words of its own.
    if "stream_options" in refusal.message:
        names.add("stream_options")
    if refusal.no_system:
        names.add(_SYSTEM)
    if refusal.status in {400, 422} and not refusal.too_long:
        names |= refusal.named & (_DIALECT.keys() if refusal.unknown else _SPARE)
    if refusal.code in {"unsupported_value", "invalid_value"} or _OTHERS.search(refusal.message):
        names.discard(_EFFORT)  # another value would do, which only the user can choose
    return names & _DIALECT.keys()
