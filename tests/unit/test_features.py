"""Features: values worked out by hand, nothing from the future, no surprises at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from hydra_edge.features import (
    ADAPTER_FEATURES,
    RERANKER_FEATURES,
    Pool,
    adapter_features,
    reranker_features,
)
from hydra_edge.history import History
from hydra_edge.retrieval import Shortlist
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import Candidate, Float2d, Record

E = np.eye(4, dtype=np.float32)


def history_of(task: TaskSpec, rows: list[tuple[int, int, str]]) -> History:
    """Make records from (input axis, output axis, output text)."""
    records = [Record(f"in {i}", t, task.name, id=f"r{i}") for i, (_, _, t) in enumerate(rows)]
    inputs = E[[a for a, _, _ in rows]] if rows else np.zeros((0, 4), dtype=np.float32)
    outputs = E[[b for _, b, _ in rows]] if rows else np.zeros((0, 4), dtype=np.float32)
    return History.build(task, records, inputs, outputs)


def everything(history: History, query: np.ndarray) -> Shortlist:
    n = len(history)
    zeros = np.zeros(n, dtype=np.float32)
    return Shortlist(np.arange(n), zeros, zeros, history.inputs @ query)


def column(features: Float2d, name: str, names: tuple[str, ...]) -> np.ndarray:
    return features[:, names.index(name)]


def pool_of(candidates: list[Candidate], axes: list[int], shown: int = 0) -> Pool:
    return Pool(
        "alpha beta", E[0], tuple(candidates), E[axes],
        tuple(Record("x", "gamma", id=f"s{i}") for i in range(shown)),
        np.repeat(E[1:2], shown, axis=0),
    )  # fmt: skip


def test_reranker_features_by_hand() -> None:
    task = BUILTIN["news_category"]
    history = history_of(task, [(0, 1, "TECH"), (0, 1, "TECH"), (1, 2, "SPORTS")])
    out = reranker_features(E[0], history, everything(history, E[0]), {"r2": (3, 2)})
    np.testing.assert_allclose(column(out, "cos_input", RERANKER_FEATURES), [1, 1, 0])
    np.testing.assert_allclose(column(out, "cos_output", RERANKER_FEATURES), [0, 0, 0])
    recency = column(out, "recency", RERANKER_FEATURES)
    assert recency[2] == 0.0
    assert recency[0] < recency[1] < 0.0
    consensus = column(out, "consensus", RERANKER_FEATURES)
    assert consensus[0] > 0.99  # its near neighbour says the same
    assert consensus[2] == 0.0  # all near records say another thing
    np.testing.assert_allclose(column(out, "duplicate", RERANKER_FEATURES), [0, 1, 0])
    helped = column(out, "helped", RERANKER_FEATURES)
    np.testing.assert_allclose(helped, [0, 0, np.log(3 / 2)], atol=1e-6)
    habit = column(out, "habit", RERANKER_FEATURES)
    assert habit[0] == habit[1] > habit[2] > 0


def test_reranker_features_of_an_empty_shortlist() -> None:
    history = history_of(BUILTIN["paper_title"], [])
    assert reranker_features(E[0], history, everything(history, E[0])).shape == (
        0, len(RERANKER_FEATURES),
    )  # fmt: skip


def test_adapter_features_label_votes_and_support_by_hand() -> None:
    history = history_of(
        BUILTIN["movie_tag"], [(0, 1, "action"), (0, 1, "action"), (1, 2, "comedy")]
    )
    candidates = [
        Candidate("action", count=1), Candidate("comedy", count=3, greedy=True),
        Candidate("romance", count=0),
    ]  # fmt: skip
    out = adapter_features(pool_of(candidates, [1, 2, 3]), history)
    names = ADAPTER_FEATURES
    np.testing.assert_allclose(column(out, "votes", names), [0.25, 0.75, 0.0])
    np.testing.assert_allclose(column(out, "consensus", names), [0.25, 0.75, 0.0])
    np.testing.assert_allclose(column(out, "greedy", names), [0, 1, 0])
    support = column(out, "support_near", names)
    assert support[0] > 0.999
    assert support[2] == 0.0
    wide = column(out, "support_wide", names)
    assert support[1] < wide[1] < wide[0], "a broad view lets the far record speak"
    habit = column(out, "habit", names)
    assert habit.sum() == pytest.approx(1.0)
    assert column(out, "log_habit", names)[2] == pytest.approx(np.log(0.02))
    assert not column(out, "length_fit", names).any(), "style says nothing of a closed set"


def test_adapter_features_rating_near_misses_count() -> None:
    history = history_of(BUILTIN["film_rating"], [(0, 1, "4"), (0, 1, "4")])
    candidates = [Candidate(str(i), count=int(i == 4)) for i in range(1, 6)]
    out = adapter_features(pool_of(candidates, [0, 1, 2, 3, 0]), history)
    np.testing.assert_allclose(
        column(out, "support_near", ADAPTER_FEATURES), [0.25, 0.5, 0.75, 1.0, 0.75], atol=1e-6
    )
    np.testing.assert_allclose(
        column(out, "consensus", ADAPTER_FEATURES), [0.25, 0.5, 0.75, 1.0, 0.75], atol=1e-6
    )


def test_adapter_features_text_by_hand() -> None:
    history = history_of(BUILTIN["paper_title"], [(0, 1, "Gamma Delta"), (1, 1, "Gamma Rays")])
    candidates = [
        Candidate("alpha gamma", count=2, greedy=True, logprob=-1.0),
        Candidate("Gamma Delta", count=1, logprob=-3.0),
    ]
    out = adapter_features(pool_of(candidates, [0, 1], shown=2), history)
    names = ADAPTER_FEATURES
    np.testing.assert_allclose(column(out, "logprob", names), [1.0, -1.0])
    np.testing.assert_allclose(column(out, "cos_query", names), [1, 0])
    np.testing.assert_allclose(column(out, "in_query", names), [0.5, 0.0])
    np.testing.assert_allclose(column(out, "copied", names), [0.5, 0.5])
    np.testing.assert_allclose(column(out, "cos_shown", names), [0, 1])
    # Of three samples: the first agrees with its echo (1) and half with the other.
    np.testing.assert_allclose(column(out, "consensus", names), [(1 + 0.5) / 2, 2 * 0.5 / 2])
    opening = column(out, "opening_fit", names)
    assert opening[1] > opening[0], "the user opens with Gamma"
    casing = column(out, "casing_fit", names)
    assert casing[1] == 0.0
    assert casing[0] < 0.0
    np.testing.assert_allclose(column(out, "length_fit", names), [0, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["paper_title", "movie_tag", "film_rating"])
def test_adapter_features_empty_history_is_finite(name: str) -> None:
    history = history_of(BUILTIN[name], [])
    out = adapter_features(pool_of([Candidate("1"), Candidate("👍")], [0, 1]), history)
    assert np.isfinite(out).all()


def test_adapter_features_of_no_candidates() -> None:
    history = history_of(BUILTIN["paper_title"], [])
    assert adapter_features(pool_of([], []), history).shape == (0, len(ADAPTER_FEATURES))
