"""What the gate rests on: a lower bound of a mean gain, and whether a head says anything.

Owns Student's t without scipy. Refuses to decide: ``evaluate`` compares bounds with 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.heads.checks import checked_offsets
from hydra_edge.matrices import checked

# Scores are log-odds: a spread of 0.001 moves the odds of two candidates by one in a thousand.
_COLLAPSED_STD = 1e-3


def is_collapsed(scores: npt.ArrayLike, offsets: npt.ArrayLike) -> bool:
    """Say whether a head tells no candidates apart.

    Parameters
    ----------
    scores
        Shape ``(n_pairs,)``, nats.
    offsets
        Shape ``(n_groups + 1,)``.

    Returns
    -------
    bool
        True if the standard deviation within queries, pooled over those with at least two
        candidates, is below 0.001; also where there is no such query.

    Raises
    ------
    ShapeError
        If the two disagree.

    Examples
    --------
    >>> is_collapsed([5.0, 5.0, -2.0, -2.0], [0, 2, 4])
    True
    """
    values = checked("Scores", scores, (None,))
    bounds = checked_offsets(offsets, values.size)
    sizes = np.diff(bounds)
    freedom = int((sizes - 1).sum())
    if freedom == 0:
        return True
    means = np.add.reduceat(values, bounds[:-1]) / sizes
    squares = float(np.sum((values - np.repeat(means, sizes)) ** 2))
    return math.sqrt(squares / freedom) < _COLLAPSED_STD


def one_sided_low(differences: npt.ArrayLike, level: float) -> float:
    """Bound the mean of paired differences from below (Student's t).

    Parameters
    ----------
    differences
        Shape ``(n,)``; one a query.
    level
        Confidence in (0, 1).

    Returns
    -------
    float
        mean - t_{level, n-1} * standard error; -inf for fewer than two differences.

    Raises
    ------
    ShapeError
        If a difference is not finite, or ``level`` is not within (0, 1).

    Examples
    --------
    >>> round(one_sided_low([0.1, 0.3, 0.2, 0.0], 0.8), 4)
    0.0868
    """
    values = checked("Differences", differences, (None,))
    quantile = student_t_quantile(level, max(values.size - 1, 1))
    if values.size < 2:
        return float("-inf")
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    return float(values.mean()) - quantile * error


@dataclass(frozen=True, slots=True)
class PopulationGain:
    """What a head gained over another for the users a base was trained on (all in utility).

    ``mean`` over users, ``spread`` (> 0) the deviation of users' true gains around it, ``noise``
    (> 0) that of a single query's difference within a user.
    """

    mean: float
    spread: float
    noise: float


@dataclass(frozen=True, slots=True)
class GainEstimate:
    """A user's mean gain as far as it is known, and the bound it exceeds with confidence."""

    mean: float
    low: float


# Queries a user needs before their own noise counts as much as the population's.
_NOISE_QUERIES = 8


def posterior_gain(
    differences: npt.ArrayLike, population: PopulationGain, level: float
) -> GainEstimate:
    """Estimate a user's gain from their own queries and from what other users gained.

    Normal-normal shrinkage: a user's true gain is drawn around the population's mean, each
    query shows it with noise. Without queries the population alone speaks; with many, the user.

    Parameters
    ----------
    differences
        Shape ``(n,)``, n >= 0; paired differences in utility, one a query.
    population
        What is known of other users.
    level
        One-sided confidence in (0, 1).

    Raises
    ------
    ShapeError
        If a difference is not finite, or ``level`` is not within (0, 1).

    Examples
    --------
    >>> others = PopulationGain(mean=0.05, spread=0.03, noise=0.2)
    >>> posterior_gain([], others, 0.8).low > 0
    True
    >>> posterior_gain([-0.1] * 40, others, 0.8).mean < 0
    True
    """
    values = checked("Differences", differences, (None,))
    # The normal quantile: Student's with so much freedom that the fourth digit is the same.
    quantile = student_t_quantile(level, 10_000)
    n = values.size
    certain = 1.0 / population.spread**2
    if n == 0:
        return GainEstimate(population.mean, population.mean - quantile * population.spread)
    squares = float(np.sum((values - values.mean()) ** 2))
    variance = (squares + _NOISE_QUERIES * population.noise**2) / (n - 1 + _NOISE_QUERIES)
    own = n / variance
    mean = (certain * population.mean + own * float(values.mean())) / (certain + own)
    return GainEstimate(mean, mean - quantile / math.sqrt(certain + own))


@lru_cache(maxsize=64)
def student_t_quantile(level: float, df: int) -> float:
    """Return t with P(T <= t) = level for Student's t with ``df`` degrees of freedom.

    Bisection on the regularised incomplete beta function; relative error below 1e-6.

    Raises
    ------
    ShapeError
        If ``level`` is not within (0, 1) or ``df`` is less than 1.

    Examples
    --------
    >>> round(student_t_quantile(0.8, 9), 4)
    0.8834
    """
    if not 0.0 < level < 1.0 or df < 1:
        raise ShapeError(
            f"t quantile does not exist: got level {level!r}, df {df!r}; expected a level "
            "between 0 and 1 and at least 1 degree of freedom. Use 0.8 for the gate."
        )
    if level == 0.5:
        return 0.0
    tail = 2.0 * min(level, 1.0 - level)  # P(|T| > t), which falls as t grows
    # With x = df / (df + t^2) in (0, 1): P(|T| > t) = I_x(df / 2, 1 / 2), growing in x.
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2.0) < high:  # until no float lies between
        if _incomplete_beta(df / 2.0, 0.5, middle) < tail:
            low = middle
        else:
            high = middle
    t = math.sqrt(df * (1.0 - high) / high)
    return t if level > 0.5 else -t


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b) by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast on the other side only
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    log_front = a * math.log(x) + b * math.log1p(-x)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / (a * _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Evaluate 1 + d1/(1 + d2/(1 + ...)) from the back."""
    value = 1.0
    # On this side of the mean it converges in some sqrt(max(a, b)) terms.
    for k in range(20 + 4 * math.isqrt(math.ceil(a + b)), 0, -1):
        m = k // 2
        if k % 2 == 0:
            d = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        else:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        value = 1.0 + d / value
    return value
