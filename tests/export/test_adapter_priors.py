"""The adapter's priors: what can only speak for an answer never speaks against it."""

from __future__ import annotations

import numpy as np
import pytest

from export.adapter_priors import (
    EITHER_WAY,
    Settings,
    Trial,
    View,
    fit_group,
    nested_utility,
    shared_utility,
    shared_weights,
)
from export.priors import Labelled, Scale
from hydra_edge.features import feature_names

NAMES = feature_names("adapter")
OWN, HABIT, COSINE = (NAMES.index(name) for name in ("own_fit", "habit", "cos_query"))
TASK, USERS, QUERIES = "grades", 12, 6


def view(inside: frozenset[str]) -> View:
    """Everyone's best answer has a great ``own_fit``, a small ``habit`` and a small cosine."""
    rng = np.random.default_rng(3)
    users = []
    for i in range(USERS):
        items = []
        for _ in range(QUERIES):
            phi = np.zeros((5, len(NAMES)), dtype=np.float32)
            phi[:, [OWN, HABIT, COSINE]] = rng.standard_normal((5, 3))
            worth = phi[:, OWN] - phi[:, HABIT] - phi[:, COSINE]
            items.append((phi, (worth == worth.max()).astype(np.float32)))
        users.append(Labelled(f"u{i:02}", TASK, "rating", tuple(items)))
    return View(users, [], inside, Scale(np.zeros(len(NAMES)), np.ones(len(NAMES))))


FOLDS = [view(frozenset(f"u{i:02}" for i in range(start, USERS, 3))) for start in range(3)]


def test_a_prior_of_evidence_has_no_weight_of_the_wrong_sign() -> None:
    whole = view(frozenset())
    free, held = (
        fit_group(FOLDS, whole, {TASK}, NAMES, maps=False, evidence=evidence).mean
        for evidence in (False, True)
    )
    assert free[HABIT] < -0.5
    assert held[HABIT] == 0.0
    assert held[OWN] > 0.5
    assert held[COSINE] < -0.5, "likeness to the query may speak against an answer"
    signed = [i for i, name in enumerate(NAMES) if name not in EITHER_WAY]
    assert (held[signed] >= 0.0).all()


def test_what_is_left_is_fitted_anew_without_the_features_left_out() -> None:
    """The weights are those of a fit that never saw habit, not a cut of those that did."""
    blind = view(frozenset())
    for user in blind.pools:
        for phi, _ in user.items:
            phi[:, HABIT] = 0.0
    held = fit_group(FOLDS, view(frozenset()), {TASK}, NAMES, maps=False, evidence=True)
    alone = fit_group(FOLDS, blind, {TASK}, NAMES, maps=False, evidence=True)
    np.testing.assert_allclose(held.mean, alone.mean, atol=1e-9)


def test_users_left_out_are_judged_under_the_same_rule() -> None:
    free, held = (
        shared_utility(FOLDS, {TASK}, shared_weights(FOLDS, {TASK}, NAMES, how))
        for how in (
            Settings(0.1, 10.0, maps=False, evidence=evidence) for evidence in (False, True)
        )
    )
    assert free > held > 0.4


def trial(tau: float, *utilities: float) -> Trial:
    """Two queries a fold, each worth the fold's utility."""
    how = Settings(tau, 10.0, maps=False)
    return Trial(how, (), tuple(np.full(2, utility) for utility in utilities))


def test_no_fold_has_a_say_in_the_setting_it_is_judged_with() -> None:
    lucky_here, lucky_there = trial(0.1, 1.0, 0.0, 0.2), trial(0.3, 0.0, 1.0, 0.2)
    assert max(t.utility() for t in (lucky_here, lucky_there)) == pytest.approx(0.4)
    assert nested_utility([lucky_here, lucky_there]) == pytest.approx(0.2 / 3)
    steady = trial(0.5, 0.9, 0.9, 0.9)
    assert nested_utility([lucky_here, lucky_there, steady]) == pytest.approx(0.9)


def test_one_fold_alone_with_users_is_judged_by_its_own_setting() -> None:
    only = Trial(Settings(0.1, 10.0, maps=False), (), (np.array([0.3, 0.5]), np.zeros(0)))
    assert nested_utility([only]) == pytest.approx(0.4)
