"""Replies of an OpenAI-compatible API, whole or streamed, read with suspicion.

Whatever is missing, of another type, or broken off ends as an error or an empty text, never as
a crash. Sends nothing and keeps nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra_edge.errors import BackendError
from hydra_edge.llm.text import AnswerText, well_formed
from hydra_edge.types import Completion, JsonDict

_MAX_LINE_BYTES = 1 << 20  # of a streamed reply
_TOKEN_CHARACTERS = 64  # no answer has as many for each of its tokens
# Where thoughts come apart from the answer: parts of its content, or fields beside it.
_THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning")
_THOUGHT_FIELDS = ("reasoning_content", "reasoning")
# Other words for an answer that came to its limit, and for one that is not whole.
_FULL = frozenset({"length", "max_tokens", "MAX_TOKENS"})
_BROKEN = frozenset({"error", "content_filter", "insufficient_system_resource", "abort"})


class ReportedError(BackendError):
    """An error where an answer was expected; ``said`` is the whole object it came in."""

    def __init__(self, message: str, said: JsonDict) -> None:
        super().__init__(message)
        self.said = said


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request: ``offered`` choices, of which some had text.

    ``prompt_tokens`` were billed for it, whatever became of the choices. ``thinks``: of some
    there was a thought and no answer.
    """

    completions: tuple[Completion, ...] = ()
    offered: int = 0
    prompt_tokens: int = 0
    thinks: bool = False
    error: Exception | None = None


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
    raw: bytes, who: str, *, n: int, greedy: bool, stop: Sequence[str], max_tokens: int
) -> Reply:
    """Read up to ``n`` answers from a whole reply; what is far beyond ``max_tokens`` is cut off.

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
    thinks, has_thoughts = False, has_thought(reply)
    for choice in choices:
        answer = AnswerText(stop, longest=longest_answer(max_tokens))
        finish = feed_choice(answer, choice, "message")
        thinks = thinks or answer.thinks
        if text := answer.finish():
            written.append((text, finish))
        else:
            thinks = thinks or answer.thought or has_thoughts
    each, rest = divmod(spent(reply, "completion_tokens"), len(choices))
    # The sum is what was spent, also for choices without text and where it does not divide.
    rest += each * (len(choices) - len(written))
    completions = [
        Completion(text, greedy=greedy, tokens=each if i else each + rest, finish=finish)
        for i, (text, finish) in enumerate(written)
    ]
    return Reply(tuple(completions), len(choices), spent(reply, "prompt_tokens"), thinks)


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


def feed_choice(answer: AnswerText, choice: Any, field: str) -> str:
    """Add a choice's text to an answer; return how it ended: stop, length, cut, or "" (not yet).

    ``field`` is ``message`` for whole replies, ``delta`` for streamed ones.
    """
    if not isinstance(choice, dict):
        return ""
    message = choice.get(field)
    message = message if isinstance(message, dict) else {}
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
            answer.feed(well_formed(text))
    if answer.stopped:
        return "length" if answer.too_long else "stop"
    reason = choice.get("finish_reason")
    if reason in _FULL:
        return "length"
    if reason in _BROKEN or choice.get("error"):
        return "cut"
    return "stop" if isinstance(reason, str) or field == "message" else ""


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
