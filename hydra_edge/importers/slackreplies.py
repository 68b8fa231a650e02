"""Who answers what in a channel of Slack and in its threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PAUSE_S = 3600.0  # in a channel, what comes later answers something else


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said; ``stamp`` tells it from all others of its channel."""

    by: str
    text: str
    stamp: str
    time: float
    thread: str  # the stamp it begins with; empty outside of threads


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person wrote in a row, and what it answers, if anything."""

    heard: list[Message]
    mine: list[Message]


def in_thread(root: Message, replies: list[Message], me: str) -> Iterator[Answer]:
    """Pair what others wrote since the person last did with what the person wrote then."""
    heard: list[Message] = []
    mine: list[Message] = []
    for message in [root, *replies] if root.by != me else replies:
        if not message.text:  # deleted
            continue
        if message.by == me:
            mine.append(message)
            continue
        if mine:
            yield Answer(heard, mine)
            heard, mine = [], []
        heard.append(message)
    if mine:
        yield Answer(heard, mine)


def in_channel(flow: list[Message], me: str) -> Iterator[Answer]:
    """Pair what one person wrote with what the person wrote right after it."""
    heard: list[Message] = []
    mine: list[Message] = []
    before = 0.0
    for message in flow:
        is_late, before = message.time - before > PAUSE_S, message.time
        if mine and (is_late or message.by != me):
            yield Answer(heard, mine)
            heard, mine = [], []
        if is_late:
            heard = []
        if message.by == me:
            mine.append(message)
            continue
        if heard and heard[-1].by != message.by:
            heard = []
        heard.append(message)
    if mine:
        yield Answer(heard, mine)
