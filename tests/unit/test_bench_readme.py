"""The tables of stored figures: which base they were measured with, what is told, what is stale."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

Load = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import one of the scripts by its name."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def costs(base: str) -> list[tuple[str, dict[str, Any]]]:
    """Make a result for every table of costs."""
    return [
        ("speed", {"base_id": base, "targets": [], "command": "python -m bench.latency",
                   "machine": {"clock": "wall", "cores": 2, "processor": "P", "isa": "avx2"}}),
        ("decoding", {"base_id": base, "decode": {}, "command": "python -m bench.latency",
                      "machine": {"llm_threads": 2}}),
        ("growth", {"base_id": base, "clock": "wall", "threads": 1, "scale": {}}),
    ]  # fmt: skip


def test_costs_of_another_base_name_it(script: Load) -> None:
    shipped = script("_tables").SHIPPED[:8]
    for name, result in costs("0123456789" * 6):
        assert getattr(script("_costs"), name)(result).endswith(
            f"Measured with base 01234567, an earlier one; the shipped one is {shipped}."
        ), name


def test_costs_of_the_shipped_base_need_no_note(script: Load) -> None:
    for name, result in costs(script("_tables").SHIPPED):
        assert "Measured with base" not in getattr(script("_costs"), name)(result), name


def latency(**measured: float) -> dict[str, Any]:
    """Make a result of speed, each figure of which should be at most 10."""
    return {
        "base_id": "", "command": "python -m bench.latency --only fit --torch python",
        "machine": {"clock": "wall", "cores": 2, "processor": "P", "isa": "avx2"},
        "targets": [{"figure": name.replace("_", "."), "measured": value, "target": "<= 10",
                     "met": value <= 10} for name, value in measured.items()],
    }  # fmt: skip


def test_speed_gives_the_command_and_machine_that_measured_it_and_no_ratio_of_decoding(
    script: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = script("_costs")
    monkeypatch.setattr(costs, "results", lambda _: [])
    title, _, _, _, *rows = costs.speed(latency(fit_ms=4.0, decode_q8_best8=3.0)).splitlines()
    command = "python -m bench.latency --only fit --torch python"
    assert f"`{command} --json bench/results/latency.json`" in title
    assert "2 cores (P, avx2), wall time" in title
    assert rows[0] == "| fit.ms | 4 | <= 10 | yes |"
    assert "decode" not in "".join(rows)


def test_speed_tells_what_is_barely_met_and_what_an_older_processor_misses(
    script: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = script("_costs")
    older = latency(a=9.0, b=19.0, c=30.0)
    monkeypatch.setattr(costs, "results", lambda pattern: [older] if "avx2" in pattern else [])
    told = costs.speed(latency(a=4.0, b=9.5, c=20.0))
    assert "Met by less than 10%, so that another run may miss it: b." in told
    assert "an older processor (P, avx2; `bench/results/latency-avx2.json`)" in told
    assert told.index("missed, too: b 19.") > 0, "c is missed here, and told in its row"
    monkeypatch.setattr(costs, "results", lambda _: [])
    assert "another run" not in costs.speed(latency(a=4.0, c=20.0))


def seen_in_training(seen: int) -> dict[str, Any]:
    """Make the figures of 20 queries, so many of which are texts in the training files."""
    rows = {"gated": {"seen": 0.9, "unseen": 0.4}, "pag": {"seen": 0.6, "unseen": 0.5}}
    return {"queries": {"seen": seen, "unseen": 20 - seen}, "rows": rows}


@pytest.mark.parametrize(("seen", "told"), [(14, True), (3, False), (0, False)])
def test_queries_the_base_has_read_have_a_sentence_where_they_are_many(
    script: Load, seen: int, told: bool
) -> None:
    parts = seen_in_training(seen)
    task = {"best_prompt_only": "pag", "queries": 20, "seen_in_training": parts}
    lines = script("_quality").read_before(
        {"tasks": {"tags": task, "old": {"best_prompt_only": "pag"}}}
    )
    assert bool(lines) is told
    if told:
        assert "gated 0.900, pag 0.600. On the 6 others: gated 0.400, pag 0.500." in lines[0]


def measured(gain: float, harmed: float) -> dict[str, Any]:
    """Make a task's figures as far as the digest asks for them."""
    rows = {"pag": {"utility": 0.5}, "gated": {"utility": 0.6}}
    return {"best_prompt_only": "pag", "relative_gain": gain, "users_harmed": harmed,
            "users_helped": 0.25, "rows": rows}  # fmt: skip


def test_digest_has_every_set_and_a_blank_where_an_llm_was_not_measured(
    script: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"a": measured(0.2, 0.1), "b": measured(-0.1, 0.3)}
    shipped = script("_tables").SHIPPED
    stored = [
        {"base_id": shipped, "llm": "one", "tasks": two, "mean_relative_gain": 0.05},
        {"base_id": shipped, "llm": "other", "tasks": two, "mean_relative_gain": 0.05},
        {
            "base_id": shipped,
            "llm": "one",
            "tasks": {"c": measured(0.4, 0.0)},
            "mean_relative_gain": 0.4,
        },
    ]
    quality = script("_quality")
    monkeypatch.setattr(quality, "results", lambda pattern: stored if "quality" in pattern else [])
    monkeypatch.setattr(quality, "against_published", str)
    lines = quality.digest().splitlines()
    assert lines[0].count("one: ") == lines[0].count("other: ") == 4
    a, b, mean, c = (line.split(" | ") for line in lines[2:6])
    assert a[:5] == ["| a", "0.500 (pag)", "**0.600**", "+20.0%", "25%, 10%"]
    assert b[3:5] == ["-10.0%", "25%, 30%"], "losses are told"
    assert mean[3:5] == ["**+5.0%**", "25%, 20%"]
    assert c[1:4] == ["0.500 (pag)", "**0.600**", "+40.0%"]
    assert [cell.strip(" |") for cell in c[5:]] == ["", "", "", ""]
    two["a"]["base_id"] = "of an earlier one"
    two["b"] |= {"queries": 20, "seen_in_training": seen_in_training(14)}
    starred, _, *told = quality.digest().splitlines()[2:]
    assert starred.startswith("| a \\* |")
    assert any("Measured with an earlier base" in line for line in told)
    assert sum("20 queries 14 are texts that other people" in line for line in told) == 2
    stored.append(stored[0])
    with pytest.raises(SystemExit, match="two stored results of a, b with one"):
        quality.digest()


@pytest.mark.parametrize("stale", [False, True])
def test_check_writes_nothing(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    readme, pages = script("readme"), []
    for name in ("README", "MEASURED", "TRAINING", "NOTES"):
        page = tmp_path / f"{name}.md"
        text = getattr(readme, name).read_text(encoding="utf-8")
        page.write_text(text.replace("(written by `make readme`) -->\n", "-->\nold\n", int(stale)))
        os.utime(page, (1, 1))
        monkeypatch.setattr(readme, name, page)
        pages.append(page)
    monkeypatch.setattr(sys, "argv", ["readme.py", "--figures", "--check"])
    if stale:
        with pytest.raises(SystemExit, match="figures are stale; run make readme"):
            readme.main()
    else:
        readme.main()

    assert [page.stat().st_mtime for page in pages] == [1, 1, 1, 1]
