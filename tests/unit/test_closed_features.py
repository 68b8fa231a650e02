"""Closed sets: the user's own answers that move everyone's classifier, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from closed_sets import KNOWN, LABELS, STARS, E, column, past_of, pool_of
from hypothesis import given
from hypothesis import strategies as st

from export.pack import Card, neutral_maps, pack
from hydra_edge.adapter import pool_features
from hydra_edge.bundle import load_bundle
from hydra_edge.features import ADAPTER_FEATURES, FeatureMap, adapter_features, feature_names
from hydra_edge.features.adapter import CLOSED_COLUMNS
from hydra_edge.features.closed import (
    CLOSED_FEATURES,
    RECENT,
    Classifier,
    ClosedPast,
    by_names,
    closed_features,
)
from hydra_edge.history import HALF_LIFE, History
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record, Role


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


def test_own_fit_is_the_users_transfer_and_kernel_ridge_on_what_it_left_unexplained() -> None:
    rows = [(0, "wild"), (0, "wild"), (2, "calm")]
    answers = ["calm", "wild", "odd"]
    out = closed_features(past_of(LABELS, answers, rows), E[0], KNOWN)
    x = E[[0, 0, 2]].astype(np.float64)
    age = np.exp2(-np.array([2, 1, 0]) / HALF_LIFE)
    p = KNOWN.shares(E[[0, 0, 2]], ["calm", "wild"]).astype(np.float64)
    given = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float64)
    counted = (p * age[:, None]).T @ given + 5 * np.eye(2, 3)  # five records as everyone
    transfer = counted / counted.sum(axis=1, keepdims=True)
    moved = KNOWN.shares(E[:1], ["calm", "wild"])[0] @ transfer + E[0] @ x.T @ np.linalg.inv(
        x @ x.T + np.diag(0.5 / age)
    ) @ (given - p @ transfer)  # fmt: skip
    moved = np.maximum(moved, 0)
    np.testing.assert_allclose(column(out, "own_fit"), moved / moved.sum(), atol=1e-6)


@pytest.mark.parametrize("known", [KNOWN, None])
def test_own_fit_is_ridge_regression_of_what_is_left_on_any_vectors(
    known: Classifier | None,
) -> None:
    """The same in the vectors' own space, where the code solves for the records."""
    rng = np.random.default_rng(4)
    x, q = rng.standard_normal((5, 4)), rng.standard_normal(4)
    answers = ("calm", "wild", "odd")
    answered, age = np.array([0, 2, 1, 1, 2]), np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    given = np.eye(3)[answered]
    past = ClosedPast(
        "label", answers, np.eye(3, dtype=np.float32), x.astype(np.float32), answered, age
    )
    if known is None:
        at_query = np.array([0.2, 1.4, 1.4]) + 0.5  # each answer's weight and a half
        at_query /= at_query.sum()
        before = np.tile(at_query, (5, 1))
    else:
        p = known.probabilities(x)
        counted = (p * age[:, None]).T @ given + 5 * np.eye(2, 3)
        transfer = counted / counted.sum(axis=1, keepdims=True)
        at_query, before = known.probabilities(q[None])[0] @ transfer, p @ transfer
    weighted = x.T * age
    own = np.linalg.solve(weighted @ x + 0.5 * np.eye(4), weighted @ (given - before))
    moved = np.maximum(at_query + q @ own, 0)
    moved /= moved.sum()
    out = closed_features(past, q.astype(np.float32), known)
    np.testing.assert_allclose(column(out, "own_fit"), moved, atol=1e-5)
    np.testing.assert_allclose(column(out, "log_own_fit"), np.log(moved + 0.02), atol=1e-4)


def test_closed_features_of_one_record_by_hand() -> None:
    """Count and a half: 3/4 and 1/4. The gram is 1 + 1/2, so two thirds of the rest are added."""
    past = past_of(LABELS, ["calm", "wild"], [(0, "calm")])
    near, far = (closed_features(past, E[axis], None) for axis in (0, 1))
    np.testing.assert_allclose(column(near, "own_fit"), [11 / 12, 1 / 12], atol=1e-6)
    np.testing.assert_allclose(column(far, "own_fit"), [3 / 4, 1 / 4], atol=1e-6)


def test_what_a_user_answers_where_everyone_answers_otherwise_holds_for_texts_unlike() -> None:
    """Every text taken for calm was odd to this user: one like none of them is as well."""
    wide = Classifier(
        ("calm", "wild"),
        np.array([[9, 9, 9, 0], [0, 0, 0, 9]], np.float32),
        np.zeros(2, np.float32),
    )
    answers = ["calm", "wild", "odd"]
    past = past_of(LABELS, answers, [(0, "odd"), (1, "odd")] * 6)
    assert column(closed_features(past, E[2], wide), "own_fit").argmax() == 2
    assert column(closed_features(past, E[3], wide), "own_fit").argmax() == 1


def test_the_latest_answers_count_most() -> None:
    rows = [(0, "odd")] * 60 + [(0, "wild")] * 50
    for known in (KNOWN, None):
        of_late, before = (
            column(closed_features(past_of(LABELS, ["wild", "odd"], of), E[0], known), "own_fit")
            for of in (rows, rows[::-1])
        )
        assert of_late[0] > 0.6
        assert before[0] < 0.4


def test_rating_fits_are_agreements_to_expect_by_hand() -> None:
    """Half the people give 1 star, half 5: the middle agrees by half, and so do the ends."""
    sure = Classifier(
        ("1", "2", "3", "4", "5"),
        np.zeros((5, 4), dtype=np.float32),
        np.array([0, -99, -99, -99, 0], dtype=np.float32),
    )
    out = closed_features(past_of(STARS, list(STARS.labels), []), E[0], sure)
    np.testing.assert_allclose(column(out, "known_fit"), [0.5] * 5, atol=1e-6)
    log = np.log(np.array([0.5, 0, 0, 0, 0.5]) + 0.003)
    np.testing.assert_allclose(column(out, "log_known_fit"), log, atol=1e-5)
    low = closed_features(past_of(STARS, list(STARS.labels), [(0, "1")]), E[0], sure)
    # Of 20.5 who would give 5 this user would give half a time 1; a quarter of the rest moves.
    ones = 0.5 + 0.25 / 20.5
    ones += (1 - ones) / 4
    moved = np.array([ones, 0, 0, 0, 1 - ones])
    apart = 1 - np.abs(np.subtract.outer(np.arange(5), np.arange(5))) / 4
    np.testing.assert_allclose(column(low, "own_fit"), apart @ moved, atol=1e-6)


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


def test_a_record_whose_answer_is_not_there_counts_as_if_it_were_not_either() -> None:
    rows = [(3, "gone"), (0, "odd"), (2, "gone"), (1, "calm"), (0, "gone")]
    kept = [(axis, answer) for axis, answer in rows if answer != "gone"]
    answers = ["calm", "wild", "odd"]
    for classifier in (KNOWN, None):
        for query in E:
            with_them, without = (
                closed_features(past_of(LABELS, answers, of), query, classifier)
                for of in (rows, kept)
            )
            np.testing.assert_array_equal(with_them, without)


def test_adapter_features_ask_names_for_labels_that_no_classifier_knows() -> None:
    pool = pool_of(LABELS.labels, E[[3, 0, 1]])
    history = History.build(LABELS, [], E[:0], E[:0])
    out = adapter_features(pool, history)
    expected = closed_features(
        ClosedPast.of(history, LABELS.labels), E[0], by_names(LABELS.labels, pool.vectors)
    )
    np.testing.assert_array_equal(out[:, CLOSED_COLUMNS], expected)
    assert column(expected, "own_fit").argmax() == 1
    known = adapter_features(pool, history, replace(KNOWN, labels=("odd", "calm")))
    assert column(known[:, CLOSED_COLUMNS], "own_fit").argmax() == 2, "what is known comes first"


def test_only_recent_records_count() -> None:
    rows = [(0, "odd")] * 5 + [(0, "calm")] * RECENT
    past = past_of(LABELS, ["calm", "wild", "odd"], rows)
    assert past.answered.tolist() == [0] * RECENT


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["calm", "wild", "odd", "?"])), max_size=8
    ),
    st.permutations(["calm", "wild", "odd"]),
    st.sampled_from([KNOWN, replace(KNOWN, doubt=0.3), None]),
)
def test_features_are_finite_and_follow_the_answers_order(
    rows: list[tuple[int, str]], order: list[str], classifier: Classifier | None
) -> None:
    base = ["calm", "wild", "odd"]
    first = closed_features(past_of(LABELS, base, rows), E[0], classifier)
    second = closed_features(past_of(LABELS, order, rows), E[0], classifier)
    assert np.isfinite(first).all()
    np.testing.assert_allclose(first[[base.index(a) for a in order]], second, atol=1e-5)


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 0.6, 1e3])
ROWS = st.lists(NUMBERS, min_size=4, max_size=4)


@given(
    st.lists(st.tuples(ROWS, st.sampled_from(["1", "2.0", "5", " 3", "nan", "", "five"]))),
    ROWS,
    st.lists(st.lists(st.sampled_from([0.0, 50.0, -1e3]), min_size=4, max_size=4), min_size=5,
             max_size=5),
    st.sampled_from(["known", "borrowed", "none"]),
    st.sampled_from([("1",), ("1", "2", "3", "4", "5"), ("5", "7"), ("0", "-1", "1e9")]),
)  # fmt: skip
def test_features_of_degenerate_vectors_are_finite_and_own_shares_at_most_one(
    rows: list[tuple[list[float], str]],
    query: list[float],
    weight: list[list[float]],
    known: str,
    answers: tuple[str, ...],
) -> None:
    records = [Record(f"in {i}", out, STARS.name, id=f"r{i}") for i, (_, out) in enumerate(rows)]
    inputs = np.array([row for row, _ in rows], dtype=np.float32).reshape(-1, 4)
    history = History.build(STARS, records, inputs, np.zeros_like(inputs))
    classifier = Classifier(
        STARS.labels,
        np.array(weight, np.float32),
        np.zeros(5, np.float32),
        0.5 if known == "borrowed" else 0.0,
    )
    out = closed_features(
        ClosedPast.of(history, answers),
        np.array(query, dtype=np.float32),
        None if known == "none" else classifier,
    )
    assert out.shape == (len(answers), len(CLOSED_FEATURES))
    assert np.isfinite(out).all()
    share = np.exp(column(out, "log_own_fit")) - 0.02
    assert (share > -1e-4).all()
    assert share.sum() < 1 + 1e-3


@pytest.mark.parametrize("name", ["news_category", "film_rating", "paper_title"])
def test_adapter_features_fill_them_for_closed_sets_only(name: str) -> None:
    task = BUILTIN[name]
    texts = list(task.labels[:2]) or ["A title", "Another"]
    records = [Record("in", texts[0], name, id="r0")]
    history = History.build(task, records, E[:1], E[:1])
    pool = pool_of(texts, E[:2])
    own = adapter_features(pool, history)[:, ADAPTER_FEATURES.index("own_fit")]
    assert (own[0] > own[1]) if task.kind != "text" else (own == 0).all()


@pytest.mark.parametrize("name", ["news_category", "film_rating", "paper_title"])
def test_adapter_features_with_a_classifier_are_its_own_for_closed_sets_only(name: str) -> None:
    task = BUILTIN[name]
    texts = list(task.labels[:2]) or ["A title", "Another"]
    known = Classifier(
        tuple(text.casefold() for text in texts), E[:2], np.array([0, 1], dtype=np.float32)
    )
    history = History.build(task, [Record("in", texts[0], name, id="r0")], E[:1], E[:1])
    pool = pool_of(texts, E[:2])
    out = adapter_features(pool, history, known)
    assert ADAPTER_FEATURES[CLOSED_COLUMNS] == CLOSED_FEATURES
    if task.kind == "text":
        assert not out[:, CLOSED_COLUMNS].any()
        np.testing.assert_array_equal(out, adapter_features(pool, history))
        return
    expected = closed_features(ClosedPast.of(history, texts), E[0], known)
    np.testing.assert_array_equal(out[:, CLOSED_COLUMNS], expected)
    assert expected[:, 0].any()
    rest = adapter_features(pool, history)
    np.testing.assert_array_equal(out[:, : CLOSED_COLUMNS.start], rest[:, : CLOSED_COLUMNS.start])


def test_pool_features_ask_the_bases_classifier_of_that_task(tmp_path: Path) -> None:
    """Two tasks of the same answers, which a base takes for opposite ones."""
    features: dict[Role, tuple[str, ...]] = {
        role: feature_names(role) for role in ("reranker", "adapter")
    }  # fmt: skip
    (tmp_path / "file").write_bytes(b"{}")
    arrays = {
        f"adapter.classifier.{task}.{part}": array
        for task, sign in (("mood", 1.0), ("weather", -1.0))
        for part, array in (("weight", sign * E[:2]), ("bias", np.zeros(2, dtype=np.float32)))
    }
    base = pack(
        tmp_path / "base", encoder=tmp_path / "file", tokenizer=tmp_path / "file",
        card=Card(4, "mean", 16, {}, {}), maps={**neutral_maps(features), **arrays},
        features=features, closed_sets=dict.fromkeys(("mood", "weather"), ("Calm", "Wild")),
    )  # fmt: skip
    of = FeatureMap(load_bundle(base.path), "adapter")
    pool = pool_of(("calm", "wild"), E[:2])
    found = {
        name: pool_features(
            of, pool, History.build(replace(LABELS, name=name), [], E[:0], E[:0])
        )[:, CLOSED_COLUMNS.start]
        for name in ("mood", "weather", "clothes")
    }  # fmt: skip
    sure = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found["mood"], [sure, 1 - sure], atol=1e-6)
    np.testing.assert_allclose(found["weather"], [1 - sure, sure], atol=1e-6)
    np.testing.assert_array_equal(found["clothes"], 0)
