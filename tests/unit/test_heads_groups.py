"""What a head is fitted on: every wrong array is named, every query stays whole."""

import numpy as np
import pytest
from heads_reference import each, make_groups, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.errors import ShapeError
from hydra_edge.heads import ConditionalLogit, Groups, Prior, target_distribution

seeds = st.integers(0, 2**32 - 1)


def test_target_distribution_with_plain_utilities_matches_softmax():
    t = target_distribution(np.array([0.2, 0.9, 0.5, 1.0]), np.array([0, 3, 4]), 0.5)
    np.testing.assert_allclose(t[:3], softmax(np.array([0.2, 0.9, 0.5]) / 0.5))
    assert t[3] == 1.0


@pytest.mark.parametrize("tau", [1e-3, 1e-12, 1e-300])
def test_target_distribution_with_tiny_tau_splits_mass_among_the_best(tau):
    t = target_distribution(np.array([0.0, 1.0, 1.0, 0.0, 0.0]), np.array([0, 3, 5]), tau)
    np.testing.assert_array_equal(t, [0.0, 0.5, 0.5, 0.5, 0.5])


def test_target_distribution_with_zero_tau_is_refused():
    with pytest.raises(ShapeError, match=r"got 0\.0; expected a number above 0"):
        target_distribution(np.ones(1), np.array([0, 1]), 0.0)


def test_target_distribution_without_pairs_is_empty():
    assert target_distribution(np.zeros(0), np.array([0]), 1.0).size == 0


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_groups_take_any_order_keeps_each_query_whole(seed):
    rng = np.random.default_rng(seed)
    groups = make_groups(rng, 7, 3)
    index = rng.integers(0, 7, size=5)
    taken = list(each(groups.take(index), 0.3))
    whole = list(each(groups, 0.3))
    for (x, t), i in zip(taken, index, strict=True):
        np.testing.assert_array_equal(x, whole[i][0])
        np.testing.assert_array_equal(t, whole[i][1])


def test_groups_take_nothing_is_empty_and_keeps_width():
    groups = make_groups(np.random.default_rng(0), 3, 4)
    for nothing in ([], np.zeros(3, dtype=bool)):
        taken = groups.take(nothing)
        assert (taken.n_groups, taken.dim) == (0, 4)


@pytest.mark.parametrize("index", [[3], np.ones(2, dtype=bool), [0.5]])
def test_groups_take_outside_is_refused(index):
    with pytest.raises(ShapeError, match="Expected a mask of length 3"):
        make_groups(np.random.default_rng(0), 3, 2).take(index)


def test_groups_informative_drops_single_and_level_queries():
    items = [
        (np.ones((1, 2)), np.array([1.0])),
        (np.ones((3, 2)), np.zeros(3)),
        (np.eye(2), np.array([0.3, 0.4])),
    ]
    groups = Groups.stack(items, 2)
    np.testing.assert_array_equal(groups.teaches(), [False, False, True])
    np.testing.assert_array_equal(groups.informative().features, np.eye(2))


def test_groups_informative_judges_by_targets_where_given():
    items = [(np.eye(2), np.zeros(2)), (np.eye(2), np.array([0.0, 1.0]))]
    targets = [np.array([1.0, 0.0]), np.array([0.5, 0.5])]
    kept = Groups.stack(items, 2, targets=targets).informative()
    np.testing.assert_array_equal(kept.targets, [1.0, 0.0])


def test_groups_informative_of_nothing_is_nothing():
    assert Groups.stack([], 3).informative().n_groups == 0


def test_groups_from_float32_are_float64_and_inputs_unchanged():
    x, u = np.ones((2, 2), dtype=np.float32), np.array([0.1, 0.9], dtype=np.float32)
    groups = Groups.stack([(x, u)], 2)
    assert groups.features.dtype == groups.utilities.dtype == np.float64
    assert x.dtype == u.dtype == np.float32


X, U, OFFSETS = np.ones((3, 2)), np.array([0.0, 0.5, 1.0]), np.array([0, 1, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones(3)}, r"Features cannot be used: got shape \(3,\); expected \(n, n\)"),
        ({"features": [[1.0], [1.0, 2.0]]}, "Features cannot be read as numbers"),
        ({"features": X * np.nan}, "Features cannot be used: got 6 values"),
        ({"features": X * np.inf}, "Features cannot be used: got 6 values"),
        ({"features": X * 1e31}, "Features cannot be used: got 6 values"),
        ({"utilities": np.ones(4)}, r"Utilities cannot be used: got shape \(4,\); expected \(3\)"),
        ({"utilities": U * 2}, "Utilities are out of range: got 0 to 2; expected 0 to 1"),
        ({"utilities": U - 0.1}, "Utilities are out of range: got -0.1"),
        ({"utilities": U * np.nan}, "Utilities cannot be used: got 3 values"),
        ({"offsets": np.array([[0, 3]])}, r"Offsets cannot be used: got shape \(1, 2\)"),
        ({"offsets": np.array([0.0, 3.0])}, "Offsets cannot be used: got .* float64"),
        ({"offsets": np.array([], dtype=int)}, r"Offsets cannot be used: got shape \(0,\)"),
        ({"offsets": np.array([0, 2])}, "got 0 to 2; expected 0 to the number of pairs, 3"),
        ({"offsets": np.array([1, 3])}, "got 1 to 3; expected 0"),
        ({"offsets": np.array([0, 1, 1, 3])}, "got 1, then 1 at group 1; expected at least one"),
        ({"offsets": np.array([0, 2, 1, 3])}, "got 2, then 1 at group 1"),
        ({"targets": np.ones(3)}, "Targets do not fit: got a group that sums to 2; expected 1"),
        ({"targets": np.ones(2)}, r"Targets cannot be used: got shape \(2,\)"),
        ({"targets": np.array([1.0, 2.0, -1.0])}, "Targets are out of range: got -1 to 2"),
    ],
)
def test_groups_with_wrong_arrays_are_refused(change, message):
    good = {"features": X, "utilities": U, "offsets": OFFSETS}
    with pytest.raises(ShapeError, match=message):
        Groups(**(good | change))


@pytest.mark.parametrize(
    ("items", "more", "message"),
    [
        (
            [(np.ones((2, 3)), np.ones(2))],
            {},
            r"Features of query 0 cannot be used.*expected \(n, 2\)",
        ),
        (
            [(np.ones((2, 2)), np.ones(3))],
            {},
            r"Utilities of query 0 cannot be used.*expected \(2\)",
        ),
        ([(np.ones((0, 2)), np.ones(0))], {}, "expected at least one candidate in every group"),
        ([(np.ones((1, 2)), np.ones(1))], {"targets": []}, "got 0 arrays; expected one for each"),
    ],
)
def test_groups_stack_with_wrong_items_is_refused(items, more, message):
    with pytest.raises(ShapeError, match=message):
        Groups.stack(items, 2, **more)


@pytest.mark.parametrize(
    ("mean", "precision", "tau", "message"),
    [
        ([0.0], np.eye(2), 1.0, r"Prior precision cannot be used.*expected \(1, 1\)"),
        ([], np.zeros((0, 0)), 1.0, "got no features; expected some"),
        ([np.nan, 0.0], np.eye(2), 1.0, "Prior means cannot be used"),
        ([0.0, 0.0], np.full((2, 2), np.inf), 1.0, "Prior precision cannot be used"),
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], 1.0, "is not symmetric: got entries .* 0.5"),
        ([0.0, 0.0], np.ones((2, 2)), 1.0, "is not positive definite: got smallest eigenvalue"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], 1.0, "is not positive definite"),
        ([0.0, 0.0], np.zeros((2, 2)), 1.0, "is not positive definite: got 0 on its diagonal"),
        ([0.0, 0.0], np.eye(2), 0.0, "temperature cannot be used: got 0.0"),
        ([0.0, 0.0], np.eye(2), np.nan, "temperature cannot be used: got nan"),
    ],
)
def test_prior_with_unusable_values_is_refused(mean, precision, tau, message):
    with pytest.raises(ShapeError, match=message):
        Prior(np.array(mean), np.array(precision), tau)


def test_prior_keeps_own_copies_and_cannot_be_written():
    mean = np.zeros(2)
    prior = Prior(mean, np.eye(2), 1.0)
    mean[0] = 5.0
    assert prior.mean[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        prior.mean[0] = 1.0


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_prior_scale_outside_range_is_refused(scale):
    prior = Prior(np.zeros(1), np.eye(1), 1.0)
    with pytest.raises(ShapeError, match="Prior scale cannot be used"):
        ConditionalLogit(prior, prior_scale=scale)
