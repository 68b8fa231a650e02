"""A command that is read when it is called.

Drawing options from a function's signature takes typer most of a millisecond a function. A start
would spend more time on all the commands nobody called than on the one they did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command


def _nothing() -> None:
    """Stand in for a function whose options are not known yet."""


def _late(function: Callable[..., None]) -> type[TyperCommand]:
    """Return the class of a function's command."""

    class LateCommand(TyperCommand):
        """Knows its name and help; what it takes and does, once it is asked."""

        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            del self.params, self.callback

        def __getattr__(self, name: str) -> Any:
            if name not in {"params", "callback"}:
                raise AttributeError(name)
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command()(function)
            read = get_command(alone)
            self.params, self.callback = read.params, read.callback
            return getattr(self, name)

    return LateCommand


def add_command(
    group: typer.Typer,
    name: str,
    function: Callable[..., None],
    *,
    epilog: str,
    purpose: str | None = None,
    negative: bool = False,
) -> None:
    """Add a function to a group as a command.

    Parameters
    ----------
    purpose
        Its help; None: the function's docstring.
    negative
        Whether what begins with a minus and is no option of it is an argument.
    """
    group.command(
        name,
        cls=_late(function),
        help=function.__doc__ if purpose is None else purpose,
        epilog=epilog,
        context_settings={"ignore_unknown_options": negative},
    )(_nothing)
