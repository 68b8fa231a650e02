"""Everyone's classifiers of closed sets: how they are read, borrowed, and made of names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from closed_sets import KNOWN, LABELS, THUMBS, E, column, past_of

from hydra_edge.bundle import Bundle
from hydra_edge.features import FeatureMap
from hydra_edge.features.closed import Classifier, borrow, by_names, closed_features
from hydra_edge.population import gains_for, prior_for
from hydra_edge.tasks import BUILTIN, TaskSpec


def test_shares_are_a_softmax_and_unknown_answers_have_none() -> None:
    shares = KNOWN.shares(E[:3], [" Calm ", "odd", "WILD"])
    two = np.exp(2) / (np.exp(2) + 1)
    expected = [[two, 0, 1 - two], [1 - two, 0, two], [0.5, 0, 0.5]]
    np.testing.assert_allclose(shares, expected, atol=1e-6)


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
