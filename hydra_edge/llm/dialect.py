"""How a request is put to an OpenAI-compatible server, and which parts of it a server turns down.

Owns the request's body. What a server does not take, whoever asks it remembers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from hydra_edge.llm.refusal import Refused
from hydra_edge.llm.request import without_system
from hydra_edge.llm.text import well_formed
from hydra_edge.prompt import Prompt
from hydra_edge.types import JsonDict

_SYSTEM = "system role"  # no parameter, and no word of a refusal could be taken for it
# What a server may say it does not take, and what is sent in its place (None: nothing; what the
# system would have said, the user says).
_DIALECT = {
    "max_tokens": "max_completion_tokens", "temperature": None, "stop": None, "seed": None,
    "stream_options": None, _SYSTEM: None,
}  # fmt: skip
# Whatever is amiss with one of these, an answer asked for without it is the answer.
_SPARE = frozenset({"seed", "stop", "stream_options"})


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for answers; by default for the greedy one."""

    prompt: Prompt
    max_tokens: int
    seed: int
    n: int = 1
    temperature: float = 0.0
    stream: bool = False


def write_body(model: str, ask: Ask, unspoken: frozenset[str]) -> bytes:
    """Write a request's body, without what the server does not take."""
    messages = ask.prompt.messages()
    body: JsonDict = {
        "model": model,
        "messages": without_system(messages) if _SYSTEM in unspoken else messages,
        "max_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "stop": list(ask.prompt.task.stop),
        "seed": ask.seed,
    }
    if ask.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
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
    return names & _DIALECT.keys()
