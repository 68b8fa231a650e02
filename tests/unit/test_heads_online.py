"""A fitted head in use: one-step updates, scores, margins, abstention, storage."""

import numpy as np
import pytest
from heads_reference import make_groups, make_prior, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.errors import ShapeError
from hydra_edge.heads import ConditionalLogit, Prior

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_update_is_exactly_one_newton_step_and_leaves_the_head(seed):
    rng = np.random.default_rng(seed)
    prior = make_prior(rng, 4)
    head = ConditionalLogit(prior).fit(make_groups(rng, 10, 4))
    before = head.weight_.copy(), head.precision_.copy()
    x, target = rng.normal(size=(5, 4)), softmax(rng.normal(size=5))
    new = head.update(x, target)
    p = softmax(x @ head.weight_)
    hessian = head.precision_ + x.T @ (np.diag(p) - np.outer(p, p)) @ x
    step = np.linalg.solve(hessian, x.T @ (p - target))
    np.testing.assert_allclose(new.precision_, hessian, atol=1e-10)
    np.testing.assert_allclose(new.weight_, head.weight_ - step, atol=1e-9)
    np.testing.assert_array_equal(head.weight_, before[0])
    np.testing.assert_array_equal(head.precision_, before[1])


def test_update_after_many_queries_is_close_to_a_full_refit():
    rng = np.random.default_rng(11)
    prior, groups = make_prior(rng, 4), make_groups(rng, 301, 4)
    head = ConditionalLogit(prior).fit(groups.take(range(300)))
    rows = slice(groups.offsets[300], groups.offsets[301])
    updated = head.update(groups.features[rows], groups.target(prior.tau)[rows])
    refit = ConditionalLogit(prior).fit(groups)
    moved = np.linalg.norm(refit.weight_ - head.weight_)
    assert moved > 1e-4
    assert np.linalg.norm(updated.weight_ - refit.weight_) < 0.05 * moved


def test_update_with_a_pick_raises_the_picked_candidate():
    prior = Prior(np.zeros(2), np.eye(2), 1.0)
    head = ConditionalLogit(prior).update(np.eye(2), np.array([0.0, 1.0]))
    scores = head.scores(np.eye(2))
    assert scores[1] > 0.0 > scores[0]


@pytest.mark.parametrize(
    ("features", "target", "message"),
    [
        (np.eye(3), np.eye(3)[0], r"Features cannot be used: got shape \(3, 3\)"),
        (np.eye(2), np.ones(2), "Targets do not fit: got a group that sums to 2"),
        (np.eye(2), np.ones(3) / 3, r"query 0 cannot be used: got shape \(3,\)"),
        (np.eye(2) * np.nan, np.eye(2)[0], "Features cannot be used"),
        (np.zeros((0, 2)), np.zeros(0), "expected at least one candidate"),
    ],
)
def test_update_with_wrong_arrays_is_refused(features, target, message):
    head = ConditionalLogit(Prior(np.zeros(2), np.eye(2), 1.0))
    with pytest.raises(ShapeError, match=message):
        head.update(features, target)


def test_lead_equals_the_mean_and_spread_under_sampled_weights():
    rng = np.random.default_rng(12)
    head = ConditionalLogit(make_prior(rng, 3)).fit(make_groups(rng, 20, 3))
    x = rng.normal(size=(5, 3))
    sampled = rng.multivariate_normal(head.weight_, np.linalg.inv(head.precision_), 200_000)
    difference = sampled @ (x[3] - x[1])
    lead = head.lead(x, 3, 1)
    assert lead.difference == pytest.approx(difference.mean(), abs=0.01)
    assert lead.std == pytest.approx(difference.std(), rel=0.01)


def test_lead_over_itself_is_nothing():
    lead = ConditionalLogit(Prior(np.ones(2), np.eye(2), 1.0)).lead(np.ones((1, 2)), 0, 0)
    assert (lead.difference, lead.std) == (0.0, 0.0)


def test_lead_with_more_evidence_is_more_certain():
    rng = np.random.default_rng(13)
    groups, x = make_groups(rng, 200, 3), np.eye(3)
    prior = make_prior(rng, 3)
    few, many = (ConditionalLogit(prior).fit(groups.take(range(n))).lead(x, 0, 1) for n in (5, 200))
    assert many.std < 0.5 * few.std


@pytest.mark.parametrize(
    ("precision", "standing", "expected"),
    [
        (1.0, 0, True),  # leads by 0.3, std sqrt(2)
        (100.0, 0, False),  # std sqrt(2) / 10
        (5.5, 0, True),  # just within half a deviation of 0.603
        (5.6, 0, False),  # just beyond half a deviation of 0.598
        (1.0, 1, False),  # the standing answer is the best one
    ],
)
def test_abstains_only_within_noise_of_the_standing_answer(precision, standing, expected):
    head = ConditionalLogit(Prior(np.array([0.0, 0.3]), precision * np.eye(2), 1.0))
    assert head.abstains(np.eye(2), standing=standing) is expected


def test_abstains_compares_with_the_standing_answer_and_not_with_the_second():
    head = ConditionalLogit(Prior(np.array([0.0, 5.0, 5.1]), np.eye(3), 1.0))
    lead = head.lead(np.eye(3), 2, 1)
    assert lead.difference < 0.5 * lead.std
    assert head.abstains(np.eye(3), standing=0) is False


def test_abstains_on_a_tie_with_identical_candidates():
    head = ConditionalLogit(Prior(np.ones(2), np.eye(2), 1.0))
    assert head.abstains(np.ones((3, 2)), standing=2) is True


@pytest.mark.parametrize("standing", [-1, 2])
def test_abstains_with_an_unknown_standing_answer_is_refused(standing):
    with pytest.raises(ShapeError, match=f"got row {standing}; expected 0 to 1"):
        ConditionalLogit(Prior(np.ones(2), np.eye(2), 1.0)).abstains(np.eye(2), standing=standing)


def test_abstains_without_candidates_is_refused():
    with pytest.raises(ShapeError, match="Candidates cannot be compared: got none"):
        ConditionalLogit(Prior(np.ones(2), np.eye(2), 1.0)).abstains(np.zeros((0, 2)), standing=0)


def test_scores_are_the_exact_sum_of_contributions():
    rng = np.random.default_rng(14)
    head = ConditionalLogit(make_prior(rng, 3)).fit(make_groups(rng, 5, 3))
    x = rng.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(head.scores(x), (x * head.weight_).sum(axis=1), atol=1e-12)
    assert head.scores(np.zeros((0, 3))).shape == (0,)
    with pytest.raises(ShapeError, match=r"got shape \(4,\); expected \(n, 3\)"):
        head.scores(np.zeros(4))


def test_from_state_through_float32_scores_and_updates_alike():
    rng = np.random.default_rng(15)
    prior = make_prior(rng, 4)
    head = ConditionalLogit(prior, prior_scale=3.0).fit(make_groups(rng, 30, 4))
    back = ConditionalLogit.from_state(
        head.weight_.astype(np.float32), head.precision_.astype(np.float32), prior,
        prior_scale=3.0,
    )  # fmt: skip
    x = rng.normal(size=(4, 4))
    np.testing.assert_allclose(back.scores(x), head.scores(x), atol=1e-5)
    one, other = (h.update(x, np.eye(4)[1]).weight_ for h in (head, back))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert back.prior_scale == 3.0


def test_from_state_keeps_a_healthy_precision_as_it_was_stored():
    head = ConditionalLogit(make_prior(np.random.default_rng(16), 3))
    stored = head.precision_.astype(np.float32)
    back = ConditionalLogit.from_state(head.weight_, stored, head.prior)
    np.testing.assert_allclose(back.precision_, stored, rtol=1e-7, atol=1e-7)


def test_from_state_with_precision_rounded_to_singular_is_lifted():
    prior = Prior(np.zeros(2), np.eye(2), 1.0)
    x = np.array([[3e4, 3e4], [0.0, 0.0]])
    collinear = np.full((2, 2), 1e9)  # float32 cannot hold the prior beside it
    rounded = (prior.precision + collinear).astype(np.float32)
    assert np.linalg.eigvalsh(rounded.astype(np.float64))[0] < 1e-3
    back = ConditionalLogit.from_state(prior.mean, rounded, prior)
    assert np.linalg.eigvalsh(back.precision_)[0] > 0.0
    assert np.isfinite(back.update(x, np.array([1.0, 0.0])).weight_).all()


@pytest.mark.parametrize(
    ("weight", "precision", "message"),
    [
        ([0.0], np.eye(2), r"Head weights cannot be used: got shape \(1,\); expected \(2\)"),
        ([np.nan, 0.0], np.eye(2), "Head weights cannot be used"),
        ([0.0, 0.0], np.eye(3), "Head precision cannot be used: got shape"),
        ([0.0, 0.0], [[1.0, 0.0], [0.0, -1.0]], "Head precision is not positive definite"),
        ([0.0, 0.0], [[1.0, 1.1], [1.1, 1.0]], "Head precision is not positive definite"),
        ([0.0, 0.0], [[1.0, 0.5], [0.2, 1.0]], "Head precision is not symmetric"),
    ],
)
def test_from_state_with_hostile_values_is_refused(weight, precision, message):
    with pytest.raises(ShapeError, match=message):
        ConditionalLogit.from_state(weight, precision, Prior(np.zeros(2), np.eye(2), 1.0))
