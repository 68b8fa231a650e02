"""The head's fit against plain references: loops, finite differences, scipy, sklearn."""

import numpy as np
import pytest
from heads_reference import (
    each,
    finite_differences,
    left_out,
    make_groups,
    make_prior,
    reference_gradient,
    reference_loss,
    softmax,
    solution_at,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from hydra_edge.errors import ShapeError
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.heads.objective import Problem, minimise

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 6), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_objective_gradient_and_hessian_match_finite_differences(seed, n, dim):
    rng = np.random.default_rng(seed)
    prior, groups = make_prior(rng, dim), make_groups(rng, n, dim, low=1)
    problem, v, scale = Problem.of(prior, groups), rng.normal(size=dim), 0.7

    def loss(at):
        return problem.loss(problem.log_probability(problem.scores(at)), at, scale)

    def gradient(at):
        return problem.features.T @ problem.residual(probability(at)) + scale * at

    def probability(at):
        return np.exp(problem.log_probability(problem.scores(at)))

    hessian = problem.hessian(probability(v)) + scale * np.eye(dim)
    assert loss(v) == pytest.approx(reference_loss(problem.to_weight(v), prior, groups, scale))
    np.testing.assert_allclose(gradient(v), finite_differences(loss, v), atol=1e-6)
    np.testing.assert_allclose(hessian, finite_differences(gradient, v), atol=1e-6)


@given(seeds, st.integers(1, 30), st.integers(1, 6), st.sampled_from([0.05, 1.0, 20.0]))
@settings(max_examples=25, deadline=None)
def test_fit_on_random_problems_equals_scipy_minimum(seed, n, dim, scale):
    rng = np.random.default_rng(seed)
    prior, groups = make_prior(rng, dim), make_groups(rng, n, dim)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    found = minimise(Problem.of(prior, groups), scale)
    best = optimize.minimize(
        reference_loss,
        rng.normal(size=dim),
        (prior, groups, scale),
        jac=reference_gradient,
        method="BFGS",
        options={"gtol": 1e-8},
    )
    assert found.converged
    np.testing.assert_allclose(head.weight_, best.x, atol=1e-6)
    assert found.loss == pytest.approx(best.fun, rel=1e-9)


def test_fit_with_class_blocks_equals_sklearn_multinomial():
    rng = np.random.default_rng(4)
    n, n_classes, dim, strength = 120, 4, 3, 0.8
    x = rng.normal(size=(n, dim))
    y = np.argmax(x @ rng.normal(size=(dim, n_classes)) + rng.gumbel(size=(n, n_classes)), axis=1)
    blocks = [np.kron(np.eye(n_classes), row) for row in x]
    width = n_classes * dim
    items = [(block, np.eye(n_classes)[label]) for block, label in zip(blocks, y, strict=True)]
    prior = Prior(np.zeros(width), strength * np.eye(width), tau=1e-9)
    head = ConditionalLogit(prior).fit(Groups.stack(items, width))
    theirs = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=5000)
    theirs.fit(x, y)
    ours = np.array([softmax(head.scores(block)) for block in blocks])
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=1e-6)
    np.testing.assert_allclose(head.weight_.reshape(n_classes, dim), theirs.coef_, atol=1e-5)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_fit_precision_equals_numerical_hessian_at_the_optimum(seed):
    rng = np.random.default_rng(seed)
    prior, groups = make_prior(rng, 4), make_groups(rng, 12, 4)
    head = ConditionalLogit(prior, prior_scale=2.5).fit(groups)
    hessian = finite_differences(
        lambda w: reference_gradient(w, prior, groups, 2.5), head.weight_.copy()
    )
    np.testing.assert_allclose(head.precision_, hessian, atol=1e-5)
    np.testing.assert_array_equal(head.precision_, head.precision_.T)


def test_fit_without_queries_is_the_prior():
    prior = make_prior(np.random.default_rng(0), 3)
    groups = make_groups(np.random.default_rng(1), 5, 3)
    head = ConditionalLogit(prior, prior_scale=2.0).fit(groups).fit(Groups.stack([], 3))
    np.testing.assert_array_equal(head.weight_, prior.mean)
    np.testing.assert_array_equal(head.precision_, prior.precision * 2.0)


def test_fit_with_more_queries_moves_further_toward_the_truth():
    rng = np.random.default_rng(2)
    truth = np.array([2.0, -1.0, 0.5])
    prior = Prior(np.zeros(3), 5.0 * np.eye(3), 0.05)
    groups = make_groups(rng, 400, 3, truth=truth)
    moved = [
        np.linalg.norm(ConditionalLogit(prior).fit(groups.take(range(n))).weight_)
        for n in (1, 10, 100, 400)
    ]
    assert moved == sorted(moved)
    assert moved[0] < 0.2 * moved[-1]


def test_fit_with_stronger_prior_stays_nearer_to_its_mean():
    rng = np.random.default_rng(3)
    prior, groups = make_prior(rng, 3), make_groups(rng, 30, 3)
    away = [
        np.linalg.norm(ConditionalLogit(prior, prior_scale=s).fit(groups).weight_ - prior.mean)
        for s in (0.1, 1.0, 10.0, 1e3, 1e6)
    ]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 1e-4


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_fit_with_shuffled_queries_and_candidates_is_the_same(seed):
    rng = np.random.default_rng(seed)
    prior, groups = make_prior(rng, 3), make_groups(rng, 10, 3)
    items = []
    for g in rng.permutation(10):
        rows = rng.permutation(np.arange(groups.offsets[g], groups.offsets[g + 1]))
        items.append((groups.features[rows], groups.utilities[rows]))
    one = ConditionalLogit(prior).fit(groups)
    other = ConditionalLogit(prior).fit(Groups.stack(items, 3))
    np.testing.assert_allclose(one.weight_, other.weight_, atol=1e-8)
    np.testing.assert_allclose(one.precision_, other.precision_, atol=1e-7)


@given(seeds, st.sampled_from([1.0, 1e3, 1e6]))
@settings(max_examples=15, deadline=None)
def test_fit_with_constant_added_within_queries_is_the_same(seed, size):
    rng = np.random.default_rng(seed)
    prior, groups = make_prior(rng, 3), make_groups(rng, 8, 3)
    constants = np.repeat(rng.normal(size=(8, 3)) * size, groups.sizes, axis=0)
    moved = Groups(groups.features + constants, groups.utilities, groups.offsets)
    one, other = ConditionalLogit(prior).fit(groups), ConditionalLogit(prior).fit(moved)
    np.testing.assert_allclose(one.weight_, other.weight_, atol=1e-6)
    np.testing.assert_allclose(left_out(one, groups), left_out(other, moved), atol=1e-6)


def test_fit_with_targets_ignores_utilities():
    rng = np.random.default_rng(6)
    prior, groups = make_prior(rng, 3), make_groups(rng, 6, 3)
    told = Groups(
        groups.features, np.zeros(groups.utilities.size), groups.offsets, groups.target(prior.tau)
    )
    np.testing.assert_allclose(
        ConditionalLogit(prior).fit(groups).weight_,
        ConditionalLogit(prior).fit(told).weight_,
        atol=1e-12,
    )


@pytest.mark.parametrize("tau", [0.1, 1e-300])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e8, 1e30])
@pytest.mark.parametrize("n", [1, 12])
def test_head_with_degenerate_or_huge_features_stays_finite(n, size, scale, tau):
    rng = np.random.default_rng(7)
    x = rng.uniform(-1.0, 1.0, size=(n, 6, 5))
    x[:, :, 1] = x[:, :, 0]  # collinear
    x[:, :, 2] = 1.0  # constant
    groups = Groups.stack([(row * size, rng.uniform(size=6)) for row in x], 5)
    prior = Prior(np.ones(5), np.eye(5), tau)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    found = minimise(Problem.of(prior, groups), scale)
    updated = head.update(groups.features[:6], np.eye(6)[3])
    lead = updated.lead(groups.features[:6], 0, 3)
    for values in (
        head.weight_, head.precision_, found.loss, left_out(head, groups), updated.weight_,
        updated.precision_, lead.difference, lead.std,
    ):  # fmt: skip
        assert np.isfinite(values).all()
    assert found.converged or size * size / scale >= 1e16


@pytest.mark.parametrize("sizes", [[3, 3], [3, 2]], ids=["even", "ragged"])
def test_log_probability_of_huge_scores_is_that_of_their_differences(sizes):
    rng = np.random.default_rng(9)
    items = [(rng.normal(size=(m, 2)), rng.uniform(size=m)) for m in sizes]
    problem = Problem.of(Prior(np.zeros(2), np.eye(2), 0.1), Groups.stack(items, 2))
    scores = rng.normal(size=sum(sizes))
    apart = np.repeat([1e6, -1e6], sizes)
    np.testing.assert_allclose(
        problem.log_probability(scores + apart), problem.log_probability(scores), atol=1e-8
    )


def test_fit_with_level_utilities_only_draws_toward_indifference():
    rng = np.random.default_rng(8)
    items = [(rng.normal(size=(4, 2)), np.zeros(4)) for _ in range(20)]
    prior = Prior(np.ones(2), np.eye(2), 0.1)
    head = ConditionalLogit(prior).fit(Groups.stack(items, 2))
    assert 0.0 < np.linalg.norm(head.weight_) < np.linalg.norm(prior.mean)


def test_fit_with_thousands_of_candidates_equals_scipy_minimum():
    rng = np.random.default_rng(9)
    prior = make_prior(rng, 4)
    big, small = make_groups(rng, 2, 4, low=4000, high=4001), make_groups(rng, 5, 4)
    items = [*each(big, 1.0), *each(small, 1.0)]
    groups = Groups.stack(items, 4, targets=[target for _, target in items])
    head = ConditionalLogit(prior).fit(groups)
    best = optimize.minimize(
        reference_loss, prior.mean, (prior, groups), jac=reference_gradient, options={"gtol": 1e-8}
    )
    np.testing.assert_allclose(head.weight_, best.x, atol=1e-6)
    assert left_out(head, groups).shape == (7, 4)


def test_fit_with_other_width_is_refused():
    groups = make_groups(np.random.default_rng(0), 2, 3)
    with pytest.raises(ShapeError, match="got 3 features; expected 2"):
        ConditionalLogit(Prior(np.zeros(2), np.eye(2), 1.0)).fit(groups)


def test_fit_from_beside_the_optimum_converges_at_once():
    # So near that what a step gains drowns in the rounding of the loss.
    rng = np.random.default_rng(10)
    prior, groups = make_prior(rng, 4), make_groups(rng, 200, 4)
    head, problem = ConditionalLogit(prior).fit(groups), Problem.of(prior, groups)
    for away in np.geomspace(1e-10, 1e-4, 60):
        beside = solution_at(problem, head.weight_ + away * rng.normal(size=4))
        again = minimise(problem, 1.0, beside)
        assert again.converged
        assert again.iterations <= 2
        np.testing.assert_allclose(problem.to_weight(again.v), head.weight_, atol=1e-8)
