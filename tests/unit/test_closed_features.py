"""Closed sets: everyone's classifier by hand, and the user's own answers that move it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.features import ADAPTER_FEATURES, Pool, adapter_features
from hydra_edge.features.closed import (
    CLOSED_FEATURES,
    RECENT,
    Classifier,
    ClosedPast,
    closed_features,
)
from hydra_edge.history import History
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import Candidate, Record

LABELS = TaskSpec("mood", "label", labels=("calm", "wild", "odd"), instruction="", max_tokens=4)
STARS = BUILTIN["film_rating"]
# Everyone answers "calm" along the first axis and "wild" along the second.
KNOWN = Classifier(
    ("calm", "wild"),
    np.array([[2, 0, 0, 0], [0, 2, 0, 0]], dtype=np.float32),
    np.array([0, 0], dtype=np.float32),
)
E = np.eye(4, dtype=np.float32)


def past_of(task: TaskSpec, answers: list[str], rows: list[tuple[int, str]]) -> ClosedPast:
    records = [Record(f"in {i}", out, task.name, id=f"r{i}") for i, (_, out) in enumerate(rows)]
    inputs = E[[axis for axis, _ in rows]] if rows else np.zeros((0, 4), dtype=np.float32)
    history = History.build(task, records, inputs, np.zeros_like(inputs))
    return ClosedPast.of(history, answers)


def column(out: np.ndarray, name: str) -> np.ndarray:
    return out[:, CLOSED_FEATURES.index(name)]


def test_shares_are_a_softmax_and_unknown_answers_have_none() -> None:
    shares = KNOWN.shares(E[:3], [" Calm ", "odd", "WILD"])
    two = np.exp(2) / (np.exp(2) + 1)
    expected = [[two, 0, 1 - two], [1 - two, 0, two], [0.5, 0, 0.5]]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_closed_features_without_records_are_the_classifiers_own() -> None:
    out = closed_features(past_of(LABELS, ["calm", "wild", "odd"], []), E[0], KNOWN)
    p = KNOWN.shares(E[:1], ["calm", "wild", "odd"])[0]
    np.testing.assert_allclose(column(out, "known_fit"), p, atol=1e-6)
    np.testing.assert_allclose(column(out, "own_fit"), p, atol=1e-6)
    np.testing.assert_allclose(column(out, "log_known_fit"), np.log(p + 0.003), atol=1e-5)


def test_closed_features_of_a_stranger_without_records_favour_nothing() -> None:
    out = closed_features(past_of(LABELS, ["calm", "wild", "odd"], []), E[0], None)
    assert (out[:, :2] == 0).all()
    np.testing.assert_allclose(column(out, "own_fit"), 1 / 3, atol=1e-6)


def test_own_fit_is_kernel_ridge_on_what_the_classifier_left_unexplained() -> None:
    rows = [(0, "wild"), (0, "wild"), (2, "calm")]
    answers = ["calm", "wild", "odd"]
    out = closed_features(past_of(LABELS, answers, rows), E[0], KNOWN)
    x = E[[0, 0, 2]].astype(np.float64)
    p = KNOWN.shares(E[[0, 0, 2]], answers)
    residual = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]]) - p
    moved = KNOWN.shares(E[:1], answers)[0] + E[0] @ x.T @ np.linalg.inv(
        x @ x.T + np.eye(3)
    ) @ residual  # fmt: skip
    moved = np.maximum(moved, 0)
    np.testing.assert_allclose(column(out, "own_fit"), moved / moved.sum(), atol=1e-6)


def test_a_user_who_answers_otherwise_moves_own_fit_and_not_known_fit() -> None:
    answers = ["calm", "wild", "odd"]
    before = closed_features(past_of(LABELS, answers, []), E[0], KNOWN)
    after = closed_features(past_of(LABELS, answers, [(0, "wild")] * 9), E[0], KNOWN)
    assert (before[:, :2] == after[:, :2]).all()
    assert column(before, "own_fit").argmax() == 0
    assert column(after, "own_fit").argmax() == 1


def test_a_strangers_answers_are_learned_from_the_user_alone() -> None:
    rows = [(0, "odd"), (0, "odd"), (1, "calm"), (1, "calm")] * 3
    for axis, wanted in ((0, 2), (1, 0)):
        out = closed_features(past_of(LABELS, ["calm", "wild", "odd"], rows), E[axis], None)
        assert column(out, "own_fit").argmax() == wanted


def test_rating_numbers_written_otherwise_are_the_same_answer_and_near_ones_agree() -> None:
    past = past_of(STARS, list(STARS.labels), [(0, "4.0"), (0, " 4 "), (1, "seven")])
    assert past.answered.tolist() == [3, 3]  # what is no answer of the set is left out
    assert len(past.inputs) == 2
    own = column(closed_features(past, E[0], None), "own_fit")
    assert own.argmax() == 3
    assert own[2] > own[1] > own[0]


def test_only_recent_records_count() -> None:
    rows = [(0, "odd")] * 5 + [(0, "calm")] * RECENT
    past = past_of(LABELS, ["calm", "wild", "odd"], rows)
    assert past.answered.tolist() == [0] * RECENT


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["calm", "wild", "odd", "?"])), max_size=8
    ),
    st.permutations(["calm", "wild", "odd"]),
    st.booleans(),
)
def test_features_are_finite_and_follow_the_answers_order(
    rows: list[tuple[int, str]], order: list[str], known: bool
) -> None:
    classifier = KNOWN if known else None
    base = ["calm", "wild", "odd"]
    first = closed_features(past_of(LABELS, base, rows), E[0], classifier)
    second = closed_features(past_of(LABELS, order, rows), E[0], classifier)
    assert np.isfinite(first).all()
    np.testing.assert_allclose(first[[base.index(a) for a in order]], second, atol=1e-5)


@pytest.mark.parametrize("name", ["news_category", "film_rating", "paper_title"])
def test_adapter_features_fill_them_for_closed_sets_only(name: str) -> None:
    task = BUILTIN[name]
    texts = list(task.labels[:2]) or ["A title", "Another"]
    records = [Record("in", texts[0], name, id="r0")]
    history = History.build(task, records, E[:1], E[:1])
    pool = Pool(
        "in", E[0], tuple(Candidate(t) for t in texts), E[:2], (), E[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
    own = adapter_features(pool, history)[:, ADAPTER_FEATURES.index("own_fit")]
    assert (own[0] > own[1]) if task.kind != "text" else (own == 0).all()
