"""The facade's results as JSON for clients: keys may be added, none renamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from hydra_edge.forms import SHOWN_CANDIDATES, finite, ranked_json
from hydra_edge.types import Candidate, Generation, JsonDict, RankedRecord, Ranking


def to_json(payload: Any) -> str:
    """Write JSON in ASCII: no text of a record can break it, lone surrogates included."""
    return json.dumps(finite(payload), allow_nan=False, separators=(",", ":"))


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write the content."""
        return to_json(content).encode("ascii")


def ranking_json(ranking: Ranking) -> JsonDict:
    """Return a ranking."""
    return {
        "object": "hydra_edge.ranking",
        "task": ranking.task,
        "records": [ranked_json(r) for r in ranking.records],
        "head": asdict(ranking.head),
    }


def candidates_json(
    generation: Generation, explained: Callable[[Candidate], JsonDict]
) -> list[JsonDict]:
    """Return the first candidates by the numbers ``pick`` takes, each with what explains it."""
    return [
        {
            "pick": pick,
            "text": candidate.text,
            "score": candidate.score,
            "count": candidate.count,
            "greedy": candidate.greedy,
            "finish": candidate.finish,
            "chosen": candidate.text == generation.text,
        }
        | explained(candidate)
        for pick, candidate in enumerate(generation.candidates[:SHOWN_CANDIDATES], start=1)
    ]


def generation_json(generation: Generation, *, explain: bool, notes: tuple[str, ...]) -> JsonDict:
    """Return what explains an answer: the ``hydra_edge`` object beside OpenAI's own fields."""

    def explained(item: Candidate | RankedRecord) -> JsonDict:
        return {"contributions": item.contributions} if explain else {}

    return {
        "generation_id": generation.id,
        "task": generation.task,
        "candidates": candidates_json(generation, explained),
        "records": [
            {"id": r.record.id, "score": r.score} | explained(r) for r in generation.records
        ],
        **origin_json(generation),
        "notes": [*generation.notes, *notes],
    }


def origin_json(generation: Generation) -> JsonDict:
    """Return which heads made an answer, and what it cost."""
    return {
        "head": asdict(generation.head),
        "reranker": asdict(generation.reranker),
        "usage": asdict(generation.usage),
        "abstained": generation.abstained,
    }
