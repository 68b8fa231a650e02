"""Intervals over users: what they cover, and who counts as helped or harmed."""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats import (
    bootstrap,
    finite,
    headroom,
    helped_and_harmed,
    paired,
    relative,
)
from hydra_edge.tasks import BUILTIN
from hydra_edge.utility import relative_gain

TEXT, RATING = BUILTIN["paper_title"], BUILTIN["film_rating"]


@pytest.mark.parametrize("users", [5, 8, 25])
def test_bootstrap_covers_the_true_mean_about_nine_times_in_ten(users: int) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(1000):
        found = bootstrap(rng.normal(0.3, 1.0, users), seed=seed, draws=300)
        hits += found.low <= 0.3 <= found.high
    assert 0.87 <= hits / 1000 <= 0.93


def test_bootstrap_same_seed_same_interval() -> None:
    values = np.random.default_rng(1).random(20)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_intervals_of_one_user_have_no_bounds() -> None:
    """One user says nothing of others: no width would be a promise."""
    one, other = [np.array([0.5, 1.0])], [np.array([0.25, 0.75])]
    assert paired(one, other, seed=0).as_dict() == {"mean": 0.25, "low": None, "high": None}
    for task in (TEXT, RATING):
        found = relative(one, other, task, seed=0)
        assert found.mean == pytest.approx(0.5)
        assert (found.low, found.high) == (-np.inf, np.inf)


def test_paired_resamples_users_not_queries() -> None:
    # One user's many good queries are one user's: the other nine say no.
    ours = [np.ones(1000), *[np.zeros(1) for _ in range(9)]]
    theirs = [np.zeros(1000), *[np.zeros(1) for _ in range(9)]]
    found = paired(ours, theirs, seed=0)
    assert found.mean == pytest.approx(0.1)
    assert -0.05 < found.low < 0.0


def test_bounds_of_a_difference_are_no_more_than_utilities_can_differ_by() -> None:
    one, other = [np.array([1.0]), np.array([0.0])], [np.array([0.0]), np.array([0.0])]
    assert paired(one, other, seed=0).as_dict() == {"mean": 0.5, "low": -1.0, "high": 1.0}
    assert paired(other, one, seed=0).as_dict() == {"mean": -0.5, "low": -1.0, "high": 1.0}


@pytest.mark.parametrize("task", [TEXT, RATING], ids=["text", "rating"])
def test_relative_is_the_ratio_of_means_and_within_its_interval(task) -> None:
    rng = np.random.default_rng(2)
    theirs = [rng.uniform(0.2, 0.6, 5) for _ in range(30)]
    ours = [u + 0.1 for u in theirs]
    found = relative(ours, theirs, task, seed=0)
    expected = relative_gain(np.mean(ours), np.mean(theirs), task)
    assert found.mean == pytest.approx(expected)
    assert 0.0 < found.low < found.mean < found.high


def test_relative_resamples_both_rows_with_the_same_users() -> None:
    theirs = [np.full(3, u) for u in np.random.default_rng(3).uniform(0.1, 0.9, 30)]
    found = relative([1.1 * u for u in theirs], theirs, TEXT, seed=0)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_relative_over_a_baseline_of_zero_has_no_number() -> None:
    found = relative([np.ones(2)] * 3, [np.zeros(2)] * 3, TEXT, seed=0)
    assert finite(found.mean) is None
    assert finite(found.low) is None


def test_relative_loses_no_more_than_all_and_spares_no_more_than_all() -> None:
    little, much = [0.0, 0.01, 0.02], [0.9, 0.5, 0.4]
    text = relative([np.array([u]) for u in little], [np.array([u]) for u in much], TEXT, seed=0)
    assert text.low == -1.0 < text.mean < text.high
    errors = ([np.array([1.0 - e]) for e in row] for row in (little, much))
    rating = relative(*errors, RATING, seed=0)
    assert rating.low < rating.mean < rating.high == 1.0


def test_helped_and_harmed_judge_each_user_by_their_own_bound() -> None:
    base = [np.zeros(4)] * 4
    ours = [
        np.array([0.4, 0.5, 0.4, 0.5]),  # clearly better
        np.array([-0.4, -0.5, -0.4, -0.5]),  # clearly worse
        np.array([1.0, -1.0, 1.0, -1.0]),  # nobody can say
        np.zeros(4),  # the same
    ]
    shares = helped_and_harmed(ours, base)
    assert (shares.helped, shares.harmed) == (0.25, 0.25)


def test_helped_and_harmed_one_query_decides_nothing() -> None:
    shares = helped_and_harmed([np.array([1.0])], [np.array([0.0])])
    assert (shares.helped, shares.harmed) == (0.0, 0.0)


def test_headroom_is_a_share_of_the_way_and_none_without_one() -> None:
    assert headroom(0.6, 0.4, 0.8) == pytest.approx(0.5)
    assert headroom(0.6, 0.8, 0.8) is None


def test_helped_and_harmed_by_chance_are_about_a_fifth_each() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = ([rng.random(5) for _ in range(4000)] for _ in range(2))
    found = helped_and_harmed(ours, theirs)
    assert 0.17 < found.helped < 0.28
    assert found.harmed == pytest.approx(found.helped, abs=0.03)
