"""Training the published method: the encoder with everyone's heads, then a new user's head.

Owns the recipe and both loops. Deterministic given the seed, the threads and the data; torch's
global random state is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from export.published import AUTHORS_STEPS
from export.published.head import Head
from export.published.labels import Labelled
from export.published.model import CrossEncoder, Heads
from hydra_edge.errors import ShapeError
from hydra_edge.types import Float2d, Int1d, Progress

_MICRO = 16  # pairs whose activations are held at once; a batch's gradient is the sum of theirs


@dataclass(frozen=True, slots=True)
class Recipe:
    """The paper's optimization; ``least_steps`` adds epochs where 2 are fewer steps than that."""

    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    batch: int = 64
    epochs: int = 2
    dropout: float = 0.1
    least_steps: int = 0

    def epochs_over(self, n: int) -> int:
        """Return how often ``n`` pairs are gone through."""
        if n == 0:
            return 0
        return max(self.epochs, math.ceil(self.least_steps / math.ceil(n / self.batch)))

    def steps(self, n: int) -> int:
        """Return how many steps are taken over ``n`` pairs."""
        return self.epochs_over(n) * math.ceil(n / self.batch)


NEW_USER = Recipe(least_steps=AUTHORS_STEPS)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained encoder; mean loss (nats a pair) over the first and the last tenth of steps."""

    encoder: CrossEncoder
    steps: int
    loss_first: float
    loss_last: float


def train_base(
    source: Path,
    max_tokens: int,
    users: Sequence[Labelled],
    recipe: Recipe,
    *,
    seed: int,
    stage: str = "train",
    progress: Progress | None = None,
) -> Trained:
    """Train an encoder jointly with a head for each of ``users``; the heads are then dropped.

    Parameters
    ----------
    source
        A model folder to start from; it is not changed.
    users
        Each training user's pairs.

    Raises
    ------
    ShapeError
        If there is no pair, or the loss is not finite.
    """
    pairs = [(pair, user) for user, of_user in enumerate(users) for pair in of_user.pairs]
    if not pairs:
        raise ShapeError("Training: got no pair; expected some. Label more users or queries.")
    encoder = CrossEncoder.load(source, max_tokens)
    tokens = encoder.tokenize([(pair.first, pair.second) for pair, _ in pairs])
    labels = torch.tensor([pair.label for pair, _ in pairs])
    owner = torch.tensor([user for _, user in pairs])
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(len(users), encoder.width, recipe.dropout)
        optimizer = _optimizer([*encoder.model.parameters(), *heads.parameters()], recipe)
        encoder.model.train()
        for rows in _batches(len(pairs), recipe):
            optimizer.zero_grad()
            total = 0.0
            # Pairs of like length together: the same gradient with less padding.
            ordered = sorted(rows.tolist(), key=lambda i: len(tokens[i]))
            for start in range(0, len(ordered), _MICRO):
                part = ordered[start : start + _MICRO]
                vectors = encoder.forward([tokens[i] for i in part])
                logits = heads(vectors, owner[part])
                loss = cross_entropy(logits, labels[part], reduction="sum") / len(ordered)
                loss.backward()
                total += loss.item()
            optimizer.step()
            losses.append(_finite(total))
            if progress is not None:
                progress(stage, len(losses), recipe.steps(len(pairs)))
    encoder.model.eval()
    tenth = max(1, len(losses) // 10)
    first, last = np.mean(losses[:tenth]), np.mean(losses[-tenth:])
    return Trained(encoder, len(losses), float(first), float(last))


def fit_head(
    vectors: Float2d,
    labels: Int1d,
    recipe: Recipe = NEW_USER,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Head:
    """Fit a new user's head from a fresh start, on vectors of the frozen encoder.

    Parameters
    ----------
    vectors
        Shape ``(n, h)``, float32: [CLS] vectors of the user's pairs, dropout off.
    labels
        Shape ``(n,)``, 0 or 1. With no pair the head stays as it was drawn.

    Raises
    ------
    ShapeError
        If the two disagree, or the loss is not finite.
    """
    if vectors.ndim != 2 or labels.shape != vectors.shape[:1]:
        raise ShapeError(
            f"fit_head: got vectors {vectors.shape} and labels {labels.shape}; expected (n, h) "
            "and (n,). Encode exactly the labelled pairs."
        )
    given, wanted = torch.from_numpy(vectors.copy()), torch.from_numpy(labels.astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(1, vectors.shape[1], recipe.dropout).train()
        optimizer = _optimizer(list(heads.parameters()), recipe)
        for done, rows in enumerate(_batches(len(labels), recipe), start=1):
            optimizer.zero_grad()
            loss = cross_entropy(heads(given[rows], torch.zeros_like(rows)), wanted[rows])
            loss.backward()
            optimizer.step()
            _finite(loss.item())
            if progress is not None:
                progress("fit head", done, recipe.steps(len(labels)))
    return heads.head(0)


def _optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _batches(n: int, recipe: Recipe) -> Iterator[Tensor]:
    """Yield the rows of each step, every epoch in an order of its own."""
    for _ in range(recipe.epochs_over(n)):
        yield from torch.randperm(n).split(recipe.batch)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise ShapeError(
            f"Training: got a loss of {loss}; expected a finite one. Lower the learning rate."
        )
    return loss
