"""Priors, scales and gains of a base, fitted to users whose weights are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from export.data import UserHistory
from export.priors import (
    LEAST_NOISE,
    LEAST_SPREAD,
    STRENGTHS,
    Labelled,
    _cross_entropy,
    _folds,
    _moments,
    _out_of_fold,
    engine_for,
    fit_population,
    fit_scale,
    label_reranker,
    population_gains,
    priors_of_role,
    scaled,
)
from hydra_edge.bundle import Bundle
from hydra_edge.evaluate import judge
from hydra_edge.features.scaling import LIMIT
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.reranker import proxy_data
from hydra_edge.types import Record


def people(
    truth: np.ndarray, n_users: int, spread: float, *, noise: float = 0.0, seed: int = 0
) -> list[Labelled]:
    """Make users whose own weights scatter around the population's."""
    rng = np.random.default_rng(seed)
    users = []
    for u in range(n_users):
        own = truth + spread * rng.standard_normal(len(truth))
        items = []
        for _ in range(12):
            phi = rng.standard_normal((6, len(truth))).astype(np.float32)
            score = phi @ own + noise * rng.standard_normal(6)
            items.append((phi, ((score - score.min()) / np.ptp(score)).astype(np.float32)))
        users.append(Labelled(f"u{u}", "paper_title", "text", tuple(items)))
    return users


def test_label_reranker_labels_the_latest_records_as_the_device_does(
    bundle: Bundle, hash_encoder
) -> None:
    records = tuple(
        Record(
            f"a text about topic {i % 3}", f"topic {i % 3}: title {i}", "paper_title", f"r{i}", i
        )
        for i in range(9)
    )
    told: list[tuple[str, int, int]] = []
    users = [UserHistory(name, "paper_title", records) for name in ("a", "b")]
    found = label_reranker(users, bundle, hash_encoder, 4, lambda *at: told.append(at))
    engine = engine_for(users[0], bundle, hash_encoder)
    history = engine.history(engine.task("paper_title"))
    data = proxy_data(engine.features["reranker"], history, engine.lexical(history), limit=4)
    assert data.position.tolist() == [5, 6, 7, 8]
    for user in found:
        again = Groups.stack(user.items, data.groups.dim)
        np.testing.assert_array_equal(again.offsets, data.groups.offsets)
        np.testing.assert_array_equal(again.utilities, data.groups.utilities)
        np.testing.assert_allclose(again.features, data.groups.features, atol=1e-6)
    assert [(user.user, user.kind) for user in found] == [("a", "text"), ("b", "text")]
    assert told == [("reranker labels", 1, 2), ("reranker labels", 2, 2)]


def test_fit_population_finds_the_shared_direction() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    found = fit_population(people(truth, 20, 0.1), 3, "adapter", 2)
    cosine = found.mean @ truth / np.linalg.norm(found.mean) / np.linalg.norm(truth)
    assert cosine > 0.98
    utility = found.report["utility"]
    assert utility["any"] < utility["shared"] <= utility["best_single"]
    assert utility["baseline"] < utility["shared"]
    assert (found.report["users"], found.report["queries"]) == (20, 20 * 12)


@pytest.mark.parametrize(("n_users", "known"), [(1, False), (2, True)])
def test_priors_of_a_task_need_somebody_to_be_judged_on(n_users: int, known: bool) -> None:
    names = ("a", "b", "greedy")
    users = people(np.array([2.0, -1.0, 0.0]), n_users, 0.1)
    nobody = Labelled("nobody", "paper_title", "text", ())
    arrays, report = priors_of_role([*users, nobody], "adapter", names, "greedy")
    assert ("adapter.prior.paper_title.mean" in arrays) is known
    assert sorted(report) == (["paper_title", "text"] if known else [])


def test_prior_of_a_task_is_of_that_task_and_a_kinds_of_all_of_its_tasks() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    turned = [replace(user, task="note_title") for user in people(-truth, 6, 0.1)]
    users = [*people(truth, 6, 0.1), *turned]
    arrays, _ = priors_of_role(users, "adapter", ("a", "b", "greedy"), "greedy")
    along = {
        group: float(arrays[f"adapter.prior.{group}.mean"] @ truth)
        for group in ("paper_title", "note_title", "text")
    }
    assert along["paper_title"] > 1.0
    assert along["note_title"] < -1.0
    assert abs(along["text"]) < 0.2


def test_fit_population_of_users_with_few_queries_holds_heads_to_the_mean() -> None:
    users = [replace(u, items=u.items[:3]) for u in people(np.array([2.0, -1.0, 0.0]), 8, 6.0)]
    assert fit_population(users, 3, "adapter", 2).precision[0, 0] == STRENGTHS[-1]


def test_weights_of_a_fold_do_not_know_who_is_left_out() -> None:
    users = people(np.array([2.0, -1.0, 0.0]), 10, 0.5)
    turned = tuple((phi, 1.0 - utilities) for phi, utilities in users[0].items)
    folds = [
        _out_of_fold([replace(users[0], items=items), *users[1:]], 3, 0.1, 1.0)
        for items in (users[0].items, turned)
    ]
    assert sorted(i for part, _ in folds[0] for i in part) == list(range(10))
    for (part, weight), (_, other) in zip(*folds, strict=True):
        assert np.allclose(weight, other) == (0 in part)


def test_fit_population_holds_heads_looser_where_users_differ_more() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    alike = fit_population(people(truth, 20, 0.0, noise=3.0), 3, "adapter", 2)
    varied = fit_population(people(truth, 20, 6.0, noise=3.0), 3, "adapter", 2)
    assert varied.precision[0, 0] < alike.precision[0, 0]


def test_gains_are_of_all_queries_for_the_shared_head_and_of_held_out_ones_for_the_own() -> None:
    truth = np.array([2.0, -1.0, 0.5])
    judged = [
        (Groups.stack(user.items, 3), Prior(truth, np.eye(3), 0.1))
        for user in people(truth, 5, 2.0, noise=1.0)
    ]
    gains = population_gains(judged, 2, 1)
    assert gains.shape == (2, 3)
    baseline = np.eye(3, dtype=np.float32)[2]
    verdicts = [judge(groups, prior, baseline, top=1) for groups, prior in judged]
    shared = [(v.shared - v.baseline).mean() for v in verdicts]
    own = [(v.personal - v.shared)[6:].mean() for v in verdicts]
    np.testing.assert_allclose(gains[:, 0], [np.mean(shared), np.mean(own)])
    assert abs(gains[1, 0]) > 1e-3


def test_moments_split_what_users_differ_by_from_what_their_queries_do() -> None:
    differences = [np.array([0.1, 0.3]), np.array([0.0, 0.8, 0.4]), np.array([])]
    noise = np.sqrt((0.02 + 0.32) / (1 + 2))
    by_chance = noise**2 * (1 / 2 + 1 / 3) / 2
    within = max(0.02 - by_chance, LEAST_SPREAD**2)  # means of .2 and .4 have a variance of .02
    spread = np.sqrt(within + by_chance / 2)
    assert _moments(differences) == pytest.approx((0.3, spread, noise))
    far = [d + shift for d, shift in zip(differences, (-1.0, 1.0, 0.0), strict=True)]
    apart = np.sqrt(2.2**2 / 2 - by_chance + by_chance / 2)
    assert _moments(far) == pytest.approx((0.3, apart, noise))


def test_moments_of_few_users_claim_no_certainty() -> None:
    assert _moments([]) == _moments([np.array([])]) == (0.0, 1.0, 1.0)
    mean, spread, noise = _moments([np.array([0.1])])
    assert (mean, noise) == (0.1, 1.0)
    assert spread == pytest.approx(np.sqrt(2.0))
    _, spread, noise = _moments([np.full(4, 0.1)] * 3)
    assert noise == LEAST_NOISE
    assert spread == pytest.approx(np.sqrt(LEAST_SPREAD**2 + LEAST_NOISE**2 / 4 / 3))


def test_loss_of_a_head_is_the_cross_entropy_of_what_it_was_to_be_fitted_to() -> None:
    groups = Groups.stack(people(np.array([2.0, -1.0]), 1, 0.0)[0].items, 2)
    head = ConditionalLogit(Prior(np.array([1.0, 1.0]), np.eye(2), 0.3))
    target = groups.target(0.3).reshape(-1, 6)
    log_p = log_softmax((groups.features @ head.weight_).reshape(-1, 6), axis=1)
    expected = -(target * log_p).sum(axis=1).mean()
    assert _cross_entropy(head, groups, 0.3) == pytest.approx(expected)


def test_folds_keep_each_user_whole() -> None:
    users = [Labelled(f"u{i % 7}", task, "text", ()) for i in range(7) for task in ("a", "b")]
    seen: dict[str, int] = {}
    for f, part in enumerate(_folds(users)):
        for i in part:
            assert seen.setdefault(users[i].user, f) == f
    assert len(seen) == 7


def test_fit_scale_is_the_mean_over_tasks_in_which_a_feature_varies() -> None:
    rows = {"a": [[0, 5, 7], [2, 5, 7]], "b": [[10, 1, 7], [14, 3, 7], [10, 1, 7], [14, 3, 7]]}
    users = [
        Labelled("u", task, "text", ((np.array(x, dtype=np.float32), np.ones(len(x))),))
        for task, x in rows.items()
    ]
    scale = fit_scale(users)
    np.testing.assert_allclose(scale.mean, [(1 + 12) / 2, 2, 0])
    np.testing.assert_allclose(scale.std, [(1 + 2) / 2, 1, 1])
    raw = np.array([[8.0, 1.0, 2.0], [99.0, -99.0, 0.0]], dtype=np.float32)
    ready = scaled([Labelled("u", "a", "text", ((raw, np.ones(2)),))], scale)[0].items[0][0]
    np.testing.assert_allclose(ready, [[1.0, -1.0, 2.0], [LIMIT, -LIMIT, 0.0]])


def test_fit_scale_brings_every_feature_to_unit_deviation() -> None:
    rng = np.random.default_rng(0)
    raw = [
        Labelled("u", "a", "text", ((rng.normal(5, 3, (400, 2)).astype(np.float32), np.ones(400)),))
    ]
    constant = [
        Labelled(
            "u", "b", "label", ((np.tile([5.0, 0.0], (40, 1)).astype(np.float32), np.ones(40)),)
        )
    ]
    scale = fit_scale([*raw, *constant])
    np.testing.assert_allclose(scale.mean, [5, 5], atol=0.5)
    np.testing.assert_allclose(scale.std, [3, 3], atol=0.5)
    ready = scaled(raw, scale)[0].items[0][0]
    assert abs(float(ready.mean())) < 0.2
