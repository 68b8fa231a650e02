"""The forms in which several doors hand out the same thing: plain, as JSON can carry it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hydra_edge.headreport import rows_of

if TYPE_CHECKING:
    from hydra_edge.types import JsonDict, RankedRecord, Record

SHOWN_CANDIDATES = 32  # a closed set may have thousands of members that nobody drew


def finite(value: Any) -> Any:
    """Replace numbers JSON has no word for (infinite bounds of tiny samples) by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def record_json(record: Record) -> JsonDict:
    """Return a record whole, as ``import jsonl`` reads it: for its owner's eyes only."""
    return {
        "id": record.id,
        "task": record.task,
        "input": record.input,
        "output": record.output,
        "time": record.time,
        "private": record.private,
        "source": record.source,
    }


def ranked_json(ranked: RankedRecord) -> JsonDict:
    """Return a record that was ranked, with its score and what it is made of."""
    return {
        "id": ranked.record.id,
        "score": ranked.score,
        "input": ranked.record.input,
        "output": ranked.record.output,
        "time": ranked.record.time,
        "private": ranked.record.private,
        "contributions": ranked.contributions,
    }


def number(value: Any) -> float | None:
    """Return a number of a stored report as one can be shown; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON has whole numbers of any size
        return None
    return found if math.isfinite(found) else None


def report_rows(report: JsonDict) -> list[JsonDict]:
    """Read the rows of a stored report, which may come from a file somebody else wrote."""
    return [
        {
            "name": str(row.get("name", "")),
            "utility": number(row.get("utility")),
            "n": number(row.get("n")),
            "note": str(row.get("note") or ""),
        }
        for row in rows_of(report)
    ]
