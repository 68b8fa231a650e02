"""Checks at the door of every head function: finite arrays of matching shapes, or an error.

Everything behind them assumes what they establish. Refuses to repair: input that is wrong is
named, not patched (only rounding, as by a trip through float32, is let through).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.types import Double1d, Double2d, Int1d

# Beyond this a product of a few values may overflow float64; real features are within [-3, 3].
LARGEST = 1e30
# Inputs may have been through float32.
ROUNDING = 1e-5
# Relative to a matrix scaled to a unit diagonal: less than this is singular in float64.
_SINGULAR = 1e-12


def checked(
    what: str, values: npt.ArrayLike, shape: tuple[int | None, ...]
) -> npt.NDArray[np.float64]:
    """Return ``values`` as float64 of the given shape (None: any length), all finite.

    Raises
    ------
    ShapeError
        If the shape differs, or a value is not a finite number of magnitude up to 1e30.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise ShapeError(
            f"{what} cannot be read as numbers: {err}. Expected a rectangular array of floats."
        ) from err
    wanted = "(" + ", ".join("n" if n is None else str(n) for n in shape) + ")"
    if array.ndim != len(shape) or any(
        n is not None and n != m for n, m in zip(shape, array.shape, strict=True)
    ):
        raise ShapeError(
            f"{what} cannot be used: got shape {array.shape}; expected {wanted}. "
            "Compute them with the same base as the head."
        )
    # Written so that NaN fails: every comparison with NaN is false.
    if array.size and not (array.max() <= LARGEST and array.min() >= -LARGEST):
        bad = int(np.count_nonzero(~(np.abs(array) <= LARGEST)))
        raise ShapeError(
            f"{what} cannot be used: got {bad} values that are NaN, infinite or beyond "
            f"{LARGEST:g}; expected finite numbers. Look for the feature that made them."
        )
    return array


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


def symmetric(what: str, matrix: npt.ArrayLike, dim: int, *, lift: float = 0.0) -> Double2d:
    """Return a positive definite matrix of shape ``(dim, dim)``, made exactly symmetric.

    Parameters
    ----------
    what
        How the error calls it.
    matrix
        Shape ``(dim, dim)``.
    dim
        Number of features.
    lift
        What rounding (storage as float32) may have cost its eigenvalues, as a share of its
        diagonal. A matrix that is short of positive definite by less is raised by twice that.

    Raises
    ------
    ShapeError
        If it is not square of that size, not symmetric, or not positive definite.
    """
    array = checked(what, matrix, (dim, dim))
    trusted = "Use a base or head from a trusted source."
    if dim == 0:
        raise ShapeError(f"{what} cannot be used: got no features; expected some. {trusted}")
    diagonal = np.diagonal(array)
    if diagonal.min() <= 0.0:
        raise ShapeError(
            f"{what} is not positive definite: got {float(diagonal.min()):g} on its diagonal; "
            f"expected positive values only. {trusted}"
        )
    scale = 1.0 / np.sqrt(diagonal)
    unit = array * scale[:, None] * scale
    if np.any(np.abs(unit - unit.T) > ROUNDING):
        raise ShapeError(
            f"{what} is not symmetric: got entries that differ by "
            f"{float(np.abs(array - array.T).max()):g} from their mirror; expected a symmetric "
            f"matrix. {trusted}"
        )
    lowest = float(np.linalg.eigvalsh((unit + unit.T) / 2.0)[0])
    result: Double2d = (array + array.T) / 2.0
    if lowest >= _SINGULAR:
        return result
    if lowest <= -lift:
        raise ShapeError(
            f"{what} is not positive definite: got smallest eigenvalue {lowest:.2g} (unit "
            f"diagonal); expected more than 0. {trusted}"
        )
    return result + np.diag(2.0 * lift * diagonal)


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
