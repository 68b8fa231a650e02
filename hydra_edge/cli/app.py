"""All commands put together into ``hydra-edge``."""

from __future__ import annotations

from typing import Annotated

import typer

from hydra_edge import __version__
from hydra_edge.cli import (
    answering,
    bench,
    bundle,
    doctor,
    forgetting,
    git_hook,
    heads,
    history,
    importing,
    learning,
    mcp,
    models,
    output,
    serve,
    settings,
    tasks,
)
from hydra_edge.cli.group import RootGroup, examples

app = typer.Typer(
    cls=RootGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "hydra-edge import git ~/src/project",
        "hydra-edge fit-head --user me",
        'hydra-edge "Fix crash when the config is empty" --task commit_subject',
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        output.plain(f"hydra-edge {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """Personalize a black-box LLM on your own device.

    `hydra-edge "query"` is short for `hydra-edge generate "query"`: a first word that is no
    command is a query. Put a query that is also a command's name after `generate`.
    """


answering.register(app)
importing.register(app)
learning.register(app)
history.register(app)
forgetting.register(app)
heads.register(app)
models.register(app)
mcp.register(app)
git_hook.register(app)
serve.register(app)
settings.register(app)
tasks.register(app)
doctor.register(app)
bundle.register(app)
bench.register(app)
