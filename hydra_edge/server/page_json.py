"""What the page is told, as JSON: weights, reports, records and answers, each with its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra_edge.portrait import Growth, Weight
from hydra_edge.server.views import SHOWN_CANDIDATES
from hydra_edge.types import Generation, HeadInfo, HeadState, JsonDict, Record, Role
from hydra_edge.words import in_words

_SMALLEST_SHARE = 0.005  # what rounds to nothing explains nothing


def record_json(record: Record) -> JsonDict:
    """Return a record whole: it is shown to its owner only."""
    return {
        "id": record.id,
        "task": record.task,
        "input": record.input,
        "output": record.output,
        "time": record.time,
        "private": record.private,
        "source": record.source,
    }


def _reasons(contributions: Mapping[str, float], role: Role) -> list[JsonDict]:
    """Return the shares of a score, the largest first."""
    parts = sorted(contributions.items(), key=lambda item: -abs(item[1]))
    return [
        {"feature": name, "words": in_words(name, role), "share": share}
        for name, share in parts
        if abs(share) >= _SMALLEST_SHARE
    ]


def answer_json(generation: Generation) -> JsonDict:
    """Return an answer with everything that explains it."""
    shown = generation.candidates[:SHOWN_CANDIDATES]
    return {
        "id": generation.id,
        "task": generation.task,
        "text": generation.text,
        "candidates": [
            {
                "pick": place,
                "text": candidate.text,
                "score": candidate.score,
                "count": candidate.count,
                "greedy": candidate.greedy,
                "chosen": candidate.text == generation.text,
                "reasons": _reasons(candidate.contributions, "adapter"),
            }
            for place, candidate in enumerate(shown, start=1)
        ],
        "more_candidates": len(generation.candidates) - len(shown),
        "records": [
            record_json(ranked.record)
            | {"score": ranked.score, "reasons": _reasons(ranked.contributions, "reranker")}
            for ranked in generation.records
        ],
        "head": asdict(generation.head),
        "reranker": asdict(generation.reranker),
        "usage": asdict(generation.usage),
        "abstained": generation.abstained,
        "notes": list(generation.notes),
    }


def weight_json(weight: Weight, role: Role) -> JsonDict:
    """Return a weight with what it means."""
    return asdict(weight) | {"moved": weight.moved, "words": in_words(weight.feature, role)}


def head_json(info: HeadInfo, state: HeadState | None, weights: Sequence[Weight]) -> JsonDict:
    """Return what serves in a role, the evidence for it, and every weight."""
    report = {} if state is None else state.report
    return {
        "role": info.role,
        "switch": info.switch,
        "version": info.version,
        "n_queries": info.n_queries,
        "reason": info.reason,
        "fitted": None if state is None else state.created,
        "rows": _rows(report.get("rows")),
        "gains": {
            name: _gain(report.get(name))
            for name in ("personal_over_shared", "shared_over_baseline")
        },
        "weights": [weight_json(weight, info.role) for weight in weights],
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _rows(rows: Any) -> list[JsonDict]:
    """Read the rows of a stored report, which may come from a file somebody else wrote."""
    return [
        {
            "name": str(row.get("name", "")),
            "utility": _number(row.get("utility")),
            "n": _number(row.get("n")),
            "note": str(row.get("note") or ""),
        }
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict)
    ]


def _gain(gain: Any) -> JsonDict | None:
    if not isinstance(gain, dict):
        return None
    return {name: _number(gain.get(name)) for name in ("mean", "low", "n", "confidence")}


def growth_json(growth: Growth | None) -> JsonDict | None:
    """Return a growth curve; None where there is too little to draw one."""
    return None if growth is None else asdict(growth)
