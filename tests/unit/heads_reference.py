"""Random problems, and the head's objective written the slow and obvious way."""

import numpy as np

from hydra_edge.heads import Groups, Prior
from hydra_edge.heads.loo import leave_one_out
from hydra_edge.heads.objective import Problem, Solution


def make_prior(rng, dim, tau=0.3):
    root = rng.normal(size=(dim, dim))
    return Prior(rng.normal(size=dim) * 0.3, root @ root.T / dim + np.eye(dim), tau)


def make_groups(rng, n, dim, *, low=2, high=9, truth=None):
    """Ragged queries whose utilities follow ``truth`` (random if None) and noise."""
    truth = rng.normal(size=dim) if truth is None else truth
    items = []
    for size in rng.integers(low, high, size=n):
        x = rng.normal(size=(size, dim))
        score = x @ truth + rng.gumbel(size=size)
        items.append((x, 1.0 / (1.0 + np.exp(-score))))
    return Groups.stack(items, dim)


def each(groups, tau):
    """Iterate over (features, target) of every query, the slow and obvious way."""
    for g in range(groups.n_groups):
        rows = slice(groups.offsets[g], groups.offsets[g + 1])
        if groups.targets is None:
            mass = np.exp(groups.utilities[rows] / tau)
            target = mass / mass.sum()
        else:
            target = groups.targets[rows]
        yield groups.features[rows], target


def softmax(scores):
    mass = np.exp(scores - scores.max())
    return mass / mass.sum()


def reference_loss(w, prior, groups, scale=1.0):
    total = 0.5 * scale * (w - prior.mean) @ prior.precision @ (w - prior.mean)
    for x, target in each(groups, prior.tau):
        total -= target @ np.log(softmax(x @ w))
    return total


def reference_parts(w, prior, groups):
    """Per query: gradient (n, d) and Hessian (n, d, d) of its own loss, in plain coordinates."""
    gradients, hessians = [], []
    for x, target in each(groups, prior.tau):
        p = softmax(x @ w)
        gradients.append(x.T @ (p - target))
        hessians.append(x.T * p @ x - np.outer(p @ x, p @ x))
    return np.array(gradients), np.array(hessians)


def reference_gradient(w, prior, groups, scale=1.0):
    gradients, _ = reference_parts(w, prior, groups)
    return gradients.sum(axis=0) + scale * prior.precision @ (w - prior.mean)


def solution_at(problem, weight):
    """What a fit that ended at these weights would have found."""
    v = (weight - problem.mean) @ problem.root
    log_p = problem.log_probability(problem.scores(v))
    return Solution(v, problem.hessian(np.exp(log_p)), np.exp(log_p), 0.0, 0, True)


def left_out(head, groups):
    """Weights that have not seen each query (n, d), beside those of a head."""
    problem = Problem.of(head.prior, groups)
    return leave_one_out(problem, head.prior_scale, solution_at(problem, head.weight_))


def finite_differences(function, at, step=1e-5):
    columns = [
        (function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(at.size)
    ]
    return np.array(columns)
