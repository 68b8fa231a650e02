"""What can be said of rows from a sample of users: everything is resampled by user.

Queries of one user are not independent, so a user is the unit of every interval. Owns no
row's name; refuses to average away users: each counts the same, however many queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.intervals import TAILS, wider
from hydra_edge.evaluate import CONFIDENCE
from hydra_edge.heads import one_sided_low
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Double1d
from hydra_edge.utility import relative_gain

DRAWS = 4000

# Utilities of one row: an array a user, one value a query.
PerUser = Sequence[Double1d]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users with its 90 % bootstrap interval; that of one user has no bounds."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return it for JSON; a bound that is not there is None."""
        return {"mean": self.mean, "low": finite(self.low), "high": finite(self.high)}


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of users, [0, 1]."""

    helped: float
    harmed: float


def means(row: PerUser) -> Double1d:
    """Return every user's mean utility, shape ``(n_users,)``."""
    return np.array([float(np.mean(user)) for user in row], dtype=np.float64)


def bootstrap(values: Double1d, *, seed: int, draws: int = DRAWS) -> Interval:
    """Return the mean of one value a user and its interval, resampling users."""
    mean, scale = float(values.mean()), wider(len(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = (mean + (float(bound) - mean) * scale for bound in np.quantile(drawn, TAILS))
    return Interval(mean, low, high)


def paired(ours: PerUser, theirs: PerUser, *, seed: int) -> Interval:
    """Return the mean difference of two rows over the same users and queries.

    Utilities are within [0, 1], so that no difference is beyond 1 on either side.
    """
    found = bootstrap(means(ours) - means(theirs), seed=seed)
    if len(ours) < 2:
        return found
    return Interval(found.mean, max(found.low, -1.0), min(found.high, 1.0))


def relative(ours: PerUser, theirs: PerUser, task: TaskSpec, *, seed: int) -> Interval:
    """Return the relative gain of one row over another with its interval.

    It is the ratio of the means, so that both are resampled together. Bounds may be infinite:
    a baseline of zero has no ratio. None loses more than all of a
    utility, or of an error.
    """
    a, b = means(ours), means(theirs)
    gain, scale = relative_gain(float(a.mean()), float(b.mean()), task), wider(len(a))
    if len(a) < 2:
        return Interval(gain, -math.inf, math.inf)
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(a), (DRAWS, len(a)))
    pairs = zip(a[index].mean(axis=1).tolist(), b[index].mean(axis=1).tolist(), strict=True)
    drawn = np.array([relative_gain(x, y, task) for x, y in pairs])
    # No interpolation: between two infinities there is no number.
    low, high = np.quantile(drawn, TAILS, method="inverted_cdf")
    if not math.isfinite(gain):
        return Interval(gain, float(low), float(high))
    low, high = (gain + (float(bound) - gain) * scale for bound in (low, high))
    if task.kind == "rating":
        return Interval(gain, low, min(high, 1.0))
    return Interval(gain, max(low, -1.0), high)


def helped_and_harmed(ours: PerUser, theirs: PerUser) -> Shares:
    """Return the shares of users helped and harmed.

    A user is helped (harmed) if the one-sided 80 % lower (upper) bound of their own mean
    paired difference is above (below) 0. Of two rows that are as good as each other, a
    fifth to a quarter of the users with five queries are helped so, and as many harmed: chance.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    helped = [one_sided_low(d, CONFIDENCE) > 0.0 for d in differences]
    harmed = [one_sided_low(-d, CONFIDENCE) > 0.0 for d in differences]
    return Shares(float(np.mean(helped)), float(np.mean(harmed)))


def headroom(ours: float, floor: float, ceiling: float) -> float | None:
    """Return the share of the way from floor to ceiling; None where there is no way.

    It may exceed 1: a closed set holds answers that were never sampled.
    """
    room = ceiling - floor
    return (ours - floor) / room if room > 0.0 else None


def finite(value: float | None) -> float | None:
    """Return a number JSON can hold; None for infinity and for none."""
    return value if value is not None and math.isfinite(value) else None
