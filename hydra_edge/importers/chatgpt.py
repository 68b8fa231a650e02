"""A ChatGPT export: what the person asked -> what they were answered, in each conversation.

Reads only ``conversations.json`` (newer exports split it: ``conversations-000.json`` ...),
straight from the zip: nothing is extracted, and a member that unpacks beyond the limit is
refused. Chats are private unless the caller says otherwise.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import (
    Origin,
    build_record,
    mismatch,
    parse_json_source,
    parse_time,
    readable,
)
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import Record

MAX_JSON_BYTES = 2 * 2**30
_MEMBER = re.compile(r"(?:[^/\\]+/)?conversations(?:-\d+)?\.json")
_EXPECTED = "a ChatGPT export (the zip, or its conversations.json)"
_CHUNK_BYTES = 1 << 20


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
    conversations: list[Any] = []
    with readable(zip_path, _EXPECTED):
        for data in _json_files(zip_path, max_bytes):
            part = parse_json_source(data, zip_path, _EXPECTED)
            if not isinstance(part, list):
                raise ImportFormatError(
                    f"{zip_path} holds a JSON {type(part).__name__}. Expected a list of "
                    "conversations, as in a ChatGPT export. Check that it is the right file."
                )
            conversations.extend(part)
    log.begin(item="conversation", unit="conversations", total=len(conversations))
    for conversation in conversations:
        log.step()
        try:
            messages = _messages(conversation)
            log.hold(*_ids(conversation))
        except ValueError as err:
            log.reject(log.done, str(err))
            continue
        for turn in _turns(messages, log):
            try:
                record = build_record(turn.fields(conversation), origin, log)
            except ValueError as err:
                log.reject(log.done, str(err))
                continue
            if record is not None:
                yield record


def _json_files(path: Path, max_bytes: int) -> Iterator[bytes]:
    """Yield the contents of each conversations file, at most ``max_bytes`` in all."""
    with path.open("rb") as handle:
        is_zip = handle.read(2) == b"PK"  # also one whose end is missing
    if not is_zip:
        if path.stat().st_size > max_bytes:
            raise _too_large(path, max_bytes)
        yield path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if _MEMBER.fullmatch(m.filename)]
            if not members:
                raise ImportFormatError(
                    f"{path} contains no conversations.json. Expected {_EXPECTED}. "
                    "Ask ChatGPT for a new export under Settings, Data controls."
                )
            if sum(member.file_size for member in members) > max_bytes:
                raise _too_large(path, max_bytes)
            left = max_bytes
            for member in sorted(members, key=lambda m: m.filename):
                data = _unpack(archive, member, left, _too_large(path, max_bytes))
                left -= len(data)
                yield data
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as err:
        raise ImportFormatError(
            f"{path} cannot be unpacked: {err}. Expected {_EXPECTED}. Download it again."
        ) from err


def _unpack(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int, refusal: ImportFormatError
) -> bytes:
    """Read a member piece by piece: its declared size is only a claim."""
    data = bytearray()
    with archive.open(member) as stream:
        while piece := stream.read(_CHUNK_BYTES):
            data += piece
            if len(data) > limit:
                raise refusal
    return bytes(data)


def _too_large(path: Path, max_bytes: int) -> ImportFormatError:
    return ImportFormatError(
        f"{path} unpacks to more than {max_bytes} bytes of conversations. Expected at most that "
        "from a ChatGPT export. If it is genuine, unpack it and split conversations.json."
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    question: dict[str, Any]
    answers: tuple[str, ...]

    def fields(self, conversation: dict[str, Any]) -> dict[str, object]:
        """Return the fields of a record for this turn."""
        return {
            "input": _text(self.question),
            "output": "\n\n".join(self.answers),
            "id": _id(conversation, self.question),
            "time": _time(self.question.get("create_time"), conversation.get("create_time")),
        }


def _time(*moments: object) -> float | None:
    """Return the first of some times that can be read; where none can, the turn is not lost."""
    for moment in moments:
        with suppress(ValueError):
            if (seconds := parse_time(moment)) is not None:
                return seconds
    return None


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


def _turns(messages: list[dict[str, Any]], log: ImportLog) -> Iterator[_Turn]:
    """Pair each question with the answers up to the next one; count what is left out."""
    question: dict[str, Any] | None = None
    answers: list[str] = []
    for message in messages:
        role, text = _role(message), _text(message)
        if role == "user":
            yield from _finished(question, answers, log)
            question, answers = None, []
        if role not in {"user", "assistant"}:
            log.skip("system or tool message")
        elif text is None:
            log.skip("message that is not plain text")
        elif not text.strip():
            log.skip("empty message")
        elif role == "user":
            question = message
        elif question is None:
            log.skip("answer to no plain question")
        else:
            answers.append(text)
    yield from _finished(question, answers, log)


def _finished(
    question: dict[str, Any] | None, answers: list[str], log: ImportLog
) -> Iterator[_Turn]:
    if question is None:
        return
    if answers:
        yield _Turn(question, tuple(answers))
    else:
        log.skip("question without an answer")


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
