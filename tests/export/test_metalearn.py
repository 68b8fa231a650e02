"""The fit that gradients flow through: against the device's own fit, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export.episodes import Episode, UserEpisodes
from export.metalearn import Recipe, fit_head, learn_maps
from export.priors import Scale
from hydra_edge.heads import ConditionalLogit, Groups, Prior

TAU = 0.2


def problem(seed: int, queries: int = 5, m: int = 4, d: int = 3):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((queries, m, d))
    features -= features.mean(axis=1, keepdims=True)
    return features, rng.random((queries, m))


def as_batch(features: np.ndarray, utilities: np.ndarray):
    x = torch.tensor(features, dtype=torch.float64)[None]
    target = torch.softmax(torch.tensor(utilities / TAU), dim=-1)[None]
    mask = torch.ones(target.shape, dtype=torch.bool)
    return x, target, mask, torch.ones(target.shape[:2], dtype=torch.float64)


def test_fit_head_agrees_with_the_fit_of_the_device() -> None:
    features, utilities = problem(0)
    mean, precision = np.array([0.3, -0.2, 0.0]), np.array([1.0, 2.0, 4.0])
    prior = Prior(mean, np.diag(precision), TAU)
    pairs = list(zip(features, utilities, strict=True))
    expected = ConditionalLogit(prior).fit(Groups.stack(pairs, dim=3)).weight_
    found = fit_head(
        *as_batch(features, utilities), torch.tensor(mean), torch.tensor(precision), steps=12
    )
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)


def test_fit_head_gradient_agrees_with_finite_differences() -> None:
    features, utilities = problem(1)
    _, target, mask, counts = as_batch(features, utilities)
    mean = torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64, requires_grad=True)
    log_precision = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    x = torch.tensor(features, dtype=torch.float64, requires_grad=True)

    def fitted(x, mean, log_precision):
        return fit_head(x[None], target, mask, counts, mean, log_precision.exp(), steps=2)

    assert torch.autograd.gradcheck(fitted, (x, mean, log_precision), atol=1e-6)


def test_fit_head_padding_and_uncounted_queries_change_nothing() -> None:
    features, utilities = problem(2)
    x, target, mask, counts = as_batch(features, utilities)
    mean, precision = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    plain = fit_head(x, target, mask, counts, mean, precision, steps=3)
    wide = torch.cat([x, torch.zeros(1, 5, 2, 3, dtype=torch.float64)], dim=2)
    goal = torch.cat([target, torch.zeros(1, 5, 2, dtype=torch.float64)], dim=2)
    seen = torch.cat([mask, torch.zeros(1, 5, 2, dtype=torch.bool)], dim=2)
    padded = fit_head(wide, goal, seen, counts, mean, precision, steps=3)
    np.testing.assert_allclose(padded.numpy(), plain.numpy(), atol=1e-12)
    some = counts.clone()
    some[0, 3:] = 0.0
    fewer = fit_head(x[:, :3], target[:, :3], mask[:, :3], counts[:, :3], mean, precision, steps=3)
    left = fit_head(x, target, mask, some, mean, precision, steps=3)
    np.testing.assert_allclose(left.numpy(), fewer.numpy(), atol=1e-12)


def users_of_a_hidden_likeness(n: int, seed: int) -> list[UserEpisodes]:
    """Make users for whom the right candidate is told by vectors alone, in a hidden direction."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        episodes = []
        for position in range(12):
            query = rng.standard_normal(8).astype(np.float32)
            side = rng.standard_normal((5, 8)).astype(np.float32)
            score = (side[:, 0] * query[1]) + (side[:, 2] * query[3])
            utilities = (score == score.max()).astype(np.float32)
            raw = rng.standard_normal((5, 2)).astype(np.float32)
            episodes.append(Episode(position, raw, utilities, query, (side,)))
        out.append(UserEpisodes(f"u{i}", "task", "label", tuple(episodes)))
    return out


def test_learn_maps_finds_a_likeness_that_no_other_feature_tells() -> None:
    scale = Scale(np.zeros(2, np.float32), np.ones(2, np.float32))
    recipe = Recipe(k=4, steps=200, decay=0.001)

    def learned(users: list[UserEpisodes]):
        return learn_maps(
            users, scale, {"label": TAU}, recipe=recipe, seed=0, report=lambda *_: None
        )

    train = users_of_a_hidden_likeness(30, 0)
    maps = learned(train)
    items = [
        [(maps.of(e).astype(np.float64), e.utilities) for u in users for e in u.episodes]
        for users in (train, users_of_a_hidden_likeness(10, 1))
    ]
    prior = Prior(np.zeros(4), np.eye(4), TAU)
    weight = ConditionalLogit(prior).fit(Groups.stack(items[0], dim=4)).weight_
    right = np.mean([u[np.argmax(phi @ weight)] for phi, u in items[1]])
    assert right > 0.5  # one in five by chance
    again = learned(train)
    np.testing.assert_array_equal(again.query, maps.query)
