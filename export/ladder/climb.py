"""Every rung on the same folds of users: fitted on those outside, judged on those left out.

Owns the folds, what is chosen on training users alone, and what is kept of each left-out user.
Refuses to train on anyone a fold leaves out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from export.adapter_priors import CLOSED_RIDGE, VOTES, VOTES_FREEDOM
from export.episodes import Maps, raw_features
from export.ladder.material import STATS, Person, refuse_disorder, refuse_left_out
from export.ladder.rungs import (
    HOLDS,
    LOWEST,
    ProfileMap,
    Rows,
    Rung,
    fit_stages,
    mean_for,
    rows_of,
)
from export.metalearn import Recipe, learn_maps
from export.priors import TOP, Labelled, Scale, fit_scale
from export.train import MAP_TAU
from hydra_edge.evaluate import top_utility
from hydra_edge.features import feature_names
from hydra_edge.heads import Groups, Prior, choose_prior_scale
from hydra_edge.population import BASELINE_FEATURE
from hydra_edge.types import Double1d, Double2d, Kind, Progress, Role

INNER = 2  # folds of the training users, on which a fold's settings are chosen
LEAST_HALVED = 4  # queries of a user below which there are no halves to speak of
STRENGTH = 10.0  # of a personal head's prior; how many times that, the user's own queries choose
KINDS: tuple[Kind, ...] = ("text", "label", "rating")


@dataclass(frozen=True, eq=False)
class Judged:
    """What one left-out user's queries were worth, ``what`` is the material they are of.

    ``shared`` (n,) by the shared weights on all queries; ``later`` and ``personal`` by the shared
    ones and by a head of the user's own on the second half, fitted on the first; empty where
    there are too few.
    """

    what: str
    user: str
    task: str
    shared: Double1d
    later: Double1d
    personal: Double1d


@dataclass(frozen=True, eq=False)
class Material:
    """One role's people; ``closed`` are closed sets that nobody voted for (adapter only)."""

    role: Role
    people: Sequence[Person]
    closed: Sequence[Person] = ()

    @property
    def everyone(self) -> list[Person]:
        """People of both kinds."""
        return [*self.people, *self.closed]


@dataclass(frozen=True, slots=True)
class Trial:
    """What may be chosen of a fit, and the values of each that are tried."""

    taus: tuple[float, ...]
    ridges: tuple[float, ...]
    holds: tuple[float, ...] = HOLDS


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen of a task on training users."""

    tau: float
    ridge: float
    hold: float


def split(names: Iterable[str], folds: int, seed: int) -> list[frozenset[str]]:
    """Split users into folds, all of a user's tasks into the same one; same seed, same folds."""
    ordered = sorted(set(names))
    random.Random(seed).shuffle(ordered)
    return [frozenset(part) for i in range(folds) if (part := ordered[i::folds])]


class Fold:
    """What is fitted on the users outside of one fold, and judged on those left out.

    Parameters
    ----------
    outside, left
        Whom it is fitted on, and whom it is judged on.
    trial
        What may be chosen, on users outside.

    Raises
    ------
    LeakError
        If one of the users left out is outside too, or queries are not in the order of time.
    """

    def __init__(
        self, outside: Material, left: Material, trial: Trial, recipe: Recipe, *, seed: int,
        report: Progress, stage: str = "ladder",
    ) -> None:  # fmt: skip
        refuse_left_out(outside.everyone, frozenset(p.user for p in left.everyone))
        refuse_disorder([*outside.everyone, *left.everyone])
        self.outside, self.left, self.trial, self.recipe = outside, left, trial, recipe
        self.seed, self.report, self.stage = seed, report, stage
        self.role = outside.role
        self.tasks = sorted({p.episodes.task for p in outside.people})
        self.known = {
            task: ProfileMap.of(np.stack([p.profiles[-1] for p in of_task]), len(STATS))
            for task in self.tasks
            for of_task in ([p for p in outside.everyone if p.episodes.task == task],)
        }
        self._views: dict[int, _View] = {}
        self._chosen: dict[str, Chosen] = {}
        self._weights: dict[tuple[str, str], Double2d] = {}

    @classmethod
    def of(
        cls, material: Material, inside: frozenset[str], trial: Trial, recipe: Recipe, *, seed: int,
        report: Progress, stage: str = "ladder",
    ) -> Self:  # fmt: skip
        """Leave the users ``inside`` out of a role's people."""
        outside, left = (
            replace(
                material,
                people=[p for p in material.people if (p.user in inside) == wanted],
                closed=[p for p in material.closed if (p.user in inside) == wanted],
            )
            for wanted in (False, True)
        )
        return cls(outside, left, trial, recipe, seed=seed, report=report, stage=stage)

    def climb(self, rungs: Sequence[Rung]) -> dict[str, list[Judged]]:
        """Judge every rung on the users left out; ``baseline`` is what needs no head."""
        out = {"baseline": self._judge_baseline()}
        for done, rung in enumerate(rungs, start=1):
            out[rung.name] = self.judge(rung)
            self.report(f"{self.stage}: {self.role}, rungs", done, len(rungs))
        return out

    def shared(self) -> dict[str, Double1d]:
        """Return the lowest rung's weights by task, shape ``(d,)``."""
        return {task: self.weights(task, LOWEST)[0] for task in self.tasks}

    def view(self, k: int) -> _View:
        """Return scale and maps of ``k`` learned features a side."""
        if k not in self._views:
            self._views[k] = self._learn(k)
        return self._views[k]

    def weights(self, task: str, rung: Rung) -> Double2d:
        """Return a task's shared weights of a rung, shape ``(1 + p, d)``."""
        key = (task, rung.name)
        if key not in self._weights:
            view = self.view(rung.k)
            people, closed = self._rows(self.outside, task, view)
            self._weights[key] = self._fit(people, closed, rung, self.chosen(task))
        return self._weights[key]

    def chosen(self, task: str) -> Chosen:
        """Choose how a task is fitted by leaving training users out once more."""
        if task in self._chosen:
            return self._chosen[task]
        people, closed = self._rows(self.outside, task, self.view(0))
        parts = split((u.user for u in (*people, *closed)), INNER, self.seed)

        def worth(rung: Rung, how: Chosen) -> float:
            values = []
            for part in parts:
                weights = self._fit(
                    [u for u in people if u.user not in part],
                    [u for u in closed if u.user not in part], rung, how,
                )  # fmt: skip
                values += [self._shared(u, weights) for u in people if u.user in part]
            return float(np.concatenate(values).mean()) if values else 0.0

        hold = max(self.trial.holds)
        pairs = itertools.product(self.trial.taus, self.trial.ridges)
        best = max(
            (Chosen(tau, ridge, hold) for tau, ridge in pairs), key=lambda c: worth(LOWEST, c)
        )
        moved = replace(LOWEST, name="", way="amortized")
        held = [replace(best, hold=hold) for hold in sorted(self.trial.holds, reverse=True)]
        self._chosen[task] = max(held, key=lambda c: worth(moved, c))
        return self._chosen[task]

    def judge(self, rung: Rung) -> list[Judged]:
        """Judge a rung on users left out: on what LLMs answered, and on closed sets alone."""
        out = []
        for task in self.tasks:
            weights = self.weights(task, rung)
            rows = self._rows(self.left, task, self.view(rung.k))
            for what, users in zip((str(self.role), "closed"), rows, strict=True):
                out += [self._judge_one(what, user, weights) for user in users]
        return out

    def _judge_baseline(self) -> list[Judged]:
        names, none = self.names(0), np.zeros(0)
        column = names.index(BASELINE_FEATURE[self.role])
        out = []
        for task in self.tasks:
            for user in self._rows(self.left, task, self.view(0))[0]:
                groups = Groups.stack(user.items, dim=len(names))
                worth = top_utility(groups.features[:, column], groups, TOP[self.role])
                out.append(Judged(str(self.role), user.user, task, worth, none, none))
        return out

    def names(self, k: int) -> tuple[str, ...]:
        """Return the names of the features."""
        return feature_names(self.role, k)

    def _learn(self, k: int) -> _View:
        people = self.outside.people
        bare = [_labelled(p, None) for p in people]
        first = fit_scale(bare)
        if not k:
            return _View(first, None)
        # Of closed sets, what is learned of users' own records; pools teach free text only.
        learning = [*self.outside.closed, *(p for p in people if self._learns(p))]
        maps = learn_maps(
            [p.episodes for p in learning], first, dict.fromkeys(KINDS, MAP_TAU),
            recipe=replace(self.recipe, k=k), seed=self.seed, report=self.report,
            stage=f"{self.stage}: {self.role}, {k} maps",
        )  # fmt: skip
        full = [_labelled(p, maps) for p in people]
        return _View(fit_scale(full), maps)

    def _learns(self, person: Person) -> bool:
        return self.role == "reranker" or person.episodes.kind == "text"

    def _rows(self, material: Material, task: str, view: _View) -> tuple[list[Rows], list[Rows]]:
        def of(people: Sequence[Person]) -> list[Rows]:
            return [
                rows_of(
                    p.user, task, _labelled(p, view.maps).items, view.scale,
                    self.known[task].apply(p.profiles),
                )
                for p in people
                if p.episodes.task == task
            ]  # fmt: skip

        return of(material.people), of(material.closed)

    def _fit(
        self, people: Sequence[Rows], closed: Sequence[Rows], rung: Rung, how: Chosen
    ) -> Double2d:
        names = self.names(rung.k)
        votes = np.isin(names, VOTES) & (self.role == "adapter")
        stages = [
            (closed, np.full(len(names), CLOSED_RIDGE)),
            (people, how.ridge * np.where(votes, VOTES_FREEDOM, 1.0)),
        ]
        return fit_stages(rung.way, stages, how.tau, how.hold, len(self.names(0)))

    def _shared(self, user: Rows, weights: Double2d) -> Double1d:
        groups = Groups.stack(user.items, dim=weights.shape[1])
        means = np.stack([mean_for(weights, known) for known in user.known])
        scores = (groups.features * np.repeat(means, groups.sizes, axis=0)).sum(axis=1)
        return top_utility(scores, groups, TOP[self.role])

    def _judge_one(self, what: str, user: Rows, weights: Double2d) -> Judged:
        shared = self._shared(user, weights)
        half = len(user.items) // 2
        if len(user.items) < LEAST_HALVED:
            return Judged(what, user.user, user.task, shared, np.zeros(0), np.zeros(0))
        d = weights.shape[1]
        early, late = (Groups.stack(part, dim=d) for part in (user.items[:half], user.items[half:]))
        # Known when the first half is over: what the later queries themselves would add is not.
        mean = mean_for(weights, user.known[half])
        prior = Prior(mean, np.eye(d) * STRENGTH, self.chosen(user.task).tau)
        head = choose_prior_scale(prior, early.informative()).head
        personal = top_utility(head.scores(late.features), late, TOP[self.role])
        return Judged(what, user.user, user.task, shared, shared[half:], personal)


@dataclass(frozen=True, eq=False)
class _View:
    scale: Scale
    maps: Maps | None


def _labelled(person: Person, maps: Maps | None) -> Labelled:
    u = person.episodes
    items = tuple((raw_features(e, maps), e.utilities) for e in u.episodes)
    return Labelled(u.user, u.task, u.kind, items)
