"""The gate: on where a head helps, off where it does not, and never by luck alone."""

from __future__ import annotations

import numpy as np
import pytest

from hydra_edge.evaluate import MIN_HELD_OUT, Verdict, judge, top_utility
from hydra_edge.heads import Groups, PopulationGain, Prior, one_sided_low, posterior_gain
from hydra_edge.population import SHARED_CONFIDENCE, PopulationGains

DIM, M = 4, 6
BASELINE = np.eye(DIM, dtype=np.float32)[3]


def groups_from(truth: np.ndarray, n: int, seed: int, noise: float = 0.05) -> Groups:
    """Make queries whose best candidate is the one ``truth`` scores highest."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(n):
        phi = rng.standard_normal((M, DIM))
        score = phi @ truth + noise * rng.standard_normal(M)
        utilities = (score - score.min()) / max(np.ptp(score), 1e-9)
        items.append((phi, utilities))
    return Groups.stack(items, dim=DIM)


def run(truth: list[float], mean: list[float], n: int = 60, seed: int = 0) -> Verdict:
    prior = Prior(np.array(mean, dtype=np.float64), np.eye(DIM), 0.1)
    return judge(groups_from(np.array(truth), n, seed), prior, BASELINE, top=1)


def test_judge_user_unlike_the_population_gets_a_personal_head() -> None:
    verdict = run(truth=[0, 1, 0, 0], mean=[1, 0, 0, 0])
    assert verdict.switch == "personal"
    assert verdict.personal_over_shared is not None
    assert verdict.personal_over_shared.low > 0
    assert "needed" not in verdict.reason, "there were enough queries"


def test_judge_user_like_the_population_keeps_the_shared_head() -> None:
    switches = [run([5, 0, 0, 0], [5, 0, 0, 0], seed=s).switch for s in range(20)]
    assert switches.count("shared") >= 15


def test_judge_population_no_better_than_the_baseline_falls_back_to_it() -> None:
    verdict = run(truth=[0, 0, 0, 1], mean=[0, 0, 0, 1])
    assert verdict.switch == "baseline"
    assert "shared +0.0000 over baseline" in verdict.reason


def test_judge_claims_a_lower_bound_of_the_shared_head_only_where_there_is_one() -> None:
    groups = groups_from(np.array([1.0, 0, 0, 0]), 60, 0)
    prior = Prior(np.array([1.0, 0, 0, 0]), np.eye(DIM), 0.1)
    others = PopulationGain(0.1, 0.05, 0.2)
    of_shared = {
        gains: judge(groups, prior, BASELINE, top=1, gains=gains).reason.split("; ")[-1]
        for gains in (None, PopulationGains(others, others))
    }
    alone, with_others = of_shared.values()
    assert alone.startswith("shared +")
    assert "lower bound" in alone
    assert with_others.startswith("shared +")
    assert with_others.endswith("over baseline (expected, counting what other users gained)")


def test_judge_harmful_population_is_switched_off() -> None:
    verdict = run(truth=[0, 0, 0, 1], mean=[1, 0, 0, -1], n=2 * MIN_HELD_OUT)
    assert verdict.switch != "shared"


def test_judge_personal_head_better_than_a_harmful_shared_one_but_not_than_the_baseline() -> None:
    """A population that hurts, and too strong a prior to get away from it: plain order serves."""
    groups = groups_from(np.array([0.0, 0.0, 0.0, 1.0]), 60, 0)
    prior = Prior(np.array([1.0, 0.0, 0.0, -1.0]), np.eye(DIM) * 200.0, 0.1)
    verdict = judge(groups, prior, BASELINE, top=1)
    assert verdict.personal_over_shared is not None
    assert verdict.personal_over_shared.low > 0
    assert verdict.mean("personal") < verdict.mean("baseline")
    assert verdict.switch == "baseline"


def test_judge_personal_head_that_scores_all_alike_does_not_serve() -> None:
    plain = groups_from(np.array([0.0, 1.0, 0.0, 0.0]), 60, 0)
    tiny = Groups(plain.features * 1e-6, plain.utilities, plain.offsets)
    prior = Prior(np.array([1.0, 0.0, 0.0, 0.0]), np.eye(DIM), 0.1)
    verdict = judge(tiny, prior, BASELINE, top=1)
    assert verdict.switch != "personal"
    assert "scores every choice alike" in verdict.reason


def test_judge_pure_noise_rarely_switches_a_head_on() -> None:
    rng = np.random.default_rng(5)
    on = 0
    for _ in range(40):
        items = [(rng.standard_normal((M, DIM)), rng.random(M)) for _ in range(40)]
        groups = Groups.stack(items, dim=DIM)
        prior = Prior(np.zeros(DIM), np.eye(DIM), 0.1)
        on += judge(groups, prior, BASELINE, top=1).switch == "personal"
    # A one-sided 80 % bound errs one time in five; both conditions must err together.
    assert on <= 12


def test_judge_too_few_queries_lets_the_shared_head_stand() -> None:
    verdict = run([0, 1, 0, 0], [1, 0, 0, 0], n=2 * MIN_HELD_OUT - 2)
    assert verdict.switch == "shared"
    assert f"{MIN_HELD_OUT} are needed" in verdict.reason


def test_judge_nothing_to_judge() -> None:
    verdict = judge(
        Groups.stack([], dim=DIM),
        Prior(np.ones(DIM), np.eye(DIM), 0.1),
        np.ones(DIM, dtype=np.float32),
        top=1,
    )
    assert verdict.switch == "shared"
    assert verdict.mean("shared") is None
    np.testing.assert_allclose(verdict.head.weight_, np.ones(DIM))


def test_judge_queries_of_equal_utilities_teach_nothing_but_are_judged() -> None:
    informative = groups_from(np.array([0.0, 1, 0, 0]), 30, 1)
    items = [
        (informative.features[a:b], informative.utilities[a:b])
        for a, b in zip(informative.offsets[:-1], informative.offsets[1:], strict=True)
    ]
    flat = [(np.ones((M, DIM)), np.full(M, 0.5))] * 30
    prior = Prior(np.zeros(DIM), np.eye(DIM), 0.1)
    plain = judge(informative, prior, BASELINE, top=1)
    mixed = judge(Groups.stack([*flat, *items], dim=DIM), prior, BASELINE, top=1)
    np.testing.assert_allclose(mixed.head.weight_, plain.head.weight_, atol=1e-8)
    assert len(mixed.personal) == 60


def test_judge_personal_score_of_a_query_does_not_see_its_own_label() -> None:
    """Flip one query's utilities: what the personal head would pick for it must not follow."""
    groups = groups_from(np.array([0.0, 1, 0, 0]), 25, 2)
    prior = Prior(np.zeros(DIM), np.eye(DIM) * 0.1, 0.1)
    before = judge(groups, prior, BASELINE, top=1)
    flipped = groups.utilities.copy()
    last = slice(groups.offsets[-2], groups.offsets[-1])
    flipped[last] = 1.0 - flipped[last]
    items = [
        (groups.features[a:b], flipped[a:b])
        for a, b in zip(groups.offsets[:-1], groups.offsets[1:], strict=True)
    ]
    after = judge(Groups.stack(items, dim=DIM), prior, BASELINE, top=1)
    # The same candidate is picked, so its utility is exactly mirrored.
    assert after.personal[-1] == pytest.approx(1.0 - before.personal[-1], abs=1e-9)


def test_top_utility_ties_go_to_the_earlier_pair() -> None:
    groups = Groups.stack([(np.zeros((3, DIM)), np.array([0.2, 0.9, 0.4]))], dim=DIM)
    assert top_utility(np.zeros(3), groups, 1)[0] == pytest.approx(0.2)
    assert top_utility(np.zeros(3), groups, 2)[0] == pytest.approx(0.55)
    assert top_utility(np.zeros(3), groups, 9)[0] == pytest.approx(0.5)


def test_top_utility_of_queries_of_different_sizes_is_each_ones_own() -> None:
    items = [
        (np.zeros((2, DIM)), np.array([0.2, 0.9])),
        (np.zeros((3, DIM)), np.array([0.1, 0.5, 0.9])),
    ]
    groups = Groups.stack(items, dim=DIM)
    scores = np.array([0.0, 1.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(top_utility(scores, groups, 1), [0.9, 0.1])
    np.testing.assert_allclose(top_utility(scores, groups, 2), [0.55, 0.3])


def test_verdict_report_holds_the_evidence() -> None:
    report = run([0, 1, 0, 0], [1, 0, 0, 0]).report()
    assert report["held_out"] == 30
    assert report["utility"]["personal"] > report["utility"]["shared"]
    assert report["personal_over_shared"]["low"] > 0


def test_judge_population_gain_keeps_a_good_shared_head_through_bad_luck() -> None:
    """Ten noisy queries cannot tell; what other users gained can."""
    groups = groups_from(np.array([1.0, 0.0, 0.0, 1.0]), 10, 3, noise=2.0)
    prior = Prior(np.array([1.0, 0.0, 0.0, 0.8]), np.eye(DIM) * 300.0, 0.1)
    silent = PopulationGain(0.0, 0.01, 0.3)
    good = PopulationGains(PopulationGain(0.1, 0.03, 0.3), silent)
    bad = PopulationGains(PopulationGain(-0.1, 0.03, 0.3), silent)
    assert judge(groups, prior, BASELINE, top=1, gains=good).switch == "shared"
    assert judge(groups, prior, BASELINE, top=1, gains=bad).switch == "baseline"


def test_judge_lucky_personal_head_needs_more_than_luck_where_others_gained_nothing() -> None:
    verdict = run(truth=[0, 1, 0, 0], mean=[1, 0, 0, 0])
    assert verdict.switch == "personal"
    groups = groups_from(np.array([0.0, 1.0, 0.0, 0.0]), 60, 0)
    prior = Prior(np.array([1.0, 0.0, 0.0, 0.0]), np.eye(DIM), 0.1)
    harmed = PopulationGain(-0.05, 0.001, 0.3)
    gains = PopulationGains(PopulationGain(0.1, 0.03, 0.3), harmed)
    judged = judge(groups, prior, BASELINE, top=1, gains=gains)
    assert judged.switch != "personal"


@pytest.mark.parametrize("n", [1, 2, 2 * MIN_HELD_OUT - 2])
def test_judge_few_queries_switch_no_personal_head_on_whatever_others_gained(n: int) -> None:
    gains = PopulationGains(PopulationGain(0.1, 0.01, 0.1), PopulationGain(0.1, 0.01, 0.1))
    prior = Prior(np.array([1.0, 0.0, 0.0, 0.0]), np.eye(DIM), 0.1)
    groups = groups_from(np.array([0.0, 1.0, 0.0, 0.0]), n, 3)
    verdict = judge(groups, prior, BASELINE, top=1, gains=gains)
    assert verdict.personal_over_shared is not None
    assert verdict.personal_over_shared.low > 0
    assert verdict.switch == "shared"
    assert f"{MIN_HELD_OUT} are needed" in verdict.reason


def test_judge_bounds_are_of_the_confidence_they_state() -> None:
    groups = groups_from(np.array([1.0, 0.0, 0.0, 1.0]), 40, 3, noise=2.0)
    prior = Prior(np.array([1.0, 0.0, 0.0, 0.8]), np.eye(DIM), 0.1)
    plain = judge(groups, prior, BASELINE, top=1)
    held = plain.held_out
    assert plain.personal_over_shared is not None
    assert plain.shared_over_baseline is not None
    assert plain.personal_over_shared.low == pytest.approx(
        one_sided_low((plain.personal - plain.shared)[held], 0.8)
    )
    assert plain.shared_over_baseline.low == pytest.approx(
        one_sided_low((plain.shared - plain.baseline)[held], 0.8)
    )
    others = PopulationGain(0.1, 0.03, 0.3)
    known = judge(groups, prior, BASELINE, top=1, gains=PopulationGains(others, others))
    assert known.personal_over_shared is not None
    assert known.shared_over_baseline is not None
    assert known.personal_over_shared.low == pytest.approx(
        posterior_gain((known.personal - known.shared)[held], others, 0.8).low
    )
    assert known.shared_over_baseline.low == pytest.approx(
        posterior_gain((known.shared - known.baseline)[held], others, SHARED_CONFIDENCE).low
    )
