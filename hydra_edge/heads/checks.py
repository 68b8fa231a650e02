"""Checks at the door of every head function that no other array needs (see ``matrices``).

Everything behind them assumes what they establish.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.matrices import ROUNDING
from hydra_edge.types import Double1d, Int1d


def checked_offsets(offsets: npt.ArrayLike, n_pairs: int) -> Int1d:
    """Return ``offsets`` as int64, strictly increasing from 0 to ``n_pairs``.

    Raises
    ------
    ShapeError
        If they are anything else.
    """
    raw = np.asarray(offsets)
    if raw.ndim != 1 or raw.size == 0 or not np.issubdtype(raw.dtype, np.integer):
        raise ShapeError(
            f"Offsets cannot be used: got shape {raw.shape} of {raw.dtype}; expected integers of "
            "shape (n_groups + 1,). Build groups with Groups.stack."
        )
    array = raw.astype(np.int64)
    if array[0] != 0 or array[-1] != n_pairs:
        raise ShapeError(
            f"Offsets cannot be used: got {array[0]} to {array[-1]}; expected 0 to the number of "
            f"pairs, {n_pairs}. Build groups with Groups.stack."
        )
    if np.any(np.diff(array) <= 0):
        first = int(np.argmax(np.diff(array) <= 0))
        raise ShapeError(
            f"Offsets do not increase: got {array[first]}, then {array[first + 1]} at group "
            f"{first}; expected at least one candidate in every group. Leave out empty queries."
        )
    return array


def checked_scale(scale: float) -> float:
    """Return a factor on the prior precision, which must lie in [1e-9, 1e9].

    Raises
    ------
    ShapeError
        If it does not.
    """
    if not 1e-9 <= scale <= 1e9:
        raise ShapeError(
            f"Prior scale cannot be used: got {scale!r}; expected a number from 1e-9 to 1e9. "
            "1.0 is the prior as the base states it."
        )
    return float(scale)


def within_unit(what: str, values: Double1d) -> None:
    """Refuse values outside [0, 1], but for rounding.

    Raises
    ------
    ShapeError
        If any is outside.
    """
    if values.size and not -ROUNDING <= values.min() <= values.max() <= 1.0 + ROUNDING:
        raise ShapeError(
            f"{what} are out of range: got {float(values.min()):g} to {float(values.max()):g}; "
            "expected 0 to 1. Scale them first."
        )
