"""An empty store, and what tests put into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hydra_edge.store import Store
from hydra_edge.types import (
    Candidate,
    Generation,
    HeadInfo,
    HeadState,
    RankedRecord,
    Record,
    Role,
    Usage,
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.in_memory() as opened:
        yield opened


def make_head(task: str = "t", role: Role = "adapter", d: int = 3, seed: int = 0) -> HeadState:
    rng = np.random.default_rng(seed)
    return HeadState(
        task=task,
        role=role,
        base_id="base",
        features=tuple(f"f{i}" for i in range(d)),
        weight=rng.standard_normal(d).astype(np.float32),
        precision=rng.standard_normal((d, d)).astype(np.float32),
        switch="shared",
        n_queries=7,
        prior_scale=1.5,
        report={"rows": [{"name": "mine", "utility": None}], "π": 3.14},
    )


CANDIDATES = (
    Candidate("greedy one", 3, True, -0.25, 1.5, {"consensus": 1.0}),
    Candidate("other \ud800", 0, False, None, -1.0),
)
KEPT = tuple(replace(c, contributions={}) for c in CANDIDATES)  # by a choice


def make_generation(id_: str = "g1", task: str = "t", text: str = "greedy one") -> Generation:
    info = HeadInfo(task, "adapter", "shared", None, "base")
    shown = Record("shown input", "shown output", id="r1")
    return Generation(
        id=id_,
        query="the query",
        task=task,
        text=text,
        candidates=CANDIDATES,
        records=(RankedRecord(shown, 1.0, {}), RankedRecord(replace(shown, id="r2"), 0.5, {})),
        head=info,
        reranker=info,
        usage=Usage(llm_calls=1, prompt_tokens=20, latency_ms=3.5),
    )
