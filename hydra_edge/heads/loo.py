"""Leave one query out without refitting, and the strength of the prior chosen by it.

Owns what the gate needs to be honest on a user's own history: weights that have not seen the
query they score. Refuses to refit: one Newton step, leverage-corrected (design 5.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hydra_edge.errors import ShapeError
from hydra_edge.heads.checks import checked_scale
from hydra_edge.heads.groups import Groups, Prior
from hydra_edge.heads.logit import ConditionalLogit, require_dim
from hydra_edge.heads.objective import Problem, Solution, leave_one_out_steps, minimise
from hydra_edge.types import Double1d, Double2d

if TYPE_CHECKING:
    from concurrent.futures import Future

PRIOR_SCALES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, slots=True, eq=False)
class ScaleChoice:
    """The head fitted at the chosen prior scale.

    ``scores`` (n_pairs,) are those of weights that have not seen the query (``loo_scores``).
    ``loo_losses`` maps each scale tried to its mean cross-entropy per left-out query, nats;
    empty if there were no queries.
    """

    head: ConditionalLogit
    scale: float
    scores: Double1d
    loo_losses: Mapping[float, float]


def leave_one_out(head: ConditionalLogit, groups: Groups) -> Double2d:
    """Approximate the weights a fit without each query would give.

    One Newton step from the fitted weights on the objective without that query: its gradient
    and its Hessian are removed (Pregibon 1981; Rad and Maleki 2020). Exact where the loss is
    quadratic, and for a single query, which gives the prior's mean.

    Parameters
    ----------
    head
        Fitted on ``groups``.
    groups
        The queries it was fitted on.

    Returns
    -------
    Double2d
        Shape ``(n_groups, d)``, float64; row g has not seen query g.

    Raises
    ------
    ShapeError
        If the head was fitted on another number of queries or features.
    """
    require_dim(groups, head.prior)
    if groups.n_groups != head.n_groups_:
        raise ShapeError(
            f"Queries cannot be left out: got {groups.n_groups}; expected the "
            f"{head.n_groups_} that the head was fitted on. Fit it on these groups first."
        )
    if groups.n_groups == 0:
        return np.zeros((0, head.prior.dim))
    problem = Problem.of(head.prior, groups)
    v = problem.from_weight(head.weight_)
    return problem.to_weight(leave_one_out_steps(problem, head.prior_scale, v))


def loo_scores(head: ConditionalLogit, groups: Groups) -> Double1d:
    """Score every candidate by weights that have not seen its query.

    Returns
    -------
    Double1d
        Shape ``(n_pairs,)``, nats.

    Raises
    ------
    ShapeError
        As ``leave_one_out``.
    """
    return _own_scores(groups.features, leave_one_out(head, groups), groups)


def _own_scores(features: Double2d, weights: Double2d, groups: Groups) -> Double1d:
    sizes = groups.sizes
    if sizes.size and np.all(sizes == sizes[0]):
        rows = features.reshape(sizes.size, sizes[0], -1)
        return np.asarray(np.einsum("gij,gj->gi", rows, weights)).reshape(-1)
    result: Double1d = np.einsum("ij,ij->i", features, np.repeat(weights, sizes, axis=0))
    return result


def choose_prior_scale(
    prior: Prior, groups: Groups, scales: Sequence[float] = PRIOR_SCALES
) -> ScaleChoice:
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
    scales
        Factors on the prior's precision; at least one.

    Raises
    ------
    ShapeError
        If there is no scale, one is not positive, or groups and prior disagree.

    Examples
    --------
    >>> prior = Prior(np.zeros(1), np.eye(1), tau=0.1)
    >>> query = (np.array([[1.0], [0.0]]), np.array([1.0, 0.0]))
    >>> choose_prior_scale(prior, Groups.stack([query] * 30, dim=1)).scale
    0.3
    """
    require_dim(groups, prior)
    ordered = sorted({checked_scale(scale) for scale in scales}, reverse=True)
    if not ordered:
        raise ShapeError(
            "Prior scale cannot be chosen: got no scales; expected at least one. "
            "Pass 1.0 to keep the prior as the base states it."
        )
    if groups.n_groups == 0:
        head = ConditionalLogit(prior, prior_scale=ordered[0])
        return ScaleChoice(head, ordered[0], np.zeros(0), {})
    problem = Problem.of(prior, groups)
    start: Double1d | Solution = problem.from_weight(prior.mean)
    heads: list[ConditionalLogit] = []

    def left_out(scale: float, found: Solution) -> Double1d:
        without = problem.to_weight(leave_one_out_steps(problem, scale, found.v, found))
        return _own_scores(groups.features, without, groups)

    from concurrent.futures import ThreadPoolExecutor

    # Queries are left out of one fit while the next is made: both are products of matrices,
    # during which Python's lock is free.
    with ThreadPoolExecutor(max_workers=1) as beside:
        waiting: list[Future[Double1d]] = []
        for scale in ordered:  # from strong to weak: each optimum is the next one's start
            start = minimise(problem, scale, start)
            heads.append(ConditionalLogit(prior, prior_scale=scale).take(problem, start))
            waiting.append(beside.submit(left_out, scale, start))
        scores = [done.result() for done in waiting]
    losses = [problem.cross_entropy(problem.log_probability(own)) for own in scores]
    means = [_mean(loss, problem.weights) for loss in losses]
    lowest = int(np.argmin(means))
    chosen = next(
        i for i, loss in enumerate(losses) if _is_level(loss - losses[lowest], problem.weights)
    )
    return ScaleChoice(
        heads[chosen], ordered[chosen], scores[chosen], dict(zip(ordered, means, strict=True))
    )


def _mean(values: Double1d, weights: Double1d) -> float:
    total = float(weights.sum())
    return float(weights @ values) / total if total > 0.0 else float(values.mean())


def _is_level(worse_by: Double1d, weights: Double1d) -> bool:
    """Whether a weighted mean is within one standard error of 0 (a single value always is)."""
    mean, n = _mean(worse_by, weights), worse_by.size
    total = float(weights.sum())
    if n < 2 or total <= 0.0:
        return True
    squares = float(weights**2 @ (worse_by - mean) ** 2) / total**2
    # Differences of rounding alone are a tie.
    return mean <= math.sqrt(squares * n / (n - 1)) + 1e-12
