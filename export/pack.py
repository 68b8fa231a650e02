"""From an encoder and its maps to a bundle: a folder the device will trust.

Owns the writing side of the bundle format; the reading side (``hydra_edge.bundle``) checks the
result before it is moved into place. Equal inputs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from hydra_edge.bundle import Bundle, BundleFile, check_maps, compute_base_id, load_bundle
from hydra_edge.bundle.manifest import (
    ENCODER_FILE,
    FORMAT_VERSION,
    MANIFEST_FILE,
    MAPS_FILE,
    TOKENIZER_FILE,
)
from hydra_edge.errors import BundleError
from hydra_edge.features import FEATURE_VERSION
from hydra_edge.types import JsonDict, Kind, Role

CARD_FILE = "encoder.json"  # beside an exported encoder: what it is and how it was checked
NEUTRAL_TAU = 0.1
MAX_BUNDLE_BYTES = 25_000_000  # what a package may carry

Maps = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Card:
    """What an exported encoder says of itself."""

    dim: int
    pooling: str
    max_tokens: int
    parity: JsonDict
    provenance: JsonDict

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(_json(vars(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Card:
        """Read it back.

        Raises
        ------
        BundleError
            If the file is not such a card.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as err:
            raise BundleError(
                f"{path} is not the card of an exported encoder ({err}). "
                "Make one with: python -m export encoder."
            ) from err


def neutral_maps(features: Mapping[Role, Sequence[str]]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the maps of a base that knows nothing of people.

    Features are not scaled; every kind's prior is a standard normal and its ``tau`` 0.1.
    """
    maps: dict[str, npt.NDArray[np.float32]] = {}
    for role in get_args(Role):
        d = len(features[role])
        maps[f"{role}.scale.mean"] = np.zeros(d, np.float32)
        maps[f"{role}.scale.std"] = np.ones(d, np.float32)
        for kind in get_args(Kind):
            maps[f"{role}.prior.{kind}.mean"] = np.zeros(d, np.float32)
            maps[f"{role}.prior.{kind}.precision"] = np.eye(d, dtype=np.float32)
            maps[f"{role}.prior.{kind}.tau"] = np.full(1, NEUTRAL_TAU, np.float32)
    return maps


def load_maps(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a safetensors file."""
    from hydra_edge.bundle.maps import parse_maps

    try:
        return parse_maps(path.read_bytes(), source=path)
    except OSError as err:
        raise BundleError(f"{path} cannot be read: {err.strerror or err}.") from err


def pack(
    out: Path,
    *,
    encoder: Path,
    tokenizer: Path,
    card: Card,
    maps: Maps,
    features: Mapping[Role, Sequence[str]],
    closed_sets: Mapping[str, Sequence[str]] = MappingProxyType({}),
    feature_version: int = FEATURE_VERSION,
    quality: JsonDict | None = None,
) -> Bundle:
    """Write a bundle and load it as the device would; only then does it appear at ``out``.

    Parameters
    ----------
    out
        The bundle's folder; a bundle that is already there is replaced.
    encoder, tokenizer
        The ONNX graph and the tokenizer to copy.
    maps
        Named arrays (see ``hydra_edge.bundle.check_maps``); stored as float32.
    features
        The names of each role's features, in the order of the arrays.
    closed_sets
        The answers of each closed set ``maps`` has a classifier for, in the order of its rows.
    quality
        Figures for people: how well heads on this base do.

    Raises
    ------
    BundleError
        If ``out`` holds something else than a bundle, or the result cannot be loaded.
    """
    refuse_other(out)
    names: dict[Role, tuple[str, ...]] = {role: tuple(features[role]) for role in get_args(Role)}
    arrays = {name: np.ascontiguousarray(maps[name], dtype=np.float32) for name in sorted(maps)}
    answers = {task: tuple(labels) for task, labels in sorted(closed_sets.items())}
    check_maps(arrays, names, card.dim, answers, source=Path(MAPS_FILE))
    out.parent.mkdir(parents=True, exist_ok=True)
    _tidy(out)
    staging = _staging(out)
    staging.mkdir()
    try:
        shutil.copyfile(encoder, staging / ENCODER_FILE)
        shutil.copyfile(tokenizer, staging / TOKENIZER_FILE)
        _write(staging, card, arrays, names, answers, feature_version, quality or {})
        load_bundle(staging)
        staging.chmod(0o755)
        _replace(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_bundle(out)


def check_size(bundle: Bundle) -> None:
    """Refuse a bundle that is too large to be shipped; it stays where it is, and can be used.

    Raises
    ------
    BundleError
        If its files are larger than ``MAX_BUNDLE_BYTES``.
    """
    size = sum(file.size for file in bundle.manifest.files.values())
    if size > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{bundle.path} is too large for a package: got {size / 1e6:.1f} MB; expected "
            f"{MAX_BUNDLE_BYTES / 1e6:.0f} MB at most. Ship a smaller encoder, or use this one by "
            "the setting bundle."
        )


def _write(
    folder: Path,
    card: Card,
    arrays: Mapping[str, npt.NDArray[np.float32]],
    features: Mapping[Role, tuple[str, ...]],
    closed_sets: Mapping[str, tuple[str, ...]],
    feature_version: int,
    quality: JsonDict,
) -> None:
    import safetensors.numpy

    (folder / MAPS_FILE).write_bytes(safetensors.numpy.save(dict(arrays)))
    files = {name: _describe(folder / name) for name in (ENCODER_FILE, MAPS_FILE, TOKENIZER_FILE)}
    manifest = {
        "format_version": FORMAT_VERSION,
        "feature_version": feature_version,
        "base_id": compute_base_id(
            format_version=FORMAT_VERSION,
            feature_version=feature_version,
            dim=card.dim,
            pooling=card.pooling,
            max_tokens=card.max_tokens,
            features=features,
            files=files,
            closed_sets=closed_sets,
        ),
        "dim": card.dim,
        "pooling": card.pooling,
        "max_tokens": card.max_tokens,
        "features": {role: list(names) for role, names in features.items()},
        "closed_sets": {task: list(labels) for task, labels in closed_sets.items()},
        "files": {name: {"sha256": f.sha256, "size": f.size} for name, f in files.items()},
        "quality": quality,
        "parity": card.parity,
        "provenance": card.provenance,
    }
    # Last: a folder without its manifest is no bundle.
    (folder / MANIFEST_FILE).write_text(_json(manifest), encoding="utf-8")


def _describe(path: Path) -> BundleFile:
    content = path.read_bytes()
    return BundleFile(hashlib.sha256(content).hexdigest(), len(content))


def _json(value: JsonDict) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def refuse_other(out: Path) -> None:
    """Never replace a folder that is not a bundle."""
    if (
        out.exists()
        and not (out / MANIFEST_FILE).is_file()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise BundleError(
            f"{out} exists and is not a bundle; expected a bundle to replace, or nothing. "
            "Give another folder."
        )


def _staging(out: Path) -> Path:
    return out.with_name(f".{out.name}.part")


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _tidy(out: Path) -> None:
    """Undo what a run left that was killed: half of a bundle, or a move half made."""
    shutil.rmtree(_staging(out), ignore_errors=True)
    if _old(out).exists() and not out.exists():
        _old(out).rename(out)
    shutil.rmtree(_old(out), ignore_errors=True)


def _replace(staging: Path, out: Path) -> None:
    """Move the new folder into place; the old one goes only when the new one is there."""
    old = _old(out)
    if out.exists():
        out.rename(old)
    try:
        staging.rename(out)
    except BaseException:  # an interrupt between the two must not leave nothing in place
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
