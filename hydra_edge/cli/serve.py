"""Serving the apps of this machine: ``serve``, and the tokens they come with, ``serve token``."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import options, output
from hydra_edge.cli.group import new_group, new_server, put
from hydra_edge.cli.session import check_named, open_user, settings
from hydra_edge.errors import ConfigError
from hydra_edge.paths import expanded

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.server.tokens import TokenFiles

_NEEDED = ("starlette", "uvicorn")
_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_LEAST_TIMEOUT_S = 0.001  # as of the setting timeout_s

TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="Where the token is kept; default: with your data."
    ),
]
AppName = Annotated[str, typer.Argument(metavar="APP", help="What you call the app.")]


def _files(token_file: Path | None = None) -> TokenFiles:
    from hydra_edge.server.tokens import TokenFiles

    _, paths = settings()
    return TokenFiles.of(paths, expanded(token_file) if token_file else None)


def serve(
    ctx: typer.Context,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=65535, help="Port on 127.0.0.1; 0 is any free one."),
    ] = None,
    user: options.User = None,
    task: options.Task = None,
    model: options.Model = None,
    base_url: options.BaseUrl = None,
    offline: options.Offline = False,
    token_file: TokenFile = None,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token; the old one opens nothing.")
    ] = False,
    queue: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Requests that may wait for the LLM; more are refused."
        ),
    ] = 64,
    timeout: Annotated[
        str, typer.Option(metavar="TIME", help="Longest a request may take, waiting included.")
    ] = "5m",
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser, logged in.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Serve the apps on this machine by OpenAI's API.

    It listens on 127.0.0.1 only. Any OpenAI client gains your personalization by the base URL
    and the token this prints. Ctrl-C lets running requests finish and refuses new ones; twice,
    it ends at once.
    """
    if ctx.invoked_subcommand is not None:
        return
    _need_server()
    limit = options.seconds(timeout, "--timeout") or 0.0
    if limit < _LEAST_TIMEOUT_S:
        raise typer.BadParameter(
            f"{timeout!r} leaves no time for any request; expected 1ms or more.",
            param_hint="--timeout",
        )
    with open_user(
        ctx, user, create=user is None, model=model, base_url=base_url, offline=offline
    ) as me:
        if task is not None:
            me.task(task)  # an unknown one is told now, not to the first app
        _check_llm(me)
        _serve(
            me, _files(token_file), port=port, task=task, new_token=new_token, queue=queue,
            timeout_s=limit, open_page=open_page, as_json=as_json,
        )  # fmt: skip


def _check_llm(me: Personalizer) -> None:
    """Refuse now an LLM that could answer no app; a local one that is there is not opened.

    With none named, the server does what needs none.
    """
    from hydra_edge.llm.models import is_ready
    from hydra_edge.llm.names import read_name

    name = read_name(me.config.model)
    if name.kind != "default" and not is_ready(name):
        _ = me.llm  # sends nothing; it says what is wrong with a name, an address or a key


def _need_server() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The server needs {' and '.join(missing)}, which is not installed; expected the "
            "extra `server` of hydra-edge. Install it, in a clone: pip install '.[server]'"
        )


def _serve(
    me: Personalizer,
    files: TokenFiles,
    *,
    port: int | None,
    task: str | None,
    new_token: bool,
    queue: int,
    timeout_s: float,
    open_page: bool,
    as_json: bool,
) -> None:
    from hydra_edge.server import run
    from hydra_edge.server.service import DEFAULT_PORT, Settings
    from hydra_edge.server.tokens import Doorkeeper, owner_token
    from hydra_edge.server.tokens import new_token as make_token

    page_token = make_token() if open_page else ""
    folder = files.apps.parent
    sock = run.bind(DEFAULT_PORT if port is None else port)
    with sock:
        # Not before the port is ours: another server there has clients with the old token.
        owner_token(files, renew=new_token)
        bound = sock.getsockname()[1]
        url = f"http://{run.HOST}:{bound}"
        page = f"{url}/#token={page_token}"
        doorkeeper = Doorkeeper(files, [page_token] if open_page else [])

        def show() -> None:
            if not run.open_page(page, folder):
                _note(f"No browser was found. Open {page}")

        def ready(_server: run.Server) -> None:
            _note(f"Serving {me.user} on {url}/v1; token in {files.owner}", style="bold")
            if proxy := _proxy_in_the_way(run.HOST):
                _note(
                    f"{proxy} is set: an app that has it, too, hands what it asks here, and the "
                    f"token, to that proxy. Set NO_PROXY={run.HOST},localhost for your apps."
                )
            _note("Ctrl-C ends it.")
            if open_page:
                if output.is_terminal(sys.stderr):
                    # A browser that may not read our folder opens an empty page, and does not say.
                    _note(f"If the page does not open: {page}")
                # On a thread: a browser in the terminal holds it until the person leaves.
                threading.Thread(target=show, daemon=True).start()
            if as_json:  # last: a program that has read this line may let go of both pipes
                told = {"url": url, "base_url": f"{url}/v1", "token_file": str(files.owner)}
                output.write_json(told | ({"page": page} if open_page else {}))
                sys.stdout.flush()

        try:
            run.serve(me, Settings(bound, doorkeeper, task, queue, timeout_s), sock, ready=ready)
        finally:
            run.forget_page(folder)
    _note("Stopped.")


def _note(text: str, *, style: str = "dim") -> None:
    """Write a remark; a server goes on where nobody reads them any more."""
    with suppress(OSError):
        output.note(text, style=style)


def _proxy_in_the_way(host: str) -> str:
    """Return the variable by which clients started here would ask a proxy for us; else empty."""
    from urllib.request import proxy_bypass

    named = next((name for name in _PROXIES if os.environ.get(name)), "")
    return "" if not named or proxy_bypass(host) else named


def add_token(
    ctx: typer.Context,
    app: AppName,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", metavar="TASK", help="Only this task; may be repeated."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="May ask and rank, not teach or add.")
    ] = False,
    user: options.User = None,
    as_json: options.AsJson = False,
) -> None:
    """Give an app a token of its own.

    It is shown once. It opens one user's history, and of that only the tasks named. A running
    server knows it at once.
    """
    from hydra_edge.server.tokens import add_app

    check_named(ctx, user, task or [])
    config, _ = settings()
    token = add_app(
        _files(), app, user=user or config.user, tasks=task or (), read_only=read_only
    )  # fmt: skip
    if as_json:
        output.write_json({"app": app, "token": token})
        return
    output.answer(token)
    output.note(f"Give this token to {app}; it is not kept and will not be shown again.")


def list_tokens(token_file: TokenFile = None, as_json: options.AsJson = False) -> None:
    """List the apps that have a token.

    With what each may do, not the tokens themselves. A file of tokens that cannot be used, yours
    or the apps', is an error that says why.
    """
    from hydra_edge.server.tokens import read_apps, read_owner

    files = _files(token_file)
    read_owner(files)  # a server that can use neither file sends its owner here to see why
    apps = sorted(read_apps(files).values(), key=lambda scope: scope.app)
    if as_json:
        output.write_json({"apps": [asdict(scope) for scope in apps]})
        return
    rows = [
        (s.app, s.user, "read" if s.read_only else "read, write", ", ".join(s.tasks) or "all")
        for s in apps
    ]
    output.table(("app", "user", "may", "tasks"), rows)


def remove_token(app: AppName) -> None:
    """Make an app's token worthless."""
    from hydra_edge.server.tokens import remove_app

    remove_app(_files(), app)
    output.note(f"The token of {app} opens nothing any more.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = new_server(
        serve,
        "hydra-edge serve",
        "hydra-edge serve --port 0 --task commit_subject --json",
        "hydra-edge serve token add editor --task commit_subject",
    )
    tokens = new_group(
        "Give apps tokens of their own, and take them back.",
        "hydra-edge serve token add editor --task commit_subject",
        "hydra-edge serve token list",
    )
    put(
        tokens, "add", add_token,
        "hydra-edge serve token add editor --task commit_subject",
        "hydra-edge serve token add viewer --read-only",
    )  # fmt: skip
    put(tokens, "list", list_tokens, "hydra-edge serve token list --json")
    put(tokens, "remove", remove_token, "hydra-edge serve token remove editor")
    group.add_typer(tokens, name="token")
    app.add_typer(group, name="serve")
