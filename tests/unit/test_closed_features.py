"""Closed sets: everyone's classifier by hand, and the user's own answers that move it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.pack import Card, neutral_maps, pack
from hydra_edge.active import gains_for, prior_for
from hydra_edge.adapter import pool_features
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.features import (
    ADAPTER_FEATURES,
    FeatureMap,
    Pool,
    adapter_features,
    feature_names,
)
from hydra_edge.features.adapter import CLOSED_COLUMNS
from hydra_edge.features.closed import (
    CLOSED_FEATURES,
    RECENT,
    Classifier,
    ClosedPast,
    borrow,
    by_names,
    closed_features,
)
from hydra_edge.history import HALF_LIFE, History
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import Candidate, Record, Role

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


def test_the_base_knows_a_number_however_it_is_written() -> None:
    weight = np.zeros((2, 4), dtype=np.float32)
    weight[0, 0] = 3.0
    known = Classifier(("4", "5"), weight, np.zeros(2, dtype=np.float32))
    assert (known.shares(E[:2], ["4.0", "5.0"]) == known.shares(E[:2], ["4", "5"])).all()
    assert (known.shares(E[:2], ["4,0", "5,0"]) == known.shares(E[:2], ["4", "5"])).all()


def test_labels_in_either_unicode_form_are_read_alike() -> None:
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    vectors = E[:2]
    for name in (composed, apart):
        known = by_names([name, "Bar"], vectors)
        assert known.reading([composed, apart]).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_a_borrowed_rating_is_read_on_a_scale_with_decimal_commas() -> None:
    task = TaskSpec("grade", "rating", labels=("1,0", "1,5", "2,0"))
    out = closed_features(past_of(task, list(task.labels), []), E[0], replace(THUMBS, doubt=0.3))
    assert np.isfinite(out).all()


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


THUMBS = Classifier(
    ("1", "2", "3"),
    np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0]], dtype=np.float32),
    np.zeros(3, dtype=np.float32),
)


def test_a_rating_borrows_from_the_rating_with_the_nearest_scale() -> None:
    known = {"mood": KNOWN, "stars": replace(THUMBS, labels=("1", "2", "3", "4")), "film": THUMBS}
    grades = TaskSpec("grades", "rating", labels=("10", "20"))
    lent = borrow(known, grades)
    assert lent is not None
    assert (lent.labels, lent.doubt) == (THUMBS.labels, 0.3)
    assert borrow({"mood": KNOWN}, grades) is None
    floors = replace(THUMBS, labels=("1", "2", "attic"))
    assert borrow({"floors": floors}, grades) is None, "one that has names, too, is no rating"
    assert borrow(known, replace(grades, labels=())) is None


def test_a_label_task_borrows_from_the_set_that_names_at_least_half_of_its_labels() -> None:
    known = {"film": THUMBS, "mood": KNOWN, "air": replace(KNOWN, labels=("calm", "damp"))}
    lent = borrow(known, LABELS)
    assert lent is not None
    assert lent.labels == ("calm", "wild")
    assert lent.doubt
    assert borrow(known, replace(LABELS, labels=("calm", "loud", "odd"))) is None
    assert borrow(known, replace(LABELS, labels=("1", "2", "3"))) is None, (
        "a rating's is no label's"
    )


def test_a_borrowed_rating_is_read_by_its_place_on_the_scale_and_doubted() -> None:
    answers = ["-4", "4", "0", "2"]  # 2 lies between what 2 and 3 of 3 mean
    lent = replace(THUMBS, doubt=0.3)
    task = TaskSpec("mood_now", "rating", labels=("-4", "0", "2", "4"))
    for axis, place in ((0, 0), (1, 2), (2, 1)):
        out = closed_features(past_of(task, answers, []), E[axis], lent)
        assert (out[:, :2] == 0).all(), "the base has never seen this set"
        share = np.exp(column(out, "log_own_fit")) - 0.02
        expected = np.full(4, 0.3 / 4)
        expected[place] += 0.7
        np.testing.assert_allclose(share, expected, atol=1e-3)
    far = replace(task, labels=("0", "1"))
    out = closed_features(past_of(far, ["0", "1"], []), E[1], lent)
    np.testing.assert_allclose(column(out, "own_fit"), 0.5, atol=1e-3)


def test_a_user_whose_scale_is_turned_round_is_believed_after_a_few_records() -> None:
    task = TaskSpec("worry", "rating", labels=("1", "2", "3"))
    answers, lent = list(task.labels), replace(THUMBS, doubt=0.3)
    rows = [(0, "3"), (2, "1"), (1, "2")] * 4
    for known in (lent, None):
        for axis, place in ((0, 2), (2, 0)):
            out = closed_features(past_of(task, answers, rows), E[axis], known)
            assert column(out, "own_fit").argmax() == place
    fresh = closed_features(past_of(task, answers, []), E[0], lent)
    assert column(fresh, "own_fit").argmax() == 0


def test_what_a_borrowed_rating_says_is_worth_two_records() -> None:
    """Two texts that everyone answers "1", and that tell nothing of each other."""
    task = TaskSpec("worry", "rating", labels=("1", "2", "3"))
    text = np.array([[0.8, 0.0, 0.0, 0.6]], dtype=np.float32)
    query = np.array([0.6, 0.0, 0.0, -0.8], dtype=np.float32)
    past = replace(past_of(task, list(task.labels), [(0, "3")]), inputs=text)
    out = closed_features(past, query, replace(THUMBS, doubt=0.3))
    habit = np.array([0.5, 0.5, 1.5]) / 2.5
    expected = (2.0 * (0.7 * np.eye(3)[0] + 0.3 * habit) + np.eye(3)[2]) / 3.0
    share = np.exp(column(out, "log_own_fit")) - 0.02
    np.testing.assert_allclose(share, expected, atol=0.01)  # "1" is answered to 99 of 100


def test_of_a_borrowed_label_set_what_it_does_not_name_goes_to_the_users_habit() -> None:
    lent = replace(KNOWN, doubt=0.3)
    rows = [(3, "odd")] * 8
    out = closed_features(past_of(LABELS, ["odd", "calm"], rows), E[1], lent)
    own = np.exp(column(out, "log_own_fit")) - 0.02
    assert own[0] > 0.8, "wild is not among the answers: the user's habit answers for it"
    assert (out[:, :2] == 0).all()


def test_labels_the_base_does_not_know_speak_by_their_names_until_the_user_does() -> None:
    named = by_names(["Calm ", "wild", "odd"], E[:3])
    assert named.labels == ("calm", "wild", "odd")
    assert named.doubt == 0.5
    answers = ["odd", "calm", "wild"]
    fresh = closed_features(past_of(LABELS, answers, []), E[1], named)
    share = np.exp(column(fresh, "log_own_fit")) - 0.02
    np.testing.assert_allclose(share, [1 / 6, 1 / 6, 4 / 6], atol=1e-3)
    assert (fresh[:, :2] == 0).all()
    rows = [(1, "odd"), (2, "odd")] * 3
    taught = closed_features(past_of(LABELS, answers, rows), E[1], named)
    assert column(taught, "own_fit").argmax() == 0


def test_adapter_features_ask_names_for_labels_that_no_classifier_knows() -> None:
    pool = Pool(
        "in", E[0], tuple(Candidate(t) for t in LABELS.labels), E[[3, 0, 1]], (), E[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
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
    pool = Pool(
        "in", E[0], tuple(Candidate(t) for t in texts), E[:2], (), E[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
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
    pool = Pool(
        "in", E[0], tuple(Candidate(t) for t in texts), E[:2], (), E[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
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


def test_the_shipped_base_knows_its_closed_sets_and_no_others(bundle: Bundle) -> None:
    features = FeatureMap(bundle, "adapter")
    sets = bundle.manifest.closed_sets
    assert set(sets) == {"film_rating", "movie_tag", "news_category"}
    vectors = np.random.default_rng(0).standard_normal((6, bundle.manifest.dim)).astype(np.float32)
    for task, answers in sets.items():
        assert set(answers) == set(BUILTIN[task].labels), "no answer that somebody made up"
        known = features.classifier(BUILTIN[task])
        assert known is not None
        assert not known.doubt
        np.testing.assert_allclose(known.shares(vectors, answers).sum(axis=1), 1, atol=1e-5)
    lent = features.classifier(BUILTIN["product_rating"])
    assert lent is not None
    assert lent.doubt
    assert lent.labels == ("1", "2", "3", "4", "5")
    assert features.classifier(BUILTIN["paper_title"]) is None
    assert features.classifier(LABELS) is None


@pytest.mark.parametrize("beyond", ["6", "0"])
def test_a_rating_on_another_scale_borrows_whatever_its_name(bundle: Bundle, beyond: str) -> None:
    """Four of ten is not four of five: neither what is known of it nor its weights apply."""
    films, features = BUILTIN["film_rating"], FeatureMap(bundle, "adapter")
    own = features.classifier(replace(films, labels=("1.0", "2", "3", "4", "5")))
    assert own is not None
    assert own.doubt == 0.0
    half = features.classifier(replace(films, labels=("1", "3.5", "5")))
    assert half is not None
    assert half.doubt == 0.0, "between two it knows"
    other = replace(films, labels=("2", "4", beyond))
    lent = features.classifier(other)
    assert lent is not None
    assert lent.doubt > 0.0
    unseen = replace(other, name="imdb")
    for role in ("adapter", "reranker"):
        means = [prior_for(bundle, task, role).mean for task in (films, other, unseen)]
        expected = means[2] if role == "adapter" else means[0]
        np.testing.assert_array_equal(means[1], expected)
    assert gains_for(bundle, other, "adapter") == gains_for(bundle, unseen, "adapter")
    tag = BUILTIN["movie_tag"]
    assert features.classifier(replace(tag, labels=(*tag.labels, "noir"))).doubt == 0.0


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
    pool = Pool(
        "in", E[0], (Candidate("calm"), Candidate("wild")), E[:2], (), E[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
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
