"""What a record must be to join a history, whichever door it comes through."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Any

from hydra_edge.errors import ConfigError
from hydra_edge.tasks import canonical_name
from hydra_edge.types import DEFAULT_TASK, Record

MAX_NAME_CHARS = 200
# UTF-8 cannot store lone surrogates, and SQLite's text functions stop at NUL.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NO_IMPORTS = {"app"}  # what an application adds under its name
CHOICES = "choices"  # what is kept of answers, be it the person who says so or an MCP host
# The marks behind an id that was taken; again wherever a copy of the record met another.
_SUFFIXES = re.compile(r"(?:~[0-9a-f]{6}){1,20}\Z")
_SUFFIX_OF_ONE = re.compile(r"(~[0-9a-f]{6})\1*")  # one record's own, as often as it met others
MOMENTS = (-62135596800.0, 253402300799.0)  # the years 1 to 9999


class AssumedTime(float):
    """A time nobody stated, as when a note's file was last changed, or when something was added.

    It dates a record that has no time, and changes no other's.
    """

    __slots__ = ()


def clean_text(text: str) -> str:
    """Replace what cannot be stored as UTF-8 text (lone surrogates, NUL) by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def stored_id(record: Record) -> str:
    """Return the id a record asks for: its own, or one made of its texts."""
    return record.id or record.content_hash[:16]


def beside(name: str, record: Record) -> str:
    """Return the id a record asks for next, where another has the one it asked for."""
    return f"{name}~{record.content_hash[:6]}"


def is_beside(name: str, other: str) -> bool:
    """Tell whether a record that asked for one id may have got another, as that was taken."""
    return other.startswith(name) and _SUFFIX_OF_ONE.fullmatch(other, len(name)) is not None


def without_suffix(record_id: str) -> str:
    """Return the id a record asked for, given the one it got."""
    return _SUFFIXES.sub("", record_id)


def name_fault(text: str) -> str | None:
    """Say why a text cannot be an id or a task, which are one short line; None if it can.

    What the store put behind an id does not count.
    """
    if len(without_suffix(text)) > MAX_NAME_CHARS:
        return f"has {len(text)} characters; expected at most {MAX_NAME_CHARS}"
    if not text.isprintable() and any(
        unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in text
    ):
        return f"contains control characters: {text!r:.80}"
    return None


def from_stream(source: str) -> bool:
    """Tell whether a source is a pipe, which says nothing of where its records came from."""
    return source.endswith(":-")


def is_import(source: str) -> bool:
    """Tell whether a source is a file or folder that was imported, and can be again."""
    kind, colon, place = source.partition(":")
    return bool(colon and place) and kind not in _NO_IMPORTS and not from_stream(source)


def from_apps(source: str) -> bool:
    """Tell whether apps or MCP hosts may write under a source, who may not see what is private."""
    return source == CHOICES or source.startswith("app:")


def _refuse(reason: str) -> ConfigError:
    return ConfigError(f"A record cannot be added: {reason}")


def check_moment(name: str, value: Any) -> None:
    """Refuse what is no moment (milliseconds, say); None is left to its default.

    Raises
    ------
    ConfigError
        With what it was.
    """
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (known and MOMENTS[0] <= value <= MOMENTS[1]):
        raise ConfigError(
            f"{name} is {value!r:.80}; expected unix seconds or None. "
            "Convert it (datetime.timestamp)."
        )


def checked(record: Record) -> Record:
    """Return a record if it can be one of a history, under its task's one spelling.

    What its texts hold that no file can is replaced (see ``clean_text``); its id is stripped, as
    importers strip it.

    Raises
    ------
    ConfigError
        If its input or output is empty, its id or task no short line, its time no moment, or a
        field of another type.
    """
    if not isinstance(record, Record):
        raise _refuse(f"got {record!r:.80}; expected a Record.")
    for name in ("input", "output", "task", "id", "source"):
        text = getattr(record, name)
        if not isinstance(text, str) or (name in ("input", "output") and not text.strip()):
            raise _refuse(
                f"its {name} is {text!r:.80}; expected text"
                f"{' that is not empty' if name in ('input', 'output') else ''}. Leave it out."
            )
        if name in ("task", "id") and (fault := name_fault(text.strip())):
            raise _refuse(f"its {name} {fault}. Give it a short name.")
    try:
        check_moment("its time", record.time)
    except ConfigError as err:
        raise _refuse(str(err)) from None
    if not isinstance(record.private, bool):
        raise _refuse(
            f"its private is {record.private!r:.80}; expected True or False. Say which it is."
        )
    task = canonical_name(record.task) or DEFAULT_TASK
    name = record.id.strip()
    texts = [clean_text(text) for text in (record.input, record.output, record.source)]
    given = [record.task, record.id, record.input, record.output, record.source]
    if [task, name, *texts] == given:
        return record
    return replace(record, task=task, id=name, input=texts[0], output=texts[1], source=texts[2])
