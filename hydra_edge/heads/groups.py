"""What a head is fitted on: candidates grouped by query, and the population prior.

Groups are ragged and stored flat: ``offsets[g]:offsets[g + 1]`` are the candidates of query
``g``. Refuses queries without candidates and priors that are not positive definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.heads.checks import checked_offsets, within_unit
from hydra_edge.matrices import LARGEST, ROUNDING, checked, symmetric
from hydra_edge.types import Bool1d, Double1d, Double2d, Int1d


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """What the population does and how much its users differ: w ~ N(mean, inv(precision)).

    Parameters
    ----------
    mean
        Shape ``(d,)``, float64; the shared head.
    precision
        Shape ``(d, d)``, float64, symmetric positive definite.
    tau
        Temperature that turns utilities into targets, > 0; small: only the best counts.

    Raises
    ------
    ShapeError
        If the shapes disagree, a value is not finite, ``tau`` is not positive, or
        ``precision`` is not positive definite.

    Examples
    --------
    >>> Prior(np.zeros(2), np.eye(2), tau=0.25).dim
    2
    """

    mean: Double1d
    precision: Double2d
    tau: float

    def __post_init__(self) -> None:
        mean = checked("Prior means", self.mean, (None,)).copy()
        precision = symmetric("Prior precision", self.precision, mean.size)
        if not 0.0 < self.tau <= LARGEST:
            raise ShapeError(
                f"Prior temperature cannot be used: got {self.tau!r}; expected a finite number "
                "above 0. Use a base from a trusted source."
            )
        for array in (mean, precision):
            array.setflags(write=False)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "precision", precision)
        object.__setattr__(self, "tau", float(self.tau))

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.mean.size


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Candidates of several queries, flat, with what each was worth.

    Parameters
    ----------
    features
        Shape ``(n_pairs, d)``; stored as float64.
    utilities
        Shape ``(n_pairs,)``, range ``[0, 1]``; agreement with what the user wrote.
    offsets
        Shape ``(n_groups + 1,)``, int64, strictly increasing from 0 to ``n_pairs``.
    targets
        Shape ``(n_pairs,)``, summing to 1 within each group, or None. Where given they are
        fitted instead of ``exp(utility / tau)``: one-hot for a pick.

    Raises
    ------
    ShapeError
        If shapes disagree, values are not finite or out of range, or a group is empty.
    """

    features: Double2d
    utilities: Double1d
    offsets: Int1d
    targets: Double1d | None = None

    def __post_init__(self) -> None:
        features = checked("Features", self.features, (None, None))
        n_pairs = features.shape[0]
        utilities = checked("Utilities", self.utilities, (n_pairs,))
        offsets = checked_offsets(self.offsets, n_pairs)
        within_unit("Utilities", utilities)
        if self.targets is not None:
            targets = checked("Targets", self.targets, (n_pairs,))
            within_unit("Targets", targets)
            sums = np.add.reduceat(targets, offsets[:-1]) if n_pairs else np.ones(0)
            if np.any(np.abs(sums - 1.0) > ROUNDING):
                worst = float(sums[np.argmax(np.abs(sums - 1.0))])
                raise ShapeError(
                    f"Targets do not fit: got a group that sums to {worst:g}; expected 1 in "
                    "every group. For a pick, set the chosen candidate to 1 and the rest to 0."
                )
            object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "utilities", utilities)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def stack(
        cls,
        items: Sequence[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]],
        dim: int,
        *,
        targets: Sequence[npt.NDArray[np.floating]] | None = None,
    ) -> Groups:
        """Build groups from one ``(features (m, dim), utilities (m,))`` pair per query.

        Parameters
        ----------
        items
            One pair a query; sizes may differ, none may be empty.
        dim
            Number of features; needed because ``items`` may be empty.
        targets
            One array of shape ``(m,)`` a query, or None.

        Raises
        ------
        ShapeError
            If an item's shapes disagree with each other or with ``dim``.

        Examples
        --------
        >>> query = (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]))
        >>> Groups.stack([query, query], dim=2).offsets
        array([0, 2, 4])
        """
        features = [
            checked(f"Features of query {i}", x, (None, dim)) for i, (x, _) in enumerate(items)
        ]
        utilities = [
            checked(f"Utilities of query {i}", u, (x.shape[0],))
            for i, (x, (_, u)) in enumerate(zip(features, items, strict=True))
        ]
        if targets is not None and len(targets) != len(items):
            raise ShapeError(
                f"Targets do not fit: got {len(targets)} arrays; expected one for each of the "
                f"{len(items)} queries. Give all of them or none."
            )
        sizes = np.array([x.shape[0] for x in features], dtype=np.int64)
        return cls(
            features=np.concatenate([np.zeros((0, dim)), *features]),
            utilities=np.concatenate([np.zeros(0), *utilities]),
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
            targets=None if targets is None else np.concatenate([np.zeros(0), *targets]),
        )

    @property
    def n_groups(self) -> int:
        """Number of queries."""
        return self.offsets.size - 1

    @property
    def dim(self) -> int:
        """Number of features."""
        return int(self.features.shape[1])

    @property
    def sizes(self) -> Int1d:
        """Number of candidates of each query, shape ``(n_groups,)``."""
        return np.diff(self.offsets)

    def target(self, tau: float) -> Double1d:
        """Return what is fitted: ``targets`` where given, else utilities at temperature tau."""
        if self.targets is not None:
            return self.targets
        return target_distribution(self.utilities, self.offsets, tau)

    def take(self, index: npt.ArrayLike) -> Groups:
        """Return the queries at ``index`` (integers or a mask), in that order.

        Raises
        ------
        ShapeError
            If the index does not address these groups.
        """
        try:
            # An empty list would be read as floats, which cannot address anything.
            wanted = np.asarray(index) if np.size(index) else np.zeros(0, dtype=np.int64)
            chosen = np.atleast_1d(np.arange(self.n_groups)[wanted])
        except IndexError as err:
            raise ShapeError(
                f"Groups cannot be taken: {err}. Expected a mask of length {self.n_groups}, or "
                f"integers below it."
            ) from err
        sizes = self.sizes[chosen]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
        pairs = np.repeat(self.offsets[chosen] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Groups(
            features=self.features[pairs],
            utilities=self.utilities[pairs],
            offsets=offsets,
            targets=None if self.targets is None else self.targets[pairs],
        )

    def teaches(self) -> Bool1d:
        """Say which queries teach something: shape ``(n_groups,)``.

        Not those with fewer than two candidates, or whose candidates are all worth the same in
        what a head is fitted to: the targets where they are given, else the utilities.
        """
        if self.n_groups == 0:
            return np.zeros(0, dtype=np.bool_)
        worth = self.utilities if self.targets is None else self.targets
        starts = self.offsets[:-1]
        spread = np.maximum.reduceat(worth, starts) - np.minimum.reduceat(worth, starts)
        return np.asarray(spread > 0.0)

    def informative(self) -> Groups:
        """Return the queries that teach something.

        Examples
        --------
        >>> flat = (np.ones((2, 1)), np.array([0.5, 0.5]))
        >>> told = (np.ones((2, 1)), np.array([0.5, 0.7]))
        >>> Groups.stack([flat, told], dim=1).informative().utilities
        array([0.5, 0.7])
        """
        return self.take(self.teaches())


def target_distribution(utilities: Double1d, offsets: Int1d, tau: float) -> Double1d:
    """Turn utilities into what the head is fitted to: exp(utility / tau), normalised per group.

    Parameters
    ----------
    utilities
        Shape ``(n_pairs,)``.
    offsets
        Shape ``(n_groups + 1,)``.
    tau
        Temperature > 0. As it nears 0 the best candidates share all the mass.

    Returns
    -------
    Double1d
        Shape ``(n_pairs,)``, summing to 1 within each group.

    Examples
    --------
    >>> target_distribution(np.array([1.0, 0.0, 0.3]), np.array([0, 2, 3]), tau=1e-9)
    array([1., 0., 1.])
    """
    values = checked("Utilities", utilities, (None,))
    bounds = checked_offsets(offsets, values.size)
    if not tau > 0.0:
        raise ShapeError(
            f"Temperature cannot be used: got {tau!r}; expected a number above 0. "
            "For only the best to count, take a small one such as 1e-6."
        )
    if values.size == 0:
        return values.copy()
    starts, sizes = bounds[:-1], np.diff(bounds)
    with np.errstate(over="ignore"):  # -inf is right here: exp makes it 0
        mass = np.exp((values - np.repeat(np.maximum.reduceat(values, starts), sizes)) / tau)
    result: Double1d = mass / np.repeat(np.add.reduceat(mass, starts), sizes)
    return result
