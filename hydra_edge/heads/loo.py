"""Leave one query out without refitting; what is chosen by it: the prior's strength, how far back.

Owns what the gate needs to be honest on a user's own history: weights that have not seen the
query they score. Refuses to refit: one Newton step, leverage-corrected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hydra_edge.heads.groups import Groups, Prior
from hydra_edge.heads.logit import ConditionalLogit, require_dim
from hydra_edge.heads.objective import Problem, Solution, minimise
from hydra_edge.types import Double1d, Double2d

if TYPE_CHECKING:
    from concurrent.futures import Future

# Factors on the prior's precision that are tried, from weak to strong.
PRIOR_SCALES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# The fewest latest queries that may speak against earlier ones: half of them judge the head.
SHORTEST_SPAN = 16
# Standard errors that a longer span must be worse by before what only it holds is left out: half
# of the evidence or more is lost, and each of several spans has its chance.
_SPAN_ERRORS = 2.0
# A group's leverage is below 1 but can round to it where the prior is weak beside the features.
_KEPT = 1.0 + 1e-9
# Doubles gathered at once in leave-one-out; bounds its memory to some 20 MB.
_CHUNK = 500_000


@dataclass(frozen=True, slots=True, eq=False)
class ScaleChoice:
    """The head fitted at the chosen prior scale.

    ``scores`` (n_pairs,), nats, are those of weights that have not seen the query, ``losses``
    (n_groups,), nats, the cross-entropy of each query's target under them.
    """

    head: ConditionalLogit
    scores: Double1d
    losses: Double1d


def leave_one_out(problem: Problem, scale: float, found: Solution) -> Double2d:
    """Approximate the weights a fit without each query would give.

    One Newton step from ``found`` on the objective without that query: its gradient and its
    Hessian are removed (Pregibon 1981; Rad and Maleki 2020). Exact where the loss is quadratic,
    and for a single query, which gives the prior's mean.

    With A the group's rows of ``spread``, H the full Hessian and R.R' = inv(H), the Hessian
    without the group is R'^-1 (I - Z'Z) R^-1 for Z = A.R, so only a system of the smaller of
    group size and d is solved, for all groups of one size at once. (n different sizes need
    n^2 / 2 pairs, so the loop over sizes is never the cost.)

    Returns
    -------
    Double2d
        Shape ``(n_groups, d)``, head weights; row g has not seen query g.
    """
    v, probability = found.v, found.probability
    residual = problem.residual(probability)
    values, vectors = np.linalg.eigh(found.hessian + scale * np.eye(v.size))
    root = vectors / np.sqrt(np.maximum(values, scale))
    # Each group's gradient, minus what is left of the whole one (0 at the optimum).
    rest = problem.features.T @ residual + scale * v
    moves = (problem.weighed(residual) - rest) @ root
    if problem.even:
        for groups in problem.parts:
            rows = problem.spread(probability, groups) @ root
            rows = rows.reshape(-1, problem.even, v.size)
            moves[groups] = _without_own_curvature(rows, moves[groups])
    else:
        spread = problem.spread(probability, slice(0, len(problem.sizes))) @ root
        for size in np.unique(problem.sizes):
            members = np.flatnonzero(problem.sizes == size)
            for part in np.array_split(members, 1 + members.size * size * v.size // _CHUNK):
                rows = spread[problem.starts[part][:, None] + np.arange(size)]  # (k, size, d)
                moves[part] = _without_own_curvature(rows, moves[part])
    return problem.to_weight(v + moves @ root.T)


def _without_own_curvature(rows: Double2d, moves: Double2d) -> Double2d:
    """Solve (I - Z'Z) x = b for stacked Z (k, m, d) and b (k, d); I - Z'Z is positive."""
    _, m, d = rows.shape
    turned = rows.transpose(0, 2, 1)
    if m >= d:
        kept = _KEPT * np.eye(d) - turned @ rows
        return np.asarray(np.linalg.solve(kept, moves[:, :, None])[:, :, 0], dtype=np.float64)
    kept = _KEPT * np.eye(m) - rows @ turned
    inner = np.linalg.solve(kept, rows @ moves[:, :, None])
    woodbury: Double2d = moves + (turned @ inner)[:, :, 0]
    return woodbury


def _own_scores(groups: Groups, weights: Double2d) -> Double1d:
    """Score every candidate by its own query's row of weights: shape ``(n_pairs,)``."""
    features, sizes = groups.features, groups.sizes
    if np.all(sizes == sizes[0]):
        rows = features.reshape(sizes.size, sizes[0], -1)
        return np.asarray(np.einsum("gij,gj->gi", rows, weights)).reshape(-1)
    result: Double1d = np.einsum("ij,ij->i", features, np.repeat(weights, sizes, axis=0))
    return result


def choose_prior_scale(prior: Prior, groups: Groups) -> ScaleChoice:
    """Choose how far to trust the population, by leave-one-query-out loss.

    The winner is the strongest prior whose loss is not worse than the lowest by more than one
    standard error of their difference over queries. Toward the stronger prior, because errors
    are not alike: too strong a prior returns the shared head, which is known to work, too
    weak a one returns a user's noise. No queries, or a single one, cannot tell scales apart
    and give the strongest.

    Parameters
    ----------
    prior
        As the base states it.
    groups
        The user's informative queries.

    Raises
    ------
    ShapeError
        If groups and prior disagree.

    Examples
    --------
    >>> prior = Prior(np.zeros(1), np.eye(1), tau=0.1)
    >>> query = (np.array([[1.0], [0.0]]), np.array([1.0, 0.0]))
    >>> choose_prior_scale(prior, Groups.stack([query] * 30, dim=1)).head.prior_scale
    0.3
    """
    require_dim(groups, prior)
    ordered = PRIOR_SCALES[::-1]
    if groups.n_groups == 0:
        return ScaleChoice(
            ConditionalLogit(prior, prior_scale=ordered[0]), np.zeros(0), np.zeros(0)
        )
    problem = Problem.of(prior, groups)
    found: Solution | None = None
    heads: list[ConditionalLogit] = []

    def left_out(scale: float, found: Solution) -> Double1d:
        return _own_scores(groups, leave_one_out(problem, scale, found))

    from concurrent.futures import ThreadPoolExecutor

    # Queries are left out of one fit while the next is made: both are products of matrices,
    # during which Python's lock is free.
    with ThreadPoolExecutor(max_workers=1) as beside:
        waiting: list[Future[Double1d]] = []
        for scale in ordered:  # from strong to weak: each optimum is the next one's start
            found = minimise(problem, scale, found)
            heads.append(ConditionalLogit(prior, prior_scale=scale).take(problem, found))
            waiting.append(beside.submit(left_out, scale, found))
        scores = [done.result() for done in waiting]
    losses = [problem.cross_entropy(problem.log_probability(own)) for own in scores]
    lowest = losses[int(np.argmin([loss.mean() for loss in losses]))]
    chosen = next(i for i, loss in enumerate(losses) if _is_level(loss - lowest))
    return ScaleChoice(heads[chosen], scores[chosen], losses[chosen])


def choose_span(prior: Prior, groups: Groups) -> int:
    """Choose how many of the latest queries to learn from, by leave-one-query-out loss.

    All of them, their latest half, the latest half of that, and so on: the longest span that
    no shorter one foretells its own queries better than, by more than two standard errors of the
    difference. Who does not change keeps everything; after a change of habit, what came before
    is dropped once ``SHORTEST_SPAN`` queries or more speak against it.

    Parameters
    ----------
    prior
        As the base states it.
    groups
        The user's queries, oldest first; those that teach nothing go with those around them.

    Returns
    -------
    int
        A number of groups, from the end.

    Raises
    ------
    ShapeError
        If groups and prior disagree.

    Examples
    --------
    >>> prior = Prior(np.zeros(1), np.eye(1), tau=0.1)
    >>> before = (np.array([[1.0], [0.0]]), np.array([1.0, 0.0]))
    >>> now = (np.array([[1.0], [0.0]]), np.array([0.0, 1.0]))
    >>> choose_span(prior, Groups.stack([before] * 40 + [now] * 24, dim=1))
    16
    >>> choose_span(prior, Groups.stack([before] * 60, dim=1))
    60
    """
    require_dim(groups, prior)
    teaching = np.flatnonzero(groups.teaches())
    spans = [teaching.size]
    while spans[-1] // 2 >= SHORTEST_SPAN:
        spans.append(spans[-1] // 2)
    if len(spans) == 1:
        return groups.n_groups
    losses = [choose_prior_scale(prior, groups.take(teaching[-span:])).losses for span in spans]
    chosen = next(
        i
        for i, longer in enumerate(losses)
        if all(
            _is_level(longer[-shorter.size :] - shorter, _SPAN_ERRORS)
            for shorter in losses[i + 1 :]
        )
    )
    return groups.n_groups - int(teaching[-spans[chosen]]) if chosen else groups.n_groups


def _is_level(worse_by: Double1d, errors: float = 1.0) -> bool:
    """Whether a mean is within so many standard errors of 0 (a single value always is)."""
    n = worse_by.size
    if n < 2:
        return True
    error = float(worse_by.std(ddof=1)) / math.sqrt(n)
    # Differences of rounding alone are a tie.
    return float(worse_by.mean()) <= errors * error + 1e-12
