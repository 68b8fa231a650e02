"""Exports of chat services: the JSON in their zip, and whose export it is.

Nothing is extracted: members are read straight from the zip, and what unpacks beyond the limit
is refused. An export of another service is refused with the command that reads it.
"""

from __future__ import annotations

import re
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import parse_json_source, readable

MAX_JSON_BYTES = 2 * 2**30
_CONVERSATIONS = re.compile(r"(?:[^/\\]+/)?conversations(?:-\d+)?\.json")
_DAY = re.compile(r"(?:[^/\\]+[/\\])+[0-9]{4}-[0-9]{2}-[0-9]{2}\.json")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose exports can be read.

    ``field`` is what its conversations have and those of others have not, if it is one whose
    conversations are in one file.
    """

    name: str
    command: str  # with {} for the file
    field: str
    expected: str
    again: str  # how to get an export
    smaller: str  # how to get along with one that is too large


CHATGPT = Service(
    "ChatGPT", "import chatgpt {}", "mapping",
    "a ChatGPT export (the zip, or its conversations.json)",
    "Ask ChatGPT for a new export under Settings, Data controls.",
    "unpack it and split conversations.json",
)  # fmt: skip
CLAUDE = Service(
    "Claude", "import claude {}", "chat_messages",
    "a Claude export (the zip, or its conversations.json)",
    "Ask claude.ai for a new export under Settings, Privacy.",
    "unpack it and split conversations.json",
)  # fmt: skip
SLACK = Service(
    "Slack", "import slack {} --me NAME", "",
    "a Slack export (the zip, with users.json and a folder for each channel)",
    "Whoever owns the workspace can export it as JSON.",
    "export fewer days at a time",
)  # fmt: skip
_IN_ONE_FILE = (CHATGPT, CLAUDE)


def conversations(path: Path, service: Service, max_bytes: int) -> list[Any]:
    """Read all conversations of an export, or a single one that was saved by itself.

    Raises
    ------
    ImportFormatError
        If the file is no export of this service, is damaged, or exceeds ``max_bytes``.
    """
    found: list[Any] = []
    with readable(path, service.expected):
        for data in _conversation_files(path, service, max_bytes):
            part = parse_json_source(data, path, service.expected)
            if isinstance(part, dict) and any(each.field in part for each in _IN_ONE_FILE):
                part = [part]
            if not isinstance(part, list):
                raise ImportFormatError(
                    f"{path} holds a JSON {type(part).__name__}. Expected a list of "
                    f"conversations, as in a {service.name} export. Check that it is the right "
                    "file."
                )
            found.extend(part)
    _check_whose(path, found, service)
    return found


def _check_whose(path: Path, found: list[Any], service: Service) -> None:
    items = [item for item in found if isinstance(item, dict)]
    if any(service.field in item for item in items):
        return
    for other in _IN_ONE_FILE:
        if any(other.field in item for item in items):
            raise _of_another(path, other, service)


def refusal(path: Path, start: bytes, service: Service) -> ImportFormatError:
    """Say whose conversations a file begins with that is no export of this service."""
    found = {other: start.find(f'"{other.field}"'.encode()) for other in _IN_ONE_FILE}
    theirs = {other: place for other, place in found.items() if place >= 0}
    if theirs:
        return _of_another(path, min(theirs, key=lambda other: theirs[other]), service)
    return ImportFormatError(
        f"{path} is no {service.name} export. Expected {service.expected}. {service.again}"
    )


def _of_another(path: Path, other: Service, service: Service) -> ImportFormatError:
    command = other.command.format(shlex.quote(str(path)))
    return ImportFormatError(
        f"{path} is a {other.name} export. Expected {service.expected}. "
        f"Read it with: hydra-edge {command}"
    )


def _conversation_files(path: Path, service: Service, max_bytes: int) -> Iterator[bytes]:
    """Yield the contents of each conversations file, at most ``max_bytes`` in all."""
    if not is_zip(path):
        if path.stat().st_size > max_bytes:
            raise too_large(path, service, max_bytes)
        yield path.read_bytes()
        return
    with opened(path, service) as archive:
        members = conversation_members(archive)
        if not members and day_members(archive):
            raise _of_another(path, SLACK, service)
        if not members:
            raise ImportFormatError(
                f"{path} contains no conversations.json. Expected {service.expected}. "
                f"{service.again}"
            )
        if sum(member.file_size for member in members) > max_bytes:
            raise too_large(path, service, max_bytes)
        left = max_bytes
        for member in sorted(members, key=lambda m: m.filename):
            data = unpacked(archive, member, left, too_large(path, service, max_bytes))
            left -= len(data)
            yield data


def conversation_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files that hold all conversations."""
    return [m for m in archive.infolist() if _CONVERSATIONS.fullmatch(m.filename)]


def day_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files that hold a day of a channel each."""
    return [m for m in archive.infolist() if _DAY.fullmatch(m.filename)]


def is_zip(path: Path) -> bool:
    """Tell whether a file is a zip, be it one whose end is missing."""
    with path.open("rb") as handle:
        return handle.read(2) == b"PK"


@contextmanager
def opened(path: Path, service: Service) -> Iterator[zipfile.ZipFile]:
    """Open a zip; whatever is wrong with it, also when it is read, is an ``ImportFormatError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as err:
        raise ImportFormatError(
            f"{path} cannot be unpacked: {err}. Expected {service.expected}. Download it again."
        ) from err


def unpacked(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int, refused: ImportFormatError
) -> bytes:
    """Read a member piece by piece, at most ``limit`` bytes: its declared size is only a claim."""
    data = bytearray()
    with archive.open(member) as stream:
        while piece := stream.read(_CHUNK_BYTES):
            data += piece
            if len(data) > limit:
                raise refused
    return bytes(data)


def too_large(path: Path, service: Service, max_bytes: int) -> ImportFormatError:
    """Say that an export unpacks to more than is read."""
    return ImportFormatError(
        f"{path} unpacks to more than {max_bytes} bytes of conversations. Expected at most that "
        f"from a {service.name} export. If it is genuine, {service.smaller}."
    )
