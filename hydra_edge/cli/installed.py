"""What git or an application starts by an entry that ``install`` has written, and what it finds.

``install`` sees to it that the user it writes down is there. An entry outlives a move of the
folders: what it starts then begins no history of its own, for nobody would notice that one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hydra_edge.cli.session import open_user, settings
from hydra_edge.errors import UnknownUserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_edge.personalizer import Personalizer


def open_installed(
    ctx: typer.Context, user: str | None, again: Sequence[str], **flags: Any
) -> Personalizer:
    """Open the user an entry was installed for, under the command's flags; make none.

    Parameters
    ----------
    again
        The command that installs the entry again.

    Raises
    ------
    UnknownUserError
        If the user is not there; the message says what to run.
    """
    try:
        return open_user(ctx, user, **flags)
    except UnknownUserError as err:
        raise UnknownUserError(_missing(user, again)) from err


def why_missing(user: str | None, again: Sequence[str]) -> str:
    """Say what an entry would have to say if it was started now; empty if its user is there."""
    config, paths = settings()
    file = paths.user_file(config.user if user is None else user)
    return "" if os.path.lexists(file) else _missing(user, again)


def _missing(user: str | None, again: Sequence[str]) -> str:
    config, paths = settings()
    gone = "" if _is_folder(paths.users) else ", a folder that is not there"
    return (
        f"There is no user {user or config.user!r} in {paths.users}{gone}; expected the history "
        "this was installed for. If it was moved, set HYDRA_EDGE_HOME (or XDG_DATA_HOME) to where "
        f"it is now; then run: {shlex.join(again)}"
    )


def told(folders: Mapping[str, str]) -> str:
    """Name folders by the variables that say where they are."""
    if not folders:
        return "the usual folders"
    return ", ".join(
        f"{name}={path}{'' if _is_folder(path) else ' (not there)'}"
        for name, path in folders.items()
    )


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path's own raises for a folder not ours
