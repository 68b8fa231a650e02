"""The adapter's priors: shared weights and how much users differ, judged on users left out.

Owns views (features of all users under one set of maps and classifiers, some users left out) and
the fits on them. What features there are, and who is left out, is decided by ``export.train``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from export.episodes import Maps, UserEpisodes, count_users, labelled
from export.priors import (
    Labelled,
    Population,
    Scale,
    fit_scale,
    population_gains,
    prior_arrays,
    scaled,
)
from hydra_edge.evaluate import top_utility
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.population import BASELINE_FEATURE
from hydra_edge.types import Double1d, Float2d, JsonDict, Kind

TAUS = (0.1, 0.3)
RIDGES = (10.0, 30.0, 100.0)
CLOSED_RIDGE = 3.0
STRENGTHS = (30.0, 100.0, 300.0)
# The weakest prior whose loss comes this near to the best is taken: training users have few
# queries each, which cannot tell strengths apart, and people's own choices must be able to move
# a head (`python -m bench.picks`).
NEAR_LOSS = 1.01
FOLDS = 4
# Only answers of an LLM show these; what closed sets taught of the others is held on to.
VOTES = ("greedy", "consensus", "votes", "log_votes", "logprob", "zero_shot")
VOTES_FREEDOM = 0.1
# Whatever a candidate's text is like may speak for it or against it; all else that is known of an
# answer of a closed set can only speak for it.
EITHER_WAY = ("cos_query", "cos_shown", "logprob")


def split_users(users: Sequence[UserEpisodes]) -> list[frozenset[str]]:
    """Split users into folds; a user's tasks stay in one fold."""
    names = sorted({user.user for user in users})
    return [frozenset(names[i::FOLDS]) for i in range(FOLDS)]


@dataclass(frozen=True, eq=False)
class View:
    """Scaled pools and closed sets under one set of maps; ``inside`` are the users left out."""

    pools: list[Labelled]
    closed: list[Labelled]
    inside: frozenset[str]
    scale: Scale


def make_view(
    pools: Sequence[UserEpisodes],
    closed: Sequence[UserEpisodes],
    maps: Maps | None,
    inside: frozenset[str],
    scale: Scale | None = None,
) -> View:
    """Scale pools and closed sets as a device would whose base never saw the users ``inside``.

    ``scale`` None is fitted on the others' pools.
    """
    raw = labelled(pools, maps)
    scale = scale or fit_scale([u for u in raw if u.user not in inside])
    return View(scaled(raw, scale), scaled(labelled(closed, maps), scale), inside, scale)


Held = list[tuple[str, Groups]]


def _stack(users: Sequence[Labelled], dim: int, keep: Double1d) -> Groups:
    items = [(phi * keep, utilities) for user in users for phi, utilities in user.items]
    return Groups.stack(items, dim=dim)


@dataclass(frozen=True, slots=True)
class Settings:
    """One way to fit a group's prior.

    ``evidence``: no weight of what can only speak for an answer is below 0. Weights of both signs
    play such features off against each other, as holds for the people of these tasks and their
    histories' lengths; of others it chose worse than habit (``python -m bench.borrowed``).
    """

    tau: float
    ridge: float
    maps: bool
    evidence: bool = False


def _mean(view: View, tasks: set[str], names: Sequence[str], settings: Settings) -> Double1d:
    """Fit the shared weights on the users outside, around what closed sets teach of them.

    Where ``settings.evidence`` holds, features with a weight of the wrong sign are left out, until
    there is none.
    """
    keep = np.array([settings.maps or not n.startswith("map_") for n in names], dtype=np.float64)
    while True:
        weight = _fitted(view, tasks, names, settings, keep)
        wrong = (weight < 0.0) & ~np.isin(names, EITHER_WAY)
        if not settings.evidence or not wrong.any():
            return weight
        keep[wrong] = 0.0


def _fitted(
    view: View, tasks: set[str], names: Sequence[str], settings: Settings, keep: Double1d
) -> Double1d:
    """Fit the weights of the features that are kept, shape ``(d,)``; those of the others are 0."""
    dim, votes = len(names), np.isin(names, VOTES)

    def outside(users: Sequence[Labelled]) -> list[Labelled]:
        return [u for u in users if u.task in tasks and u.user not in view.inside and u.items]

    centre = np.zeros(dim)
    if free := outside(view.closed):
        prior = Prior(centre, np.eye(dim) * CLOSED_RIDGE, settings.tau)
        groups = _stack(free, dim, keep).informative()
        centre = ConditionalLogit(prior).fit(groups).weight_ * keep
    ridge = settings.ridge * np.where(votes, VOTES_FREEDOM, 1.0)
    groups = _stack(outside(view.pools), dim, keep).informative()
    fitted = ConditionalLogit(Prior(centre, np.diag(ridge), settings.tau)).fit(groups)
    return fitted.weight_ * keep


def _left_out(view: View, tasks: set[str], dim: int) -> Held:
    """Return the pools of a view's left-out users, by name."""
    return [
        (user.user, _stack([user], dim, np.ones(dim)))
        for user in view.pools
        if user.task in tasks and user.user in view.inside and user.items
    ]


@dataclass(frozen=True, eq=False)
class Trial:
    """One setting, fold by fold: weights that never saw its left-out users, and their utilities.

    ``utilities`` are one array (queries,) for each fold, its users in order.
    """

    how: Settings
    weights: tuple[Double1d, ...]
    utilities: tuple[Double1d, ...]

    def utility(self, folds: Sequence[int] | None = None) -> float:
        """Return the mean over the queries of all folds, or of these."""
        of = range(len(self.utilities)) if folds is None else folds
        return float(np.concatenate([self.utilities[i] for i in of]).mean())


def _chosen(held: Sequence[Held], weights: Sequence[Double1d]) -> tuple[Double1d, ...]:
    """Return the utilities of what each fold's weights choose for its left-out users."""
    chosen = (
        [top_utility(groups.features @ weight, groups, 1) for _, groups in users]
        for users, weight in zip(held, weights, strict=True)
    )
    return tuple(np.concatenate(c) if c else np.zeros(0) for c in chosen)


def _try(
    views: Sequence[View],
    held: Sequence[Held],
    tasks: set[str],
    names: Sequence[str],
    how: Settings,
) -> Trial:
    weights = tuple(_mean(view, tasks, names, how) for view in views)
    return Trial(how, weights, _chosen(held, weights))


def _trials(
    views: Sequence[View], tasks: set[str], names: Sequence[str], tried: Sequence[Settings]
) -> tuple[list[Held], list[Trial]]:
    held = [_left_out(view, tasks, len(names)) for view in views]
    return held, [_try(views, held, tasks, names, how) for how in tried]


def shared_weights(
    views: Sequence[View], tasks: set[str], names: Sequence[str], how: Settings
) -> list[Double1d]:
    """Fit the shared weights ``(d,)`` of each view."""
    return [_mean(view, tasks, names, how) for view in views]


def shared_utility(views: Sequence[View], tasks: set[str], weights: Sequence[Double1d]) -> float:
    """Return what weights of each view are worth to its left-out users' pools."""
    held = [_left_out(view, tasks, len(weights[0])) for view in views]
    utilities = np.concatenate(_chosen(held, weights))
    return float(utilities.mean()) if len(utilities) else 0.0


def _best(trials: Sequence[Trial], folds: Sequence[int] | None = None) -> Trial:
    return max(trials, key=lambda trial: trial.utility(folds))


def _chosen_elsewhere(trials: Sequence[Trial]) -> list[Trial]:
    """Choose for each fold the setting that is best on the others: its users have no say."""
    folds = range(len(trials[0].utilities))
    out = []
    for fold in folds:
        others = [i for i in folds if i != fold and len(trials[0].utilities[i])]
        out.append(_best(trials, others or None))
    return out


def nested_utility(trials: Sequence[Trial]) -> float:
    """Return what it is worth to choose among settings: each fold by the best of the others."""
    chosen = enumerate(_chosen_elsewhere(trials))
    return float(np.concatenate([trial.utilities[i] for i, trial in chosen]).mean())


def _strength(
    judged: Sequence[tuple[Groups, Double1d]], tau: float, dim: int
) -> tuple[float, dict[str, float]]:
    """Choose how strongly heads are held to the mean: by the later half of users' queries.

    Returns
    -------
    tuple of float and dict
        The strength, and the mean loss of every one that was tried.
    """
    count = 0
    losses = np.zeros(len(STRENGTHS))
    for groups, weight in judged:
        ready = groups.informative()
        n = ready.n_groups
        if n < 4:
            continue
        early, late = ready.take(np.arange(n // 2)), ready.take(np.arange(n // 2, n))
        target = late.target(tau)
        count += late.n_groups
        for s, strength in enumerate(STRENGTHS):
            head = ConditionalLogit(Prior(weight, np.eye(dim) * strength, tau)).fit(early)
            scores = late.features @ head.weight_
            for a, b in itertools.pairwise(late.offsets.tolist()):
                shifted = scores[a:b] - scores[a:b].max()
                losses[s] -= float(target[a:b] @ (shifted - np.log(np.exp(shifted).sum())))
    if not count:
        return STRENGTHS[-1], {}
    means = losses / count
    near = next(s for s, x in zip(STRENGTHS, means, strict=True) if x <= NEAR_LOSS * means.min())
    return near, {f"{s:g}": round(float(x), 4) for s, x in zip(STRENGTHS, means, strict=True)}


def fit_group(
    views: Sequence[View], whole: View, tasks: set[str], names: Sequence[str], *,
    maps: bool, evidence: bool = False,
) -> Population:  # fmt: skip
    """Fit one group's prior; ``maps`` False: learned features are not even tried.

    What ships, and is stated, is the setting that is best on the left-out users of all folds; the
    choice flatters it. ``nested`` is what it is worth to choose so: what each fold had of the
    setting that was best on the other folds.

    Parameters
    ----------
    views
        One a fold, under maps trained without its users.
    whole
        Under the maps that are shipped; nobody is left out.
    evidence
        As in ``Settings``.
    """
    dim = len(names)
    tried = [
        Settings(tau, ridge, with_maps, evidence)
        for with_maps in ((False, True) if maps else (False,))
        for tau in TAUS
        for ridge in RIDGES
    ]
    held, trials = _trials(views, tasks, names, tried)
    best, plain = _best(trials), [trial for trial in trials if not trial.how.maps]
    strength, tried_strengths = _strength(
        [
            (groups, weight)
            for users, weight in zip(held, best.weights, strict=True)
            for _, groups in users
        ],
        best.how.tau,
        dim,
    )
    baseline = names.index(BASELINE_FEATURE["adapter"])
    judged = [
        (groups, Prior(weight, np.eye(dim) * strength, best.how.tau))
        for users, weight in zip(held, best.weights, strict=True)
        for _, groups in users
    ]
    gains = population_gains(judged, baseline, 1)
    first = [top_utility(g.features[:, baseline], g, 1) for g, _ in judged]
    report: JsonDict = {
        "users": len({name for users in held for name, _ in users}),
        "queries": sum(groups.n_groups for groups, _ in judged),
        "utility": {
            "baseline": round(float(np.concatenate(first).mean()), 4),
            "interpretable": round(_best(plain).utility(), 4),
            "shared": round(best.utility(), 4),
        },
        "nested": {"interpretable": round(nested_utility(plain), 4)},
        "maps": best.how.maps,
        "tau": best.how.tau,
        "ridge": best.how.ridge,
        "strength": strength,
        "loss_by_strength": tried_strengths,
        "gains": np.round(gains, 4).tolist(),
    }
    if mapped := [trial for trial in trials if trial.how.maps]:
        report["utility"]["maps"] = round(_best(mapped).utility(), 4)
        report["nested"]["maps"] = round(nested_utility(mapped), 4)
    mean = _mean(whole, tasks, names, best.how)
    return Population(mean, np.eye(dim) * strength, best.how.tau, gains, report)


def fit_priors(
    folds: Sequence[tuple[View, View]],
    whole: tuple[View, View],
    kinds: Mapping[str, str],
    names: Sequence[str],
) -> tuple[dict[str, Float2d], JsonDict]:
    """Fit the adapter's priors: one a task, and one a kind for tasks never seen.

    Those of a kind hold no learned map, and their features know no closed set: what was learned
    of one says nothing of another. Those of closed sets weigh evidence as such only. A group of a
    single user has none: nobody is left to judge it on. A task's kind serves it.

    Parameters
    ----------
    folds, whole
        Views with what classifiers know, and as the queries of a task never seen would look: with
        what is lent to it.
    """
    seen, unseen = [fold[0] for fold in folds], [fold[1] for fold in folds]
    has_maps = any(name.startswith("map_") for name in names)
    arrays: dict[str, Float2d] = {}
    quality: JsonDict = {}
    for task in sorted(kinds):
        if _is_of_one(whole[0], {task}):
            continue
        found = fit_group(seen, whole[0], {task}, names, maps=has_maps)
        if kinds[task] != "text":
            plain = [Settings(tau, ridge, maps=False) for tau in TAUS for ridge in RIDGES]
            without = _trials(unseen, {task}, names, plain)[1]
            found.report["utility"]["never_seen"] = round(_best(without).utility(), 4)
            found.report["nested"]["never_seen"] = round(nested_utility(without), 4)
        arrays |= prior_arrays("adapter", task, found)
        quality[task] = found.report
    for kind in sorted(set(kinds.values())):
        tasks = {task for task, of in kinds.items() if of == kind}
        if _is_of_one(whole[1], tasks):
            continue
        found = fit_group(unseen, whole[1], tasks, names, maps=False, evidence=kind != "text")
        arrays |= prior_arrays("adapter", kind, found)
        quality[kind] = found.report
    return arrays | _missing_kinds(arrays, len(names)), quality


def _is_of_one(view: View, tasks: set[str]) -> bool:
    return count_users(u for u in view.pools if u.task in tasks and u.items) < 2


def _missing_kinds(arrays: Mapping[str, Float2d], dim: int) -> dict[str, Float2d]:
    """Complete kinds that the data did not have by a prior that knows nothing."""
    out: dict[str, Float2d] = {}
    for kind in get_args(Kind):
        if f"adapter.prior.{kind}.mean" not in arrays:
            none = Population(np.zeros(dim), np.eye(dim), 0.1, np.array([[0.0, 1.0, 1.0]] * 2), {})
            made = prior_arrays("adapter", kind, none)
            out |= {k: v for k, v in made.items() if ".gain." not in k}
    return out
