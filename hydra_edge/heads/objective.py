"""The penalised conditional-logit objective, and Newton's steps to its optimum.

Owns the head's numerics on raw arrays; ``docs/adr/0002-head-maths.md`` has the
formulas. Everything happens in coordinates ``v`` where the prior is a unit Gaussian,
``w = mu + inv(C').v`` with ``Lambda = C.C'``: there the Hessian of scale s is ``s.I`` plus
data, so no eigenvalue lies below s whatever the features are. No loop runs over groups.
Refuses to check its input: ``Prior`` and ``Groups`` have.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hydra_edge.heads.groups import Groups, Prior
from hydra_edge.types import Double1d, Double2d, Int1d

_MAX_ITERATIONS = 100
# Squared Newton decrement, relative to 1 + loss: the distance to the optimum in the Hessian's
# norm is its root, and one more step would square it.
_CONVERGED = 1e-16
# Below this squared decrement, relative likewise, the curvature hardly changes any more: steps
# are taken with the one known, as long as each leaves less than a hundredth of the decrement.
_SETTLED = 1e-3
_STALE = 1e-2
# Sufficient decrease (Armijo), and what rounding may add to a sum over thousands of pairs.
_ARMIJO = 1e-4
_LOSS_ROUNDING = 1e-13
_MAX_HALVINGS = 60
# Added to a unit diagonal, so that rounding cannot make a matrix singular: in a healthy one it
# changes the twelfth digit of a step, not where the steps lead.
_JITTER = 1e-12
# Doubles looked at in one go: they stay in the cache of a core.
_PART = 50_000


def solve_positive(matrix: Double2d, rhs: Double1d) -> Double1d:
    """Solve ``matrix @ x = rhs`` for a positive (semi-)definite matrix; always finite.

    Parameters
    ----------
    matrix
        Shape ``(d, d)``, symmetric, with a positive diagonal.
    rhs
        Shape ``(d,)``, or ``(d, n)`` for as many at once.
    """
    scale = 1.0 / np.sqrt(np.diagonal(matrix))
    unit = matrix * scale[:, None] * scale
    unit[np.diag_indices_from(unit)] += _JITTER
    solved = np.linalg.solve(unit, (rhs.T * scale).T)
    return np.asarray((solved.T * scale).T, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Where Newton stopped: ``v`` (d,), data Hessian (d, d), and how it went.

    ``probability`` (n_pairs,) is that at ``v``.
    """

    v: Double1d
    hessian: Double2d
    probability: Double1d
    loss: float
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Groups in the coordinates of the prior; at least one group.

    ``features`` (n_pairs, d) are whitened and centred within each group (a constant added to
    a query's features changes no choice), ``base`` (n_pairs,) are scores at ``v = 0``.
    ``even`` is the size of all groups if they are of one size, else 0: sums over groups are
    then sums over an axis, several times faster. ``bounds`` (n_groups + 1,) are the groups'
    edges, ``parts`` slices of groups that a core's cache holds.
    """

    features: Double2d
    base: Double1d
    target: Double1d
    starts: Int1d
    sizes: Int1d
    even: int
    bounds: Int1d
    parts: tuple[slice, ...]
    root: Double2d
    root_inverse: Double2d
    mean: Double1d

    @classmethod
    def of(cls, prior: Prior, groups: Groups) -> Problem:
        """Whiten and centre; linear in the number of pairs."""
        starts, sizes = groups.offsets[:-1], groups.sizes
        even = int(sizes[0]) if np.all(sizes == sizes[0]) else 0
        means = _group_sums(groups.features, starts, even) / sizes[:, None]
        centred = groups.features - np.repeat(means, sizes, axis=0)
        step = max(1, _PART * len(sizes) // max(centred.size, 1))
        edges = [*range(0, len(sizes), step), len(sizes)]
        root = np.asarray(np.linalg.cholesky(prior.precision), dtype=np.float64)
        inverse = np.asarray(np.linalg.inv(root), dtype=np.float64)
        return cls(
            features=centred @ inverse.T,
            base=centred @ prior.mean,
            target=groups.target(prior.tau),
            starts=starts,
            sizes=sizes,
            even=even,
            bounds=groups.offsets,
            parts=tuple(itertools.starmap(slice, itertools.pairwise(edges))),
            root=root,
            root_inverse=inverse,
            mean=prior.mean,
        )

    def to_weight(self, v: Double2d | Double1d) -> Double2d | Double1d:
        """Map ``v``, shape ``(..., d)``, to head weights of the same shape."""
        return self.mean + v @ self.root_inverse

    def scores(self, v: Double1d) -> Double1d:
        """Scores of every pair at ``v``, up to a constant within each group."""
        result: Double1d = self.base + self.features @ v
        return result

    def log_probability(self, scores: Double1d) -> Double1d:
        """Log-softmax within each group; shapes ``(n_pairs,)``."""
        if self.even:
            table = scores.reshape(-1, self.even)
            table = table - table.max(axis=1, keepdims=True)
            table -= np.log(np.exp(table).sum(axis=1, keepdims=True))
            return np.asarray(table.reshape(-1))
        shifted = scores - self._spread_out(np.maximum.reduceat(scores, self.starts))
        total = np.log(np.add.reduceat(np.exp(shifted), self.starts))
        result: Double1d = shifted - self._spread_out(total)
        return result

    def cross_entropy(self, log_probability: Double1d) -> Double1d:
        """Cross-entropy of each group's target, nats, shape ``(n_groups,)``."""
        result: Double1d = -_group_sums(self.target * log_probability, self.starts, self.even)
        return result

    def loss(self, log_probability: Double1d, v: Double1d, scale: float) -> float:
        """Cross-entropy plus the prior's penalty ``scale |v|^2 / 2``."""
        data = float(self.cross_entropy(log_probability).sum())
        return data + 0.5 * scale * float(v @ v)

    def spread(self, probability: Double1d, part: slice) -> Double2d:
        """Return the rows sqrt(p) (x - E_p x) of some groups' pairs.

        Their outer products sum to the Hessian of the data. ``probability`` is that of all
        pairs; ``part`` says which groups.
        """
        pairs = slice(int(self.bounds[part.start]), int(self.bounds[part.stop]))
        sizes, starts = self.sizes[part], self.bounds[part] - pairs.start
        features, p = self.features[pairs], probability[pairs]
        # p sums to 1 only up to rounding, which a large common offset would amplify.
        total = _group_sums(p, starts, self.even)[:, None]
        mean = _weighed(features, p, starts, self.even) / total
        if self.even:
            rows = features.reshape(len(mean), self.even, -1) - mean[:, None, :]
            rows = rows.reshape(features.shape)
        else:
            rows = features - np.repeat(mean, sizes, axis=0)
        rows *= np.sqrt(p)[:, None]
        return rows

    def hessian(self, probability: Double1d) -> Double2d:
        """Return the Hessian of the data where pairs have these probabilities: ``(d, d)``."""
        total = np.zeros_like(self.root)
        for part in self.parts:
            rows = self.spread(probability, part)
            total += rows.T @ rows
        return total

    def weighed(self, weights: Double1d) -> Double2d:
        """Sum the features of each group's pairs times their weights: ``(n_groups, d)``."""
        return _weighed(self.features, weights, self.starts, self.even)

    def residual(self, probability: Double1d) -> Double1d:
        """Gradient of the loss by each pair's score, shape ``(n_pairs,)``: p - t."""
        result: Double1d = probability - self.target
        return result

    def _spread_out(self, per_group: Double1d) -> Double1d:
        return np.repeat(per_group, self.sizes)


def _group_sums(
    values: npt.NDArray[np.float64], starts: Int1d, even: int
) -> npt.NDArray[np.float64]:
    """Sum the rows of each group; ``even`` is the size of all groups, or 0."""
    if even:
        return np.asarray(values.reshape(-1, even, *values.shape[1:]).sum(axis=1))
    return np.asarray(np.add.reduceat(values, starts, axis=0))


def _weighed(features: Double2d, weights: Double1d, starts: Int1d, even: int) -> Double2d:
    if even:
        rows = features.reshape(len(starts), even, -1)
        return np.asarray(np.matmul(weights.reshape(-1, 1, even), rows)[:, 0])
    return np.asarray(np.add.reduceat(weights[:, None] * features, starts, axis=0))


def minimise(problem: Problem, scale: float, start: Solution | None = None) -> Solution:
    """Minimise the objective by damped Newton from the prior's mean, or from ``start``.

    What a solution for another scale knows of its own place is not computed again.

    The objective is strictly convex, so a backtracked Newton step always makes progress; it
    stops unconverged only when features are so large that rounding hides the progress.
    """
    iterations = 0
    v = np.zeros_like(problem.mean) if start is None else start.v
    scores = problem.scores(v)
    log_p = problem.log_probability(scores)
    loss = problem.loss(log_p, v, scale)
    probability = np.exp(log_p)
    hessian = problem.hessian(probability) if start is None else start.hessian
    # Whether the curvature is that at v; if not, up to which decrement it serves.
    fresh, allowed = True, 0.0
    while True:
        residual = problem.residual(probability)
        gradient = problem.features.T @ residual + scale * v
        step = -solve_positive(hessian + scale * np.eye(v.size), gradient)
        slope = float(gradient @ step)  # minus the squared Newton decrement
        converged = -slope <= _CONVERGED * (1.0 + loss)
        if not fresh and (converged or -slope > allowed):
            hessian, fresh = problem.hessian(probability), True
            continue
        if converged or iterations == _MAX_ITERATIONS:
            break
        direction = problem.features @ step
        length, slack = 1.0, _LOSS_ROUNDING * (1.0 + loss)
        for _ in range(_MAX_HALVINGS):
            new_v, new_scores = v + length * step, scores + length * direction
            new_log_p = problem.log_probability(new_scores)
            new_loss = problem.loss(new_log_p, new_v, scale)
            if new_loss <= loss + _ARMIJO * length * slope + slack:
                break
            length /= 2.0
        else:
            break
        v, scores, log_p, loss = new_v, new_scores, new_log_p, new_loss
        probability, fresh = np.exp(log_p), False
        settled = length == 1.0 and -slope <= _SETTLED * (1.0 + loss)
        allowed = -slope * _STALE if settled else 0.0
        iterations += 1
    if not fresh:
        hessian = problem.hessian(probability)
    return Solution(v, hessian, probability, loss, iterations, converged)
