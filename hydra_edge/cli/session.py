"""Opening what a command works on, with its flags laid over the settings.

The one place where the command line meets the engine: a test passes its own opener as the
context's object, and no command knows the difference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import typer

from hydra_edge.cli import output
from hydra_edge.errors import ConfigError, UnknownUserError

if TYPE_CHECKING:
    from hydra_edge.config import Config
    from hydra_edge.paths import Paths
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.tasks import TaskSpec


class Opener(Protocol):
    """Opens a user's personalizer, as ``Personalizer.open`` does."""

    def __call__(
        self, user: str | None, *, create: bool, config: Config, paths: Paths
    ) -> Personalizer:
        """Open, or raise a ``HydraError`` that says what is missing."""
        ...


def _open(user: str | None, *, create: bool, config: Config, paths: Paths) -> Personalizer:
    from hydra_edge.personalizer import Personalizer

    return Personalizer.open(user, create=create, config=config, paths=paths)


def settings(**flags: Any) -> tuple[Config, Paths]:
    """Return the settings in force and the folders; flags that are not None win."""
    from hydra_edge.config import load_config
    from hydra_edge.paths import find_paths

    paths = find_paths()
    given = {name: value for name, value in flags.items() if value is not None}
    return replace(load_config(paths), **given), paths


def open_user(
    ctx: typer.Context,
    user: str | None,
    *,
    create: bool = False,
    model: str | None = None,
    base_url: str | None = None,
    offline: bool = False,
) -> Personalizer:
    """Open one user's personalizer under the command's flags.

    ``create`` makes a file for somebody new. Asking commands create the default user only: the
    shared head serves a person without a history, but a name mistyped should not become one.
    Where there are others, a new one is told.
    """
    from hydra_edge.paths import other_users

    config, paths = settings(model=model, base_url=base_url, offline=offline or None)
    if base_url is not None:
        from hydra_edge.llm.names import read_name

        if (name := read_name(config.model)).kind != "remote":
            raise typer.BadParameter(
                f"needs -m openai:MODEL; the model in use is {name.text or 'the local default'}.",
                param_hint="--base-url",
            )
    opener: Opener = ctx.obj if callable(ctx.obj) else _open
    file = paths.user_file(config.user if user is None else user)
    was_there = os.path.exists(file)  # noqa: PTH110 - Path's own raises for a folder not ours
    person = opener(user, create=create, config=config, paths=paths)
    if not was_there and file.exists() and (others := other_users(file)):
        # The name may be a slip, and whoever made it would miss their history.
        output.note(f"A new user {file.stem!r} was begun, beside {others}.", style="yellow")
    return person


def record_counts(ctx: typer.Context, user: str | None) -> dict[str, int]:
    """Count a user's records by task; a user nobody named need not exist."""
    allowed = missing_user_told(user) if user is None else nullcontext()
    with allowed, open_user(ctx, user) as me:
        return me.store.tasks()
    return {}


@contextmanager
def missing_user_told(user: str | None) -> Iterator[None]:
    """Go on after what is done without a user; where there are others, the name may be a slip."""
    from hydra_edge.paths import other_users

    try:
        yield
    except UnknownUserError as err:
        config, paths = settings()
        if other_users(paths.user_file(config.user if user is None else user)):
            output.note(str(err), style="yellow")


def task_spec(ctx: typer.Context, name: str, user: str | None) -> TaskSpec:
    """Return a task's spec, completed by the answers of a user who need not exist."""
    from hydra_edge.paths import find_paths
    from hydra_edge.taskfile import read_task_dir
    from hydra_edge.tasks import canonical_name, find_task

    outputs: list[str] = []
    counts = record_counts(ctx, user)
    if canonical_name(name) in counts:
        with open_user(ctx, user) as me:
            outputs = [r.output for r in me.store.records(task=canonical_name(name))]
    custom = read_task_dir(find_paths().tasks)
    return find_task(name, custom=custom, outputs=outputs, used=counts)


def known_tasks(store: Store | None) -> set[str]:
    """Return the names of tasks that are built in, described in a file, or have records."""
    from hydra_edge.paths import find_paths
    from hydra_edge.taskfile import read_task_dir
    from hydra_edge.tasks import BUILTIN

    custom = read_task_dir(find_paths().tasks)
    return {*BUILTIN, *custom, *custom.broken, *(store.tasks() if store else ())}


def check_named(ctx: typer.Context, user: str | None, tasks: Iterable[str]) -> None:
    """Refuse a user or a task nobody knows; a user nobody named need not exist."""
    if user is not None:
        record_counts(ctx, user)
    for task in tasks:
        task_spec(ctx, task, user)


def ask(question: str, *, yes: bool) -> None:
    """Go on only if the person says so.

    Raises
    ------
    ConfigError
        If nobody is there to ask, and ``--yes`` was not given.
    typer.Abort
        If the answer is no.
    """
    if yes:
        return
    if not output.is_terminal(sys.stdin):
        raise ConfigError(f"{question} Nobody is here to answer. Add --yes to go on.")
    typer.confirm(output.harmless(question), abort=True, err=True)
