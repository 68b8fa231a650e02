"""The facade's results as JSON for clients: keys may be added, none renamed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from hydra_edge.types import Candidate, Generation, JsonDict, RankedRecord, Ranking

SHOWN_CANDIDATES = 32  # a closed set may have thousands of members that nobody drew


def _finite(value: Any) -> Any:
    """Replace numbers JSON has no word for by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def to_json(payload: Any) -> str:
    """Write JSON in ASCII: no text of a record can break it, lone surrogates included."""
    return json.dumps(_finite(payload), allow_nan=False, separators=(",", ":"))


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write the content."""
        return to_json(content).encode("ascii")


def ranked_json(ranked: RankedRecord) -> JsonDict:
    """Return a record with its score and its reasons."""
    return {
        "id": ranked.record.id,
        "score": ranked.score,
        "input": ranked.record.input,
        "output": ranked.record.output,
        "time": ranked.record.time,
        "private": ranked.record.private,
        "contributions": ranked.contributions,
    }


def ranking_json(ranking: Ranking) -> JsonDict:
    """Return a ranking."""
    return {
        "object": "hydra_edge.ranking",
        "task": ranking.task,
        "records": [ranked_json(r) for r in ranking.records],
        "head": asdict(ranking.head),
    }


def _candidate_json(candidate: Candidate, pick: int, *, chosen: bool, explain: bool) -> JsonDict:
    told: JsonDict = {
        "pick": pick,
        "text": candidate.text,
        "score": candidate.score,
        "count": candidate.count,
        "greedy": candidate.greedy,
        "chosen": chosen,
    }
    return told | ({"contributions": candidate.contributions} if explain else {})


def generation_json(generation: Generation, *, explain: bool, notes: tuple[str, ...]) -> JsonDict:
    """Return what explains an answer: the ``hydra_edge`` object beside OpenAI's own fields."""
    return {
        "generation_id": generation.id,
        "task": generation.task,
        "candidates": [
            _candidate_json(c, pick, chosen=c.text == generation.text, explain=explain)
            for pick, c in enumerate(generation.candidates[:SHOWN_CANDIDATES], start=1)
        ],
        "records": [
            {"id": r.record.id, "score": r.score}
            | ({"contributions": r.contributions} if explain else {})
            for r in generation.records
        ],
        "head": asdict(generation.head),
        "reranker": asdict(generation.reranker),
        "usage": asdict(generation.usage),
        "abstained": generation.abstained,
        "notes": [*generation.notes, *notes],
    }
