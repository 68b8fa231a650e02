"""The data sets' line format: what a line says, and the order of one user's lines.

One JSON object a line: ``user``, ``id``, ``seq``, ``time`` (unix seconds, an ISO date or null),
``task``, ``input``, ``output``, and ``private`` where the user marked it so. Within a user, ``seq``
is the order of time; where it is missing ``time`` is, and where that is missing too the order of
the lines. What puts this order in doubt is told.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra_edge.errors import HydraError
from hydra_edge.importers.base import parse_private, parse_time
from hydra_edge.privatefiles import replacing_path

# What puts the order of a user's records in doubt, what decides all the same, and what to do.
_SEQ_TWICE = (
    "one seq is in several lines, which are taken by time, or as they stand where one has none. "
    "Expected each seq once. Number the lines anew, or leave seq out so that time decides."
)
_AT_ODDS = (
    "seq and time disagree, and seq decides. Expected no earlier time at a larger seq. Correct "
    "seq, or leave it out so that time decides."
)
_SOME_SEQ = (
    "seq is in some lines only and decides nothing. Expected it in every line of a user. Complete "
    "it, or leave it out."
)
_SOME_TIME = (
    "time is in some lines only, and the order of the lines decides. Expected it in every line of "
    "a user. Complete it, or number the lines by seq, the oldest first."
)


def is_packed(path: Path) -> bool:
    """Tell whether a file's name says that gzip packed it."""
    return path.suffix == ".gz"


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Read a file's lines, each with where it stands; some editors begin a file with a mark.

    Raises
    ------
    HydraError
        If the file cannot be read to its end, or a line holds no JSON object.
    """
    number = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if is_packed(path)
            else path.open(encoding="utf-8-sig") as stream
        ):
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{path.name}, line {number}", _object(line)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as err:
        raise HydraError(
            f"{path} cannot be read after line {number}: {err}. Expected a whole file of lines in "
            "UTF-8, packed by gzip if it ends in .gz. Give it anew."
        ) from err
    except ValueError as err:
        raise HydraError(
            f"{path.name}, line {number}: {err}; expected one JSON object a line. Correct the "
            "line, or take it out."
        ) from err


def write_packed(path: Path, lines: Iterable[str]) -> None:
    """Replace a file by packed lines, in one step; equal lines give equal bytes.

    What is no text, half of an emoji in somebody's id, say, is written as it is.
    """
    with (
        replacing_path(path) as new,
        new.open("wb") as packed,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as stream,
    ):
        for line in lines:
            stream.write(f"{line}\n".encode("utf-8", "surrogatepass"))


def _object(line: str) -> dict[str, object]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"got {line.strip()[:40]}")
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One line as it was read: ``place`` is its place among all lines, ``at`` that in its file."""

    line: dict[str, object]
    place: int
    at: str

    def text(self, name: str) -> str:
        """Return what a line cannot be without, as text; numbers are written out.

        Raises
        ------
        HydraError
            If it is missing, null, a list, an object or no finite number: written out, that is
            no answer of anybody's.
        """
        if name not in self.line:
            raise HydraError(
                f"{self.at}: found no {name}; expected user, task, input and output in every "
                "line. Correct the line, or take it out."
            )
        value = self.line[name]
        infinite = isinstance(value, float) and not math.isfinite(value)
        if value is None or infinite or isinstance(value, list | dict):
            nested = "a list" if isinstance(value, list) else "an object"
            got = nested if isinstance(value, list | dict) else json.dumps(value)  # null, NaN
            raise HydraError(
                f"{self.at}: got {got} as {name}; expected text or a number. Correct the line, or "
                "take it out."
            )
        return str(value)

    def id(self) -> str:
        """Return what to call the record; a line without an id is called by user and place.

        Raises
        ------
        HydraError
            If it has one that is no text: ``text`` says what that is.
        """
        return self.text("id") if self.line.get("id") else f"{self.name('user')}-{self.place}"

    def name(self, name: str) -> str:
        """Return ``user`` or ``task``.

        Raises
        ------
        HydraError
            If it is missing, no text, or blank.
        """
        value = self.text(name)
        if not value.strip():
            raise HydraError(
                f"{self.at}: got a blank {name}; expected a name. Correct the line, or take it out."
            )
        return value

    def private(self) -> bool:
        """Tell whether the line is marked private.

        Raises
        ------
        HydraError
            If that cannot be read: it never becomes "not private".
        """
        try:
            return parse_private(self.line.get("private"))
        except ValueError as err:
            raise HydraError(f"{self.at}: {err}. Correct the line, or take it out.") from err

    def seq(self) -> float | None:
        """Return the line's place among its user's; None if it has none.

        Raises
        ------
        HydraError
            If it is no number, or none that has a place among others.
        """
        value = self.line.get("seq")
        if value is None:
            return None
        try:
            found = float(str(value))
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise self._disorder(f"seq is {value!r}; expected a number or null")
        return found

    def time(self, *, needed: bool) -> float | None:
        """Return the line's moment in unix seconds; None if it has none.

        What cannot be read is no moment either, unless it is ``needed``.

        Raises
        ------
        HydraError
            If it is needed and neither unix seconds nor a date.
        """
        try:
            return parse_time(self.line.get("time"))
        except ValueError as err:
            if not needed:
                return None
            raise self._disorder(str(err)) from err

    def _disorder(self, what: str) -> HydraError:
        return HydraError(
            f"{self.at}: {what}. Correct it, or leave it out of every line of user "
            f"{self.line.get('user')!r}."
        )

    def marks(self) -> tuple[str, ...]:
        """Return what tells a line from another of the same content; nothing if it has neither."""
        given = [self.line.get(name) for name in ("id", "seq", "time")]
        return () if all(one in (None, "") for one in given) else tuple(map(str, given))


def in_order(rows: Sequence[Row]) -> tuple[list[tuple[float, Row]], list[str]]:
    """Order one user's lines, oldest first, each with its moment; and what puts that in doubt.

    What every line has decides: ``seq`` (and ``time`` between lines of one ``seq``), else ``time``,
    else the lines' own order.
    """
    seqs = [row.seq() for row in rows]
    by_seq = None not in seqs
    times = [row.time(needed=not by_seq) for row in rows]
    by_time = None not in times
    order = list(range(len(rows)))
    if by_time:
        order.sort(key=lambda i: times[i] or 0.0)
    if by_seq:  # lines of one seq stay in order of time
        order.sort(key=lambda i: seqs[i] or 0.0)
    distinct = by_seq and len(set(seqs)) == len(rows)
    passed = [time for i in order if (time := times[i]) is not None]
    doubts = {
        _SEQ_TWICE: by_seq and not distinct,
        _AT_ODDS: by_seq and passed != sorted(passed),
        _SOME_SEQ: not by_seq and any(seq is not None for seq in seqs),
        _SOME_TIME: not by_seq and not by_time and bool(passed),
    }
    moments = [(seqs[i] or 0.0) if distinct else float(n) for n, i in enumerate(order)]
    ordered = list(zip(moments, (rows[i] for i in order), strict=True))
    return ordered, [doubt for doubt, found in doubts.items() if found]
