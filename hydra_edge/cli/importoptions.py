"""Options that every kind of import has."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hydra_edge.cli import options

Private = Annotated[
    bool | None,
    typer.Option(
        "--private/--public",
        help="Whether remote LLMs may never see these records. Default: mail and chats are "
        "private, commits as those of their repository before, all else is public unless all "
        "you have of that file or folder is private; a record that says it is private stays so.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Count and show three samples; store nothing.")
]
Task = Annotated[
    str | None, options.task_option("Task of these records; default: the source's own.")
]


def given(**flags: Any) -> dict[str, Any]:
    """Return the flags that were given; an importer knows its own defaults."""
    return {name: value for name, value in flags.items() if value is not None}
