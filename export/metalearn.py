"""Learned feature maps, trained so that the head fitted on the device ranks well.

For each training user, the earlier queries are the support: a head is fitted on them by a few
Newton steps, unrolled; it ranks the later queries, and their loss flows back through the fit
into the maps and into the prior (Bertinetto et al., ICLR 2019; Lee et al., CVPR 2019). Users
are sampled, never records. Needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from export.episodes import Maps, UserEpisodes
from export.priors import Scale
from hydra_edge.types import Progress

Tensor = torch.Tensor
_HIDDEN = -1e9  # the score of padding


@dataclass(frozen=True, slots=True)
class Recipe:
    """How maps are trained; ``k`` learned features a side."""

    k: int = 16
    steps: int = 150
    users: int = 8  # a task and step
    queries: int = 16  # of a user, the first half of which is support
    newton: int = 2
    map_rate: float = 0.01
    head_rate: float = 0.05
    decay: float = 0.01
    start: float = 0.5  # deviation of the maps' random start


def log_softmax(features: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Score candidates ``(b, g, m, d)`` by ``(b, d)`` weights: log-probabilities ``(b, g, m)``."""
    scores = torch.einsum("bgmd,bd->bgm", features, weight)
    return torch.log_softmax(scores.masked_fill(~mask, _HIDDEN), dim=-1)


def cross_entropy(features: Tensor, weight: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each query's target under the head's choice, shape ``(b, g)``."""
    chosen = log_softmax(features, weight, mask).masked_fill(~mask, 0.0)
    return -(target * chosen).sum(-1)


def fit_head(
    features: Tensor,
    target: Tensor,
    mask: Tensor,
    counts: Tensor,
    mean: Tensor,
    precision: Tensor,
    *,
    steps: int,
) -> Tensor:
    """Fit heads by Newton steps that gradients flow through.

    Parameters
    ----------
    features
        Shape ``(b, g, m, d)``: users, queries, candidates, features; zero where padded.
    target, mask
        Shape ``(b, g, m)``; the target sums to 1 over a query's candidates.
    counts
        Shape ``(b, g)``: how much each query counts, 0 for none.
    mean, precision
        Shape ``(d,)``: the prior, its precision diagonal.

    Returns
    -------
    Tensor
        Shape ``(b, d)``.
    """
    weight = mean.expand(features.shape[0], -1)
    for _ in range(steps):
        p = log_softmax(features, weight, mask).exp() * counts[..., None]
        gradient = torch.einsum("bgm,bgmd->bd", p - target * counts[..., None], features)
        gradient = gradient + (weight - mean) * precision
        centre = torch.einsum("bgm,bgmd->bgd", p, features)
        spread = torch.einsum("bgm,bgmd,bgme->bde", p, features, features)
        hessian = spread - torch.einsum("bgd,bge->bde", centre, centre) + torch.diag(precision)
        weight = weight - torch.linalg.solve(hessian, gradient)
    return weight


@dataclass(frozen=True, eq=False)
class _Task:
    """A task's users as padded tensors; ``u`` users, ``g`` queries, ``m`` candidates."""

    features: Tensor  # (u, g, m, d0), scaled
    target: Tensor  # (u, g, m)
    mask: Tensor  # (u, g, m)
    counts: Tensor  # (u, g): 1 for a query that teaches something
    query: Tensor  # (u, g, dim)
    sides: tuple[Tensor, ...]  # each an index (u, g, m) into ``vectors``
    vectors: Tensor  # (n, dim)


def _tensors(users: Sequence[UserEpisodes], scale: Scale, tau: float) -> _Task:
    episodes = [user.episodes for user in users]
    u, g = len(users), max(len(e) for e in episodes)
    m = max(len(e.utilities) for of_user in episodes for e in of_user)
    first = episodes[0][0]
    d0, dim, n_sides = first.raw.shape[1], len(first.query), len(first.sides)
    features = torch.zeros(u, g, m, d0)
    target, mask = torch.zeros(u, g, m), torch.zeros(u, g, m, dtype=torch.bool)
    counts, query = torch.zeros(u, g), torch.zeros(u, g, dim)
    sides = tuple(torch.zeros(u, g, m, dtype=torch.long) for _ in range(n_sides))
    places: dict[bytes, int] = {}
    for i, of_user in enumerate(episodes):
        for j, e in enumerate(of_user):
            size = len(e.utilities)
            ready = scale.apply(e.raw)
            features[i, j, :size] = torch.from_numpy(ready - ready.mean(axis=0))
            worth = torch.from_numpy(e.utilities.astype(np.float32))
            target[i, j, :size] = torch.softmax(worth / tau, dim=0)
            mask[i, j, :size] = True
            counts[i, j] = float(np.ptp(e.utilities) > 1e-6)
            query[i, j] = torch.from_numpy(e.query)
            for side, rows in zip(sides, e.sides, strict=True):
                keys = [row.astype(np.float32).tobytes() for row in rows]
                side[i, j, :size] = torch.tensor([places.setdefault(k, len(places)) for k in keys])
    table = np.stack([np.frombuffer(key, dtype=np.float32) for key in places])
    return _Task(features, target, mask, counts, query, sides, torch.from_numpy(table.copy()))


def _with_maps(task: _Task, rows: Tensor, places: Tensor, p: Tensor, q: Tensor) -> _Task:
    """Take some users' queries, their features completed by the learned ones and centred."""

    def take(x: Tensor) -> Tensor:
        return x[rows][:, places]

    asked = take(task.query) @ p.T
    mask = take(task.mask)
    parts = [take(task.features)]
    other = task.vectors @ q.T
    parts += [other[take(side)] * asked[:, :, None, :] for side in task.sides]
    features = torch.cat(parts, dim=-1)
    size = mask.sum(-1).clamp(min=1)[..., None, None]
    centre = (features * mask[..., None]).sum(2, keepdim=True) / size
    features = (features - centre) * mask[..., None]
    return _Task(features, take(task.target), mask, take(task.counts), asked, (), task.vectors)


def learn_maps(
    users: Sequence[UserEpisodes],
    scale: Scale,
    taus: dict[str, float],
    *,
    recipe: Recipe,
    seed: int,
    report: Progress,
    stage: str = "maps",
) -> Maps:
    """Train maps that serve every task, each with a prior of its own.

    Parameters
    ----------
    users
        Training users of one role; a task's users have the same number of sides.
    scale
        Of the interpretable features.
    taus
        Temperature of the targets, by kind.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # sums in one order: the same seed gives the same maps
    rng = np.random.default_rng(seed)
    kinds = {u.task: u.kind for u in users}
    tasks = {
        name: _tensors([u for u in users if u.task == name and u.episodes], scale, taus[kind])
        for name, kind in sorted(kinds.items())
        if any(u.task == name and u.episodes for u in users)
    }
    dim = next(iter(tasks.values())).vectors.shape[1]
    p = torch.nn.Parameter(torch.randn(recipe.k, dim) * recipe.start)
    q = torch.nn.Parameter(torch.randn(recipe.k, dim) * recipe.start)
    width = {name: t.features.shape[-1] + recipe.k * len(t.sides) for name, t in tasks.items()}
    means = {name: torch.nn.Parameter(torch.zeros(d)) for name, d in width.items()}
    strengths = {name: torch.nn.Parameter(torch.full((d,), 3.0)) for name, d in width.items()}
    optimiser = torch.optim.Adam(
        [
            {"params": [p, q], "lr": recipe.map_rate},
            {"params": [*means.values(), *strengths.values()], "lr": recipe.head_rate},
        ]
    )
    for step in range(recipe.steps):
        loss = recipe.decay * (p.square().sum() + q.square().sum()) / recipe.k
        for name, task in tasks.items():
            n_users, n_queries = task.counts.shape
            rows = rng.choice(n_users, min(recipe.users, n_users), replace=False)
            places = np.sort(rng.choice(n_queries, min(recipe.queries, n_queries), replace=False))
            batch = _with_maps(task, torch.from_numpy(rows), torch.from_numpy(places), p, q)
            support, later = batch.counts.clone(), batch.counts.clone()
            support[:, len(places) // 2 :] = 0.0
            later[:, : len(places) // 2] = 0.0
            mean = means[name]
            own = fit_head(
                batch.features, batch.target, batch.mask, support, mean, strengths[name].exp(),
                steps=recipe.newton,
            )  # fmt: skip
            shared = mean.expand(len(rows), -1)
            for weight in (own, shared):
                losses = cross_entropy(batch.features, weight, batch.target, batch.mask)
                loss = loss + 0.5 * (losses * later).sum() / later.sum().clamp(min=1.0)
            loss = loss + 1e-3 * mean.square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        report(stage, step + 1, recipe.steps)
    return Maps(
        p.detach().numpy().astype(np.float32).copy(), q.detach().numpy().astype(np.float32).copy()
    )
