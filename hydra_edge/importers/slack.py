"""A Slack export: what others wrote -> what the person answered, in channels and threads.

Reads the JSON exports of a workspace straight from their zip: ``users.json`` (``org_users.json``
of an organization), the lists of channels, private channels and direct messages that are there
(``channels.json``, ``groups.json``, ``mpims.json``, ``dms.json``), and for each of them a folder
with a file a day. Chats are private unless the caller says otherwise.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import (
    Origin,
    build_record,
    parse_json,
    parse_json_source,
    parse_time,
    readable,
)
from hydra_edge.importers.exports import (
    MAX_JSON_BYTES,
    SLACK,
    conversation_members,
    day_members,
    is_zip,
    opened,
    refusal,
    too_large,
    unpacked,
)
from hydra_edge.importers.log import ImportLog
from hydra_edge.importers.slackreplies import Answer, Message, in_channel, in_thread
from hydra_edge.importers.slacktext import ids_of, names_of, plain_text
from hydra_edge.types import Record

_USERS = frozenset({"users.json", "org_users.json"})
_CHANNELS = frozenset({"channels.json", "groups.json", "mpims.json", "dms.json"})
_SAID = frozenset(
    {"", "me_message", "thread_broadcast", "reply_broadcast", "file_share", "bot_message"}
)
_ID = re.compile(r"[UW][A-Z0-9]{6,}")
_START_BYTES = 2**16


def read_slack(
    path: Path,
    log: ImportLog,
    *,
    me: str,
    task: str = "message_reply",
    private: bool = True,
    max_bytes: int = MAX_JSON_BYTES,
) -> Iterator[Record]:
    """Read what a person answered.

    In a thread that is answered which others wrote since the person last did; in a channel, what
    the last of them wrote right before, at most an hour earlier. Messages in a row are one. One
    channel at a time is in memory.

    Parameters
    ----------
    path
        The export's zip.
    log
        Filled while iterating; progress in days of channels.
    me
        Whose answers: a name, an e-mail address or an id, as ``users.json`` has it.
    task
        For every record.
    private
        Marks every record private.
    max_bytes
        Refuse to unpack more than this of one channel.

    Yields
    ------
    Record
        ``id`` is the channel's id and the time stamp of the first message of the answer.

    Raises
    ------
    ImportFormatError
        At the first step if the file is no export, is damaged, or it is not plain who is meant; in
        between, if a channel exceeds ``max_bytes``.
    """
    origin = Origin.of("slack", path, task, private=private)
    with readable(path, SLACK.expected):
        if not is_zip(path):
            with path.open("rb") as handle:
                raise refusal(path, handle.read(_START_BYTES), SLACK)
        with opened(path, SLACK) as archive:
            export = _Export(path, archive, max_bytes)
            reader = _Reader(export.people(), export.me(me), origin, log)
            log.begin(item="day", unit="days of channels", total=len(export.days))
            for channel, days in export.channels():
                yield from reader.read(channel, days)


class _Export:
    """What is where in the zip."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, max_bytes: int) -> None:
        self._path, self._archive, self._max_bytes = path, archive, max_bytes
        self.days = day_members(archive)
        if not self.days:
            raise refusal(path, self._start(), SLACK)
        self._users = [
            each for each in self._listed(_USERS) if isinstance(each.get("id"), str)
        ]  # fmt: skip

    def _start(self) -> bytes:
        for member in conversation_members(self._archive):
            with self._archive.open(member) as stream:
                return stream.read(_START_BYTES)
        return b""

    def people(self) -> dict[str, str]:
        """Return what each id is called."""
        return {each["id"]: next(iter(names_of(each)), each["id"]) for each in self._users}

    def me(self, name: str) -> str:
        """Return the id of who is meant."""
        found = ids_of(name, self._users)
        if len(found) == 1:
            return next(iter(found))
        if not found and _ID.fullmatch(name.strip()):  # of another workspace
            return name.strip()
        listed = ", ".join(f"{each} ({called})" for each, called in sorted(found.items())[:5])
        got = f"it may be {len(found)} people: {listed}" if found else "nobody is called so"
        raise ImportFormatError(
            f"Who {name!r} is in {self._path} is unknown: {got}; expected the name, e-mail address "
            "or id of one person in its users.json. Say which is yours: --me NAME."
        )

    def channels(self) -> Iterator[tuple[str, Iterator[tuple[str, bytes]]]]:
        """Yield the id of each channel with what is in the files of its days, by their names."""
        ids = {
            name: each["id"]
            for each in self._listed(_CHANNELS)
            if isinstance(each.get("id"), str)
            for name in (each["id"], each.get("name"))
            if isinstance(name, str)
        }
        folders: defaultdict[str, list[zipfile.ZipInfo]] = defaultdict(list)
        for member in self.days:
            folders[str(_place(member).parent)].append(member)
        for folder, members in sorted(folders.items()):
            name = PurePosixPath(folder).name
            yield ids.get(name, name), self._unpacked(members)

    def _unpacked(self, members: Iterable[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
        left, refused = self._max_bytes, too_large(self._path, SLACK, self._max_bytes)
        for member in sorted(members, key=lambda each: each.filename):
            data = unpacked(self._archive, member, left, refused)
            left -= len(data)
            place = _place(member)
            yield f"{place.parent.name}/{place.name}", data

    def _listed(self, names: frozenset[str]) -> list[dict[str, Any]]:
        """Return the objects that are listed in some files of the export."""
        found: list[dict[str, Any]] = []
        members = [each for each in self._archive.infolist() if _place(each).name in names]
        for name, data in self._unpacked(members):
            items = parse_json_source(data, f"{PurePosixPath(name).name} in {self._path}", "a list")
            if not isinstance(items, list):
                items = []
            found += [each for each in items if isinstance(each, dict)]
        return found


def _place(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))


@dataclass(frozen=True, slots=True)
class _Reader:
    people: dict[str, str]
    me: str
    origin: Origin
    log: ImportLog

    def read(self, channel: str, days: Iterable[tuple[str, bytes]]) -> Iterator[Record]:
        """Read the answers of one channel."""
        found: dict[str, Message] = {}
        for name, data in days:
            self.log.step()
            for message in self._day(name, data):
                found[message.stamp] = message
        messages = sorted(found.values(), key=lambda each: (each.time, each.stamp))
        # Of anybody: it may have given a record to who read it as somebody else's.
        self.log.hold(*(f"{channel}:{stamp}" for stamp in found))
        threads: defaultdict[str, list[Message]] = defaultdict(list)
        flow = []
        for message in messages:
            if message.thread and message.thread != message.stamp:
                threads[message.thread].append(message)
            elif message.text:
                flow.append(message)
        yield from self._records(channel, in_channel(flow, self.me))
        for stamp, replies in threads.items():
            root = found.get(stamp)
            if root is None:
                for _ in filter(lambda each: each.by == self.me, replies):
                    self.log.skip("reply in a thread that began before")
                continue
            yield from self._records(channel, in_thread(root, replies, self.me))

    def _records(self, channel: str, answers: Iterable[Answer]) -> Iterator[Record]:
        for answer in answers:
            if not answer.heard:
                for _ in answer.mine:
                    self.log.skip("message that answers nobody")
                continue
            fields = {
                "input": "\n".join(each.text for each in answer.heard),
                "output": "\n".join(each.text for each in answer.mine),
                "id": f"{channel}:{answer.mine[0].stamp}",
                "time": answer.mine[0].time,
            }
            try:
                record = build_record(fields, self.origin, self.log)
            except ValueError as err:
                self.log.reject(self.log.done, f"{channel!r}: {err}")
                continue
            if record is not None:
                yield record

    def _day(self, name: str, data: bytes) -> Iterator[Message]:
        try:
            items = parse_json(data)
        except ValueError as err:
            self.log.reject(self.log.done, f"{name!r}: {err}")
            return
        if not isinstance(items, list):
            self.log.reject(self.log.done, f"{name!r}: no list of messages")
            return
        for number, item in enumerate(items, 1):
            time = None
            if isinstance(item, dict) and isinstance(item.get("ts"), str):
                with suppress(ValueError):
                    time = parse_time(item["ts"])
            if time is None:
                self.log.reject(self.log.done, f"{name!r}: message {number} has no time stamp")
            elif (message := self._message(item, time)) is not None:
                yield message

    def _message(self, item: dict[str, Any], time: float) -> Message | None:
        """Return what somebody said; None if nobody did."""
        thread = item.get("thread_ts")
        thread = thread if isinstance(thread, str) else ""
        if item.get("subtype") == "tombstone":  # others may have answered what is deleted
            return Message("", "", item["ts"], time, thread)
        subtype, by = item.get("subtype") or "", item.get("user") or item.get("bot_id") or ""
        # A message with one ``file`` has a text that Slack wrote, as it did years ago.
        is_notice = item.get("type", "message") != "message" or item.get("hidden")
        if is_notice or subtype not in _SAID or "file" in item:
            self.log.skip("notice, not a message")
            return None
        text = item.get("text")
        text = plain_text(text, self.people) if isinstance(text, str) else ""
        by = str(by) if subtype != "bot_message" else f"bot {item.get('bot_id')}"
        if by == self.me:
            files = item.get("files")
            for _ in files if isinstance(files, list) else ():
                self.log.skip("attached file")
            if not text.strip():
                self.log.skip("empty message")
        if not text.strip():
            return None
        return Message(by, text, item["ts"], time, thread)
