"""The documents say what is true: commands exist, examples run, figures are the stored ones."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from hydra_edge.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WITH_EXAMPLES = (
    "hydra_edge.aio",
    "hydra_edge.personalizer",
    "hydra_edge.heads.bounds",
    "hydra_edge.heads.groups",
    "hydra_edge.heads.logit",
    "hydra_edge.heads.loo",
)


def commands_of(text: str) -> list[list[str]]:
    """Return every hydra-edge command in a document's code, as words."""
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("hydra-edge ")]


@pytest.mark.parametrize("words", commands_of(README), ids=" ".join)
def test_readme_command_exists_with_its_options(words: list[str]) -> None:
    command = get_command(app)
    rest = words[1:]
    if rest[0] not in command.commands and not rest[0].startswith("-"):
        rest = ["generate", *rest]
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    used = {word for word in rest if re.fullmatch(r"--?[a-z-]+", word)}
    assert used <= known | {"--help", "--version"}


def test_readme_names_the_two_commands_and_make_knows_them() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", README):
        assert f"\n{target}:" in makefile, f"README names make {target}"
    assert "make demo" in README
    assert "make test" in README


def test_readme_figures_are_those_of_the_stored_results() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "readme.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples_run(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_decision_records_are_short(path: Path) -> None:
    if path.parent.name == "adr":
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 42
    assert not re.search(r"(?<![\w.~])/(home|Users|tmp)/", path.read_text(encoding="utf-8"))
