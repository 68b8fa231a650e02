"""Stage train: learned maps and the adapter's priors, from closed sets and answered pools.

Everything that is chosen or reported is judged on users left out: maps and priors are fitted
anew for each fold. Maps that pay for no task are not shipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import get_args

import numpy as np

from export.adapter_priors import (
    FOLDS,
    RIDGES,
    TAUS,
    Settings,
    View,
    fit_priors,
    make_view,
    shared_utility,
    shared_weights,
    split_users,
)
from export.classify import Classifiers, ClosedSet
from export.data import LEAST_RECORDS, UserHistory, sample_users
from export.episodes import (
    Maps,
    UserEpisodes,
    closed_episodes,
    count_users,
    informed,
    labelled,
    pool_episodes,
    with_answers,
)
from export.few import choose_half_at
from export.labels import PoolLabel
from export.metalearn import Recipe, learn_maps
from export.priors import (
    fit_scale,
)
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import BundleError
from hydra_edge.features import feature_names
from hydra_edge.types import Float2d, JsonDict, Kind, Progress, Role

CLOSED_USERS = 120  # of a task, whose closed sets are labelled without an LLM
CLOSED_QUERIES = 30  # of each of them
# How much of a free text's pool may be drawn with no record shown: 0, 1, 2 or 4 of 8.
SHARES = (0.0, 0.125, 0.25, 0.5)
# The least that comes this near to the best is taken: another prompt is another call.
NEAR_BEST = 0.995
MAP_TAU = 0.15


@dataclass(frozen=True, eq=False)
class TrainedMaps:
    """The arrays of a base, the features they are for, and what they were measured to be worth."""

    arrays: dict[str, Float2d]
    features: dict[Role, tuple[str, ...]]
    quality: JsonDict
    closed_sets: dict[str, tuple[str, ...]]


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
    names, how = feature_names("adapter"), Settings(tau=TAUS[-1], ridge=RIDGES[0], maps=False)
    by_share = {
        share: with_answers(
            pool_episodes(texts, users, bundle, encoder, report, {p.task: share for p in texts})
        )
        for share in SHARES
    }
    if any(count_users(answered) < 2 for answered in by_share.values()):
        return {}, {}  # nobody is left to judge it on
    tasks = sorted({user.task for user in by_share[SHARES[0]]})
    found: dict[str, dict[float, float]] = {task: {} for task in tasks}
    for share, answered in by_share.items():
        folds = split_users(answered)
        views = [make_view(answered, [], None, fold) for fold in folds]
        for task in tasks:
            weights = shared_weights(views, {task}, names, how)
            found[task][share] = shared_utility(views, {task}, weights)
    found["text"] = {s: float(np.mean([found[task][s] for task in tasks])) for s in SHARES}
    chosen = {
        group: min(share for share, u in by.items() if u >= NEAR_BEST * max(by.values()))
        for group, by in found.items()
    }
    tried = {g: {f"{s:g}": round(u, 4) for s, u in by.items()} for g, by in found.items()}
    return chosen, {group: {"share": chosen[group], "utility": tried[group]} for group in found}


def usable(users: Sequence[UserEpisodes]) -> list[UserEpisodes]:
    """Return those who have a query with an answer.

    Raises
    ------
    BundleError
        If there are fewer than two.
    """
    found = with_answers(users)
    if (n := count_users(found)) < 2:
        raise BundleError(
            f"Nothing can be trained: found usable answers for {n} users; expected two or more, "
            "for what is learned is judged on others. Label more users: python -m export build "
            "--only label."
        )
    return found


def train_maps(
    *,
    bundle: Bundle,
    encoder: TextEncoder,
    users_by_task: Mapping[str, Sequence[UserHistory]],
    everyone: Mapping[str, Sequence[UserHistory]],
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
        Training users who have a past.
    everyone
        All training users: what they answer to a text teaches classifiers.
    pools
        What LLMs answered to some of their records.
    recipe
        How maps are learned; the default is what the shipped base was made with.

    Raises
    ------
    BundleError
        If no query of these users was answered, or those of one user alone.
    """
    if not pools:
        raise BundleError(
            "Nothing can be trained: found no answered pool; expected some. Ask an LLM first, "
            "without --replay: python -m export build --only label."
        )
    recipe = recipe or Recipe()
    by_name = {(task, u.user): u for task, users in users_by_task.items() for u in users}
    shares, stated_shares = choose_shares(pools, by_name, bundle, encoder, report)
    half_at, stated_half = choose_half_at(pools, by_name, bundle, encoder, report, shares)
    answered = usable(pool_episodes(pools, by_name, bundle, encoder, report, shares))
    kinds = {u.task: u.kind for u in answered}
    drawn = [
        user
        for task in sorted(kinds)
        if kinds[task] != "text"
        for user in sample_users(users_by_task[task], CLOSED_USERS, least=LEAST_RECORDS, seed=seed)
    ]
    closed = closed_episodes(drawn, bundle, encoder, CLOSED_QUERIES, report)
    folds = split_users([*answered, *closed])
    # Whoever has too few records to be asked about teaches, too, what everyone answers.
    sets = {
        task: ClosedSet.of(task, users, encoder)
        for task, users in sorted(everyone.items())
        if kinds.get(task, users[0].full_spec.kind) != "text"
    }
    # Of users who all have labels of their own nothing is shared that a classifier could tell.
    known = Classifiers({t: of for t, of in sets.items() if of.is_shared}, folds)

    @cache
    def told(inside: frozenset[str], *, lent: bool = False) -> list[list[UserEpisodes]]:
        return [informed(users, known, inside, lent=lent) for users in (answered, closed)]

    interpretable = labelled(told(frozenset())[0], None)
    first = fit_scale(interpretable)
    taus = dict.fromkeys(get_args(Kind), MAP_TAU)

    def learn(inside: frozenset[str], stage: str) -> Maps:
        of_pools, of_sets = told(inside)
        learning = [*of_sets, *(u for u in of_pools if u.kind == "text")]
        users = [u for u in learning if u.user not in inside]
        return learn_maps(users, first, taus, recipe=recipe, seed=seed, report=report, stage=stage)

    def both(inside: frozenset[str], maps: Maps | None) -> tuple[View, View]:
        full = make_view(*told(inside), maps, inside)
        return full, make_view(*told(inside, lent=True), maps, inside, full.scale)

    def learned() -> Iterator[tuple[View, View]]:
        for i, fold in enumerate(folds):
            yield both(fold, learn(fold, f"maps, fold {i + 1} of {FOLDS}"))

    maps: Maps | None = learn(frozenset(), "maps")
    names = feature_names("adapter", maps.k)
    whole = both(frozenset(), maps)
    priors, quality = fit_priors([*learned()], whole, kinds, names)
    if not any(figures["maps"] for figures in quality.values()):
        maps, tried, names = None, quality, feature_names("adapter")
        whole = both(frozenset(), None)
        priors, quality = fit_priors([both(fold, None) for fold in folds], whole, kinds, names)
        for group, figures in quality.items():
            if "maps" in tried[group]["utility"]:
                figures["utility"]["maps"] = tried[group]["utility"]["maps"]
                figures["nested"]["maps"] = tried[group]["nested"]["maps"]
    arrays = {k: v for k, v in bundle.maps.items() if k.startswith("reranker.")} | priors
    # A task that its kind's prior serves has that one's share, too.
    arrays |= {f"adapter.zero_shot.{g}": np.array([s]) for g, s in shares.items() if g in quality}
    arrays["adapter.half_at"] = np.array([half_at])
    scale = whole[0].scale
    arrays["adapter.scale.mean"], arrays["adapter.scale.std"] = scale.mean, scale.std
    if maps is not None:
        arrays["adapter.map.query"], arrays["adapter.map.other"] = maps.query, maps.other
    features: dict[Role, tuple[str, ...]] = {
        "reranker": bundle.features("reranker"), "adapter": names,
    }  # fmt: skip
    recorded = {name: getattr(recipe, name) for name in recipe.__slots__}
    stated = {
        "adapter": quality, "half_at": stated_half, "recipe": recorded,
        "zero_shot": {g: of for g, of in stated_shares.items() if g in quality},
        "classifiers": known.report, "left_out": f"{FOLDS} folds of users",
    }  # fmt: skip
    for task in known.labels:
        of_all = known.without(task, frozenset())
        arrays[f"adapter.classifier.{task}.weight"] = of_all.weight
        arrays[f"adapter.classifier.{task}.bias"] = of_all.bias
    return TrainedMaps(arrays, features, stated, known.labels)
