"""Arrays of numbers from outside: finite and of the shape that is needed, or an error.

Refuses to repair: input that is wrong is named, not patched (only rounding, as by a trip through
float32, is let through). A base is checked by these when it is loaded, and a head when it is used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.types import Double2d

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
    unit = (unit + unit.T) / 2.0
    result: Double2d = (array + array.T) / 2.0
    if _is_positive(unit - _SINGULAR * np.eye(dim)):
        return result
    lowest = float(np.linalg.eigvalsh(unit)[0])
    if not lift or lowest <= -lift:
        raise ShapeError(
            f"{what} is not positive definite: got smallest eigenvalue {lowest:.2g} (unit "
            f"diagonal); expected more than 0. {trusted}"
        )
    return result + np.diag(2.0 * lift * diagonal)


def _is_positive(matrix: Double2d) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
