"""Chat completions: what a request of OpenAI's form asks for, and an answer in that form.

The last user message is the query; the request's own system messages are put before the task's
instruction. Earlier turns are left out, and the answer's notes say so: the heads are about one
query and the records like it, and small models lose a query behind long talk.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from hydra_edge.answering import BROKEN_OFF, NOT_WHOLE
from hydra_edge.records import clean_text
from hydra_edge.server.fields import Fields, bad_field
from hydra_edge.server.refusal import Refusal
from hydra_edge.server.views import generation_json
from hydra_edge.types import Generation, JsonDict

MODEL = "hydra-edge"
ID_PREFIX = "chatcmpl-"
MOST_CHOICES = 32
MOST_TOKENS = 8192
MAX_READ_CHARS = 1 << 20  # of the query and the system text together
_SEEDS = 2**31
_STOPS = 4  # as many as OpenAI takes
_READ = {
    "frequency_penalty", "function_call", "functions", "hydra_edge", "logit_bias", "logprobs",
    "max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model",
    "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
    "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
    "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
    "verbosity", "web_search_options",
}  # fmt: skip
# Without these an answer is still an answer, only drawn another way: the notes say so.
_NOT_HONOURED = (
    "frequency_penalty", "functions", "logit_bias", "moderation", "presence_penalty",
    "reasoning_effort", "tools", "top_p", "verbosity", "web_search_options",
)  # fmt: skip
_NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0, "presence_penalty": 0, "top_p": 1, "logit_bias": {}, "tools": [],
    "functions": [],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request, understood; None is the personalizer's own setting."""

    model: str
    query: str
    system: str
    choices: int
    candidates: int | None
    records: int | None
    temperature: float | None
    max_tokens: int | None
    seed: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    private: bool
    explain: bool
    notes: tuple[str, ...]

    @property
    def task(self) -> str | None:
        """The task its model's name asks for."""
        return self.model.removeprefix(MODEL).removeprefix("/") or None


def read_chat(fields: Fields) -> ChatRequest:
    """Understand a request.

    Raises
    ------
    Refusal
        If it asks for what cannot be done, or for what nobody knows.
    """
    fields.refuse_others(_READ)
    _refuse_what_changes_the_form(fields)
    query, system, notes = _read_messages(fields.raw("messages"))
    max_tokens, lowered = _read_limit(fields)
    ours = fields.inner("hydra_edge")
    ours.refuse_others(("candidates", "explain", "private", "records"))
    options = fields.inner("stream_options")
    return ChatRequest(
        model=_read_model(fields.text("model")),
        query=query,
        system=system,
        choices=fields.whole("n", 1, MOST_CHOICES) or 1,
        candidates=ours.whole("candidates", 1, MOST_CHOICES),
        records=ours.whole("records", 0, MOST_CHOICES),
        temperature=fields.number("temperature", 0.0, 2.0),
        max_tokens=max_tokens,
        seed=(fields.whole("seed", -(2**63), 2**63 - 1) or 0) % _SEEDS,
        stop=_read_stop(fields.raw("stop")),
        stream=fields.flag("stream"),
        include_usage=options.flag("include_usage"),
        private=ours.flag("private"),
        explain=ours.flag("explain"),
        notes=(*notes, *lowered, *_not_honoured(fields)),
    )


def _read_limit(fields: Fields) -> tuple[int | None, list[str]]:
    """Return the longest answer in tokens, and what is to be said of it."""
    names = ("max_completion_tokens", "max_tokens")
    limits = [(name, fields.whole(name, 1, 2**63 - 1)) for name in names]
    name, limit = next((pair for pair in limits if pair[1]), ("", None))
    if limit is None or limit <= MOST_TOKENS:
        return limit, []
    return MOST_TOKENS, [f"{name} was lowered from {limit} to {MOST_TOKENS}, the most there is"]


def limit_to_context(limit: int, context: int | None) -> tuple[int, tuple[str, ...]]:
    """Return the longest answer an LLM of such a context has room for, and what to say of it.

    Many clients ask for some thousands of tokens whatever the LLM; half of its context is left
    to the prompt. None: nobody knows how large it is.
    """
    if context is None or limit <= context // 2:
        return limit, ()
    most = max(1, context // 2)
    return most, (
        f"the longest answer was lowered from {limit} to {most} tokens: half of the LLM's context",
    )


def _read_model(name: str) -> str:
    if name != MODEL and not (name.startswith(f"{MODEL}/") and len(name) > len(MODEL) + 1):
        raise unknown_model(name)
    return name


def unknown_model(name: str) -> Refusal:
    """Return the error for a model that is not ours."""
    return Refusal(
        404, "model_not_found",
        f"No model {name[:60]!r}; expected {MODEL!r} or '{MODEL}/TASK'. GET /v1/models lists them.",
        param="model",
    )  # fmt: skip


def _refuse_what_changes_the_form(fields: Fields) -> None:
    """Refuse what would make a client read the answer as something it is not."""
    form = fields.inner("response_format").text("type", "text")
    wishes = {
        "response_format": form != "text",
        "logprobs": fields.flag("logprobs"),
        "top_logprobs": fields.raw("top_logprobs") not in (None, 0),
        "modalities": fields.raw("modalities") not in (None, ["text"]),
        "tool_choice": fields.raw("tool_choice") not in (None, "auto", "none"),
        "function_call": fields.raw("function_call") not in (None, "auto", "none"),
    }
    for name, wished in wishes.items():
        if wished:
            raise bad_field(
                name, fields.raw(name), "it left out: answers are plain text",
                code="unsupported_value",
            )  # fmt: skip


def _not_honoured(fields: Fields) -> list[str]:
    return [
        f"{name} is not supported and was ignored"
        for name in _NOT_HONOURED
        if fields.raw(name) is not None and fields.raw(name) != _NEUTRAL.get(name)
    ]


def _read_stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or len(stops) > _STOPS:
        raise bad_field("stop", value, f"a text, or a list of at most {_STOPS}")
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise bad_field("stop", value, "texts that are not empty")
    return tuple(stops)


def _read_messages(messages: Any) -> tuple[str, str, list[str]]:
    """Return the query, the system text, and what is to be said of the rest.

    What is left out is not read: an image shown long ago must not end a conversation.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", messages, "a list of at least one message")
    roles: list[str] = []
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_field(f"messages[{place}]", message, "an object with role and content")
        roles.append(message["role"])
    asked = max((place for place, role in enumerate(roles) if role == "user"), default=None)
    query = "" if asked is None else _content(messages[asked].get("content"), asked)
    if not query.strip():
        raise bad_field("messages", messages, "a last user message with text: it is the query")
    places = [place for place, role in enumerate(roles) if role in ("system", "developer")]
    told = [_content(messages[place].get("content"), place) for place in places]
    others = len(roles) - len(places) - 1
    notes = [f"{others} other messages were left out: only the last user message is answered"]
    system = "\n".join(text for text in told if text.strip())
    if len(query) + len(system) > MAX_READ_CHARS:  # what is left out may be larger
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large",
            f"The query and the system text have {len(query) + len(system):,} characters; expected "
            f"at most {MAX_READ_CHARS:,}. Send less at a time.",
            param="messages",
        )  # fmt: skip
    return clean_text(query), clean_text(system), notes if others else []


def _content(content: Any, place: int) -> str:
    """Return a message's text, which may be none."""
    if content is None or isinstance(content, str):
        return content or ""
    expected = "a text, or a list of parts of type text"
    if not isinstance(content, list):
        raise bad_field(f"messages[{place}].content", content, expected)
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise bad_field(f"messages[{place}].content", content, expected, code="unsupported_value")
    return "\n".join(str(text) for text in texts)


def first_stop(text: str, stops: Sequence[str], start: int = 0) -> int:
    """Return where the first of some stops begins, from ``start`` on; the text's end if none."""
    places = [at for stop in stops if (at := text.find(stop, start)) >= 0]
    return min(places, default=len(text))


def shared_json(asked: ChatRequest, generation_id: str, base_id: str) -> JsonDict:
    """Return what an answer says of itself, whole and in every event."""
    return {
        "id": ID_PREFIX + generation_id,
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": f"base_{base_id[:12]}",
    }


class ChatAnswer:
    """A generation in OpenAI's form.

    Attributes
    ----------
    choices
        The texts to return, best first, each with why it ends.
    ours
        What explains the answer.
    """

    def __init__(self, asked: ChatRequest, generation: Generation) -> None:
        self._asked = asked
        self._generation = generation
        ends = {c.text.strip(): c.finish for c in generation.candidates}
        best = [c.text for c in generation.candidates if c.text != generation.text]
        found: dict[str, tuple[str, str]] = {}  # answers may differ only behind a stop
        for whole in [generation.text, *best]:
            text, end = self._finish(whole, ends.get(whole.strip(), "stop"))
            found.setdefault(text.strip(), (text, end))
        chosen = list(found.values())[: asked.choices]
        self.choices = [(text, "stop" if end == "stop" else "length") for text, end in chosen]
        said, notes = generation.notes, list(asked.notes)
        if chosen[0][1] == "stop":  # where the client wants it to end, at the latest
            said = tuple(note for note in said if not note.startswith(NOT_WHOLE))
        if any(end == "cut" for _, end in chosen) and BROKEN_OFF not in said:
            notes.append(BROKEN_OFF)
        if len(self.choices) < asked.choices:
            usage = generation.usage
            # Of those that did not arrive nobody knows whether they differ.
            why = "" if usage.received < usage.requested else ": no more answers differ"
            notes.append(f"{len(self.choices)} of {asked.choices} choices{why}")
        made = replace(generation, notes=said)
        self.ours = generation_json(made, explain=asked.explain, notes=tuple(notes))

    def _finish(self, text: str, end: str) -> tuple[str, str]:
        """Return a text up to the request's own stops, and why it ends there."""
        at = first_stop(text, self._asked.stop)
        return text[:at], "stop" if at < len(text) else end

    @property
    def usage(self) -> JsonDict:
        """Tokens spent: those of every candidate are paid for, also of those not returned."""
        usage = self._generation.usage
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }

    def whole(self) -> JsonDict:
        """Return the answer as one object."""
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": end,
            }
            for i, (text, end) in enumerate(self.choices)
        ]
        made = self._generation
        return shared_json(self._asked, made.id, made.head.base_id) | {
            "object": "chat.completion",
            "choices": choices,
            "usage": self.usage,
            "hydra_edge": self.ours,
        }
