"""A Claude export: what the person asked -> what they were answered, in each conversation.

Reads only ``conversations.json`` of the data export of claude.ai, straight from its zip. Three
shapes of it were seen: messages in a row with nothing but a ``text``; with blocks of ``content``,
too, where ``text`` also has the thoughts and a stand-in for each use of a tool; and with a
``parent_message_uuid`` each, so that questions asked otherwise and answers given again are
branches. A single conversation saved by itself, which may say where it ended
(``current_leaf_message_uuid``), is read as well. Chats are private unless the caller says
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra_edge.importers.base import Origin, mismatch
from hydra_edge.importers.dialogue import ASSISTANT, USER, Message, first_time, records
from hydra_edge.importers.exports import CLAUDE, MAX_JSON_BYTES, conversations
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import Record

_ROOT = "00000000-0000-4000-8000-000000000000"  # the parent of a first message
_SIDES = {"human": USER, "user": USER, "assistant": ASSISTANT}
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_TOOLS = frozenset({"tool_use", "tool_result"})
_STAND_IN = "```\nThis block is not supported on your current device yet.\n```"


def read_claude(
    path: Path,
    log: ImportLog,
    *,
    task: str = "chat",
    private: bool = True,
    max_bytes: int = MAX_JSON_BYTES,
) -> Iterator[Record]:
    """Read question -> answer pairs along the branch each conversation ended on.

    That is the one with the latest message; what stands on others is counted as left out, as are
    thoughts, uses of tools and attached files. The JSON is parsed as a whole, which takes several
    times its size in memory: an export of 100 MB wants about 1 GB.

    Parameters
    ----------
    path
        The export's zip, or a bare ``conversations.json``.
    log
        Filled while iterating; progress in conversations.
    task
        For every record.
    private
        Marks every record private.
    max_bytes
        Refuse to unpack more than this.

    Yields
    ------
    Record
        ``id`` is the conversation's uuid and the question's; several answers in a row are one.

    Raises
    ------
    ImportFormatError
        At the first step if the file is not an export, is damaged, or exceeds ``max_bytes``.
    """
    origin = Origin.of("claude", path, task, private=private)
    chats = conversations(path, CLAUDE, max_bytes)
    log.begin(item="conversation", unit="conversations", total=len(chats))
    for chat in chats:
        log.step()
        try:
            messages = _all_messages(chat)
        except ValueError as err:
            log.reject(log.done, str(err))
            continue
        _check(messages, log)
        log.hold(*(_id(chat, each) for each in messages if each is not None))
        branch = _branch(chat, messages)
        for _ in range(_count(messages) - _count(branch)):
            log.skip("message of another branch")
        yield from records((_message(chat, each, log) for each in branch), origin, log)


def _all_messages(conversation: object) -> list[dict[str, Any] | None]:
    """Return the messages of all branches as they stand there, None for what is none."""
    if not isinstance(conversation, dict):
        raise mismatch("the item", conversation, "a conversation")
    found = conversation.get("chat_messages")
    if not isinstance(found, list):
        raise mismatch("chat_messages", found, "a list of messages")
    return [each if isinstance(each, dict) else None for each in found]


def _check(messages: list[dict[str, Any] | None], log: ImportLog) -> None:
    for number, message in enumerate(messages, 1):
        if message is None:
            log.reject(log.done, f"its message {number} is no object")


def _count(messages: list[dict[str, Any] | None]) -> int:
    return sum(each is not None for each in messages)


def _branch(
    conversation: dict[str, Any], messages: list[dict[str, Any] | None]
) -> list[dict[str, Any] | None]:
    """Return the messages from the first to the last one, None where one between is missing."""
    places = {
        each["uuid"]: place
        for place, each in enumerate(messages)
        if each is not None and isinstance(each.get("uuid"), str)
    }
    before = [_before(place, each, places) for place, each in enumerate(messages)]
    place = places.get(str(conversation.get("current_leaf_message_uuid")))
    if place is None:
        place = _last(messages, {earlier for earlier, _ in before})
    branch: list[dict[str, Any] | None] = []
    seen: set[int] = set()
    while place >= 0 and place not in seen:  # a hostile file may go in circles
        seen.add(place)
        branch.append(messages[place])
        place, is_known = before[place]
        if not is_known:
            branch.append(None)
    return branch[::-1]


def _before(place: int, message: dict[str, Any] | None, places: dict[str, int]) -> tuple[int, bool]:
    """Return where the message before one stands, -1 if nowhere; and whether that is known.

    In exports that do not say it, it is the one above. So it is where the one that is named is
    missing, but then that one was between them.
    """
    parent = None if message is None else message.get("parent_message_uuid")
    if parent == _ROOT:
        return -1, True
    if isinstance(parent, str) and parent in places:
        return places[parent], True
    return place - 1, not parent


def _last(messages: list[dict[str, Any] | None], followed: set[int]) -> int:
    """Return where the latest of the messages stands that none comes after, -1 if there is none."""
    ends = [place for place in range(len(messages)) if place not in followed]
    times = {place: first_time((messages[place] or {}).get("created_at")) for place in ends}
    latest = [(-1.0 if time is None else time, place) for place, time in times.items()]
    return max(latest)[1] if latest else len(messages) - 1


def _id(conversation: dict[str, Any], message: dict[str, Any]) -> str:
    """Return the id of a question's record; empty where the export names none."""
    chat, name = conversation.get("uuid"), message.get("uuid")
    return f"{chat}:{name}" if chat and name else ""


def _message(
    conversation: dict[str, Any], message: dict[str, Any] | None, log: ImportLog
) -> Message | None:
    if message is None:
        return None
    sender = message.get("sender")
    by = _SIDES.get(sender, "") if isinstance(sender, str) else ""
    for name in ("attachments", "files"):
        attached = message.get(name)
        for _ in attached if isinstance(attached, list) else ():
            log.skip("attached file")
    time = first_time(message.get("created_at"), conversation.get("created_at"))
    return Message(by, _text(message, log), _id(conversation, message), time)


def _text(message: dict[str, Any], log: ImportLog) -> str | None:
    """Return what a message says in plain text, None if it is anything else.

    Blocks of text that follow each other are one text, as they are shown; what stands between
    others is a paragraph of its own.
    """
    content = message.get("content")
    runs, kinds = [""], set()
    for block in content if isinstance(content, list) else ():
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and isinstance(block.get("text"), str):
            runs[-1] += block["text"]
            continue
        kinds.add(str(kind))
        runs.append("")
        log.skip(_left_out(str(kind)))
    said = [run for run in runs if run.strip()]
    if len(said) == 1:
        return said[0]
    if said:
        return "\n\n".join(run.strip("\n") for run in said)
    text = message.get("text")
    if kinds & _THOUGHTS or text is None:  # then it has the thoughts, and nothing else
        return ""
    return _without_stand_ins(text, log, counted=not kinds) if isinstance(text, str) else None


def _left_out(kind: str) -> str:
    if kind in _THOUGHTS:
        return "thought"
    return "use of a tool" if kind in _TOOLS else "block that is not text"


def _without_stand_ins(text: str, log: ImportLog, *, counted: bool) -> str:
    """Take out what stands for uses of tools; ``counted`` says that nobody else counts them."""
    pieces = text.split(_STAND_IN)
    if len(pieces) == 1:
        return text
    for _ in pieces[1:] if counted else ():
        log.skip("use of a tool")
    return "\n\n".join(piece.strip("\n") for piece in pieces if piece.strip())
