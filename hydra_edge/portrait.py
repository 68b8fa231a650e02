"""What a person's heads have learned, put so that people can look at it.

Weights beside the population's with how sure they are, and how utility grew with the history.
Changes nothing: it reads stored heads and evidence, and asks no LLM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hydra_edge.active import check_base
from hydra_edge.engine import Engine
from hydra_edge.evaluate import top_utility
from hydra_edge.evidence import adapter_evidence, reranker_evidence
from hydra_edge.headreport import model_of
from hydra_edge.heads import Groups, Prior, choose_prior_scale
from hydra_edge.history import History
from hydra_edge.population import prior_for
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Double1d, Double2d, Float1d, HeadState, Progress, Role

POINTS = 7  # of a growth curve, the shared head's included
MIN_QUERIES = 8  # fewer say nothing about growth


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of a head beside the population's.

    ``std`` is how unsure the head is of its own, ``spread`` how much it expects people to
    differ; both are standard deviations.
    """

    feature: str
    mine: float
    population: float
    std: float
    spread: float

    @property
    def moved(self) -> float:
        """How far the person's own evidence has moved it."""
        return self.mine - self.population


def _std(precision: Double2d) -> Double1d:
    """Return the standard deviation of each weight, shape ``(d,)``, from its joint precision."""
    inverse = np.linalg.inv(precision)
    return np.asarray(np.sqrt(np.maximum(np.diag(inverse), 0.0)))


def weights(engine: Engine, task: TaskSpec, role: Role, state: HeadState | None) -> list[Weight]:
    """Return every weight, in the order of the features; without a head, the population's.

    Raises
    ------
    BaseMismatchError
        If the head belongs to another base.
    """
    prior = prior_for(engine.bundle, task, role)
    spread = _std(prior.precision)
    if state is None:
        names, mine, std = engine.features[role].names, prior.mean, spread
    else:
        check_base(state, engine.bundle)
        names, mine = state.features, state.weight.astype(np.float64)
        std = _std(state.precision.astype(np.float64))
    columns = zip(names, mine.tolist(), prior.mean.tolist(), std, spread, strict=True)
    return [Weight(n, m, p, float(s), float(t)) for n, m, p, s, t in columns]


@dataclass(frozen=True, slots=True)
class Point:
    """A head learned from the first ``queries`` of a history.

    ``gain`` is its utility over the shared head's, ``gain_std`` that mean's standard error.
    """

    queries: int
    utility: float
    gain: float
    gain_std: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Utility against history size, all on the same later queries no point has learned from."""

    role: Role
    held_out: int
    baseline: float
    shared: float
    points: tuple[Point, ...]


def growth(
    engine: Engine,
    history: History,
    role: Role,
    *,
    shown: int,
    progress: Progress | None = None,
) -> Growth | None:
    """Learn from longer and longer beginnings of a history, and judge each on its later half.

    Parameters
    ----------
    shown
        How many records a prompt shows; a reranker is judged by its first so many.
    progress
        Told of the evidence, between whose pieces others may have the engine; what it raises
        ends the work.

    Returns
    -------
    Growth or None
        None if there are too few queries to say anything.
    """
    task = history.task
    if role == "reranker":
        found = reranker_evidence(engine, history, shown=shown, progress=progress)
        groups, top = found.groups, max(1, shown)  # with none shown: by the one it would have
    else:
        model = model_of(engine.store.head(task.name, "adapter"))
        groups, top = adapter_evidence(engine, history, model, progress=progress).groups, 1
    if groups.n_groups < MIN_QUERIES:
        return None
    return curve(groups, prior_for(engine.bundle, task, role), engine.baseline(role), role, top)


def curve(groups: Groups, prior: Prior, baseline: Float1d, role: Role, top: int) -> Growth:
    """Draw a growth curve from a user's queries, oldest first; see ``growth``.

    Parameters
    ----------
    baseline
        Weights of the baseline, shape ``(d,)``.
    top
        How many of a query's best pairs count.
    """
    half = groups.n_groups // 2
    later = groups.take(np.arange(half, groups.n_groups))
    shared = top_utility(later.features @ prior.mean, later, top)
    plain = top_utility(later.features @ baseline.astype(np.float64), later, top)
    points = [Point(0, float(shared.mean()), 0.0, 0.0)]
    sizes = np.unique(np.linspace(0, half, POINTS).round().astype(np.int64))[1:]
    teaches = groups.teaches()
    for size in sizes.tolist():
        # The strength of the prior is chosen anew: nothing may know of the later queries.
        seen = groups.take(np.flatnonzero(teaches[:size]))
        head = choose_prior_scale(prior, seen).head
        mine = top_utility(head.scores(later.features), later, top)
        gain = mine - shared
        error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
        points.append(Point(size, float(mine.mean()), float(gain.mean()), error))
    return Growth(role, later.n_groups, float(plain.mean()), float(shared.mean()), tuple(points))
