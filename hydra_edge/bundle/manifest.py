"""The manifest of a base: untrusted JSON in, typed and checked values out.

Owns the names of the files, the fields, and the identity (``base_id``) they add up to. It
opens no file but the manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, get_args

from hydra_edge.errors import BundleError, BundleHashError, BundleVersionError
from hydra_edge.spelling import fold_label, refuse_constant
from hydra_edge.types import JsonDict, Role

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ENCODER_FILE = "encoder.onnx"
TOKENIZER_FILE = "tokenizer.json"
MAPS_FILE = "maps.safetensors"
GET_AGAIN = "Get the base again from where it came from."
SHIPPED = Path(__file__).parents[1] / "bundles" / "default"

_REQUIRED_FILES = (ENCODER_FILE, MAPS_FILE, TOKENIZER_FILE)
_POOLINGS = ("mean",)
_MAX_MANIFEST_BYTES = 1 << 20
_LONGEST_NAME = 128
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """What the manifest states of one file."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """A base's description of itself.

    ``features`` names each role's features in the order of the arrays, ``closed_sets`` the
    answers of each closed set the base has a classifier for, in the order of its rows. ``quality``,
    ``parity`` and ``provenance`` are for people: nothing is decided by them.
    """

    base_id: str
    format_version: int
    feature_version: int
    dim: int
    pooling: str
    max_tokens: int
    features: Mapping[Role, tuple[str, ...]]
    files: Mapping[str, BundleFile]
    quality: JsonDict
    parity: JsonDict
    provenance: JsonDict
    closed_sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def compute_base_id(
    *,
    format_version: int,
    feature_version: int,
    dim: int,
    pooling: str,
    max_tokens: int,
    features: Mapping[Role, tuple[str, ...]],
    files: Mapping[str, BundleFile],
    closed_sets: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> str:
    """Return the sha256 of everything that decides what a base computes.

    Heads and cached vectors are tied to it. Figures for people (quality, parity,
    provenance) are left out: correcting them must not void anybody's head.
    """
    meaning: JsonDict = {
        "dim": dim,
        "feature_version": feature_version,
        "features": {role: list(names) for role, names in features.items()},
        "files": {name: file.sha256 for name, file in files.items()},
        "format_version": format_version,
        "max_tokens": max_tokens,
        "pooling": pooling,
    }
    if closed_sets:
        meaning["closed_sets"] = {task: list(labels) for task, labels in closed_sets.items()}
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def instead_of(folder: Path) -> str:
    """Say what to do where a folder holds no base."""
    if folder == SHIPPED:
        return "Reinstall hydra-edge."
    return (
        "Give the folder of a base, or go back to the shipped one: hydra-edge bundle use default "
        "(and unset HYDRA_EDGE_BUNDLE where it names this one)."
    )


def read_manifest(path: Path) -> Manifest:
    """Read a manifest as untrusted input: bounded, typed, its ``base_id`` recomputed.

    Raises
    ------
    BundleVersionError
        If its format is newer or older than this release reads.
    BundleHashError
        If it states another ``base_id`` than its own fields add up to.
    BundleError
        If it is missing, too large, not JSON, or lacks something.
    """
    fields = _Fields(path, _read_json(path))
    _check_version(fields)
    manifest = Manifest(
        base_id=fields.text("base_id", _SHA256, "64 hex digits"),
        format_version=FORMAT_VERSION,
        feature_version=fields.integer("feature_version", 1, 1 << 31),
        dim=fields.integer("dim", 1, 1 << 16),
        pooling=fields.one_of("pooling", _POOLINGS),
        max_tokens=fields.integer("max_tokens", 3, 1 << 16),
        features=MappingProxyType(_parse_features(fields)),
        files=MappingProxyType(_parse_files(fields)),
        quality=fields.mapping("quality"),
        parity=fields.mapping("parity"),
        provenance=fields.mapping("provenance"),
        closed_sets=MappingProxyType(_parse_closed_sets(fields)),
    )
    computed = compute_base_id(
        format_version=manifest.format_version,
        feature_version=manifest.feature_version,
        dim=manifest.dim,
        pooling=manifest.pooling,
        max_tokens=manifest.max_tokens,
        features=manifest.features,
        files=manifest.files,
        closed_sets=manifest.closed_sets,
    )
    if manifest.base_id != computed:
        raise BundleHashError(
            f"{path}: base_id is {manifest.base_id[:12]}...; expected {computed[:12]}... for "
            f"these files and settings. The manifest was changed. {GET_AGAIN}"
        )
    return manifest


class _Fields:
    """Typed access to untrusted JSON; every complaint names the file and the field."""

    def __init__(self, path: Path, raw: JsonDict) -> None:
        self.path = path
        self.raw = raw

    def fail(self, field: str, found: object, expected: str) -> NoReturn:
        shown = reprlib.repr(found)  # bounded: what is shown is hostile until proven otherwise
        raise BundleError(f"{self.path}: {field} is {shown}; expected {expected}. {GET_AGAIN}")

    def _get(self, field: str) -> Any:
        if field not in self.raw:
            raise BundleError(f"{self.path}: {field} is missing. {GET_AGAIN}")
        return self.raw[field]

    def integer(self, field: str, low: int, high: int) -> int:
        value = self._get(field)
        if type(value) is not int or not low <= value <= high:  # True is not a number here
            self.fail(field, value, f"a whole number from {low} to {high}")
        return value

    def text(self, field: str, pattern: re.Pattern[str], expected: str) -> str:
        value = self._get(field)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fail(field, value, expected)
        return value

    def one_of(self, field: str, known: tuple[str, ...]) -> str:
        value = self._get(field)
        if not isinstance(value, str) or value not in known:
            self.fail(field, value, f"one of: {', '.join(known)}")
        return value

    def mapping(self, field: str) -> JsonDict:
        value = self._get(field)
        if not isinstance(value, dict):
            self.fail(field, value, "an object")
        return value


def _read_json(path: Path) -> JsonDict:
    """Read a bounded JSON object without NaN."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as err:
        raise BundleError(
            f"{path} is missing; expected the manifest of a base. {instead_of(path.parent)}"
        ) from err
    except OSError as err:
        raise BundleError(
            f"{path} cannot be read: {err.strerror or err}; expected a readable file. "
            "Correct its permissions."
        ) from err
    if len(content) > _MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{path} is too large; expected at most {_MAX_MANIFEST_BYTES:,} bytes. {GET_AGAIN}"
        )
    try:
        raw = json.loads(content.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as err:  # bad UTF-8 and bad JSON are ValueErrors
        reason = "nested too deeply" if isinstance(err, RecursionError) else err
        raise BundleError(
            f"{path} is not JSON ({reason}); expected an object. {GET_AGAIN}"
        ) from err
    if not isinstance(raw, dict):
        raise BundleError(f"{path} holds a {type(raw).__name__}; expected an object. {GET_AGAIN}")
    return raw


def _check_version(fields: _Fields) -> None:
    """Judge the version before anything else: what the other fields mean depends on it."""
    found = fields.integer("format_version", -(1 << 62), 1 << 62)
    if found == FORMAT_VERSION:
        return
    newer = found > FORMAT_VERSION
    step = "Upgrade hydra-edge." if newer else "Make it again: python -m export pack --help."
    raise BundleVersionError(
        f"{fields.path}: format_version is {found}, {'newer' if newer else 'older'} than this "
        f"release reads; expected {FORMAT_VERSION}. {step}"
    )


def _parse_features(fields: _Fields) -> dict[Role, tuple[str, ...]]:
    raw = fields.mapping("features")
    features: dict[Role, tuple[str, ...]] = {}
    for role in get_args(Role):
        names = raw.get(role)
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) and name for name in names)
            or not 0 < len(set(names)) == len(names)
        ):
            fields.fail(f"features.{role}", names, "a list of distinct names")
        features[role] = tuple(names)
    return features


def _parse_closed_sets(fields: _Fields) -> dict[str, tuple[str, ...]]:
    if "closed_sets" not in fields.raw:
        return {}
    out: dict[str, tuple[str, ...]] = {}
    for task, labels in fields.mapping("closed_sets").items():
        if len(task) > _LONGEST_NAME:  # complaints name it
            fields.fail("a task of closed_sets", task, f"at most {_LONGEST_NAME} letters")
        if (
            not isinstance(labels, list)
            or not all(isinstance(label, str) and label for label in labels)
            or not 1 < len(set(map(fold_label, labels))) == len(labels)
        ):
            fields.fail(f"closed_sets.{task}", labels, "a list of two or more distinct answers")
        out[task] = tuple(labels)
    return out


def _parse_files(fields: _Fields) -> dict[str, BundleFile]:
    raw = fields.mapping("files")
    files: dict[str, BundleFile] = {}
    for name, stated in raw.items():
        if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST_FILE:
            fields.fail("a name in files", name, "the plain name of a file in the folder")
        if not isinstance(stated, dict):
            fields.fail(f"files.{name}", stated, "an object with sha256 and size")
        entry = _Fields(fields.path, {f"files.{name}.{key}": stated[key] for key in stated})
        files[name] = BundleFile(
            sha256=entry.text(f"files.{name}.sha256", _SHA256, "64 hex digits"),
            size=entry.integer(f"files.{name}.size", 0, 1 << 40),
        )
    for name in _REQUIRED_FILES:
        if name not in files:
            fields.fail("files", sorted(files), f"{name} among them")
    return files
