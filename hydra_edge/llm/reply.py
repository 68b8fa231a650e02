"""Replies of an OpenAI-compatible API, whole or streamed, read with suspicion.

Whatever is missing, of another type, or broken off ends as an error or an empty text, never as
a crash. Sends nothing and keeps nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hydra_edge.errors import BackendError
from hydra_edge.llm.firstline import chat_answer
from hydra_edge.llm.text import AnswerText, well_formed
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, JsonDict

_MAX_LINE_BYTES = 1 << 20  # of a streamed reply
_TOKEN_CHARACTERS = 64  # no answer has as many for each of its tokens
# Where thoughts come apart from the answer: parts of its content, or fields beside it.
_THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning")
_THOUGHT_FIELDS = ("reasoning_content", "reasoning")
# Other words for an answer that came to its limit, and for one that is not whole.
_FULL = frozenset({"length", "max_tokens", "MAX_TOKENS"})
_BROKEN = frozenset({"error", "insufficient_system_resource", "abort"})
_FILTERED = "content_filter"  # Google's goes on: "content_filter: PROHIBITED_CONTENT"
_TOOLS = frozenset({"tool_calls", "function_call"})
# The end of a thought whose beginning was in the prompt: all before it is thought, too. In the
# middle of a line it may be what an answer is about.
_LONE_END = re.compile(r"(?:(?!<think>).)*?</think>[ \t]*(?:\n|$)", re.DOTALL)
_MOST_REFUSAL = 400  # characters that are kept of what a model says in place of an answer


class ReportedError(BackendError):
    """An error where an answer was expected; ``said`` is the whole object it came in."""

    def __init__(self, message: str, said: JsonDict) -> None:
        super().__init__(message)
        self.said = said


@dataclass(slots=True)
class Silence:
    """Why there is no text, as far as a reply says.

    ``refusal`` is the model's own words, ``filtered`` how the API says that a filter ended it.
    """

    refusal: str = ""
    filtered: str = ""
    tools: bool = False

    def hear(self, choice: Any, where: str) -> None:
        """Take in a choice, or a piece of one."""
        if not isinstance(choice, dict):
            return
        message = _inner(choice, where)
        refusal, reason = message.get("refusal"), _reason(choice)
        if isinstance(refusal, str):
            self.refusal = (self.refusal + well_formed(refusal))[:_MOST_REFUSAL]
        if reason.startswith(_FILTERED):
            self.filtered = well_formed(reason)
        called = message.get("tool_calls") or message.get("function_call")
        self.tools = self.tools or bool(called) or reason in _TOOLS


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request: ``offered`` choices, of which some had text.

    ``prompt_tokens`` were billed for it, whatever became of the choices, and ``tokens`` for
    writing where none had text. ``thinks``: of some there was a thought and no answer;
    ``ended``: though nothing says that there was no room for one. ``silence`` is of the choices
    without text.
    """

    completions: tuple[Completion, ...] = ()
    offered: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    thinks: bool = False
    ended: bool = False
    silence: Silence = field(default_factory=Silence)
    error: Exception | None = None

    def after(self, earlier: Reply) -> Reply:
        """Return this reply, carrying what an earlier one without an answer cost as well."""
        read = self.prompt_tokens + earlier.prompt_tokens
        if not self.completions:
            return replace(self, prompt_tokens=read, tokens=self.tokens + earlier.tokens)
        first, *others = self.completions
        first = replace(first, tokens=first.tokens + earlier.tokens)
        return replace(self, prompt_tokens=read, completions=(first, *others))


def parse_object(raw: bytes | str, who: str) -> JsonDict:
    """Parse a JSON object; ``who`` sent it.

    Raises
    ------
    BackendError
        If it is not whole, or not an object.
    """
    size = len(raw)
    if isinstance(raw, bytes):
        # As in a stream: a broken character spoils itself, not the answers beside it.
        raw = raw.decode("utf-8-sig", "replace")
    try:
        reply = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise BackendError(
            f"{who} sent a reply that is not whole JSON: got {size} bytes. Try again, or "
            "check base_url."
        ) from err
    if not isinstance(reply, dict):
        raise BackendError(
            f"{who} sent a JSON {type(reply).__name__}; expected an object. Check base_url."
        )
    return reply


def longest_answer(max_tokens: int) -> int:
    """Return how many characters of an answer are read, lest a server ignore ``max_tokens``."""
    return max_tokens * _TOKEN_CHARACTERS


def read_reply(
    raw: bytes, who: str, prompt: Prompt, *, n: int, greedy: bool, max_tokens: int
) -> Reply:
    """Read up to ``n`` answers to a prompt; what is far beyond ``max_tokens`` is cut off.

    Raises
    ------
    BackendError
        If it holds no choices at all.
    """
    reply = parse_object(raw, who)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BackendError(
            f"{who} sent no choices in {len(raw)} bytes; expected an OpenAI-compatible API. Check "
            "base_url."
        )
    choices = choices[:n]
    written: list[tuple[str, str]] = []
    thinks, ended, has_thoughts, silence = False, False, has_thought(reply), Silence()
    for choice in choices:
        answer = chat_answer(prompt, longest=longest_answer(max_tokens))
        finish = feed_choice(answer, choice, "message")
        thought = answer.thinks
        if text := answer.finish():
            written.append((text, finish))
        else:
            thought = thought or answer.thought or has_thoughts
            silence.hear(choice, "message")
        thinks = thinks or thought
        ended = ended or (thought and not text and finish == "stop")
    tokens = spent(reply, "completion_tokens")
    each, rest = divmod(tokens, len(choices))
    # The sum is what was spent, also for choices without text and where it does not divide.
    rest += each * (len(choices) - len(written))
    completions = [
        Completion(text, greedy=greedy, tokens=each if i else each + rest, finish=finish)
        for i, (text, finish) in enumerate(written)
    ]
    return Reply(
        tuple(completions), len(choices), spent(reply, "prompt_tokens"),
        tokens=0 if completions else tokens, thinks=thinks, ended=ended, silence=silence,
    )  # fmt: skip


def read_events(chunks: Iterable[bytes], who: str) -> Iterator[JsonDict]:
    """Yield the objects of a streamed reply, up to its end mark or its last byte.

    A server that does not stream sends one object, which is yielded as it is.

    Raises
    ------
    BackendError
        If an event is broken.
    ReportedError
        If one reports an error.
    """
    seen = False
    other: list[str] = []
    for line in _lines(chunks, who):
        if not line.startswith("data:"):
            other += [] if seen else [line]
            continue
        seen = True
        data = line.removeprefix("data:").strip()
        if not data:
            continue  # an event without data is none
        if data == "[DONE]":
            yield {"choices": [{"finish_reason": "stop"}]}  # for those that never say why
            return
        event = parse_object(data, who)
        if event.get("error"):
            raise _reported(event, who)
        yield event
    if not seen:
        event = parse_object("\n".join(other), who)
        if event.get("error") and not event.get("choices"):
            raise _reported(event, who)
        yield event


def _reported(event: JsonDict, who: str) -> ReportedError:
    return ReportedError(f"{who} reported an error in the middle of a reply. Try again.", event)


def _inner(choice: JsonDict, where: str) -> JsonDict:
    message = choice.get(where)
    return message if isinstance(message, dict) else {}


def _reason(choice: JsonDict) -> str:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else ""


def feed_choice(answer: AnswerText, choice: Any, where: str) -> str:
    """Add a choice's text to an answer; return how it ended: stop, length, cut, or "" (not yet).

    ``where`` it is: ``message`` in whole replies, ``delta`` in streamed ones.
    """
    if not isinstance(choice, dict):
        return ""
    message = _inner(choice, where)
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []
    if any(message.get(name) for name in _THOUGHT_FIELDS):
        answer.thought = True
    for part in parts:
        kind, text = part.get("type", "text"), part.get("text")
        if kind in _THOUGHT_PARTS:
            answer.thought = True
        elif kind == "text" and isinstance(text, str):
            if where == "message" and (thought := _LONE_END.match(text)):
                answer.thought, text = True, text[thought.end() :]
            answer.feed(well_formed(text))
    if answer.stopped:
        return "length" if answer.too_long else "stop"
    reason = _reason(choice)
    if reason in _FULL:
        return "length"
    if reason in _BROKEN or reason.startswith(_FILTERED) or choice.get("error"):
        return "cut"
    return "stop" if reason or where == "message" else ""


def spent(reply: JsonDict, what: str) -> int:
    """Tokens a reply says it took, ``prompt_tokens`` or ``completion_tokens``; 0 if it does not."""
    return _count(reply.get("usage"), what)


def has_thought(reply: JsonDict) -> bool:
    """Whether a reply says that a part of what it took were thoughts, which it need not show."""
    usage = reply.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return _count(details, "reasoning_tokens") > 0


def _count(said: Any, what: str) -> int:
    count = said.get(what) if isinstance(said, dict) else None
    return count if isinstance(count, int) and 0 < count < 1 << 31 else 0


def _lines(chunks: Iterable[bytes], who: str) -> Iterator[str]:
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) > _MAX_LINE_BYTES:
            raise BackendError(f"{who} streams without line breaks; expected events.")
        yield from (line.decode("utf-8", "replace").strip() for line in lines)
    yield buffer.decode("utf-8", "replace").strip()
