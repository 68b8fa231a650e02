"""One user's head of the published method, as plain arrays: scoring needs no torch.

Owns the forward pass with dropout off. Fitting is in ``export.published.train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hydra_edge.errors import ShapeError
from hydra_edge.types import Float1d, Float2d, Int1d, Progress

TextPair = tuple[str, str]


class PairEncoder(Protocol):
    """Anything that turns pairs of texts into vectors."""

    def encode(self, pairs: Sequence[TextPair], *, progress: Progress | None = None) -> Float2d:
        """Return [CLS] vectors, shape ``(n_pairs, h)``, float32, in the order of ``pairs``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A fitted head: ``softmax(outer tanh(inner v + inner_bias) + outer_bias)``.

    ``inner`` (h, h), ``inner_bias`` (h,), ``outer`` (2, h), ``outer_bias`` (2,); float32.
    """

    inner: Float2d
    inner_bias: Float1d
    outer: Float2d
    outer_bias: Float1d

    @property
    def parameters(self) -> int:
        """How many numbers a user needs."""
        arrays = (self.inner, self.inner_bias, self.outer, self.outer_bias)
        return sum(array.size for array in arrays)

    @property
    def size_bytes(self) -> int:
        """What they take as float32."""
        return 4 * self.parameters

    def probability(self, vectors: Float2d) -> Float1d:
        """Return p(1) of [CLS] vectors, shape ``(n,)``, range ``[0, 1]``.

        Parameters
        ----------
        vectors
            Shape ``(n, h)``, float32.

        Raises
        ------
        ShapeError
            If they are of another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.inner_bias):
            raise ShapeError(
                f"Head: got vectors of shape {vectors.shape}; expected (n, "
                f"{len(self.inner_bias)}). Use the encoder the head was fitted on."
            )
        hidden = np.tanh(vectors @ self.inner.T + self.inner_bias)
        logits = (hidden @ self.outer.T + self.outer_bias).astype(np.float64)
        gap = np.clip(logits[:, 0] - logits[:, 1], -500.0, 500.0)
        return np.asarray(1.0 / (1.0 + np.exp(gap)), dtype=np.float32)


def best_first(probabilities: Float1d) -> Int1d:
    """Order by probability, highest first; equals stay as they were."""
    return np.argsort(-probabilities, kind="stable").astype(np.int64)
