"""How a table of stored figures is read, drawn and marked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MANIFEST = ROOT / "hydra_edge" / "bundles" / "default" / "manifest.json"
BASE = json.loads(MANIFEST.read_text(encoding="utf-8"))
SHIPPED = BASE["base_id"]
EARLIER = "\n\\* Measured with an earlier base; the others with the one that is shipped."


def results(pattern: str) -> list[dict[str, Any]]:
    """Read the stored results of a name, in order."""
    paths = sorted((ROOT / "bench" / "results").glob(f"{pattern}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table."""
    first, *others = (list(cells) for cells in (headings, *rows))
    return ["| " + " | ".join(first) + " |", "|" + "---|" * len(first)] + [
        "| " + " | ".join(cells) + " |" for cells in others
    ]


def is_earlier(name: str, result: dict[str, Any]) -> bool:
    """Tell whether a task's figures are of another base than the one that is shipped."""
    return bool(result["tasks"][name].get("base_id", result["base_id"]) != SHIPPED)


def marked(name: str, result: dict[str, Any]) -> str:
    """Write a task's name, with a star if its base is an earlier one."""
    return f"{name} \\*" if is_earlier(name, result) else name


def explained(result: dict[str, Any]) -> list[str]:
    """Say what the stars mean, if there are any."""
    return [EARLIER] if any(is_earlier(name, result) for name in result["tasks"]) else []


def measured_with(result: dict[str, Any]) -> list[str]:
    """Say which base a table of costs is of, if not of the one that is shipped."""
    if result["base_id"] == SHIPPED:
        return []
    return [
        f"\nMeasured with base {result['base_id'][:8]}, an earlier one; the shipped one is "
        f"{SHIPPED[:8]}."
    ]


def utilities(task: dict[str, Any]) -> dict[str, float]:
    """Return each row's utility."""
    return {row: figures["utility"] for row, figures in task["rows"].items()}


def interval(gain: dict[str, float]) -> str:
    """Write a gain with its interval."""
    return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"


def percent(gain: float | None) -> str:
    """Write a relative gain, which does not exist over a baseline of zero."""
    return "undefined" if gain is None else f"{gain:+.1%}"
