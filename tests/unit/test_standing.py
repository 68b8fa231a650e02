"""A personal head that is not sure lets the answer stand that would be given without it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import closed_scenes
import numpy as np
import pytest
from closed_scenes import COLOURS, Scene, answers, with_votes_weighing

from hydra_edge import evaluate
from hydra_edge.active import ActiveHead
from hydra_edge.adapter import merge, pool_features
from hydra_edge.bundle import Bundle
from hydra_edge.evaluate import judge
from hydra_edge.features import FeatureMap
from hydra_edge.headreport import SHARED_OVER_BASELINE
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.population import baseline_weight, gains_for, prior_for
from hydra_edge.reasons import too_close
from hydra_edge.settling import is_settled
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Double2d, HeadInfo, HeadState, JsonDict, Switch

scenes = closed_scenes.scenes
OPEN, CLOSED = {"mean": 0.1, "low": 0.02}, {"mean": 0.0, "low": -0.02}


def stored(bundle: Bundle, task: TaskSpec, report: JsonDict, switch: Switch) -> HeadState:
    """Return a head as a fit stores it, that prefers what others do not, and is sure of nothing."""
    prior = prior_for(bundle, task, "adapter")
    return HeadState(
        task=task.name, role="adapter", base_id=bundle.base_id, features=bundle.features("adapter"),
        weight=-prior.mean.astype(np.float32),
        precision=np.eye(prior.dim, dtype=np.float32) * 1e-6,
        switch=switch, n_queries=20, prior_scale=1.0, report=report,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "switch", "otherwise"),
    [
        ({SHARED_OVER_BASELINE: OPEN}, "personal", "shared"),
        ({SHARED_OVER_BASELINE: CLOSED}, "personal", "baseline"),
        ({SHARED_OVER_BASELINE: CLOSED}, "shared", "shared"),
        ({SHARED_OVER_BASELINE: OPEN}, "baseline", "baseline"),
        # As somebody else may have written it: what serves whom nothing is known of.
        ({}, "personal", "shared"),
        ({SHARED_OVER_BASELINE: None}, "personal", "shared"),
        ({SHARED_OVER_BASELINE: {"low": "much"}}, "personal", "shared"),
    ],
)
def test_unsure_head_gives_what_would_serve_otherwise(
    scenes: dict[str, Scene], bundle: Bundle, report: JsonDict, switch: Switch, otherwise: Switch
) -> None:
    scene = scenes["colour"]
    task = scene.history.task
    state = stored(bundle, task, report, switch)
    active = ActiveHead.of(bundle, task, scene.head.features, state)
    assert active.info.otherwise == otherwise
    greedy = next(c for c in COLOURS if scene.choice(scene.head, answers([c])) != c)
    expected = scene.choice(scene.head, answers([greedy])) if otherwise == "shared" else greedy
    assert scene.choice(active, answers([greedy])) == expected


def test_a_sure_head_gives_its_own_answer(scenes: dict[str, Scene], bundle: Bundle) -> None:
    scene = scenes["colour"]
    state = stored(bundle, scene.history.task, {SHARED_OVER_BASELINE: OPEN}, "personal")
    state = replace(state, precision=np.eye(len(state.weight), dtype=np.float32) * 1e9)
    sure = ActiveHead.of(bundle, scene.history.task, scene.head.features, state)
    assert scene.choice(sure, answers(["dun"])) == scene.choice(
        replace(sure, posterior=None), answers(["dun"])
    )


@pytest.mark.parametrize("otherwise", ["shared", "baseline"])
def test_settled_choice_of_a_personal_head_survives_every_answer_that_may_come(
    scenes: dict[str, Scene], bundle: Bundle, otherwise: Switch
) -> None:
    scene = scenes["colour"]
    prior = prior_for(bundle, scene.history.task, "adapter")
    rng = np.random.default_rng(3)
    seen = {True: 0, False: 0}
    for _ in range(60):
        weights = rng.normal(0.0, rng.choice([0.02, 0.1, 0.3]), 3)
        own = with_votes_weighing(scene.head, weights.tolist())
        unsure = np.eye(prior.dim) * 10.0 ** rng.uniform(0.0, 4.0)
        head = replace(
            own,
            info=replace(own.info, switch="personal", otherwise=otherwise),
            posterior=ConditionalLogit.from_state(own.weight, unsure, prior),
        )
        drawn = rng.choice(COLOURS, size=rng.integers(1, 6)).tolist()
        settled = is_settled(head, scene.pool, scene.history, answers(drawn), len(drawn) + 2)
        seen[settled] += 1
        if not settled:
            continue
        now = scene.choice(head, answers(drawn))
        for more in (1, 2):
            for come in itertools.combinations_with_replacement(COLOURS, more):
                assert scene.choice(head, answers([*drawn, *come])) == now
    assert min(seen.values()) >= 5, "a rule that always or never stops is not tested"


def test_an_answer_that_stands_is_not_said_to_be_the_llms_where_it_is_not() -> None:
    info = HeadInfo("t", "adapter", "personal", 1, "base", otherwise="shared")
    assert too_close(info) == "Too close to call: the shared head's choice was kept."
    assert "the LLM's own" in too_close(replace(info, otherwise="baseline"))


def raters(rng: np.random.Generator, weight: np.ndarray, greedy: int, n: int) -> Groups:
    """Make queries of five answers, of which an LLM that knows nothing gave one first."""
    items: list[tuple[Double2d, np.ndarray]] = []
    for _ in range(n):
        x = rng.standard_normal((5, weight.size))
        x[:, greedy] = np.where(np.arange(5) == rng.integers(5), 2.6, -0.35)
        liked = x @ weight + rng.gumbel(size=5)
        worth = 1.0 / (1.0 + np.exp(-(liked - liked.mean()) / liked.std()))
        items.append((x, np.round(4.0 * worth) / 4.0))
    return Groups.stack(items, dim=weight.size)


def test_people_switched_to_their_own_head_are_not_worse_off_than_before(bundle: Bundle) -> None:
    task = TaskSpec("stars", "rating", labels=tuple("12345"))
    prior, gains = prior_for(bundle, task, "adapter"), gains_for(bundle, task, "adapter")
    features = FeatureMap(bundle, "adapter")
    baseline, greedy = baseline_weight(features.names, "adapter"), features.names.index("greedy")
    root = np.linalg.inv(np.linalg.cholesky(prior.precision)).T
    rng = np.random.default_rng(7)
    over_shared, quoted = [], []
    for _ in range(24):
        own = prior.mean + root @ rng.standard_normal(prior.dim)
        seen, fresh = (raters(rng, own, greedy, n) for n in (24, 100))
        found = judge(seen, prior, baseline, top=1, gains=gains, abstaining=True)
        if found.switch != "personal":
            continue
        state = replace(
            stored(bundle, task, found.report(), "personal"),
            weight=found.head.weight_.astype(np.float32),
            precision=found.head.precision_.astype(np.float32),
        )
        active = ActiveHead.of(bundle, task, features, state)
        worth = []
        for start, end in itertools.pairwise(fresh.offsets.tolist()):
            phi, u = fresh.features[start:end].astype(np.float32), fresh.utilities[start:end]
            standing = active.standing(phi)
            served = int(np.argmax(phi @ active.weight)) if standing is None else standing
            worth.append(u[served] - u[int(np.argmax(phi @ prior.mean))])
        over_shared.append(float(np.mean(worth)))
        assert found.personal_over_shared is not None
        quoted.append(found.personal_over_shared.mean)
    assert len(over_shared) >= 5
    assert min(over_shared) >= 0.0
    assert np.mean(quoted) < np.mean(over_shared) + 0.03


@pytest.mark.parametrize(("mean", "instead"), [([1, 0, 0], "shared"), ([-1, 0, 0], "baseline")])
def test_judge_of_a_head_that_is_never_sure_is_of_what_serves_otherwise(
    monkeypatch: pytest.MonkeyPatch, mean: list[float], instead: str
) -> None:
    monkeypatch.setattr(evaluate, "ABSTAIN_Z", 1e9)
    rng = np.random.default_rng(0)
    items = []
    for _ in range(40):
        x = rng.standard_normal((5, 3))
        items.append((x, 1.0 / (1.0 + np.exp(-x[:, 0] - x[:, 1]))))
    groups = Groups.stack(items, 3)
    prior, plain = Prior(np.array(mean, dtype=float), np.eye(3), 0.1), np.eye(3)[2]
    found = judge(groups, prior, plain, top=1, abstaining=True)
    assert found.personal.tolist() == getattr(found, instead).tolist()
    assert found.switch == instead
    assert found.personal_over_shared is not None
    if instead == "shared":
        assert (found.personal_over_shared.mean, found.personal_over_shared.low) == (0.0, 0.0)
    own = judge(groups, prior, plain, top=1)
    assert own.personal.mean() > found.personal.mean(), "by its own best alone"


def test_judge_of_a_head_that_is_always_sure_is_of_its_own_best(
    monkeypatch: pytest.MonkeyPatch, scenes: dict[str, Scene]
) -> None:
    monkeypatch.setattr(evaluate, "ABSTAIN_Z", 0.0)
    scene = scenes["stars"]
    candidates = merge(answers(["1", "3"]), scene.history.task)
    phi = pool_features(
        scene.head.features, replace(scene.pool, candidates=candidates), scene.history
    )
    rng = np.random.default_rng(1)
    groups = Groups.stack([(phi, rng.random(len(phi))) for _ in range(20)], dim=phi.shape[1])
    prior = Prior(np.zeros(phi.shape[1]), np.eye(phi.shape[1]), 0.1)
    plain = np.ones(phi.shape[1], dtype=np.float32)
    sure, own = (judge(groups, prior, plain, top=1, abstaining=flag) for flag in (True, False))
    assert sure.personal.tolist() == own.personal.tolist()
