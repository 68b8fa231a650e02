"""The documents say what is true: commands exist, examples run, figures are the stored ones."""

from __future__ import annotations

import doctest
import importlib
import json
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


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = get_command(app)


def commands_of(text: str) -> list[str]:
    """Return every hydra-edge command in a document's code, blocks of other languages left out."""
    shown = [code for language, code in BLOCK.findall(text) if language in ("", "sh")]
    lines = [line.strip().removeprefix("$ ") for code in shown for line in code.splitlines()]
    inline = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    lines += [" ".join(code.split()) for code in inline]
    return [line for line in lines if line.startswith("hydra-edge ")]


def wrong_in(line: str) -> str:
    """Say what a command line names that there is not; nothing if all is there.

    Only words in quotes are a query; a group of commands may be named, not called with words.
    """
    command, (_, *words) = COMMANDS, shlex.split(line, comments=True)
    if line.removeprefix("hydra-edge ")[0] in "\"'":
        words = ["generate", *words]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        return f"no command {words[0]}"
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    used = {
        word.partition("=")[0] for word in words if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word)
    }
    return " ".join(sorted(used - known - {"--help", "--version"}))


@pytest.mark.parametrize(
    ("page", "line"),
    [(page.name, line) for page in PAGES for line in commands_of(page.read_text(encoding="utf-8"))],
)
def test_page_command_exists_with_its_options(page: str, line: str) -> None:
    assert wrong_in(line) == "", f"{page}: {line}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("hydra-edge history clearlog", "no command clearlog"),
        ("hydra-edge imprt git .", "no command imprt"),
        ("hydra-edge keys ste openai", "no command ste"),
        ("hydra-edge fit_head --user me", "no command fit_head"),
        ("hydra-edge serve tokens list", "no command tokens"),
        ("hydra-edge fit-head --uesr me", "--uesr"),
        ('hydra-edge "some text" --explan', "--explan"),
    ],
)
def test_page_command_that_is_not_there_is_found(line: str, wrong: str) -> None:
    assert wrong_in(line) == wrong


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


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_decision_records_are_short(path: Path) -> None:
    if path.parent.name == "adr":
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    assert not re.search(r"(?<![\w.~])/(home|Users|tmp)/", path.read_text(encoding="utf-8"))


def test_contributing_map_has_every_module_of_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| layer | modules |")[2].partition("\n\n")[0]
    package = ROOT / "hydra_edge"
    modules = {path.parent.name for path in package.glob("*/__init__.py")}
    modules |= {path.stem for path in package.glob("[!_]*.py")}

    assert set(re.findall(r"`(\w+)`", table)) == modules


def test_figures_in_sentences_are_the_stored_ones() -> None:
    training, notes = (
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("training.md", "performance-notes.md")
    )
    bundle = ROOT / "hydra_edge" / "bundles" / "default" / "manifest.json"
    of_base = json.loads(bundle.read_text(encoding="utf-8"))["parity"]["agreement"]
    both, records, answers = (
        f"{of_base[name]:.3f}".lstrip("0")
        for name in ("kendall", "reranker_kendall", "adapter_kendall")
    )
    assert f"{both}: {records} for records and {answers} for answers" in training
    stored = ROOT / "bench" / "results" / "latency.json"
    fit = json.loads(stored.read_text(encoding="utf-8"))["fit"]
    assert f"takes {fit['sklearn_over_fit']:.1f} times as long as we do" in " ".join(notes.split())
    assert f"{fit['paper_head_over_fit']:.0f} times as long as our fit" in " ".join(notes.split())
