"""Choosing tokens from logits: greedy, top-k with temperature, and log-probabilities.

Pure numpy on one row of logits; knows nothing of models, and draws only from the generator
it is handed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hydra_edge.types import Float1d, Int1d

TOP_K = 40
# A row is looked at as this many lines above each other, whose columns' maxima say how high a
# token must stand to be among the k best: few reach it, and only these have to be sorted.
_LINES = 64
_COLDEST = 1e-3  # below, a division would overflow; the best token has it all anyway


def generator(seed: int) -> np.random.Generator:
    """Return the random source of one answer; any integer is a seed."""
    return np.random.default_rng(seed % 2**64)


def top_tokens(logits: Float1d, k: int) -> Int1d:
    """Return the k likeliest tokens, likeliest first.

    Parameters
    ----------
    logits
        Shape ``(n_vocab,)``, float32.
    k
        How many; a small vocabulary may have fewer.

    Returns
    -------
    Int1d
        Shape ``(min(k, n_vocab),)``, int64.
    """
    columns = len(logits) // _LINES
    if k <= columns:
        lines = logits[: columns * _LINES].reshape(_LINES, columns)
        peaks = lines.max(axis=0)
        # k columns have a token this high, so no lower one can be among the k best.
        least = np.partition(peaks, columns - k)[columns - k]
        tall = np.flatnonzero(peaks >= least)
        line, place = np.nonzero(lines[:, tall] >= least)
        rest = np.arange(columns * _LINES, len(logits))
        pool = np.concatenate([line * columns + tall[place], rest])
    else:
        pool = np.arange(len(logits))
    best = pool[np.argsort(-logits[pool], kind="stable")[:k]]
    return best.astype(np.int64, copy=False)


def log_total(logits: Float1d, scratch: Float1d | None = None) -> float:
    """Log of the sum of exponentials: what turns a logit into a log-probability (nats).

    ``scratch``, of the row's shape, is written over: a large row's own would cost more to get
    from the system than to fill.
    """
    peak = logits.max()
    weights = np.subtract(logits, peak, out=scratch)
    np.exp(weights, out=weights)
    return float(peak) + float(np.log(weights.sum(dtype=np.float64)))


def probabilities(logits: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float64]:
    """Return the softmax of a row at a temperature above 0; float64, sums to 1."""
    scaled = logits.astype(np.float64) / max(temperature, _COLDEST)
    weights: npt.NDArray[np.float64] = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    return weights


def draw(
    logits: npt.NDArray[np.floating], temperature: float, rng: np.random.Generator | None
) -> int:
    """Pick one place of a row: the best without a generator or at temperature 0, else at random.

    Exactly one uniform number is spent a draw, so the same seed walks the same way.
    """
    if rng is None or temperature <= 0.0:
        return int(logits.argmax())
    cumulated = np.cumsum(probabilities(logits, temperature))
    place = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
    return min(place, len(logits) - 1)
