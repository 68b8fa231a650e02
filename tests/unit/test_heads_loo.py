"""Leave-one-out against refits, and the choice of prior scale against its own rule."""

import numpy as np
import pytest
from heads_reference import (
    each,
    left_out,
    make_groups,
    make_prior,
    reference_gradient,
    reference_parts,
    softmax,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.heads import (
    PRIOR_SCALES,
    ConditionalLogit,
    Groups,
    Prior,
    choose_prior_scale,
    choose_span,
    loo,
)

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from([0.3, 1.0, 10.0]))
@settings(max_examples=20, deadline=None)
def test_leave_one_out_equals_the_dense_formula(seed, scale):
    rng = np.random.default_rng(seed)
    prior = make_prior(rng, 5)
    # Sizes below, at and above the number of features take different ways.
    groups = make_groups(rng, 15, 5, low=1, high=9)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    gradients, hessians = reference_parts(head.weight_, prior, groups)
    expected = [
        head.weight_ + np.linalg.solve(head.precision_ - h, g)
        for g, h in zip(gradients, hessians, strict=True)
    ]
    np.testing.assert_allclose(left_out(head, groups), expected, atol=1e-6)


def test_leave_one_out_beside_the_optimum_steps_toward_the_refit():
    rng = np.random.default_rng(19)
    prior, groups = make_prior(rng, 4), make_groups(rng, 10, 4)
    w = ConditionalLogit(prior).fit(groups).weight_ + 0.05 * rng.normal(size=4)
    head = ConditionalLogit.from_state(w, prior.precision, prior)
    _, hessians = reference_parts(w, prior, groups)
    precision = hessians.sum(axis=0) + prior.precision
    expected = []
    for g in range(10):
        gradient = reference_gradient(w, prior, groups.take(np.arange(10) != g))
        expected.append(w - np.linalg.solve(precision - hessians[g], gradient))
    np.testing.assert_allclose(left_out(head, groups), expected, atol=1e-7)


def test_leave_one_out_with_leverage_rounded_to_one_never_steps_away_from_the_prior():
    rng = np.random.default_rng(23)
    prior = Prior(np.ones(1), np.eye(1), 1.0)
    for _ in range(30):
        x = rng.uniform(0.5, 2.0) * np.array([[1e4], [-1e4]])
        groups = Groups.stack([(x, np.zeros(2))], 1, targets=[np.array([0.6, 0.4])])
        head = ConditionalLogit(prior, prior_scale=1e-9).fit(groups)
        assert -1e-9 <= left_out(head, groups)[0, 0] - head.weight_[0] <= 1.0 + 1e-9


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
    ours = left_out(head, groups) - head.weight_
    true = refits - head.weight_
    assert np.corrcoef(ours.ravel(), true.ravel())[0, 1] > 0.99
    assert np.abs(ours - true).max() < 0.15 * np.abs(true).max()


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
        errors.append(np.abs(left_out(head, groups) - refits).max() / moves)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_leave_one_out_of_a_single_query_is_the_prior_mean(scale):
    rng = np.random.default_rng(21)
    prior, groups = make_prior(rng, 4), make_groups(rng, 1, 4)
    head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
    assert np.abs(head.weight_ - prior.mean).max() > 1e-5
    np.testing.assert_allclose(left_out(head, groups), [prior.mean], atol=1e-5)


def test_leave_one_out_in_small_chunks_is_the_same(monkeypatch):
    rng = np.random.default_rng(22)
    prior, groups = make_prior(rng, 4), make_groups(rng, 60, 4)
    head = ConditionalLogit(prior).fit(groups)
    whole = left_out(head, groups)
    monkeypatch.setattr(loo, "_CHUNK", 50)
    np.testing.assert_allclose(left_out(head, groups), whole, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_scale_choice_on_noise_trusts_the_population(seed):
    rng = np.random.default_rng(seed)
    items = [(rng.normal(size=(6, 4)), rng.permutation(np.eye(6)[0])) for _ in range(60)]
    prior = Prior(np.zeros(4), np.eye(4), 0.05)
    choice = choose_prior_scale(prior, Groups.stack(items, 4))
    assert choice.head.prior_scale >= 30.0


@pytest.mark.parametrize("seed", range(5))
def test_scale_choice_on_a_strong_own_taste_trusts_the_user(seed):
    rng = np.random.default_rng(seed)
    truth = np.array([3.0, -3.0, 2.0, 0.0])
    groups = make_groups(rng, 150, 4, truth=truth)
    prior = Prior(-truth / 3.0, 3.0 * np.eye(4), 0.05)
    choice = choose_prior_scale(prior, groups)
    assert choice.head.prior_scale <= 1.0
    direct = ConditionalLogit(prior, prior_scale=choice.head.prior_scale).fit(groups)
    np.testing.assert_allclose(choice.head.weight_, direct.weight_, atol=1e-6)


@pytest.mark.parametrize("even", [True, False])
def test_scale_choice_scores_follow_brute_force_refits(even):
    rng = np.random.default_rng(30)
    prior, groups = make_prior(rng, 3), make_groups(rng, 50, 3, low=6 if even else 2, high=7)
    choice = choose_prior_scale(prior, groups)
    brute = []
    for g, (x, _) in enumerate(each(groups, prior.tau)):
        rest = groups.take(np.arange(50) != g)
        head = ConditionalLogit(prior, prior_scale=choice.head.prior_scale).fit(rest)
        brute.extend(head.scores(x))
    assert np.corrcoef(choice.scores, brute)[0, 1] > 0.999
    np.testing.assert_allclose(choice.scores, brute, atol=0.05)


def test_scale_choice_is_the_strongest_within_one_paired_standard_error():
    scales, beyond_lowest = sorted(PRIOR_SCALES, reverse=True), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        prior, groups = make_prior(rng, 3, tau=0.1), make_groups(rng, 4, 3)
        losses = []
        for scale in scales:
            head = ConditionalLogit(prior, prior_scale=scale).fit(groups)
            parts = zip(each(groups, prior.tau), left_out(head, groups), strict=True)
            losses.append(np.array([-t @ np.log(softmax(x @ w)) for (x, t), w in parts]))
        lowest = int(np.argmin([loss.mean() for loss in losses]))
        worse = np.array(losses) - losses[lowest]
        errors = worse.std(axis=1, ddof=1) / 2.0  # of four queries
        level = scales[int(np.argmax(worse.mean(axis=1) <= errors))]
        assert choose_prior_scale(prior, groups).head.prior_scale == level
        beyond_lowest += level != scales[lowest]
    assert 0 < beyond_lowest < 40


def test_scale_choice_with_no_or_one_query_is_the_strongest():
    prior = Prior(np.zeros(2), np.eye(2), 0.1)
    nothing = choose_prior_scale(prior, Groups.stack([], 2))
    assert nothing.head.prior_scale == 100.0
    np.testing.assert_array_equal(nothing.head.weight_, prior.mean)
    one = choose_prior_scale(prior, Groups.stack([(np.eye(2), np.array([1.0, 0.0]))], 2))
    assert one.head.prior_scale == 100.0
    np.testing.assert_allclose(one.scores, [0.0, 0.0], atol=1e-5)


def habits(rng, *parts):
    """Make queries whose pick is the one with the most (1) or the least (-1) of a feature."""
    items, targets = [], []
    for count, sign in parts:
        for _ in range(count):
            x = rng.normal(size=(5, 3))
            target = np.eye(5)[int(np.argmax(sign * x[:, 0]))]
            items.append((x, target))
            targets.append(target)
    return Groups.stack(items, 3, targets=targets)


UNSURE = Prior(np.zeros(3), 3.0 * np.eye(3), 0.1)


@pytest.mark.parametrize("seed", range(5))
def test_span_of_one_habit_is_everything(seed):
    assert choose_span(UNSURE, habits(np.random.default_rng(seed), (130, 1.0))) == 130


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("before", "after"), [(200, 25), (40, 24), (64, 64)])
def test_span_after_a_changed_habit_leaves_most_of_the_first_out(seed, before, after):
    groups = habits(np.random.default_rng(seed), (before, 1.0), (after, -1.0))
    span = choose_span(UNSURE, groups)
    assert loo.SHORTEST_SPAN <= span < 2 * after
    latest = groups.take(np.arange(groups.n_groups - span, groups.n_groups))
    assert choose_prior_scale(UNSURE, latest).head.weight_[0] < 0.0


def test_span_is_the_longest_that_no_shorter_one_foretells_better_by_two_standard_errors():
    found = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # A change of habit that just so many picks speak of, so that spans are close calls.
        groups = habits(rng, (40, 1.0), (16 + int(rng.integers(9)), -1.0))
        spans = [groups.n_groups]
        while spans[-1] >= 2 * loo.SHORTEST_SPAN:
            spans.append(spans[-1] // 2)
        losses = {}
        for span in spans:
            own = groups.take(np.arange(groups.n_groups - span, groups.n_groups))
            choice = choose_prior_scale(UNSURE, own)
            edges = own.offsets
            losses[span] = np.array([
                -t @ np.log(softmax(choice.scores[a:b]))
                for (_, t), a, b in zip(each(own, UNSURE.tau), edges[:-1], edges[1:], strict=True)
            ])  # fmt: skip
            np.testing.assert_allclose(choice.losses, losses[span], atol=1e-9)
        beaten = {
            span: any(
                (worse := losses[span][-s:] - losses[s]).mean() > 2 * worse.std(ddof=1) / np.sqrt(s)
                for s in spans
                if s < span
            )
            for span in spans
        }
        expected = next(span for span in spans if not beaten[span])
        assert choose_span(UNSURE, groups) == expected
        found.add(spans.index(expected))
    assert len(found) > 1


def test_span_of_people_who_pick_by_one_taste_and_much_chance_is_nearly_always_everything():
    dropped = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        items, targets, taste = [], [], rng.normal(size=3)
        for _ in range(66):
            x = rng.normal(size=(5, 3))
            target = np.eye(5)[int(np.argmax(x @ taste + 2.0 * rng.gumbel(size=5)))]
            items.append((x, target))
            targets.append(target)
        groups = Groups.stack(items, 3, targets=targets)
        dropped.append(choose_span(UNSURE, groups) < 66)
    assert sum(dropped) <= 4


def test_span_counts_queries_that_teach_nothing_with_those_around_them():
    rng = np.random.default_rng(0)
    told = habits(rng, (60, 1.0), (30, -1.0))
    span = choose_span(UNSURE, told)
    flat, items, targets = np.ones((2, 3)), [], []
    for g in range(told.n_groups):
        pairs = slice(told.offsets[g], told.offsets[g + 1])
        items += [(told.features[pairs], told.utilities[pairs]), (flat, np.full(2, 0.5))]
        targets += [told.targets[pairs], np.full(2, 0.5)]
    mixed = Groups.stack(items, 3, targets=targets)
    assert span < told.n_groups
    assert choose_span(UNSURE, mixed) == 2 * span


@pytest.mark.parametrize("count", [0, 1, 31])
def test_span_of_few_queries_is_all_of_them(count):
    change = habits(np.random.default_rng(0), (count // 2, 1.0), (count - count // 2, -1.0))
    assert choose_span(UNSURE, change) == count
