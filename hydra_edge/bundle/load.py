"""Loading a base: every byte is verified before it is parsed.

Owns the checks of files (plainly named, regular, inside the folder, of the stated size and
sha256) and the verified ``Bundle``. It trusts nothing it reads, and no format it reads can
carry code. It does not run the encoder.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hydra_edge.bundle.manifest import (
    ENCODER_FILE,
    GET_AGAIN,
    MANIFEST_FILE,
    MAPS_FILE,
    SHIPPED,
    TOKENIZER_FILE,
    BundleFile,
    Manifest,
    instead_of,
    read_manifest,
)
from hydra_edge.bundle.maps import check_maps, parse_maps
from hydra_edge.errors import BundleError, BundleHashError
from hydra_edge.types import Role

_MAX_MAPS_BYTES = 1 << 28  # read into memory whole: a hostile size must not be


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified base; ``maps`` holds read-only float32 arrays (see ``check_maps``)."""

    path: Path
    base_id: str
    manifest: Manifest
    maps: Mapping[str, npt.NDArray[np.float32]]

    @property
    def encoder_path(self) -> Path:
        """The int8 ONNX graph."""
        return self.path / ENCODER_FILE

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer, in the ``tokenizers`` library's JSON."""
        return self.path / TOKENIZER_FILE

    def features(self, role: Role) -> tuple[str, ...]:
        """Return the names of a role's features, in the order of its arrays."""
        return self.manifest.features[role]

    def array(self, name: str) -> npt.NDArray[np.float32]:
        """Return one array by name, read-only.

        Raises
        ------
        BundleError
            If the base has no such array.
        """
        try:
            return self.maps[name]
        except KeyError as err:
            raise BundleError(
                f"{self.path / MAPS_FILE} has no array {name!r}; expected one of "
                f"{', '.join(self.maps)}. Use a base made for this release."
            ) from err


def default_bundle_path() -> Path:
    """Return the folder of the base that is shipped with the package."""
    return SHIPPED


def load_bundle(path: Path | None = None) -> Bundle:
    """Read a base, verifying every byte that will be used.

    Parameters
    ----------
    path
        The bundle's folder; None for the one shipped with the package.

    Raises
    ------
    BundleVersionError
        If it was made for a newer or an older release.
    BundleHashError
        If a file is not what the manifest states, or the manifest was changed.
    BundleError
        If anything is missing, of the wrong type or shape, or not finite.
    """
    folder = default_bundle_path() if path is None else Path(path)
    try:
        is_dir, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        is_dir = exists = False
    if not is_dir:
        raise BundleError(
            f"Cannot load the base {folder}: found {'a file' if exists else 'nothing'}; expected "
            f"a folder with {MANIFEST_FILE}. {instead_of(folder)}"
        )
    manifest = read_manifest(folder / MANIFEST_FILE)
    maps_size = manifest.files[MAPS_FILE].size
    if maps_size > _MAX_MAPS_BYTES:
        raise BundleError(
            f"{folder / MAPS_FILE} is stated to have {maps_size:,} bytes; expected at most "
            f"{_MAX_MAPS_BYTES:,}. {GET_AGAIN}"
        )
    for name in sorted(manifest.files):
        _verify_file(folder, name, manifest.files[name])
    maps = _read_maps(folder / MAPS_FILE, manifest.files[MAPS_FILE])
    check_maps(
        maps, manifest.features, manifest.dim, manifest.closed_sets, source=folder / MAPS_FILE
    )
    for array in maps.values():
        array.flags.writeable = False
    return Bundle(folder, manifest.base_id, manifest, MappingProxyType(maps))


def _verify_file(folder: Path, name: str, stated: BundleFile) -> None:
    """Check that a file is where, as long as, and what the manifest says."""
    path = folder / name
    try:
        inside = path.resolve(strict=True).parent == folder.resolve()
        status = path.stat()
        if not inside or not stat.S_ISREG(status.st_mode):
            found = "not a regular file" if inside else "a link out of the folder"
            raise BundleError(f"{path} is {found}; expected a regular file. {GET_AGAIN}")
        if status.st_size != stated.size:
            raise BundleHashError(
                f"{path} has {status.st_size:,} bytes; expected {stated.size:,}. {GET_AGAIN}"
            )
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as err:
        raise BundleError(
            f"{path} is missing; expected {stated.size:,} bytes. {GET_AGAIN}"
        ) from err
    except (OSError, RuntimeError) as err:  # RuntimeError: a loop of links
        raise BundleError(
            f"{path} cannot be read: {err}; expected a readable file. Correct its permissions."
        ) from err
    _check_hash(path, digest, stated.sha256)


def _check_hash(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BundleHashError(
            f"{path} has sha256 {found[:12]}...; expected {expected[:12]}... It is damaged or "
            f"was changed. {GET_AGAIN}"
        )


def _read_maps(path: Path, stated: BundleFile) -> dict[str, npt.NDArray[np.float32]]:
    """Parse exactly the bytes that are hashed, not a file that could change in between."""
    content = path.read_bytes()
    _check_hash(path, hashlib.sha256(content).hexdigest(), stated.sha256)
    return parse_maps(content, source=path)
