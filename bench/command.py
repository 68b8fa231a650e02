"""What the commands of the bench share: options, how they end, and what every result says.

Owns no figure. Without ``--json`` a result goes to ``RUNS``: those of the documentation, in the
folder above, are replaced only by who names them.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.clock import machine
from bench.guard import BenchError
from bench.report import say, write_json
from export.command import run_app
from hydra_edge import __version__
from hydra_edge.types import JsonDict

RUNS = Path(__file__).parent / "results" / "runs"  # not kept in git
CACHE = Path(".cache/bench")
_NO_MATTER = {"json", "plot", "cache", "replay"}  # options that no figure depends on

Figures = Annotated[
    Path | None,
    typer.Option(
        "--json",
        dir_okay=False,
        writable=True,
        help="Write the figures here; default: in bench/results/runs.",
    ),
]
Base = Annotated[Path | None, typer.Option(help="Another base than the shipped one.")]

# Of users the base has never seen, and of an LLM's answers.
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only these tasks.")]
Users = Annotated[int, typer.Option(min=1, help="Users drawn of each task.")]
Queries = Annotated[int, typer.Option(min=1, help="A user's last records, as queries.")]
Model = Annotated[str, typer.Option(help="Local model, as for `hydra-edge -m`.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws users, queries and their order.")]
Cache = Annotated[Path, typer.Option(help="Where answers are kept.")]
Replay = Annotated[bool, typer.Option(help="Use cached answers only.")]

# Of time and memory.
Texts = Annotated[
    list[Path] | None,
    typer.Option("--data", help="Files of real records; else texts are made up."),
]
Sizes = Annotated[str, typer.Option(help="Records, comma-separated.")]
Threads = Annotated[int, typer.Option(help="Of the encoder; 0: chosen for the machine.")]
Clock = Annotated[str, typer.Option(help="wall; cpu on a busy machine, with --threads 1.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer runs of each.")]
Plot = Annotated[bool, typer.Option("--plot", help="Draw them beside the JSON.")]


def new_app() -> typer.Typer:
    """Return an app for one command, to be started by ``start``."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def start(app: typer.Typer) -> None:
    """Run a command; what a user can put right is one line on stderr, exit code 1."""
    run_app(
        app, label="error", extras="the bench and local extras", install="bench,local",
        again="Put it right and run the same again.",
    )  # fmt: skip


def parse_sizes(text: str, option: str = "--history", least: int = 0) -> tuple[int, ...]:
    """Read sizes of history, ``0,1,4``.

    Raises
    ------
    BenchError
        If one is not a whole number of at least ``least``, or there is none and ``least`` is not 0.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    good = [part.isdecimal() and int(part) >= least for part in parts]
    if not all(good) or (least and not good):
        raise BenchError(
            f"{option} is {text!r}; expected whole numbers of at least {least}: {option} "
            f"{'0,1,4,16,64' if not least else '1000,10000'}"
        )
    return tuple(sorted({int(part) for part in parts}))


def given(context: typer.Context) -> dict[str, object]:
    """Return the options that were given, by name, but for those no figure depends on."""
    found: dict[str, object] = {}
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        name = param.opts[0].removeprefix("--")
        if source is not None and source.name == "COMMANDLINE" and name not in _NO_MATTER:
            found[name] = context.params[param.name or ""]
    return found


def command_of(name: str, options: Mapping[str, object]) -> str:
    """Write down the command that gives these figures, with files by name only."""
    words = [f"python -m bench.{name}"]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                words.append(f"--{option}")
            elif one is not None and (text := Path(str(one)).name):
                words.append(f"--{option} {shlex.quote(text)}")
    return " ".join(words)


def head(
    name: str, options: Mapping[str, object], base_id: str = "", *, timed: bool = True
) -> JsonDict:
    """Return what a result says of how it was made.

    Parameters
    ----------
    name, options
        Of the command.
    base_id
        Of the base; empty where none had a part in it.
    timed
        Whether it matters how busy the machine is now; else equal figures give equal bytes.
    """
    made: JsonDict = {
        "command": command_of(name, options), "machine": machine(timed=timed),
        "version": __version__,
    }  # fmt: skip
    return made | ({"base_id": base_id} if base_id else {})


def write(figures: JsonDict, path: Path | None, name: str, console: Console) -> Path:
    """Write figures where they are wanted, else to ``RUNS``; say where, and return it."""
    path = path or RUNS / f"{name}.json"
    write_json(figures, path)
    say(console, f"written to {path}")
    return path
