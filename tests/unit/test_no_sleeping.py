"""No wall clock decides a test: none waits for a while and hopes that others are done by then."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Not meant: giving others a turn (0), waiting for ever to be killed (no time), and the step of what
# polls, whose event has a name.
SLEEPS = re.compile(r"\btime\.sleep\((?!0\))|\bEvent\(\)\.wait\((?!\))")
HANGS = {"unit/test_llm_tiles.py": 2}  # children that are killed before they wake up


def test_no_test_sleeps() -> None:
    found = {
        path.relative_to(TESTS).as_posix(): len(SLEEPS.findall(path.read_text(encoding="utf-8")))
        for path in TESTS.rglob("*.py")
    }
    assert {path: n for path, n in found.items() if n} == HANGS, (
        "wait for an event that says so, or hold what is meant to be under way at a gate"
    )
