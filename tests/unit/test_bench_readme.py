"""The README's tables say which base they were measured with, if not with the shipped one."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "readme.py"


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def costs(base: str) -> list[tuple[str, dict[str, Any]]]:
    """Make a result for every table of costs."""
    return [
        ("speed", {"base_id": base, "targets": [],
                   "machine": {"clock": "wall", "cores": 2, "processor": "P"}}),
        ("decoding", {"base_id": base, "decode": {}}),
        ("growth", {"base_id": base, "clock": "wall", "threads": 1, "scale": {}}),
    ]  # fmt: skip


def test_costs_of_another_base_name_it(readme: ModuleType) -> None:
    for name, result in costs("0123456789" * 6):
        assert getattr(readme, name)(result).endswith(
            f"Measured with base 01234567, an earlier one; the shipped one is {readme.SHIPPED[:8]}."
        ), name


def test_costs_of_the_shipped_base_need_no_note(readme: ModuleType) -> None:
    for name, result in costs(readme.SHIPPED):
        assert "Measured with base" not in getattr(readme, name)(result), name


@pytest.mark.parametrize(("seen", "told"), [(14, True), (3, False), (0, False)])
def test_queries_the_base_has_read_have_a_sentence_where_they_are_many(
    readme: ModuleType, seen: int, told: bool
) -> None:
    rows = {"gated": {"seen": 0.9, "unseen": 0.4}, "pag": {"seen": 0.6, "unseen": 0.5}}
    parts = {"queries": {"seen": seen, "unseen": 20 - seen}, "rows": rows}
    task = {"best_prompt_only": "pag", "queries": 20, "seen_in_training": parts}
    lines = readme.read_before({"tasks": {"tags": task, "old": {"best_prompt_only": "pag"}}})
    assert bool(lines) is told
    if told:
        assert "gated 0.900, pag 0.600. On the 6 others: gated 0.400, pag 0.500." in lines[0]


@pytest.mark.parametrize("stale", [False, True])
def test_check_writes_nothing(
    readme: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    pages = []
    for name in ("README", "TRAINING"):
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

    assert [page.stat().st_mtime for page in pages] == [1, 1]
