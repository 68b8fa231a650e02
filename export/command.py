"""What the commands of making a base share: options, what they print, and how they end.

Owns the rule for errors, which is that of ``python -m bench.*`` too, and which files --data means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hydra_edge.errors import ConfigError, HydraError
from hydra_edge.types import JsonDict, Progress

ANSWERS = Path("export/answers")
WORK = Path("build/base")

Data = Annotated[
    list[Path], typer.Option(help="Training histories, or a folder of `*.train.jsonl.gz`.")
]
Out = Annotated[Path, typer.Option(help="The bundle's folder; an older bundle is replaced.")]
Answers = Annotated[Path, typer.Option(help="Where the LLMs' answers are kept.")]
Source = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Model folder; default: the installed all-MiniLM-L6-v2.",
    ),
]
MaxTokens = Annotated[int, typer.Option(min=8, max=512, help="Longer texts are cut.")]


def run_app(app: typer.Typer, *, label: str, extras: str, install: str, again: str) -> None:
    """Run a command; what a user can put right is one line on stderr, exit code 1.

    Parameters
    ----------
    label
        Stands before the line.
    extras, install
        What a module that is missing comes with: in words, and as pip is told.
    again
        What to do about an error of the system, a full disk, say.
    """
    try:
        app()
    except HydraError as err:
        line = str(err)
    except ModuleNotFoundError as err:
        line = (
            f"{err.name} is not installed; expected {extras}. Run pip install "
            f"'.[{install}]' in a clone of hydra-edge."
        )
    except OSError as err:
        line = f"{err}. {again}"
    else:
        return
    typer.echo(f"{label}: {line}", err=True)
    raise SystemExit(1)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Expand folders into their training files; users kept back must not be looked at.

    Raises
    ------
    ConfigError
        If there is no file, or one is missing.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted([*path.glob("*.train.jsonl"), *path.glob("*.train.jsonl.gz")])
        else:
            files.append(path)
    missing = [str(path) for path in files if not path.is_file()]
    if missing or not files:
        raise ConfigError(
            f"--data: found no file at {', '.join(missing or map(str, paths))}; expected histories "
            "in .jsonl or .jsonl.gz. Give files, or a folder with *.train.jsonl.gz."
        )
    return files


def say(line: str) -> None:
    """Print a line on stderr."""
    typer.echo(line, err=True)


def table(title: str, figures: JsonDict) -> None:
    """Print figures under a title."""
    typer.echo(title)
    for name, value in figures.items():
        typer.echo(f"  {name:28} {value}")


@contextmanager
def bars() -> Iterator[Progress]:
    """Show one bar for each stage, on stderr."""
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    with Bars(console=Console(stderr=True)) as shown:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield report
