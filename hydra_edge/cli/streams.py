"""The standard streams as a command may find them: open, closed, full, or never there.

What stdout refuses is told apart from every other fault, wherever it comes up.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class StdoutError(OSError):
    """Standard output did not take what was written."""


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, StdoutError):  # a reader that went away is no fault
        raise
    except OSError as err:
        raise StdoutError(err.errno, err.strerror or str(err)) from err


class Stdout(io.TextIOWrapper):
    """Standard output, whose faults are ``StdoutError``."""

    def write(self, text: str) -> int:
        """Write a text."""
        with _told_apart():
            return super().write(text)

    def flush(self) -> None:
        """Write what is waiting."""
        with _told_apart():
            super().flush()


def supply_streams() -> tuple[TextIO, TextIO]:
    """Make stdout tell its faults, and both streams take what UTF-8 or a terminal cannot hold.

    For those a process was started without others stand in: stdin is empty, stdout refuses,
    stderr drops. Returns stdout and stderr as they are then.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")
    if sys.stdout is None:
        # This also takes its number, so that no file of ours gets what others write to stdout.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    plain = sys.stdout
    if type(plain) is io.TextIOWrapper:
        # What reads a pipe or a file of ours, we first of all, expects UTF-8; a terminal shows
        # what the locale says.
        encoding = plain.encoding if plain.isatty() else "utf-8"
        lines, through = plain.line_buffering, plain.write_through
        sys.stdout = Stdout(
            plain.detach(),
            encoding,
            "backslashreplace",
            line_buffering=lines,
            write_through=through,
        )
    return sys.stdout, sys.stderr


def give_up(*streams: TextIO) -> None:
    """Let what a stream refuses go nowhere: at its exit the interpreter would try it again."""
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
