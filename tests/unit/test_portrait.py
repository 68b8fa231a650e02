"""What a head has learned, as people see it: against an independent inverse and plain cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hydra_edge.errors import BaseMismatchError
from hydra_edge.heads import Groups, Prior
from hydra_edge.personalizer import Personalizer
from hydra_edge.portrait import curve, growth, weights
from hydra_edge.types import Record

DIM, M = 4, 6
TASK = "paper_title"


def history(n: int) -> list[Record]:
    return [
        Record(f"a long text about parsers {i % 5} and trees {i}", f"Parser {i % 5}: study {i}",
               TASK, f"r{i}", float(i))
        for i in range(n)
    ]  # fmt: skip


def queries(truth: list[float], n: int, seed: int = 0) -> Groups:
    """Make queries whose best candidate is the one ``truth`` scores highest."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(n):
        phi = rng.standard_normal((M, DIM))
        score = phi @ np.array(truth)
        items.append((phi, (score - score.min()) / np.ptp(score)))
    return Groups.stack(items, dim=DIM)


def drawn(groups: Groups, mean: list[float]):
    prior = Prior(np.array(mean, dtype=np.float64), np.eye(DIM), 0.1)
    return curve(groups, prior, np.eye(DIM, dtype=np.float32)[3], "adapter", 1)


def test_growth_of_a_person_unlike_the_population_rises():
    grown = drawn(queries([0, 1, 0, 0], 80), [1, 0, 0, 0])

    assert [p.queries for p in grown.points] == [0, 7, 13, 20, 27, 33, 40]
    assert grown.held_out == 40
    assert grown.points[0].utility == grown.shared
    assert grown.points[-1].utility > grown.shared + 0.2
    last = grown.points[-1]
    assert last.gain == pytest.approx(last.utility - grown.shared)
    assert 0 < last.gain_std < last.gain


def test_growth_no_point_knows_the_queries_it_is_judged_on():
    early, late = queries([0, 1, 0, 0], 20), queries([0, 0, 1, 0], 20, seed=1)
    changed = Groups(
        np.concatenate((early.features, late.features)),
        np.concatenate((early.utilities, late.utilities)),
        np.concatenate((early.offsets, early.offsets[-1] + late.offsets[1:])),
    )

    grown = drawn(changed, [1, 0, 0, 0])

    # What was learned early is no help later: with any later query seen, it would be.
    assert max(p.utility for p in grown.points) < 0.75
    assert drawn(early, [1, 0, 0, 0]).points[-1].utility > 0.9


def test_growth_of_a_person_like_the_population_stays_level():
    grown = drawn(queries([5, 0, 0, 0], 40), [5, 0, 0, 0])
    assert grown.points
    assert all(abs(p.gain) < 0.05 for p in grown.points)


def test_weights_without_a_head_are_the_populations(hash_encoder):
    with Personalizer.from_records(history(3), encoder=hash_encoder) as me:
        task = me.task(TASK)
        shown = weights(me.engine, task, "adapter", None)

    assert [w.feature for w in shown] == list(me.engine.features["adapter"].names)
    assert all(w.moved == 0.0 and w.std == w.spread > 0 for w in shown)


def test_weights_are_surer_than_the_population_where_there_is_evidence(hash_encoder):
    with Personalizer.from_records(history(40), encoder=hash_encoder) as me:
        me.fit_head(TASK, use_llm=False)
        state = me.store.head(TASK, "reranker")
        shown = weights(me.engine, me.task(TASK), "reranker", state)

    assert [w.mine for w in shown] == pytest.approx(state.weight.tolist())
    # One column of the inverse at a time, by solving: not how the code does it.
    precision = state.precision.astype(np.float64)
    for j, weight in enumerate(shown):
        unit = np.eye(len(shown))[j]
        assert weight.std == pytest.approx(np.sqrt(np.linalg.solve(precision, unit)[j]), rel=1e-6)
    assert max(abs(w.moved) for w in shown) > 0


def test_weights_of_another_base_are_refused(hash_encoder):
    with Personalizer.from_records(history(10), encoder=hash_encoder) as me:
        me.fit_head(TASK, use_llm=False)
        state = replace(me.store.head(TASK, "reranker"), base_id="f" * 64)
        with pytest.raises(BaseMismatchError, match="fit-head"):
            weights(me.engine, me.task(TASK), "reranker", state)


def test_growth_of_a_short_history_says_nothing(hash_encoder):
    with Personalizer.from_records(history(9), encoder=hash_encoder) as me:
        past = me.engine.history(me.task(TASK))
        assert growth(me.engine, past, "reranker", shown=4) is None
        assert growth(me.engine, past, "adapter", shown=4) is None


def test_growth_of_a_history_starts_at_the_shared_head(hash_encoder):
    with Personalizer.from_records(history(30), encoder=hash_encoder) as me:
        grown = growth(me.engine, me.engine.history(me.task(TASK)), "reranker", shown=4)

    assert grown.held_out == 14
    assert grown.points[0].queries == 0
    assert grown.points[0].utility == grown.shared
    assert 0.0 <= grown.baseline <= 1.0


def test_growth_with_no_record_shown_is_judged_by_the_one_that_would_be(hash_encoder):
    with Personalizer.from_records(history(30), encoder=hash_encoder) as me:
        past = me.engine.history(me.task(TASK))
        grown = growth(me.engine, past, "reranker", shown=0)

    assert np.isfinite([grown.baseline, grown.shared, *(p.utility for p in grown.points)]).all()
