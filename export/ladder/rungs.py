"""The ways to fit what people share: as one, by who they are, or each for themselves beside it.

Owns the fits. All are convex and all give the same thing: the mean of a new user's prior as a
linear function of their profile, with nothing but the profile known of them. Refuses to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.priors import Item, Scale
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.types import Double1d, Double2d, Float2d

Way = Literal["plain", "amortized", "joint"]

# A training user's own weights in a joint fit are as good as free.
FREE = 0.1
MOST_ROUNDS = 30  # of a joint fit
_SETTLED = 1e-3
# How strongly a profile is kept from moving the prior; chosen on training users.
HOLDS = (30.0, 300.0, 3000.0)
COMPONENTS = 4  # of the mean vectors


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: ``k`` learned features a side, a way to fit, and what it tops."""

    name: str
    k: int
    way: Way
    over: str


LOWEST = Rung("interpretable", 0, "plain", "baseline")


def rungs_of(dims: Sequence[int]) -> list[Rung]:
    """List the rungs from the lowest up; ``dims`` are numbers of learned features to try."""
    lowest = LOWEST.name
    out = [LOWEST]
    out += [Rung(f"maps_{k}", k, "plain", lowest) for k in dims]
    ways: tuple[Way, ...] = ("amortized", "joint")
    out += [Rung(way, 0, way, lowest) for way in ways]
    out += [Rung(f"{way}_maps_{k}", k, way, f"maps_{k}") for k in dims[-1:] for way in ways]
    return out


@dataclass(frozen=True, eq=False)
class Rows:
    """One user's queries as a head sees them: scaled features, utilities, scaled profiles.

    ``known`` has shape ``(n_queries, p)``.
    """

    user: str
    task: str
    items: tuple[Item, ...]
    known: Double2d


@dataclass(frozen=True, eq=False)
class ProfileMap:
    """From raw profiles to a few numbers of mean 0 and deviation 1, as training users have them."""

    centre: Double1d
    axes: Double2d  # (2 * dim, COMPONENTS)
    mean: Double1d
    std: Double1d

    @classmethod
    def of(cls, raw: Float2d, n_stats: int) -> ProfileMap:
        """Fit on one raw profile a user, shape ``(n_users, 2 * dim + n_stats)``."""
        vectors = raw[:, :-n_stats].astype(np.float64)
        centre = vectors.mean(axis=0)
        *_, axes = np.linalg.svd(vectors - centre, full_matrices=False)
        found = cls(centre, axes[:COMPONENTS].T, np.zeros(1), np.ones(1))
        rows = found._rows(raw)
        return cls(centre, found.axes, rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-3))

    def _rows(self, raw: Float2d) -> Double2d:
        cut = len(self.centre)
        vectors = (raw[:, :cut] - self.centre) @ self.axes
        return np.hstack((vectors, raw[:, cut:].astype(np.float64)))

    def apply(self, raw: Float2d) -> Double2d:
        """Return shape ``(n, p)``; clipped, for one odd user must not decide."""
        return np.clip((self._rows(raw) - self.mean) / self.std, -3.0, 3.0)


@dataclass(frozen=True, eq=False)
class Fit:
    """How a fit is held: the temperature, the ridge of each weight ``(d,)``, and of a profile's.

    ``own`` is how many of the features are interpretable: only these does a profile move.
    """

    tau: float
    ridge: Double1d
    hold: float
    own: int


def widen(phi: Float2d, known: Double1d, own: int) -> Double2d:
    """Return features times one and times each number known of the user, ``(m, d + p * own)``."""
    parts = [phi.astype(np.float64), *(phi[:, :own] * number for number in known)]
    return np.hstack(parts)


def fit_plain(users: Sequence[Rows], centre: Double1d, how: Fit) -> Double1d:
    """Fit one weight vector to everyone around ``centre``, both of shape ``(d,)``."""
    items = [item for user in users for item in user.items]
    prior = Prior(centre, np.diag(how.ridge), how.tau)
    groups = Groups.stack(items, dim=len(centre)).informative()
    return ConditionalLogit(prior).fit(groups).weight_


def fit_amortized(users: Sequence[Rows], centre: Double1d, how: Fit) -> Double1d:
    """Fit a weight vector that moves with the profile: shape ``(d + p * own,)``."""
    items = [
        (widen(phi, known, how.own), worth)
        for user in users
        for (phi, worth), known in zip(user.items, user.known, strict=True)
    ]
    held = np.full(len(centre) - len(how.ridge), how.hold)
    prior = Prior(centre, np.diag(np.concatenate((how.ridge, held))), how.tau)
    groups = Groups.stack(items, dim=len(centre)).informative()
    return ConditionalLogit(prior).fit(groups).weight_


def fit_joint(users: Sequence[Rows], centre: Double1d, how: Fit) -> Double1d:
    """Fit a shared weight vector together with one of its own for every user; return the shared.

    Block by block: given the shared one each user's is a fit of its own, given these the shared
    one is a weighted mean. The loss is convex, so it ends where a fit of all at once would.
    """
    groups = [Groups.stack(user.items, dim=len(centre)).informative() for user in users]
    groups = [g for g in groups if g.n_groups]
    shared = centre
    for _ in range(MOST_ROUNDS):
        prior = Prior(shared, np.eye(len(shared)) * FREE, how.tau)
        own = [ConditionalLogit(prior).fit(g).weight_ for g in groups]
        pull = how.ridge + FREE * len(own)
        moved = (how.ridge * centre + FREE * np.sum(own, axis=0)) / pull if own else centre
        step = float(np.linalg.norm(moved - shared))
        shared = moved
        if step <= _SETTLED * (1.0 + float(np.linalg.norm(shared))):
            break
    return shared


FITS = {"plain": fit_plain, "amortized": fit_amortized, "joint": fit_joint}


def fit_stages(
    way: Way, stages: Sequence[tuple[Sequence[Rows], Double1d]], tau: float, hold: float, own: int
) -> Double2d:
    """Fit material after material, each around what the one before taught.

    Parameters
    ----------
    stages
        Users, and the ridge of each weight, shape ``(d,)``. A stage without users is passed over.
    own
        How many of the features are interpretable.

    Returns
    -------
    Double2d
        Shape ``(1 + p, d)``: a user's prior mean is ``[1, profile] @`` this.
    """
    d = len(stages[-1][1])
    known = next((u.known.shape[1] for users, _ in stages for u in users), 0)
    p = known if way == "amortized" else 0
    weight = np.zeros(d + p * own)
    for users, ridge in stages:
        if users:
            weight = FITS[way](users, weight, Fit(tau, ridge, hold, own))
    out = np.zeros((1 + known, d))
    out[0] = weight[:d]
    if p:
        out[1:, :own] = weight[d:].reshape(p, own)
    return out


def mean_for(weights: Double2d, known: Double1d) -> Double1d:
    """Return the prior mean of a user with this profile, shape ``(d,)``."""
    if len(weights) == 1:  # of too few users for a fit, no profile was seen
        return np.asarray(weights[0])
    return np.asarray(weights[0] + known @ weights[1:])


def rows_of(user: str, task: str, items: Sequence[Item], scale: Scale, known: Double2d) -> Rows:
    """Scale a user's features as a device does."""
    return Rows(user, task, tuple((scale.apply(phi), worth) for phi, worth in items), known)
