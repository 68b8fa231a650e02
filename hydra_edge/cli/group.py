"""How a command line is read, and how a command ends: the same for every command.

A word that is no command is a query for ``generate``. An error raised on purpose becomes one
line; anything else becomes a line that asks for a report and repeats nobody's text. With --json
each is an object on stdout, too, and so is what the parser refuses.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from hydra_edge.cli import output
from hydra_edge.cli.command import add_command
from hydra_edge.cli.streams import StdoutError
from hydra_edge.errors import HydraError

DEBUG = "HYDRA_EDGE_DEBUG"
_JSON = "hydra_edge.json"  # under which a context keeps whether a program asked
_CLOSE = 0.75  # how alike a word and a command must be to be called a slip of the finger


def _wants_json(args: Sequence[str]) -> bool:
    options = args[: args.index("--")] if "--" in args else args
    return "--json" in options


@contextmanager
def _told_to_programs(ctx: Any) -> Iterator[None]:
    """Write what the parser refuses as an object, too, if a program asked."""
    try:
        yield
    except typer.TyperException as err:
        if ctx.meta[_JSON]:
            output.write_json(output.error_json("usage", err.format_message()))
        raise


class Group(TyperGroup):
    """A group of commands that prints its help when it is called alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Turn no arguments at all into a request for help."""
        return super().parse_args(ctx, args or ["--help"])


class RootGroup(Group):
    """The command line itself."""

    default = "generate"
    order = (
        "import", "add", "fit-head", "generate", "rank", "choose", "feedback", "history", "forget",
        "heads", "models", "keys", "tasks", "config", "users", "bundle", "doctor",
    )  # fmt: skip

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order a person meets them."""
        known = set(self.commands)
        return [name for name in self.order if name in known] + sorted(known - set(self.order))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front of what is neither a command nor our own option."""
        ctx.meta[_JSON] = _wants_json(args)
        with _told_to_programs(ctx):
            if args and not self._is_ours(ctx, args[0]):
                self._mind_slips(ctx, args)
                args = [self.default, *args]
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with _told_to_programs(ctx):
            return super().invoke(ctx)

    def _is_ours(self, ctx: Any, word: str) -> bool:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        return word in self.commands or word in own

    def _mind_slips(self, ctx: Any, args: list[str]) -> None:
        """Refuse ``improt git .``; only remark on a single word, which may well be a query."""
        from difflib import get_close_matches

        near = get_close_matches(args[0], list(self.commands), n=1, cutoff=_CLOSE)
        if not near:
            return
        hint = f"No command {args[0]!r}; did you mean {near[0]!r}?"
        if len(args) > 1 and not args[1].startswith("-"):
            ctx.fail(f"{hint} A query of several words goes in quotes.")
        output.note(f"{hint} Taken as a query.")

    # Whatever else typer's own takes is given by name here, never by place.
    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run one command and turn whatever ends it into an exit code."""
        given = list(sys.argv[1:] if args is None else args)
        try:
            # Given to it, typer takes them as they are. On Windows it would put the values of
            # variables and the names of files in place of what a query says of them.
            return super().main(args=given, **extra)
        except HydraError as err:
            self._show_trace()
            output.write_error(err.code, str(err), as_json=_wants_json(given))
        except StdoutError:  # `cli.main` says so
            raise
        except Exception as err:
            self._show_trace()
            message = (
                f"hydra-edge stumbled over a fault of its own ({type(err).__name__}). Please "
                f"report it with what {DEBUG}=1 prints; that may contain your texts, so read it "
                "before you send it."
            )
            output.write_error("internal", message, as_json=_wants_json(given))
        raise SystemExit(1)

    @staticmethod
    def _show_trace() -> None:
        if os.environ.get(DEBUG):
            sys.stderr.write(traceback.format_exc())


def examples(*lines: str) -> str:
    """Lay out a command's examples for its help, one to a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def put(
    group: typer.Typer,
    name: str,
    command: Callable[..., None],
    *lines: str,
    purpose: str | None = None,
    negative: bool = False,
) -> None:
    """Add a command to a group, with examples; its help is its purpose, else its docstring.

    ``negative``: what begins with a minus and is no option of it is an argument.
    """
    add_command(group, name, command, epilog=examples(*lines), purpose=purpose, negative=negative)


def new_group(purpose: str, *lines: str) -> typer.Typer:
    """Return an empty group of commands with its purpose and examples."""
    return _new_typer(lines, cls=Group, help=purpose)


def new_server(serve: Callable[..., None], *lines: str) -> typer.Typer:
    """Return an empty group that serves when it is called alone; its help is a docstring."""
    group = _new_typer(lines, invoke_without_command=True)
    group.callback()(serve)
    return group


def _new_typer(lines: Sequence[str], **more: Any) -> typer.Typer:
    return typer.Typer(
        epilog=examples(*lines), rich_markup_mode=None, add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]}, **more,
    )  # fmt: skip
