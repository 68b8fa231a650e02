"""A command is known by name and help at once, and read when it is called."""

import typer
from cli_runner import COMMAND
from typer.main import get_command

from hydra_edge.cli.command import add_command


def two_commands(*functions):
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    for function in functions:
        add_command(app, function.__name__, function, epilog="")
    return get_command(app)


def test_command_listed_in_help_is_not_read():
    def broken(value: "NoSuchType") -> None:  # noqa: F821 - broken on purpose
        """Cannot be read."""

    def fine(value: int = 1) -> None:
        """Can be read."""

    group = two_commands(broken, fine)
    text = group.get_help(group.context_class(group, info_name="x"))

    assert "Cannot be read." in text
    assert "params" not in vars(group.commands["broken"])


def test_command_called_gets_its_own_options():
    seen = []

    def first(value: int = 1) -> None:
        """Do one thing."""
        seen.append(("first", value))

    def second(name: str) -> None:
        """Do another."""
        seen.append(("second", name))

    group = two_commands(first, second)
    group.main(["first", "--value", "3"], standalone_mode=False)
    group.main(["second", "x"], standalone_mode=False)

    assert seen == [("first", 3), ("second", "x")]


def test_command_unknown_attribute_is_no_attribute():
    assert not hasattr(COMMAND.commands["rank"], "no_such_thing")
    assert COMMAND.commands["rank"].params[0].name == "query"
