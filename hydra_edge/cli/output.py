"""Putting words on a terminal or into a pipe: answers to stdout, all remarks to stderr.

Owns how text is made harmless, coloured, tabulated and streamed. Texts come from people and
from LLMs: none is ever read as markup, and on a terminal none can move the cursor.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any

from hydra_edge.forms import finite

if TYPE_CHECKING:
    from hydra_edge.types import JsonDict

# C0 and C1 controls but tab and line feed, DEL, and the marks that override text direction.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")
_JSON_CONTROL = re.compile(r"[\x7f-\x9f\u202d\u202e]")  # json escapes the others itself
# Marks that set a direction for what follows, embedded or isolated, until the one that ends it.
_EMBEDDED, _ISOLATED = "\u202c", "\u2069"
_ENDS = dict.fromkeys("\u202a\u202b", _EMBEDDED) | dict.fromkeys("\u2066\u2067\u2068", _ISOLATED)
_DIRECTION = re.compile("[\u202a-\u202c\u2066-\u2069]")
_STYLES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}
_WIDEST = 160  # columns a table may take on a very wide terminal


def is_terminal(stream: IO[str]) -> bool:
    """Return whether a person is looking at this stream."""
    return bool(getattr(stream, "isatty", lambda: False)())


def harmless(text: str) -> str:
    """Replace every control character by a visible stand-in (carriage returns are dropped)."""

    def stand_in(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code == 0x0D:
            return ""
        return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"

    return _CONTROL.sub(stand_in, text)


def one_line(text: str, width: int = 0) -> str:
    """Return a text on one line, harmless, cut to ``width`` characters if that is not 0.

    A direction that it leaves open is ended, so that it does not reorder what is put behind it;
    the marks for that take no room, and are not counted.
    """
    head = text[: width * 8] if width else text
    line = harmless(" ".join(head.split()))
    fits = not width or len(line) <= width
    return _ended(line) if fits else _ended(line[: width - 1]) + "…"


def _ended(line: str) -> str:
    """End the directions that are still open at the end of a line, the innermost first."""
    ends: list[str] = []
    isolates = 0
    for mark in _DIRECTION.findall(line):
        if mark in _ENDS:
            ends.append(_ENDS[mark])
            isolates += ends[-1] == _ISOLATED
        elif mark == _ISOLATED and isolates:
            isolates -= 1
            while ends.pop() != mark:  # what was embedded within it ends, too
                pass
        elif ends and ends[-1] == mark:  # an embedding's end; within an isolate it is its own
            ends.pop()
    return line + "".join(reversed(ends))


def paint(text: str, style: str, stream: IO[str]) -> str:
    """Colour a text of our own where the stream is a terminal that wants colours."""
    wanted = is_terminal(stream) and not os.environ.get("NO_COLOR")
    if not wanted or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def answer(text: str, *, end: str = "\n") -> None:
    """Write a result to stdout: byte for byte into a pipe, harmless on a terminal."""
    sys.stdout.write((harmless(text) if is_terminal(sys.stdout) else text) + end)


def write_json(payload: Any) -> None:
    """Write a result for machines to stdout, as one JSON document on one line."""
    text = json.dumps(finite(payload), ensure_ascii=False, allow_nan=False)
    sys.stdout.write(_JSON_CONTROL.sub(lambda m: f"\\u{ord(m[0]):04x}", text) + "\n")


def note(text: str, *, style: str = "dim") -> None:
    """Write a remark to stderr."""
    sys.stderr.write(paint(harmless(text), style, sys.stderr) + "\n")
    sys.stderr.flush()


def plain(text: str = "", *, stream: IO[str] | None = None) -> None:
    """Write a line of our own, uncoloured, to stdout or the given stream."""
    (stream or sys.stdout).write(harmless(text) + "\n")


def heading(text: str, *, stream: IO[str] | None = None) -> None:
    """Write a line that opens a section."""
    stream = stream or sys.stdout
    stream.write(paint(harmless(text), "bold", stream) + "\n")


def error_json(code: str, message: str) -> JsonDict:
    """Return what programs are told of a failure."""
    return {"error": {"code": code, "message": message}}


def write_error(code: str, message: str, *, as_json: bool) -> None:
    """Report a failure: one line on stderr, and for machines an object on stdout too."""
    line = f"{paint('error:', 'red', sys.stderr)} {one_line(message)}\n"
    try:
        sys.stdout.flush()
    finally:  # told even if stdout takes nothing
        sys.stderr.write(line)
    if as_json:
        write_json(error_json(code, message))


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    stream: IO[str] | None = None,
    indent: int = 0,
) -> None:
    """Write aligned columns; on a terminal the last one is cut to fit, in a pipe nothing is."""
    from rich.cells import cell_len, set_cell_size

    stream = stream or sys.stdout
    cells = [[one_line(cell) for cell in row] for row in (headers, *rows)]
    last = len(headers) - 1
    widths = [max(cell_len(row[i]) for row in cells) for i in range(last)]
    room = 0
    if is_terminal(stream):
        columns = min(shutil.get_terminal_size().columns, _WIDEST)
        room = max(20, columns - sum(widths) - 2 * last - indent)
    for number, row in enumerate(cells):
        if not any(row):  # a table may have no titles
            continue
        fixed = [cell + " " * (widths[i] - cell_len(cell)) for i, cell in enumerate(row[:last])]
        tail = row[last]
        if room and cell_len(tail) > room:
            tail = _ended(set_cell_size(tail, room - 1).rstrip()) + "…"
        line = " " * indent + "  ".join((*fixed, tail)).rstrip()
        stream.write((line if number else paint(line, "bold", stream)) + "\n")


def piece(text: str) -> None:
    """Write a part of an answer as it arrives; what is written last ends no line."""
    answer(text, end="")
    sys.stdout.flush()


class LateBar:
    """A progress bar that comes with the first word of something long, and goes as it ends.

    Until then it costs nothing, and nothing else may be written meanwhile. Within a context, so
    that it goes even where the work fails.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._open = ExitStack()
        self._bar: Callable[[str, int, int], None] | None = None

    def __enter__(self) -> LateBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far it is."""
        if self._bar is None and done < total:
            self._bar = self._open.enter_context(progress(quiet=self._quiet))
        if self._bar is not None:
            self._bar(stage, done, total)
        if done >= total:
            self._open.close()
            self._bar = None


def is_shown(*, quiet: bool) -> bool:
    """Tell whether a progress bar would be drawn."""
    return not quiet and is_terminal(sys.stderr)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None] | None]:
    """Show a progress bar on stderr for as long as the context lasts; None if nobody looks."""
    if not is_shown(quiet=quiet):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                shown[stage] = bar.add_task(one_line(stage, 40), total=total or None)
            bar.update(shown[stage], completed=done, total=total or None)

        yield update
