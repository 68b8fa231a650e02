"""The arrays of a base: feature scaling, learned maps, classifiers, head priors.

Owns which arrays there are and what shapes and values they may have. It does not know what a
feature means, only how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from hydra_edge.bundle.manifest import GET_AGAIN
from hydra_edge.errors import BundleError, ShapeError
from hydra_edge.matrices import LARGEST, symmetric
from hydra_edge.types import Kind, Role

_GAIN_NAME = re.compile(r"(?P<role>[a-z]+)\.gain\.(?P<group>.+)")
_SHARE_NAME = re.compile(r"adapter\.zero_shot\.(?P<group>.+)")
_HALF_AT = "adapter.half_at"
_PRIOR_NAME = re.compile(r"(?P<role>[a-z]+)\.prior\.(?P<group>.+)\.(mean|precision|tau)")


def parse_maps(content: bytes, *, source: Path) -> dict[str, npt.NDArray[Any]]:
    """Read named arrays from the bytes of a safetensors file.

    Raises
    ------
    BundleError
        If the bytes are not such a file, or hold types numpy has not.
    """
    import safetensors.numpy
    from safetensors import SafetensorError

    try:
        return safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise BundleError(
            f"{source} is not a safetensors file this release reads ({err}); expected named "
            f"float32 arrays. {GET_AGAIN}"
        ) from err


def check_maps(
    maps: Mapping[str, npt.NDArray[Any]],
    features: Mapping[Role, tuple[str, ...]],
    dim: int,
    closed_sets: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    *,
    source: Path,
) -> None:
    """Check the arrays of a base against the names of its features.

    Parameters
    ----------
    maps
        For each role, with ``d`` its number of features, all float32 and finite:
        ``<role>.scale.mean`` and ``<role>.scale.std`` (> 0), shape ``(d,)``; optionally
        ``<role>.map.query`` and ``<role>.map.other``, shape ``(k, dim)``; for each kind, and
        for any task, ``<role>.prior.<group>.mean`` ``(d,)``, ``.precision`` ``(d, d)``
        (symmetric, positive definite) and ``.tau`` ``(1,)`` (> 0); optionally for each of these
        groups ``<role>.gain.<group>`` ``(2, 3)``: what training users gained by the shared head
        over the baseline and by their own over the shared one, each as mean, spread over users
        (> 0), and noise of a query (> 0); optionally ``adapter.zero_shot.<group>`` ``(1,)``,
        the share of a pool that is best drawn with no record shown (0 to 0.5); optionally
        ``adapter.half_at`` ``(1,)``, how many records it takes until half of what they say of a
        free text is believed (>= 0). For each task of ``closed_sets``, with ``l`` answers:
        ``adapter.classifier.<task>.weight`` ``(l, dim)`` and ``.bias`` ``(l,)``.
    source
        The file to complain about.

    Raises
    ------
    BundleError
        If an array is missing, unknown, misshapen, or holds what it must not.
    """
    for name, array in maps.items():
        if array.dtype != np.float32:
            _fail(source, name, f"has type {array.dtype}", "float32")
        if not (np.abs(array) <= LARGEST).all():  # as NaN is not
            _fail(source, name, f"holds NaN or values beyond {LARGEST:g}", "finite numbers")
    expected: dict[str, tuple[int, ...]] = {}
    for role in get_args(Role):
        expected |= _expected_shapes(maps, role, len(features[role]), dim)
    for task, labels in closed_sets.items():
        expected[f"adapter.classifier.{task}.weight"] = (len(labels), dim)
        expected[f"adapter.classifier.{task}.bias"] = (len(labels),)
    for name, shape in sorted(expected.items()):
        _check_array(maps, name, shape, source)
    unknown = sorted(set(maps) - set(expected))
    if unknown:
        _fail(source, unknown[0], "is unknown", "only arrays this release reads")


def _fail(source: Path, name: str, found: str, expected: str) -> NoReturn:
    raise BundleError(
        f"{source}: array {name!r} {found}; expected {expected}. Use a base made for this release."
    )


def _expected_shapes(
    maps: Mapping[str, npt.NDArray[Any]], role: Role, d: int, dim: int
) -> dict[str, tuple[int, ...]]:
    """Say which arrays a role must have, given those it has beyond the required ones."""
    shapes: dict[str, tuple[int, ...]] = {f"{role}.scale.mean": (d,), f"{role}.scale.std": (d,)}
    groups = set(get_args(Kind))
    for name in maps:
        match = _PRIOR_NAME.fullmatch(name)
        if match and match["role"] == role:
            groups.add(match["group"])
    for group in groups:
        shapes[f"{role}.prior.{group}.mean"] = (d,)
        shapes[f"{role}.prior.{group}.precision"] = (d, d)
        shapes[f"{role}.prior.{group}.tau"] = (1,)
    for name in maps:
        match = _GAIN_NAME.fullmatch(name)
        if match and match["role"] == role and match["group"] in groups:
            shapes[name] = (2, 3)
        match = _SHARE_NAME.fullmatch(name)
        if match and role == "adapter" and match["group"] in groups:
            shapes[name] = (1,)
    if role == "adapter" and _HALF_AT in maps:
        shapes[_HALF_AT] = (1,)
    sides = (f"{role}.map.query", f"{role}.map.other")
    if any(side in maps for side in sides):
        # Both are needed, equally long; one row is asked of what has no length at all.
        k = max((len(maps[s]) for s in sides if s in maps and maps[s].ndim), default=1)
        shapes |= dict.fromkeys(sides, (k, dim))
    return shapes


def _check_array(
    maps: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...], source: Path
) -> None:
    if name not in maps:
        _fail(source, name, "is missing", f"an array of shape {shape}")
    array = maps[name]
    if array.shape != shape:
        _fail(source, name, f"has shape {array.shape}", f"shape {shape}")
    if name.endswith((".std", ".tau")) and not (array > 0).all():
        _fail(source, name, "holds values not above 0", "positive numbers")
    if _GAIN_NAME.fullmatch(name) and not (array[:, 1:] > 0).all():
        _fail(source, name, "holds deviations not above 0", "positive ones")
    if _SHARE_NAME.fullmatch(name) and not ((array >= 0) & (array <= 0.5)).all():
        _fail(source, name, f"is {array.tolist()}", "a share from 0 to 0.5")
    if name == _HALF_AT and not (array >= 0).all():
        _fail(source, name, f"is {array.tolist()}", "a number of records, 0 or more")
    if name.endswith(".precision"):
        try:
            symmetric(f"array {name!r}", array, len(array))
        except ShapeError as err:
            raise BundleError(f"{source}: {err}") from err
