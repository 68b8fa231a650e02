"""What the page is told, as JSON: weights, reports, records and answers, each with its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra_edge.forms import SHOWN_CANDIDATES, number, record_json, report_rows
from hydra_edge.headreport import gains_of
from hydra_edge.portrait import Growth, Weight
from hydra_edge.reasons import in_words, largest
from hydra_edge.server.views import candidates_json, origin_json
from hydra_edge.types import Generation, HeadInfo, HeadState, JsonDict, Role


def _reasons(contributions: Mapping[str, float], role: Role) -> list[JsonDict]:
    """Return the shares of a score, the largest first."""
    return [
        {"feature": name, "words": in_words(name, role), "share": share}
        for name, share in largest(contributions, len(contributions))
    ]


def answer_json(generation: Generation) -> JsonDict:
    """Return an answer with everything that explains it."""
    return {
        "id": generation.id,
        "task": generation.task,
        "text": generation.text,
        "candidates": candidates_json(
            generation, lambda candidate: {"reasons": _reasons(candidate.contributions, "adapter")}
        ),
        "more_candidates": len(generation.candidates[SHOWN_CANDIDATES:]),
        "records": [
            record_json(ranked.record)
            | {"score": ranked.score, "reasons": _reasons(ranked.contributions, "reranker")}
            for ranked in generation.records
        ],
        **origin_json(generation),
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
        "rows": report_rows(report),
        "gains": {name: _gain(gain) for name, gain in gains_of(report).items()},
        "weights": [weight_json(weight, info.role) for weight in weights],
    }


def _gain(gain: Any) -> JsonDict | None:
    if not isinstance(gain, dict):
        return None
    return {name: number(gain.get(name)) for name in ("mean", "low", "n", "confidence")}


def growth_json(growth: Growth | None) -> JsonDict | None:
    """Return a growth curve; None where there is too little to draw one."""
    return None if growth is None else asdict(growth)
