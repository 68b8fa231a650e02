"""Files a command is told to write or to read; ``-`` is stdout or stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from hydra_edge.cli import output
from hydra_edge.errors import ConfigError
from hydra_edge.paths import expanded
from hydra_edge.privatefiles import write_private


def check_new(path: Path, *, force: bool) -> None:
    """Refuse to write over a file, unless it is to be replaced.

    Raises
    ------
    ConfigError
        If one is there.
    """
    if path.is_file() and not force:
        raise ConfigError(
            f"Cannot write {path}: a file of that name is there; expected none. Give another "
            "name, or --force to replace it."
        )


def write_text(file: str, parts: Iterable[str], *, force: bool = False) -> None:
    """Write the parts of a text to a file only its owner can read, or to stdout (``-``).

    ``force`` replaces a file that is there. A pipe or device is always written to.

    Raises
    ------
    ConfigError
        If the file is there already, or cannot be written.
    """
    if file == "-":
        for part in parts:
            output.answer(part, end="")
        return

    path = expanded(file)
    try:
        check_new(path, force=force)
        write_private(path, "".join(parts))
    except OSError as err:
        raise ConfigError(
            f"Cannot write {path}: {err.strerror or err}. Expected a file in a folder you may "
            "write to. Give another one."
        ) from err


def read_text(file: str) -> str:
    """Read a file, or stdin (``-``), as UTF-8, with the mark Windows puts before it or without.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    name: Path | str = "stdin" if file == "-" else expanded(file)
    try:
        raw = sys.stdin.buffer.read() if isinstance(name, str) else name.read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"Cannot read {name}: {err}. Expected a text file in UTF-8. Check it."
        ) from err
