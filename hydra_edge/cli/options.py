"""Options several commands share, and reading a query or a duration from the command line."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
import threading
from typing import Annotated, Any

import typer

from hydra_edge.cli import output


def _named(user: str | None) -> str | None:
    """Refuse an empty name: the default user is not who was meant."""
    if user == "":
        raise typer.BadParameter("is empty; expected a user's name. Leave it out for the default.")
    return user


def task_option(purpose: str) -> Any:
    """Return the option --task; what a task is named for differs from command to command."""
    return typer.Option("--task", "-t", metavar="TASK", help=purpose)


User = Annotated[
    str | None,
    typer.Option(
        "--user", "-u", metavar="NAME", callback=_named,
        help="Whose history; default: setting `user`.",
    ),
]  # fmt: skip
Task = Annotated[str | None, task_option("Which kind of query; default: the one used most.")]
RecordTask = Annotated[
    str | None,
    task_option("Which kind of query it answers; default: setting `task`, else general."),
]
RecordIds = Annotated[
    list[str] | None, typer.Argument(metavar="[RECORD_ID]...", help="Ids of records.")
]
WholeSource = Annotated[
    str | None,
    typer.Option("--source", metavar="SOURCE", help="All from this source: see `history sources`."),
]
InFile = Annotated[str, typer.Argument(metavar="FILE", help="File to read; - is stdin.")]
OutFile = Annotated[str, typer.Argument(metavar="FILE", help="Where to (mode 0600); - is stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace FILE if it is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
WhatIf = Annotated[bool, typer.Option("--dry-run", help="Say what would go; erase nothing.")]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="LLM to ask; see `hydra-edge models`."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="API to ask, for -m openai:MODEL."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Refuse to ask any remote LLM.")]
Records = Annotated[
    int | None,
    typer.Option("-k", "--records", metavar="K", min=0, max=64, help="Records to show to the LLM."),
]
Ranked = Annotated[
    int | None,
    typer.Option("-k", "--records", metavar="K", min=1, help="Records to list."),
]

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_PATIENCE_S = 1.0  # how long a silent pipe is waited for before we say what we wait for


def seconds(text: str | None, option: str) -> float | None:
    """Read a duration such as ``60s``, ``2m``, ``500ms``; a bare number is in seconds."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if not match:
        raise typer.BadParameter(
            f"{text!r} is no duration; expected for example 60s, 2m or 500ms.", param_hint=option
        )
    return float(match[1]) * _SECONDS[match[2]]


def as_words(**options: str | None) -> list[str]:
    """Return options as words of a command line; those that are None or empty are left out."""
    named = [(f"--{name}", value) for name, value in options.items() if value]
    return [word for pair in named for word in pair]


def command(*words: str, **options: str | None) -> str:
    """Return a command of ours with options, as it is to be typed into a shell."""
    return shlex.join(["hydra-edge", *words, *as_words(**options)])


def clean(text: str) -> str:
    """Replace what is not text in an argument (bytes that are not UTF-8)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _stdin_is_fed() -> bool:
    """Return whether stdin is a pipe, a socket or a file, rather than a person or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except AttributeError:  # no stdin at all
        return False
    except (OSError, ValueError):  # not a real file: an application put its own text there
        return not sys.stdin.closed
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _say_waiting() -> None:
    output.note("Waiting for text on stdin; end it with Ctrl-D, or run with </dev/null.")


def read_stdin() -> str:
    """Read all of stdin as UTF-8, saying so if nothing comes."""
    # A timer, as Windows cannot wait for a pipe to be ready.
    patience = threading.Timer(_PATIENCE_S, _say_waiting)
    patience.daemon = True
    patience.start()
    try:
        first = sys.stdin.buffer.read(1)
    finally:
        patience.cancel()
    # At a terminal, one more reading would want one more Ctrl-D.
    rest = sys.stdin.buffer.read() if first else b""
    return (first + rest).decode("utf-8", "replace")


def read_query(argument: str | None) -> str:
    """Return the query: the argument, with any text piped in put before it.

    ``-`` asks for stdin explicitly; without an argument stdin is the query.
    """
    asked = "" if argument in (None, "-") else clean(str(argument))
    piped = ""
    if argument == "-" or _stdin_is_fed():
        piped = read_stdin().strip()
    query = "\n".join(part for part in (piped, asked) if part.strip())
    if not query:
        raise typer.BadParameter(
            'no query; give one in quotes, as in hydra-edge "my query", or pipe it in.',
            param_hint="QUERY",
        )
    return query
