"""A ChatGPT export: what the person asked -> what they were answered, in each conversation.

Reads only ``conversations.json`` (newer exports split it: ``conversations-000.json`` ...),
straight from the zip. Chats are private unless the caller says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra_edge.importers.base import Origin, mismatch
from hydra_edge.importers.dialogue import Message, first_time, records
from hydra_edge.importers.exports import CHATGPT, MAX_JSON_BYTES, conversations
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import Record


def read_chatgpt(
    zip_path: Path,
    log: ImportLog,
    *,
    task: str = "chat",
    private: bool = True,
    max_bytes: int = MAX_JSON_BYTES,
) -> Iterator[Record]:
    """Read question -> answer pairs along the branch each conversation ended on.

    The JSON is parsed as a whole, which takes several times its size in memory: an export of
    100 MB wants about 1 GB.

    Parameters
    ----------
    zip_path
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
        ``id`` is the conversation's id and the question's; several answers in a row are one.

    Raises
    ------
    ImportFormatError
        At the first step if the file is not an export, is damaged, or exceeds ``max_bytes``.
    """
    origin = Origin.of("chatgpt", zip_path, task, private=private)
    chats = conversations(zip_path, CHATGPT, max_bytes)
    log.begin(item="conversation", unit="conversations", total=len(chats))
    for chat in chats:
        log.step()
        try:
            messages = _messages(chat)
            log.hold(*_ids(chat))
        except ValueError as err:
            log.reject(log.done, str(err))
            continue
        yield from records((_message(chat, each) for each in messages), origin, log)


def _messages(conversation: object) -> list[dict[str, Any]]:
    """Return the messages from the first to ``current_node``, other branches left out."""
    if not isinstance(conversation, dict):
        raise mismatch("the item", conversation, "a conversation")
    mapping, node_id = conversation.get("mapping"), conversation.get("current_node")
    if not isinstance(mapping, dict) or not isinstance(node_id, str) or node_id not in mapping:
        raise ValueError("no current_node among its messages")
    messages: list[dict[str, Any]] = []
    seen: set[str] = set()
    while isinstance(node_id, str) and node_id not in seen:  # a hostile file may go in circles
        seen.add(node_id)
        node = mapping.get(node_id)
        if not isinstance(node, dict):
            break
        if isinstance(node.get("message"), dict):
            messages.append(node["message"])
        node_id = node.get("parent")
    return messages[::-1]


def _ids(conversation: dict[str, Any]) -> Iterator[str]:
    """Walk over the ids that messages of any branch have, or would have as questions."""
    for node in conversation["mapping"].values():
        message = node.get("message") if isinstance(node, dict) else None
        if isinstance(message, dict):
            yield _id(conversation, message)


def _id(conversation: dict[str, Any], message: dict[str, Any]) -> str:
    """Return the id of a question's record; empty where the export names none."""
    chat, name = conversation.get("conversation_id") or conversation.get("id"), message.get("id")
    return f"{chat}:{name}" if chat and name else ""


def _message(conversation: dict[str, Any], message: dict[str, Any]) -> Message:
    time = first_time(message.get("create_time"), conversation.get("create_time"))
    return Message(_role(message), _text(message), _id(conversation, message), time)


def _role(message: dict[str, Any]) -> str:
    """Return who speaks; what an assistant says to its tools counts as theirs."""
    author = message.get("author")
    role = str(author.get("role")) if isinstance(author, dict) else ""
    to_all = message.get("recipient", "all") in {"all", None}
    return role if to_all else "tool"


def _text(message: dict[str, Any]) -> str | None:
    """Return a message's text, or None if it is anything but text."""
    content = message.get("content")
    if not isinstance(content, dict) or content.get("content_type") != "text":
        return None
    parts = content.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return None
    return "\n".join(parts)
