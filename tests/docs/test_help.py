"""Every command says what it is for and shows how it is used."""

import re
import shlex
from functools import cache

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hydra_edge.cli.app import app


def walk(command, path=()):
    """Yield every command and group with the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(get_command(app)))
LEAVES = [path for path, command in COMMANDS.items() if not hasattr(command, "commands")]


@cache
def show(path):
    command = COMMANDS[path]
    context = command.context_class(command, info_name=" ".join(("hydra-edge", *path)))
    return command.get_help(context)


def shown_examples(path):
    lines = show(path).partition("  Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_every_command_has_one_line_of_purpose_and_an_example(path):
    text = show(path)
    purpose = text.split("\n\n")[1].strip()

    assert purpose.endswith((".", "`.", ")."))
    assert "\n" not in purpose, "the first paragraph is one line"
    assert any("hydra-edge" in line for line in shown_examples(path))


@pytest.mark.parametrize("path", [p for p in COMMANDS if p not in LEAVES], ids=" ".join)
def test_help_group_no_purpose_is_cut(path):
    listed = show(path).partition("Commands:\n")[2].partition("\n\n")[0]

    assert listed.strip()
    assert "..." not in listed


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_every_option_is_explained(path):
    for param in COMMANDS[path].params:
        assert getattr(param, "help", None), f"{param.name} of {' '.join(path)}"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_examples_name_commands_and_options_that_exist(path):
    for line in shown_examples(path):
        calls = [part for part in line.split("|") if "hydra-edge" in part]
        assert calls, line
        for call in calls:
            call = re.sub(r".*\$\((.*)\).*", r"\1", call)
            words = shlex.split(call)
            words = words[words.index("hydra-edge") + 1 :]
            called, rest = resolve(words)
            options = {
                name for param in called.params for name in (*param.opts, *param.secondary_opts)
            }
            for word in rest:
                if re.match(r"--?[a-z]", word):
                    assert word in options, f"{word} in {line!r}"


def resolve(words):
    """Find the command a list of words calls, as the command line does."""
    path = ()
    while words and (*path, words[0]) in COMMANDS:
        path, words = (*path, words[0]), words[1:]
    if not path and words and not words[0].startswith("-"):
        path = ("generate",)
    return COMMANDS[path], words


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_help_alone_prints_help_and_succeeds(args):
    result = CliRunner().invoke(app, args)

    assert result.exit_code == 0
    assert "Commands:" in result.stdout
    assert result.stderr == ""


def test_help_group_alone_prints_its_help():
    result = CliRunner().invoke(app, ["heads"])

    assert result.exit_code == 0
    assert "rollback" in result.stdout
