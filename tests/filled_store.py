"""What a user's file holds beside records and vectors, for tests of what becomes of it."""

from __future__ import annotations

import numpy as np

from hydra_edge.store import Store
from hydra_edge.types import (
    Candidate,
    Completion,
    Generation,
    HeadInfo,
    HeadState,
    RankedRecord,
    Record,
    Usage,
)


def head_of(task: str) -> HeadState:
    """Return the smallest head."""
    one = np.ones(1, dtype=np.float32)
    return HeadState(task, "adapter", "b", ("f",), one, one.reshape(1, 1), "shared", 1, 1.0, {})


def generation_of(
    id_: str, query: str, text: str, shown: tuple[str, ...] = (), sampled: tuple[str, ...] = ()
) -> Generation:
    """Return an answer, by what it was shown and what else was sampled."""
    info = HeadInfo("t", "adapter", "shared", None, "b")
    records = tuple(RankedRecord(Record("i", "o", id=i), 1.0, {}) for i in shown)
    candidates = tuple(Candidate(t) for t in (text, *sampled))
    return Generation(id_, query, "t", text, candidates, records, info, info, Usage())


def fill(store: Store, text: str) -> None:
    """Put a text into every table but those of records and vectors."""
    store.put_pool(
        "k", task="t", model="m", query_id="r1", record_ids=["r1"], completions=[Completion(text)]
    )
    store.put_choice("g", "t", text, [Candidate(text)], ["r1"], 0, text, None)
    store.save_head(head_of("t"))
    store.log_generation(generation_of("g", text, text), "m")
