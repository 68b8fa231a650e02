"""Serving AI applications over the Model Context Protocol: ``mcp``, ``mcp install``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import models, options, output
from hydra_edge.cli.group import new_server, put
from hydra_edge.cli.installed import open_installed
from hydra_edge.cli.interrupt import die_on_sigterm, dying_of_sigint
from hydra_edge.cli.session import check_named, open_user, task_spec
from hydra_edge.errors import ConfigError

if TYPE_CHECKING:
    from hydra_edge.mcp.clients import Edit

AllowPrivate = Annotated[
    bool,
    typer.Option(
        "--allow-private",
        help="Let the application see private records, too; a remote LLM of yours never does.",
    ),
]
Client = Annotated[
    str,
    typer.Option("--client", metavar="NAME", help="Which application: claude, cursor, lmstudio."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--path", metavar="FILE", help="Its configuration, if not in the usual place."),
]


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    """Refuse what imports a package that only the extra `mcp` brings."""
    try:
        yield
    except ModuleNotFoundError as err:
        raise ConfigError(
            f"MCP needs a package that is not installed: got no {err.name}; expected the extra "
            "`mcp` of hydra-edge. Install it, in a clone: pip install '.[mcp]'"
        ) from err


def serve(
    ctx: typer.Context,
    user: options.User = None,
    task: options.Task = None,
    model: options.Model = None,
    base_url: options.BaseUrl = None,
    offline: options.Offline = False,
    allow_private: AllowPrivate = False,
) -> None:
    """Serve an AI application over MCP on stdin and stdout.

    The application starts this command. Tools: search_history, personalize, generate,
    record_choice, explain. What they return is read by the application's own LLM; records
    marked private are left out of it. It begins no history: install does, if there is none.
    """
    if ctx.invoked_subcommand is not None:
        return
    with _needing_the_extra():
        from hydra_edge.mcp.desk import Desk
        from hydra_edge.mcp.server import build_server
        from hydra_edge.mcp.stdin import mend_stdin
    words = _words(user, task, model, allow_private=allow_private)
    again = ["hydra-edge", "mcp", "install", "--client", "NAME", "--write", *words]
    flags = {"model": model, "base_url": base_url, "offline": offline}
    with open_installed(ctx, user, again, **flags) as me:
        if task:
            task_spec(ctx, task, user)  # an unknown one is told now, not at the first call
        if output.is_terminal(sys.stdin):
            output.note(
                "Speaking MCP with whoever started this. To add it to an application: "
                "hydra-edge mcp install --client claude. Ctrl-C ends it."
            )
        desk = Desk(me, task=task, allow_private=allow_private)
        mend_stdin()
        die_on_sigterm()  # the SDK's thread that reads stdin ends with stdin only
        with dying_of_sigint():
            try:
                build_server(desk).run("stdio")
            except* BrokenPipeError:
                pass  # the application went away with a call open: nobody is left to be told


def install(
    ctx: typer.Context,
    client: Client,
    write: Annotated[
        bool,
        typer.Option("--write/--print", help="Edit the configuration, or only show what to add."),
    ] = False,
    path: ConfigFile = None,
    user: options.User = None,
    task: options.Task = None,
    model: options.Model = None,
    allow_private: AllowPrivate = False,
    as_json: options.AsJson = False,
) -> None:
    """Add this server to an AI application, or show what to add.

    --write keeps all else that is in the file, and leaves the file as it was beside it. Who has
    no history yet gets an empty one. Where your data has moved, install once more: the entry says
    where it is.
    """
    from hydra_edge.mcp import clients
    from hydra_edge.program import NAME

    with _needing_the_extra():  # what is added would not start
        import hydra_edge.mcp.server  # noqa: F401 - only to see whether it can start
    check_named(ctx, user, [task] if task else [])  # told now, not by a server that will not start
    model = models.name_to_keep(model) if model else None
    place = path or clients.own_config_path(client)
    with open_user(ctx, user, create=user is None):  # the server begins none
        pass
    words = _words(user, task, model, allow_private=allow_private)
    server = clients.entry(["mcp", *words])
    if not write:
        shown = {"mcpServers": {NAME: server}}
        if as_json:
            output.write_json({"path": str(place), **shown})
            return
        output.answer(json.dumps(shown, indent=2, ensure_ascii=False))
        output.note(f"This belongs into {place}; --write puts it there.")
        return
    _tell(clients.add_server(place, server), client, "added to", as_json=as_json)


def _words(
    user: str | None, task: str | None, model: str | None, *, allow_private: bool
) -> list[str]:
    """Return the options of an entry, which its server then runs with."""
    words = options.as_words(user=user, task=task, model=model)
    return [*words, *(["--allow-private"] if allow_private else [])]


def uninstall(client: Client, path: ConfigFile = None, as_json: options.AsJson = False) -> None:
    """Take this server out of an AI application.

    All else in the file is kept, and the file as it was is left beside it.
    """
    from hydra_edge.mcp import clients

    place = path or clients.own_config_path(client)
    _tell(clients.remove_server(place), client, "taken out of", as_json=as_json)


def _tell(edit: Edit, client: str, done: str, *, as_json: bool) -> None:
    if as_json:
        backup = str(edit.backup) if edit.backup else None
        output.write_json({"path": str(edit.path), "changed": edit.changed, "backup": backup})
        return
    if not edit.changed:
        output.plain(f"{edit.path}: nothing to change")
        return
    output.plain(f"{edit.path}: hydra-edge {done} it")
    if edit.backup:
        output.note(f"As it was before: {edit.backup}")
    output.note(f"Restart {client} for it to notice.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = new_server(
        serve,
        "hydra-edge mcp install --client claude --write",
        "hydra-edge mcp --user me --task commit_subject",
    )
    put(
        group, "install", install,
        "hydra-edge mcp install --client claude --print",
        "hydra-edge mcp install --client cursor --write --user me",
    )  # fmt: skip
    put(group, "uninstall", uninstall, "hydra-edge mcp uninstall --client lmstudio")
    app.add_typer(group, name="mcp")
