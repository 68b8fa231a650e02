"""Stage train: learned maps and the adapter's priors, from closed sets and answered pools.

Everything that is chosen or reported is judged on users left out: maps and priors are fitted
anew for each fold. What of the maps does not pay on them is not shipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from export.data import UserHistory, sample_users
from export.episodes import Maps, UserEpisodes, closed_episodes, labelled, pool_episodes
from export.labels import PoolLabel
from export.metalearn import Recipe, learn_maps
from export.priors import (
    Labelled,
    Population,
    Scale,
    fit_scale,
    population_gains,
    prior_arrays,
    scaled,
)
from hydra_edge.active import BASELINE_FEATURE
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.evaluate import top_utility
from hydra_edge.features import feature_names
from hydra_edge.features.scaling import LIMIT
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.types import Double1d, Float2d, JsonDict, Kind, Progress, Role

CLOSED_USERS = 120  # of a task, whose closed sets are labelled without an LLM
CLOSED_QUERIES = 30  # of each of them
FOLDS = 4
TAUS = (0.1, 0.3)
RIDGES = (10.0, 30.0, 100.0)
CLOSED_RIDGE = 3.0
STRENGTHS = (30.0, 100.0, 300.0)
# The weakest prior whose loss comes this near to the best is taken: training users have few
# queries each, which cannot tell strengths apart, and people's own choices must be able to move
# a head (`python -m bench.picks`).
NEAR_LOSS = 1.01
# How much of a free text's pool may be drawn with no record shown: 0, 1, 2 or 4 of 8.
SHARES = (0.0, 0.125, 0.25, 0.5)
# The least that comes this near to the best is taken: another prompt is another call.
NEAR_BEST = 0.995
# Only answers of an LLM show these; what closed sets taught of the others is held on to.
VOTES = ("greedy", "consensus", "votes", "log_votes", "logprob", "zero_shot")
VOTES_FREEDOM = 0.1
MAP_TAU = 0.15


@dataclass(frozen=True, eq=False)
class TrainedMaps:
    """The arrays of a base, the features they are for, and what they were measured to be worth."""

    arrays: dict[str, Float2d]
    features: dict[Role, tuple[str, ...]]
    quality: JsonDict


@dataclass(frozen=True, eq=False)
class View:
    """Scaled pools and closed sets under one set of maps; ``inside`` are the users left out."""

    pools: list[Labelled]
    closed: list[Labelled]
    inside: frozenset[str]
    scale: Scale


def split_users(users: Sequence[UserEpisodes]) -> list[frozenset[str]]:
    """Split users into folds; a user's tasks stay in one fold."""
    names = sorted({user.user for user in users})
    return [frozenset(names[i::FOLDS]) for i in range(FOLDS)]


def _view(
    pools: Sequence[UserEpisodes],
    closed: Sequence[UserEpisodes],
    maps: Maps | None,
    inside: frozenset[str],
) -> View:
    raw = labelled(pools, maps)
    dim = raw[0].items[0][0].shape[1]
    mean, std = fit_scale([u for u in raw if u.user not in inside], dim)
    free = scaled(labelled(closed, maps), mean, std, LIMIT)
    return View(scaled(raw, mean, std, LIMIT), free, inside, Scale(mean, std))


def _stack(users: Sequence[Labelled], dim: int, keep: Double1d) -> Groups:
    items = [(phi * keep, utilities) for user in users for phi, utilities in user.items]
    return Groups.stack(items, dim=dim)


@dataclass(frozen=True, slots=True)
class Settings:
    """One way to fit a group's prior."""

    tau: float
    ridge: float
    maps: bool


def _mean(view: View, tasks: set[str], names: Sequence[str], settings: Settings) -> Double1d:
    """Fit the shared weights on the users outside, around what closed sets teach of them."""
    dim = len(names)
    keep = np.array([settings.maps or not n.startswith("map_") for n in names], dtype=np.float64)
    votes = np.isin(names, VOTES)

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


def _held_out(
    view: View, tasks: set[str], weight: Double1d, dim: int
) -> list[tuple[Labelled, Groups, Double1d]]:
    """Answer the left-out users' pools with weights that never saw them, user by user."""
    out = []
    for user in view.pools:
        if user.task in tasks and user.user in view.inside and user.items:
            groups = _stack([user], dim, np.ones(dim))
            out.append((user, groups, top_utility(groups.features @ weight, groups, 1)))
    return out


def _utility(views: Sequence[View], tasks: set[str], names: Sequence[str], how: Settings) -> float:
    values = [
        utilities
        for view in views
        for _, _, utilities in _held_out(view, tasks, _mean(view, tasks, names, how), len(names))
    ]
    return float(np.concatenate(values).mean())


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
    views: Sequence[View], whole: View, tasks: set[str], names: Sequence[str], *, maps: bool
) -> Population:
    """Fit one group's prior; ``maps`` False: learned features are not even tried.

    Parameters
    ----------
    views
        One a fold, under maps trained without its users.
    whole
        Under the maps that are shipped; nobody is left out.
    """
    dim = len(names)
    tried = [
        Settings(tau, ridge, with_maps)
        for with_maps in ((False, True) if maps else (False,))
        for tau in TAUS
        for ridge in RIDGES
    ]
    scores = {how: _utility(views, tasks, names, how) for how in tried}
    best = max(scores, key=scores.__getitem__)
    held = [
        (user, groups, weight, utilities)
        for view in views
        for weight in (_mean(view, tasks, names, best),)
        for user, groups, utilities in _held_out(view, tasks, weight, dim)
    ]
    strength, tried_strengths = _strength(
        [(groups, weight) for _, groups, weight, _ in held], best.tau, dim
    )
    baseline = names.index(BASELINE_FEATURE["adapter"])
    prior = [(groups, Prior(w, np.eye(dim) * strength, best.tau)) for _, groups, w, _ in held]
    gains = population_gains(prior, baseline, 1)
    plain = [top_utility(g.features[:, baseline], g, 1) for _, g, _, _ in held]
    without = max(score for how, score in scores.items() if not how.maps)
    report: JsonDict = {
        "users": len({user.user for user, _, _, _ in held}),
        "queries": sum(g.n_groups for _, g, _, _ in held),
        "utility": {
            "baseline": round(float(np.concatenate(plain).mean()), 4),
            "interpretable": round(without, 4),
            "shared": round(scores[best], 4),
        },
        "maps": best.maps, "tau": best.tau, "ridge": best.ridge, "strength": strength,
        "loss_by_strength": tried_strengths,
        "gains": np.round(gains, 4).tolist(),
    }  # fmt: skip
    if any(how.maps for how in scores):
        report["utility"]["maps"] = round(max(s for h, s in scores.items() if h.maps), 4)
    mean = _mean(whole, tasks, names, best)
    return Population(mean, np.eye(dim) * strength, best.tau, gains, report)


def choose_shares(
    pools: Sequence[PoolLabel],
    users: Mapping[tuple[str, str], UserHistory],
    bundle: Bundle,
    encoder: TextEncoder,
    report: Progress,
) -> tuple[dict[str, float], JsonDict]:
    """Choose how much of each free text's pools is best drawn with no record shown.

    Judged by what the shared head makes of such pools on users left out, without learned maps.
    ``text`` is the share for tasks never seen: the best one of all tasks together. The least
    share that comes near to the best is taken.

    Returns
    -------
    tuple of dict and JsonDict
        Shares by group, and the utility of each that was tried.
    """
    texts = [p for p in pools if p.plain]
    if not texts:
        return {}, {}
    names, how = feature_names("adapter"), Settings(tau=TAUS[-1], ridge=RIDGES[0], maps=False)
    tasks = sorted({p.task for p in texts})
    found: dict[str, dict[float, float]] = {task: {} for task in tasks}
    for share in SHARES:
        answered = pool_episodes(texts, users, bundle, encoder, report, dict.fromkeys(tasks, share))
        folds = split_users(answered)
        views = [_view(answered, [], None, fold) for fold in folds]
        for task in tasks:
            found[task][share] = _utility(views, {task}, names, how)
    found["text"] = {s: float(np.mean([found[task][s] for task in tasks])) for s in SHARES}
    chosen = {
        group: min(share for share, u in by.items() if u >= NEAR_BEST * max(by.values()))
        for group, by in found.items()
    }
    tried = {g: {f"{s:g}": round(u, 4) for s, u in by.items()} for g, by in found.items()}
    return chosen, {group: {"share": chosen[group], "utility": tried[group]} for group in found}


def train_maps(
    *,
    bundle: Bundle,
    encoder: TextEncoder,
    users_by_task: Mapping[str, Sequence[UserHistory]],
    pools: Sequence[PoolLabel],
    seed: int,
    report: Progress,
    recipe: Recipe | None = None,
) -> TrainedMaps:
    """Train what a base knows of people.

    Parameters
    ----------
    bundle
        With the reranker's maps already, and neutral ones for the adapter.
    encoder
        Of that bundle.
    users_by_task
        Training users.
    pools
        What LLMs answered to some of their records.
    recipe
        How maps are learned; the default is what the shipped base was made with.
    """
    recipe = recipe or Recipe()
    by_name = {(task, u.user): u for task, users in users_by_task.items() for u in users}
    shares, stated_shares = choose_shares(pools, by_name, bundle, encoder, report)
    answered = pool_episodes(pools, by_name, bundle, encoder, report, shares)
    kinds = {u.task: u.kind for u in answered}
    drawn = [
        user
        for task in sorted(kinds)
        if kinds[task] != "text"
        for user in sample_users(users_by_task[task], CLOSED_USERS, least=12, seed=seed)
    ]
    closed = closed_episodes(drawn, bundle, encoder, CLOSED_QUERIES, report)
    learning = [*closed, *(u for u in answered if u.kind == "text")]
    folds = split_users([*answered, *closed])
    interpretable = labelled(answered, None)
    first = Scale(*fit_scale(interpretable, interpretable[0].items[0][0].shape[1]))
    taus = dict.fromkeys(get_args(Kind), MAP_TAU)

    def learn(inside: frozenset[str], stage: str) -> Maps:
        users = [u for u in learning if u.user not in inside]
        return learn_maps(users, first, taus, recipe=recipe, seed=seed, report=report, stage=stage)

    views = [
        _view(answered, closed, learn(fold, f"maps, fold {i + 1} of {FOLDS}"), fold)
        for i, fold in enumerate(folds)
    ]
    maps = learn(frozenset(), "maps")
    whole = _view(answered, closed, maps, frozenset())
    names = feature_names("adapter", maps.k)
    arrays = {k: v for k, v in bundle.maps.items() if k.startswith("reranker.")}
    quality: JsonDict = {}
    groups: dict[str, set[str]] = {task: {task} for task in kinds}
    # A prior for tasks never seen holds no learned map: what was learned of one closed set
    # says nothing of another.
    of_kind = {kind: {t for t, k in kinds.items() if k == kind} for kind in get_args(Kind)}
    for group, tasks in sorted((groups | {k: t for k, t in of_kind.items() if t}).items()):
        found = fit_group(views, whole, tasks, names, maps=group in groups)
        arrays |= prior_arrays("adapter", group, found)
        quality[group] = found.report
    arrays |= _missing_kinds(arrays, len(names))
    arrays |= {f"adapter.zero_shot.{g}": np.array([share]) for g, share in shares.items()}
    arrays["adapter.scale.mean"], arrays["adapter.scale.std"] = whole.scale.mean, whole.scale.std
    arrays["adapter.map.query"], arrays["adapter.map.other"] = maps.query, maps.other
    features: dict[Role, tuple[str, ...]] = {
        "reranker": bundle.features("reranker"), "adapter": names,
    }  # fmt: skip
    recorded = {name: getattr(recipe, name) for name in recipe.__slots__}
    stated = {
        "adapter": quality, "zero_shot": stated_shares, "recipe": recorded,
        "left_out": f"{FOLDS} folds of users",
    }  # fmt: skip
    return TrainedMaps(arrays, features, stated)


def _missing_kinds(arrays: Mapping[str, Float2d], dim: int) -> dict[str, Float2d]:
    """Complete kinds that the data did not have by a prior that knows nothing."""
    out: dict[str, Float2d] = {}
    for kind in get_args(Kind):
        if f"adapter.prior.{kind}.mean" not in arrays:
            none = Population(np.zeros(dim), np.eye(dim), 0.1, np.array([[0.0, 1.0, 1.0]] * 2), {})
            made = prior_arrays("adapter", kind, none)
            out |= {k: v for k, v in made.items() if ".gain." not in k}
    return out
