"""CSV and its relatives: a header line, then one record a row.

Named ``table`` because ``csv`` is the standard library's. The delimiter is found out from
the header; a quote that is never closed costs one row, not the rest of the file.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import (
    MAX_LINE_BYTES,
    Origin,
    build_record,
    check_columns,
    numbered_lines,
    open_bytes,
    said_by,
)
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import DEFAULT_TASK, Record

DELIMITERS = (",", ";", "\t", "|")
# Characters of failed rows that are read again, for each one read and besides. Where quotes are
# misplaced in line after line, each would open a field to the end of the file.
_RETRIED, _RETRIED_BESIDES = 8, 2**16
_UNDECODED = re.compile("[\udc80-\udcff]")
_CONVERT = "if the whole file is not, convert it first: iconv -f WINDOWS-1252 -t UTF-8"
_EXPECTED = "a table with a header line (columns input and output)"


def read_csv(
    path: Path | TextIO,
    log: ImportLog,
    *,
    task: str = DEFAULT_TASK,
    columns: Mapping[str, str] | None = None,
    private: bool = False,
) -> Iterator[Record]:
    """Read records from a table whose delimiter is one of ``, ; tab |``.

    Parameters
    ----------
    path
        A file, or a text stream such as ``sys.stdin``.
    log
        Filled while iterating; progress in bytes. A row is reported by its first line.
    task
        For rows that name none.
    columns
        Field -> column title, for the columns that are not called like their field; ``time=""``
        reads no times.
    private
        Marks every record private; a row can mark itself so, but not undo this.

    Yields
    ------
    Record
        In file order; ``id`` is empty where the row has none.

    Raises
    ------
    ImportFormatError
        At the first step if the source cannot be opened, is empty, or lacks a column.
    ConfigError
        If ``columns`` names an unknown field.
    """
    where = check_columns(columns)
    name = path if isinstance(path, Path) else "The input stream"
    origin = Origin.of("csv", path, task, private=private)
    with open_bytes(path, _EXPECTED, log) as stream:
        lines = _texts(numbered_lines(stream, name, _EXPECTED, log))
        asked = {"input", "output", *(columns or {})}
        needed = {field: title for field, title in where.items() if field in asked}
        delimiter, header = _read_header(lines, needed, name)
        places = {n: header.index(title) for n, title in where.items() if title in header}
        for line_number, row in _read_rows(lines, delimiter, log):
            try:
                record = build_record(_pick(row, places, len(header)), origin, log)
            except ValueError as err:
                log.reject(line_number, str(err))
                continue
            if record is not None:
                yield record


def _texts(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    """Decode lines one by one; bytes that are not UTF-8 become surrogates, found later."""
    extra = 0
    for line_number, line in lines:
        parts = line.splitlines(keepends=True)  # CR alone ends a line too, as csv has it
        for step, part in enumerate(parts):
            yield line_number + extra + step, part.decode("utf-8", "surrogateescape")
        extra += len(parts) - 1


def _read_header(
    lines: Iterator[tuple[int, str]], needed: Mapping[str, str], name: object
) -> tuple[str, list[str]]:
    """Return the delimiter that makes the needed columns appear, and the column titles."""
    line = next((text for _, text in lines if text.strip()), None)
    if line is None:
        raise ImportFormatError(
            f"{name} is empty. Expected {_EXPECTED}. Check that it is the right file."
        )
    best: tuple[str, list[str]] = (",", [])
    for delimiter in DELIMITERS:
        with _wide_fields():
            titles = [title.strip() for title in next(csv.reader([line], delimiter=delimiter))]
        if all(column in titles for column in needed.values()):
            return delimiter, titles
        if len(titles) > len(best[1]):
            best = (delimiter, titles)
    missing = {field: title for field, title in needed.items() if title not in best[1]}
    titles_shown = ", ".join(repr(title[:40]) for title in best[1][:20])
    raise ImportFormatError(
        f"{name} has no column {' or '.join(map(repr, missing.values()))}; its columns are "
        f"{titles_shown}. Expected {' and '.join(missing)}. Say where that is: "
        f"{' and '.join(map(said_by, missing))}, or columns= in Python."
    )


class _RowLines:
    """Feeds ``csv.reader`` and remembers the lines of the row under way, to retry them."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._again: deque[tuple[int, str]] = deque()
        self._retries_left = _RETRIED_BESIDES
        self.row: list[tuple[int, str]] = []

    def __iter__(self) -> _RowLines:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            line = next(self._lines)
            self._retries_left += _RETRIED * len(line[1])
        self.row.append(line)
        return line[1]

    def retry_rest(self) -> bool:
        """Give out the lines of the failed row again, all but the first; False if too often."""
        rest = self.row[1:]
        size = sum(len(text) for _, text in rest)
        if size > self._retries_left:
            return False
        self._retries_left -= size
        self._again.extendleft(reversed(rest))
        return True


@contextmanager
def _wide_fields() -> Iterator[None]:
    """Lift the field limit of the csv module, which is one for the process, and put it back."""
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read_rows(
    lines: Iterator[tuple[int, str]], delimiter: str, log: ImportLog
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of its first line; report rows that do not parse."""
    feed = _RowLines(lines)
    # Strict, so that a misplaced quote is an error at its line instead of a garbled record.
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.row.clear()
        try:
            with _wide_fields():
                row = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            log.reject(feed.row[0][0], f"not a row: {err}")
            if not feed.retry_rest():
                yield from _read_singly(feed.row[1:], delimiter, log)
            continue
        if row:  # a blank line is an empty list
            yield feed.row[0][0], row


def _read_singly(
    lines: list[tuple[int, str]], delimiter: str, log: ImportLog
) -> Iterator[tuple[int, list[str]]]:
    """Read each line as a row of its own, so that none is read again."""
    for line_number, text in lines:
        try:
            with _wide_fields():
                row = next(csv.reader([text], delimiter=delimiter, strict=True))
        except csv.Error as err:
            log.reject(line_number, f"not a row: {err}")
            continue
        if row:
            yield line_number, row


def _pick(row: list[str], places: Mapping[str, int], width: int) -> dict[str, object]:
    if len(row) <= max(places["input"], places["output"]) or any(row[width:]):
        raise ValueError(f"the number of fields is {len(row)}; expected {width}")
    for field in row:
        if _UNDECODED.search(field):
            raise ValueError(f"not UTF-8; {_CONVERT}")
    return {name: row[place] for name, place in places.items() if place < len(row)}
