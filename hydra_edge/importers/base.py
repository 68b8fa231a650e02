"""What importers share: reading lines and JSON safely, and turning fields into a record.

Owns the rules every format obeys for texts, ids, times and privacy. A value that breaks a
rule raises ``ValueError`` with the reason in plain words, which the importer reports by
number; a source that cannot be read raises ``ImportFormatError``. Nothing is guessed: an
unreadable ``private`` never becomes "not private".
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from reprlib import repr as shown  # short, and escapes what a terminal would act on
from typing import Any, BinaryIO, TextIO, cast

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers.log import ImportLog
from hydra_edge.records import MOMENTS, clean_text, name_fault
from hydra_edge.spelling import number
from hydra_edge.tasks import canonical_name
from hydra_edge.types import Record, text_hash

FIELDS = ("input", "output", "id", "task", "time", "private")
_BY_OPTION = ("input", "output", "id", "time")
MAX_LINE_BYTES = 64 * 2**20  # a line beyond this is some other format, not a record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR, _COMPACT_DATE = re.compile(r"[0-9]{4}"), re.compile(r"[0-9]{8}")
_YEARS = range(1000, 10_000)  # whole numbers only: a float would be sought one by one
_YES, _NO = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0", ""})


@dataclass(frozen=True, slots=True)
class Origin:
    """What every record of one source shares unless the record says more."""

    source: str
    task: str
    private: bool

    @classmethod
    def of(cls, kind: str, place: Path | TextIO, task: str, *, private: bool) -> Origin:
        """Name a source ``kind:<absolute path>``, or ``kind:-`` for a stream."""
        where = os.path.realpath(place) if isinstance(place, Path) else "-"
        return cls(clean_text(f"{kind}:{where}"), canonical_name(task), private)


def content_id(text: str) -> str:
    """Return a short stable id for a name that cannot itself be one."""
    return text_hash(text)[:32]


def mismatch(name: str, value: object, expected: str) -> ValueError:
    """Return the reason why a value of the wrong JSON type cannot be used."""
    words = {
        "str": "text", "bool": "true or false", "dict": "an object", "list": "a list",
        "int": "a number", "float": "a number", "NoneType": "null",
    }  # fmt: skip
    kind = type(value).__name__
    return ValueError(f"{name} is {words.get(kind, kind)}; expected {expected}")


def parse_text(value: object, name: str) -> str:
    """Read an input or output; numbers count as text, None as empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise mismatch(name, value, "text")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected text")
    # Writers that keep whole numbers as floats mean 4 by 4.0.
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value)


def parse_name(value: object, name: str) -> str:
    """Read an id or task: one short line; numbers count as text, None as empty."""
    if isinstance(value, bool | list | dict):
        raise mismatch(name, value, "text or a number")
    text = "" if value is None else str(value).strip()
    if fault := name_fault(text):
        raise ValueError(f"{name} {fault}")
    return text


def parse_time(value: object) -> float | None:
    """Read unix seconds or ISO 8601 text (UTC if it names no zone); None or empty is None.

    Text of eight digits that is a date (20240131) is one. A year alone is refused, as text or as
    a whole number: as seconds it would be a moment of 1970. (Seconds of 1970 can be given with a
    decimal point, as exports write them.)
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise mismatch("time", value, "unix seconds or a date")
    if isinstance(value, str):
        is_year = _YEAR.fullmatch(value.strip()) is not None
    else:
        is_year = isinstance(value, int) and value in _YEARS
    if is_year:
        raise ValueError(
            f"time is {shown(value)}, a year alone; expected unix seconds or a date such as "
            f"{str(value).strip()}-01-31"
        )
    try:
        seconds = _seconds(value)
    except (ValueError, OverflowError) as err:
        raise ValueError(
            f"time is {shown(value)}; expected unix seconds or an ISO date such as 2023-12-31"
        ) from err
    if not MOMENTS[0] <= seconds <= MOMENTS[1]:  # NaN compares false too
        raise ValueError(
            f"time is {shown(value)}; expected unix seconds (not milliseconds) or a date"
        )
    return seconds


def _seconds(value: int | float | str) -> float:
    if not isinstance(value, str):
        return value if isinstance(value, float) else float(value)  # an AssumedTime stays one
    text = value.strip()
    if _COMPACT_DATE.fullmatch(text):
        with suppress(ValueError):  # no such day: seconds
            return _iso_seconds(text)
    plain = None if "," in text else number(text)  # 31,12 is a day, not seconds
    return _iso_seconds(text) if plain is None else plain


def _iso_seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH).total_seconds()


def parse_private(value: object) -> bool:
    """Read true/false, yes/no or 1/0; None and empty are false."""
    word = "" if value is None else str(value).strip().lower()
    if isinstance(value, list | dict | float) or word not in _YES | _NO:
        raise ValueError(f"private is {shown(value)}; expected true or false")
    return word in _YES


def build_record(fields: Mapping[str, object], origin: Origin, log: ImportLog) -> Record | None:
    """Turn fields into a record and count it; None if its input or output is empty.

    Raises
    ------
    ValueError
        If a field cannot be read; the text is the reason, without the record's own text.
    """
    texts = {name: parse_text(fields.get(name), name) for name in ("input", "output")}
    record = Record(
        input=texts["input"],
        output=texts["output"],
        task=canonical_name(parse_name(fields.get("task"), "task")) or origin.task,
        id=parse_name(fields.get("id"), "id"),
        time=parse_time(fields.get("time")),
        private=parse_private(fields.get("private")) or origin.private,
        source=origin.source,
    )
    for name, text in texts.items():
        if not text.strip():
            log.skip(f"empty {name}")
            log.hold(record.id)
            if log.held is not None and not record.id:
                log.held_texts |= {text_hash(left) for left in texts.values() if left.strip()}
            return None
    log.read += 1
    return record


def check_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Complete a column mapping (field -> where it is found) with the default names.

    A time that is found at "" is not read: what is called so may be no time that can be read.

    Raises
    ------
    ConfigError
        If a key is not a field of a record.
    """
    given = dict(columns or {})
    if unknown := sorted(given.keys() - set(FIELDS)):
        raise ConfigError(
            f"Column mapping has no field {unknown[0]!r}; expected {', '.join(FIELDS)}. "
            "Write it as field=column, for example input=body."
        )
    where = {name: given.get(name, name) for name in FIELDS}
    return {name: place for name, place in where.items() if place or name != "time"}


def said_by(name: str) -> str:
    """Return the option that says where a field is found, or what says it in Python."""
    return f"--{name}" if name in _BY_OPTION else f"columns= of {name}"


@contextmanager
def readable(place: object, expected: str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into an ``ImportFormatError`` naming the source."""
    try:
        yield
    except OSError as err:
        raise ImportFormatError(
            f"{place} cannot be read: {err.strerror or err}. Expected {expected}. "
            "Check the path and its permissions."
        ) from err


@contextmanager
def open_bytes(place: Path | TextIO, expected: str, log: ImportLog) -> Iterator[BinaryIO]:
    """Open a path, or look through a text stream to its bytes, and start the log on it.

    A stream is left open. One without bytes beneath (``io.StringIO``) is read whole.
    """
    if not isinstance(place, Path):
        log.begin(item="line", unit="bytes", total=None)
        beneath = getattr(place, "buffer", None)
        if beneath is None:
            beneath = io.BytesIO(place.read().encode("utf-8", "surrogatepass"))
        yield cast("BinaryIO", beneath)
        return
    with readable(place, expected):
        handle = place.open("rb")
    with handle:
        status = place.stat()
        size = status.st_size if stat.S_ISREG(status.st_mode) else None  # a pipe has none
        log.begin(item="line", unit="bytes", total=size)
        yield handle


def numbered_lines(
    stream: BinaryIO, place: object, expected: str, log: ImportLog
) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number; a leading UTF-8 mark is dropped, giants are reported.

    Raises
    ------
    ImportFormatError
        If the stream breaks, or is UTF-16 or UTF-32.
    """
    line_number = 0
    while True:
        with readable(place, expected):
            line = stream.readline(MAX_LINE_BYTES)
        if not line:
            return
        line_number += 1
        if line_number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
                raise ImportFormatError(
                    f"{place} is UTF-16 or UTF-32 text. Expected {expected} in UTF-8. "
                    "Convert it first, for example: iconv -f UTF-16 -t UTF-8."
                )
            log.done += 3 if line.startswith(b"\xef\xbb\xbf") else 0
            line = line.removeprefix(b"\xef\xbb\xbf")
        log.step(len(line))
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            with readable(place, expected):
                while rest := stream.readline(MAX_LINE_BYTES):
                    log.done += len(rest)
                    if rest.endswith(b"\n"):
                        break
            log.reject(line_number, f"longer than {MAX_LINE_BYTES // 2**20} MiB")
            continue
        yield line_number, line


def parse_json(data: bytes) -> Any:
    """Parse UTF-8 JSON, naming what is wrong with it.

    Raises
    ------
    ValueError
        If it is not UTF-8, not JSON, or nested too deeply to be honest data.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise ValueError(f"not UTF-8 at byte {err.start + 1}") from err
    except json.JSONDecodeError as err:
        raise ValueError(f"not JSON at line {err.lineno}, column {err.colno}: {err.msg}") from err
    except RecursionError as err:
        raise ValueError("not usable JSON: nested too deeply") from err
    except ValueError as err:  # an integer of thousands of digits
        raise ValueError("not usable JSON: a number is too long") from err


def parse_json_source(data: bytes, place: object, expected: str) -> Any:
    """Parse a source that is one JSON value as a whole; raise ``ImportFormatError`` if not."""
    try:
        return parse_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as err:
        raise ImportFormatError(
            f"{place} cannot be read: {err}. Expected {expected}. Check that it is complete."
        ) from err
