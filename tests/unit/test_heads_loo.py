"""Leave-one-out against refits, and the choice of prior scale against its own rule."""

import numpy as np
import pytest
from heads_reference import (
    each,
    make_groups,
    make_prior,
    reference_gradient,
    reference_parts,
    softmax,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.errors import ShapeError
from hydra_edge.heads import (
    ConditionalLogit,
    Groups,
    Prior,
    choose_prior_scale,
    leave_one_out,
    loo_scores,
    objective,
)

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from([0.3, 1.0, 10.0]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_leave_one_out_equals_the_dense_formula(seed, scale, weighted):
    rng = np.random.default_rng(seed)
    prior = make_prior(rng, 5)
    # Sizes below, at and above the number of features take different ways.
    groups = make_groups(rng, 15, 5, low=1, high=9, weighted=weighted)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    gradients, hessians = reference_parts(head.weight_, prior, groups)
    expected = [
        head.weight_ + np.linalg.solve(head.precision_ - h, g)
        for g, h in zip(gradients, hessians, strict=True)
    ]
    np.testing.assert_allclose(leave_one_out(head, groups), expected, atol=1e-6)


def test_leave_one_out_beside_the_optimum_steps_toward_the_refit():
    rng = np.random.default_rng(19)
    prior, groups = make_prior(rng, 4), make_groups(rng, 10, 4)
    w = ConditionalLogit(prior).fit(groups).weight_ + 0.05 * rng.normal(size=4)
    head = ConditionalLogit.from_state(w, prior.precision, prior, n_groups=10)
    _, hessians = reference_parts(w, prior, groups)
    precision = hessians.sum(axis=0) + prior.precision
    expected = []
    for g in range(10):
        gradient = reference_gradient(w, prior, groups.take(np.arange(10) != g))
        expected.append(w - np.linalg.solve(precision - hessians[g], gradient))
    np.testing.assert_allclose(leave_one_out(head, groups), expected, atol=1e-7)


def test_leave_one_out_with_leverage_rounded_to_one_never_steps_away_from_the_prior():
    rng = np.random.default_rng(23)
    prior = Prior(np.ones(1), np.eye(1), 1.0)
    for _ in range(30):
        x = rng.uniform(0.5, 2.0) * np.array([[1e4], [-1e4]])
        groups = Groups.stack([(x, np.zeros(2))], 1, targets=[np.array([0.6, 0.4])])
        head = ConditionalLogit(prior, prior_scale=1e-9).fit(groups)
        assert -1e-9 <= leave_one_out(head, groups)[0, 0] - head.weight_[0] <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("seed", "n", "dim", "scale"), [(0, 40, 5, 1), (1, 25, 3, 0.3), (2, 80, 12, 3)]
)
def test_leave_one_out_tracks_brute_force_refits(seed, n, dim, scale):
    rng = np.random.default_rng(seed)
    prior, groups = make_prior(rng, dim), make_groups(rng, n, dim)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    refits = np.array(
        [
            ConditionalLogit(prior, prior_scale=scale).fit(groups.take(np.arange(n) != g)).weight_
            for g in range(n)
        ]
    )
    ours = leave_one_out(head, groups) - head.weight_
    true = refits - head.weight_
    assert np.corrcoef(ours.ravel(), true.ravel())[0, 1] > 0.99
    assert np.abs(ours - true).max() < 0.15 * np.abs(true).max()
    brute = np.einsum("ij,ij->i", groups.features, np.repeat(refits, groups.sizes, axis=0))
    assert np.corrcoef(loo_scores(head, groups), brute)[0, 1] > 0.999


def test_leave_one_out_in_the_quadratic_limit_is_exact():
    rng = np.random.default_rng(20)
    prior, groups = make_prior(rng, 3), make_groups(rng, 12, 3)
    prior = Prior(np.zeros(3), prior.precision, prior.tau)
    errors = []
    for scale in (1e2, 1e3, 1e4):
        head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
        refits = np.array(
            [
                ConditionalLogit(prior, prior_scale=scale)
                .fit(groups.take(np.arange(12) != g))
                .weight_
                for g in range(12)
            ]
        )
        moves = np.abs(refits - head.weight_).max()
        errors.append(np.abs(leave_one_out(head, groups) - refits).max() / moves)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_leave_one_out_of_a_single_query_is_the_prior_mean(scale):
    rng = np.random.default_rng(21)
    prior, groups = make_prior(rng, 4), make_groups(rng, 1, 4)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    assert np.abs(head.weight_ - prior.mean).max() > 1e-5
    np.testing.assert_allclose(leave_one_out(head, groups), [prior.mean], atol=1e-5)


def test_leave_one_out_in_small_chunks_is_the_same(monkeypatch):
    rng = np.random.default_rng(22)
    prior, groups = make_prior(rng, 4), make_groups(rng, 60, 4)
    head = ConditionalLogit(prior).fit(groups)
    whole = leave_one_out(head, groups)
    monkeypatch.setattr(objective, "_CHUNK", 50)
    np.testing.assert_allclose(leave_one_out(head, groups), whole, atol=1e-12)


def test_leave_one_out_without_queries_is_empty():
    head = ConditionalLogit(Prior(np.zeros(3), np.eye(3), 1.0))
    nothing = Groups.stack([], 3)
    assert leave_one_out(head, nothing).shape == (0, 3)
    assert loo_scores(head, nothing).shape == (0,)


def test_leave_one_out_on_other_queries_is_refused():
    groups = make_groups(np.random.default_rng(0), 4, 2)
    head = ConditionalLogit(Prior(np.zeros(2), np.eye(2), 1.0)).fit(groups)
    with pytest.raises(ShapeError, match="got 3; expected the 4"):
        leave_one_out(head, groups.take([0, 1, 2]))


@pytest.mark.parametrize("seed", range(5))
def test_scale_choice_on_noise_trusts_the_population(seed):
    rng = np.random.default_rng(seed)
    items = [(rng.normal(size=(6, 4)), rng.permutation(np.eye(6)[0])) for _ in range(60)]
    prior = Prior(np.zeros(4), np.eye(4), 0.05)
    choice = choose_prior_scale(prior, Groups.stack(items, 4))
    assert choice.scale >= 30.0
    assert list(choice.loo_losses) == [100.0, 30.0, 10.0, 3.0, 1.0, 0.3]


@pytest.mark.parametrize("seed", range(5))
def test_scale_choice_on_a_strong_own_taste_trusts_the_user(seed):
    rng = np.random.default_rng(seed)
    truth = np.array([3.0, -3.0, 2.0, 0.0])
    groups = make_groups(rng, 150, 4, truth=truth)
    prior = Prior(-truth / 3.0, 3.0 * np.eye(4), 0.05)
    choice = choose_prior_scale(prior, groups)
    assert choice.scale <= 1.0
    direct = ConditionalLogit(prior, prior_scale=choice.scale).fit(groups)
    np.testing.assert_allclose(choice.head.weight_, direct.weight_, atol=1e-6)
    assert choice.head.prior_scale == choice.scale


def test_scale_choice_losses_equal_brute_force_cross_entropy():
    rng = np.random.default_rng(30)
    prior, groups = make_prior(rng, 3), make_groups(rng, 50, 3)
    losses = choose_prior_scale(prior, groups, scales=(1.0, 30.0)).loo_losses
    parts = list(each(groups, prior.tau))
    for scale, loss in losses.items():
        brute = []
        for g, (x, target, _) in enumerate(parts):
            rest = groups.take(np.arange(50) != g)
            w = ConditionalLogit(prior, prior_scale=scale).fit(rest).weight_
            brute.append(-target @ np.log(softmax(x @ w)))
        assert loss == pytest.approx(np.mean(brute), rel=2e-3)


def test_scale_choice_is_the_strongest_within_one_paired_standard_error():
    scales, beyond_lowest = [30.0, 10.0, 3.0, 1.0, 0.3], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        prior, groups = make_prior(rng, 3, tau=0.1), make_groups(rng, 4, 3, weighted=True)
        share = groups.weights / groups.weights.sum()
        losses = []
        for scale in scales:
            head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
            parts = zip(each(groups, prior.tau), leave_one_out(head, groups), strict=True)
            losses.append(np.array([-t @ np.log(softmax(x @ w)) for (x, t, _), w in parts]))
        means = [share @ loss for loss in losses]
        lowest = int(np.argmin(means))
        worse = np.array(losses) - losses[lowest]
        means_worse = worse @ share
        errors = np.sqrt(((share * (worse - means_worse[:, None])) ** 2).sum(axis=1) * 4 / 3)
        level = scales[int(np.argmax(means_worse <= errors))]
        choice = choose_prior_scale(prior, groups, scales)
        assert choice.scale == level
        np.testing.assert_allclose(list(choice.loo_losses.values()), means, rtol=1e-5)
        beyond_lowest += level != scales[lowest]
    assert 0 < beyond_lowest < 40


def test_scale_choice_with_no_or_one_query_is_the_strongest():
    prior = Prior(np.zeros(2), np.eye(2), 0.1)
    nothing = choose_prior_scale(prior, Groups.stack([], 2))
    assert (nothing.scale, nothing.loo_losses) == (100.0, {})
    np.testing.assert_array_equal(nothing.head.weight_, prior.mean)
    one = choose_prior_scale(prior, Groups.stack([(np.eye(2), np.array([1.0, 0.0]))], 2))
    assert one.scale == 100.0
    assert np.isfinite(list(one.loo_losses.values())).all()


def test_scale_choice_without_weight_on_any_query_is_the_strongest():
    item = (np.eye(2), np.array([1.0, 0.0]))
    groups = Groups.stack([item, item], 2, weights=[0.0, 0.0])
    assert choose_prior_scale(Prior(np.zeros(2), np.eye(2), 0.1), groups).scale == 100.0


def test_scale_choice_without_scales_is_refused():
    prior = Prior(np.zeros(2), np.eye(2), 0.1)
    with pytest.raises(ShapeError, match="got no scales"):
        choose_prior_scale(prior, Groups.stack([], 2), scales=())
