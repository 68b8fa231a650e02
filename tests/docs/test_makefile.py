"""What `make bench` runs is short, and every command of a bench target can be given its options."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")


def commands_of(target: str) -> dict[str, list[str]]:
    """Return the options of every bench command that a target runs, by the command's name."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None, f"there is no target {target}"
    return {
        name: shlex.split(options)
        for name, options in re.findall(r"-m bench\.(\w+)(.*)", recipe[1])
    }


def test_bench_is_the_short_way_and_bench_full_the_long_one() -> None:
    short, full = commands_of("bench"), commands_of("bench-full")
    assert set(short) <= set(full)
    assert "--quick" in short["latency"]
    assert "--quick" not in full["latency"]
    assert int(short["leak"][short["leak"].index("--generations") + 1]) <= 200
    for name in ("memory", "scale"):
        assert short[name][short[name].index("--sizes") + 1] == "1000"


@pytest.mark.parametrize("target", ["bench", "bench-full"])
def test_bench_commands_have_the_options_they_are_given(target: str) -> None:
    commands = commands_of(target)
    assert len(commands) > 3
    for name, options in commands.items():
        command = get_command(importlib.import_module(f"bench.{name}").app)
        known = {opt for param in command.params for opt in param.opts}
        assert {word for word in options if word.startswith("--")} <= known, name
