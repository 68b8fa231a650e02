"""Counting the answers a closed set needs: what is saved, and that the choice stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import HashEncoder

from bench.votes import Count, count, summed_up
from hydra_edge.adapter import merge
from hydra_edge.bundle import Bundle
from hydra_edge.engine import Engine
from hydra_edge.store import Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Record

COLOUR = TaskSpec("colour", "label", labels=("amber", "blue", "crimson"))


def test_summed_up_counts_those_begun_as_paid() -> None:
    found = summed_up([Count(8, 1, True), Count(8, 7, True), Count(8, 4, False)])
    assert found["pools"] == 3
    assert found["settled_by_one"] == pytest.approx(1 / 3)
    assert found["saved_one_by_one"] == pytest.approx(1 - 12 / 24)
    assert found["saved_four_together"] == pytest.approx(1 - (4 + 8 + 7) / 24)
    assert found["same_choice"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("weight", "needed"), [(0.0, 1), (5.0, 4)])
def test_count_hears_as_many_as_the_weight_of_votes_asks_for(
    bundle: Bundle, weight: float, needed: int
) -> None:
    store = Store.in_memory()
    store.add([Record(f"thing {i}", "amber", "colour", id=f"r{i}", time=i) for i in range(9)])
    engine = Engine(store, bundle, HashEncoder(bundle.base_id), {"colour": COLOUR})
    history = engine.history(engine.task("colour"))
    pool = engine.pool(
        "thing", engine.encode_query("thing"), merge((), COLOUR), [], history,
        engine.lexical(history),
    )  # fmt: skip
    head = engine.shared(history.task, "adapter")
    weights = np.zeros_like(head.weight)
    weights[head.features.names.index("greedy")] = 1e-2
    weights[head.features.names.index("votes")] = weight
    drawn = [Completion("blue", greedy=i == 0) for i in range(8)]
    # Of eight, four leave the others a tie at best, which the greedy answer wins.
    found = count(replace(head, weight=weights), pool, history, drawn)
    store.close()
    assert found == Count(8, needed, same=True)
