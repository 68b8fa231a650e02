"""What any backend makes of what it is asked: one check, one way to fold, one to repeat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hydra_edge.errors import ConfigError
from hydra_edge.llm.names import REMOTE
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion


def check_request(
    *,
    n: int,
    temperature: float,
    max_tokens: int,
    choices: Sequence[str] | None,
    on_token: Callable[[str], None] | None,
) -> tuple[str, ...] | None:
    """Check the arguments of ``LLM.complete``; return the choices without repetition.

    Raises
    ------
    ConfigError
        If an argument is out of range, or ``on_token`` comes with more than one answer.
    """
    if n < 1:
        raise ConfigError(f"Number of answers: got {n}; expected 1 or more.")
    if not (math.isfinite(temperature) and temperature >= 0.0):
        raise ConfigError(f"Temperature: got {temperature}; expected a number from 0 up.")
    if max_tokens < 1:
        raise ConfigError(f"Longest answer: got {max_tokens} tokens; expected 1 or more.")
    if on_token is not None and n != 1:
        raise ConfigError(f"Streaming shows one answer: got n = {n}; expected 1.")
    if choices is None:
        return None
    members = tuple(dict.fromkeys(choices))
    if not any(member.strip() for member in members):
        raise ConfigError("Choices: got none; expected at least one allowed answer.")
    return tuple(member for member in members if member.strip())


def without_system(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Put the system's text before the user's, for models that know no system role."""
    first, *rest = messages
    if first["role"] != "system" or not rest:
        return [dict(message) for message in messages]
    joined = f"{first['content']}\n\n{rest[0]['content']}"
    return [{**rest[0], "content": joined}, *map(dict, rest[1:])]


def repeated(answer: Completion, n: int) -> list[Completion]:
    """Return an answer ``n`` times; it was read for and written once, hence paid for once."""
    return [answer, *[replace(answer, tokens=0, prompt_tokens=0)] * (n - 1)]


def read_in_part(name: str, prompt: Prompt, answers: Sequence[Completion]) -> int:
    """Return how many tokens of a prompt an API says it read, if that cannot be all; else 0.

    Some cut a prompt that does not fit without a word. No word takes less than one token.
    """
    if not name.startswith(REMOTE):  # others may count what they had not read before
        return 0
    read = max((a.prompt_tokens for a in answers if not a.zero_shot), default=0)
    words = sum(len(message["content"].split()) for message in prompt.messages())
    return read if read < words else 0
