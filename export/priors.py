"""Scaling and head priors of a base, fitted on a small labelled set of training users.

The reranker's need no LLM: pairs of records with proxy utilities. The adapter's are fitted by
``export.adapter_priors`` with what is here. Users are split, never records: every figure reported
is on users left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from export.data import UserHistory
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.evaluate import judge, top_utility
from hydra_edge.features.scaling import LIMIT
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.reranker import proxy_data
from hydra_edge.store import Store
from hydra_edge.types import Double1d, Double2d, Float1d, Float2d, JsonDict, Role

Item = tuple[Float2d, Float1d]
Report = Callable[[str, int, int], None]

TAUS = (0.03, 0.1, 0.3)
RIDGES = (0.1, 1.0, 10.0)
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
FOLDS = 5
TOP: dict[Role, int] = {"reranker": 4, "adapter": 1}


@dataclass(frozen=True)
class Labelled:
    """One user's labelled queries of one task, oldest first."""

    user: str
    task: str
    kind: str
    items: tuple[Item, ...]


def engine_for(history: UserHistory, bundle: Bundle, encoder: TextEncoder) -> Engine:
    """Hold one user's records in memory."""
    store = Store.in_memory()
    store.add(history.records)
    return Engine(store, bundle, encoder, history.custom_tasks)


def label_reranker(
    users: Sequence[UserHistory], bundle: Bundle, encoder: TextEncoder, limit: int, report: Report
) -> list[Labelled]:
    """Label records with proxy utilities: each user's latest ``limit`` records as queries."""
    out = []
    for done, user in enumerate(users, start=1):
        engine = engine_for(user, bundle, encoder)
        with closing(engine.store):
            history = engine.history(engine.task(user.task))
            data = proxy_data(
                engine.features["reranker"], history, engine.lexical(history), limit=limit
            )
        bounds = data.groups.offsets
        items = tuple(
            (data.groups.features[a:b].astype(np.float32), data.groups.utilities[a:b])
            for a, b in itertools.pairwise(bounds)
        )
        out.append(Labelled(user.user, user.task, history.task.kind, items))
        report("reranker labels", done, len(users))
    return out


@dataclass(frozen=True, eq=False)
class Scale:
    """Means and deviations of features, both ``(d,)``."""

    mean: Float1d
    std: Float1d

    def apply(self, raw: Float2d) -> Float2d:
        """Bring raw features ``(m, d)`` into roughly [-3, 3], as the device does."""
        return np.clip((raw - self.mean) / self.std, -LIMIT, LIMIT).astype(np.float32)


def fit_scale(labelled: Sequence[Labelled]) -> Scale:
    """Return what brings features into roughly [-3, 3].

    Taken over each task and averaged over those in which a feature varies, so that a feature
    only some kinds of task use is not drowned by the zeros of the others.
    """
    means, stds = [], []
    for task in sorted({user.task for user in labelled}):
        rows = np.concatenate([phi for u in labelled if u.task == task for phi, _ in u.items])
        means.append(rows.mean(axis=0, dtype=np.float64))
        stds.append(rows.std(axis=0, dtype=np.float64))
    mean, std = np.stack(means), np.stack(stds)
    varies = std > 1e-4
    count = np.maximum(varies.sum(axis=0), 1)
    scale = np.where(varies.any(axis=0), (std * varies).sum(axis=0) / count, 1.0)
    centre = (mean * varies).sum(axis=0) / count
    return Scale(centre.astype(np.float32), scale.astype(np.float32))


def scaled(labelled: Sequence[Labelled], scale: Scale) -> list[Labelled]:
    """Apply a scaling to raw features."""
    return [
        replace(user, items=tuple((scale.apply(phi), u) for phi, u in user.items))
        for user in labelled
    ]


def _stack(users: Sequence[Labelled], dim: int) -> Groups:
    return Groups.stack([item for user in users for item in user.items], dim=dim)


def _fit(users: Sequence[Labelled], dim: int, tau: float, ridge: float) -> ConditionalLogit:
    prior = Prior(np.zeros(dim), np.eye(dim) * ridge, tau)
    return ConditionalLogit(prior).fit(_stack(users, dim).informative())


def _folds(users: Sequence[Labelled]) -> list[list[int]]:
    """Split users (never records); a user's tasks stay in one fold."""
    names = sorted({user.user for user in users})
    fold = {name: i % FOLDS for i, name in enumerate(names)}
    split = [[i for i, u in enumerate(users) if fold[u.user] == f] for f in range(FOLDS)]
    return [part for part in split if part]


@dataclass(frozen=True, eq=False)
class Population:
    """A fitted prior and what it is worth on users left out of each fold."""

    mean: Double1d
    precision: Double2d
    tau: float
    gains: Double2d
    report: JsonDict


def _out_of_fold(
    users: Sequence[Labelled], dim: int, tau: float, ridge: float
) -> list[tuple[list[int], Double1d]]:
    """Return, for every fold, its users and the weights fitted on all others."""
    out = []
    for part in _folds(users):
        rest = [u for i, u in enumerate(users) if i not in set(part)]
        if rest:
            out.append((part, _fit(rest, dim, tau, ridge).weight_))
    return out


def _mean_utility(
    users: Sequence[Labelled], folds: list[tuple[list[int], Double1d]], dim: int, top: int
) -> float:
    values = []
    for part, weight in folds:
        groups = _stack([users[i] for i in part], dim)
        values.append(top_utility(groups.features @ weight, groups, top))
    return float(np.concatenate(values).mean())


def _cross_entropy(head: ConditionalLogit, groups: Groups, tau: float) -> float:
    """Return the mean listwise loss of a head on queries it was not fitted on."""
    losses = []
    for a, b in itertools.pairwise(groups.offsets):
        target = np.exp((groups.utilities[a:b] - groups.utilities[a:b].max()) / tau)
        score = groups.features[a:b] @ head.weight_
        log_p = score - score.max()
        log_p = log_p - np.log(np.exp(log_p).sum())
        losses.append(-float((target / target.sum()) @ log_p))
    return float(np.mean(losses)) if losses else 0.0


def _strength(
    users: Sequence[Labelled], folds: list[tuple[list[int], Double1d]], dim: int, tau: float
) -> float:
    """Choose how strongly heads are held to the mean: by each user's later queries."""
    losses = np.zeros(len(STRENGTHS))
    for part, weight in folds:
        for i in part:
            groups = _stack([users[i]], dim).informative()
            n = len(groups.offsets) - 1
            if n < 4:
                continue
            early = groups.take(np.arange(n // 2))
            late = groups.take(np.arange(n // 2, n))
            for s, strength in enumerate(STRENGTHS):
                head = ConditionalLogit(Prior(weight, np.eye(dim) * strength, tau)).fit(early)
                losses[s] += _cross_entropy(head, late, tau)
    # With no user long enough to tell, the strongest: heads then stay near the population.
    return STRENGTHS[int(np.argmin(losses))] if losses.any() else STRENGTHS[-1]


# Floors of what is estimated from few users: no gain is certain, no query without noise.
LEAST_SPREAD, LEAST_NOISE = 0.01, 0.02


def population_gains(judged: Sequence[tuple[Groups, Prior]], baseline: int, top: int) -> Double2d:
    """Estimate what users left out gain, as the device's own gate would measure it.

    Parameters
    ----------
    judged
        Each user's queries, and the prior fitted without that user.
    baseline
        The column the baseline orders by.
    top
        How many of a query's best pairs count.

    Returns
    -------
    Double2d
        Shape ``(2, 3)``: shared over baseline, personal over shared; the mean over users, the
        spread of users' true gains, and the noise of a single query.
    """
    differences: tuple[list[Double1d], list[Double1d]] = ([], [])
    for groups, prior in judged:
        weight = np.zeros(prior.dim, dtype=np.float32)
        weight[baseline] = 1.0
        verdict = judge(groups, prior, weight, top=top)
        held = verdict.held_out
        # The shared weights have seen none of this user's queries, so all of them count.
        differences[0].append(verdict.shared - verdict.baseline)
        differences[1].append((verdict.personal - verdict.shared)[held])
    return np.array([_moments(d) for d in differences])


def _moments(users: Sequence[Double1d]) -> tuple[float, float, float]:
    """Split differences by query into a mean, the users' spread and the queries' noise."""
    users = [d for d in users if len(d)]
    if not users:
        return 0.0, 1.0, 1.0
    means = np.array([d.mean() for d in users])
    freedom = sum(len(d) - 1 for d in users)
    squares = sum(float(((d - d.mean()) ** 2).sum()) for d in users)
    noise = max(np.sqrt(squares / freedom) if freedom else 1.0, LEAST_NOISE)
    by_chance = float(np.mean([noise**2 / len(d) for d in users]))
    between = float(means.var(ddof=1)) - by_chance if len(users) > 1 else 1.0
    # The mean itself is known only so well; what is not known is spread too.
    spread = np.sqrt(max(between, LEAST_SPREAD**2) + by_chance / len(users))
    return float(means.mean()), float(spread), float(noise)


def fit_population(users: Sequence[Labelled], dim: int, role: Role, baseline: int) -> Population:
    """Fit the shared head of one group of tasks, and how much users differ from it.

    Parameters
    ----------
    users
        Labelled training users, with scaled features.
    baseline
        The column the baseline orders by, for the report.
    """
    top = TOP[role]
    best = (-1.0, TAUS[0], RIDGES[0])
    for tau in TAUS:
        for ridge in RIDGES:
            folds = _out_of_fold(users, dim, tau, ridge)
            best = max(best, (_mean_utility(users, folds, dim, top), tau, ridge))
    utility, tau, ridge = best
    folds = _out_of_fold(users, dim, tau, ridge)
    strength = _strength(users, folds, dim, tau)
    judged = [
        (_stack([users[i]], dim), Prior(weight, np.eye(dim) * strength, tau))
        for part, weight in folds
        for i in part
    ]
    gains = population_gains(judged, baseline, top)
    everyone = _stack(users, dim)
    means = np.add.reduceat(everyone.utilities, everyone.offsets[:-1]) / np.diff(everyone.offsets)
    ceiling = np.maximum.reduceat(everyone.utilities, everyone.offsets[:-1])
    report: JsonDict = {
        "users": len(users),
        "queries": len(everyone.offsets) - 1,
        "utility": {
            "any": round(float(np.mean(means)), 4),
            "baseline": round(
                float(top_utility(everyone.features[:, baseline], everyone, top).mean()), 4
            ),
            "shared": round(utility, 4),
            "best_single": round(float(np.mean(ceiling)), 4),
        },
        "tau": tau,
        "ridge": ridge,
        "strength": strength,
        "gains": np.round(gains, 4).tolist(),
    }
    mean = _fit(users, dim, tau, ridge).weight_
    return Population(mean, np.eye(dim) * strength, tau, gains, report)


def priors_of_role(
    labelled: Sequence[Labelled], role: Role, names: Sequence[str], baseline: str
) -> tuple[dict[str, Float2d], JsonDict]:
    """Fit one prior per task and one per kind, as arrays of ``maps.safetensors``.

    A group of a single user has none: nobody is left to judge it on. A task's kind serves it.
    """
    arrays: dict[str, Float2d] = {}
    report: JsonDict = {}
    kinds = {
        kind: {u.task for u in labelled if u.kind == kind} for kind in ("text", "label", "rating")
    }
    groups: Mapping[str, set[str]] = {u.task: {u.task} for u in labelled} | {
        kind: tasks for kind, tasks in kinds.items() if tasks
    }
    for group, tasks in sorted(groups.items()):
        users = [u for u in labelled if u.task in tasks and u.items]
        if len({u.user for u in users}) < 2:
            continue
        found = fit_population(users, len(names), role, names.index(baseline))
        arrays |= prior_arrays(role, group, found)
        report[group] = found.report
    return arrays, report


def prior_arrays(role: Role, group: str, found: Population) -> dict[str, Float2d]:
    """Return one prior as arrays of ``maps.safetensors``."""
    return {
        f"{role}.prior.{group}.mean": found.mean.astype(np.float32),
        f"{role}.prior.{group}.precision": found.precision.astype(np.float32),
        f"{role}.prior.{group}.tau": np.array([found.tau], dtype=np.float32),
        f"{role}.gain.{group}": found.gains.astype(np.float32),
    }


def with_maps(bundle: Bundle, arrays: Mapping[str, Float2d]) -> Bundle:
    """Return a bundle in memory with some of its maps replaced (its base_id is stale)."""
    return replace(bundle, maps=MappingProxyType({**bundle.maps, **arrays}))
