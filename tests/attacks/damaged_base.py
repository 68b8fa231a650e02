"""A sound base of a few bytes, and what damages it as an attacker would."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from export.pack import Card, neutral_maps, pack
from hydra_edge.types import JsonDict, Role

FEATURES: dict[Role, tuple[str, ...]] = {"reranker": ("near", "recent"), "adapter": ("votes",)}
MAPS = "maps.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound base of a few bytes, to be damaged."""
    (tmp_path / "graph").write_bytes(b"a graph")
    (tmp_path / "tokenizer").write_bytes(b"{}")
    pack(
        tmp_path / "base", encoder=tmp_path / "graph", tokenizer=tmp_path / "tokenizer",
        card=Card(4, "mean", 16, {}, {}), maps=neutral_maps(FEATURES), features=FEATURES,
    )  # fmt: skip
    return tmp_path / "base"


def read(folder: Path) -> JsonDict:
    return json.loads((folder / "manifest.json").read_text())


def write(folder: Path, manifest: JsonDict) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def sign(folder: Path, manifest: JsonDict) -> None:
    """Write a manifest whose hashes all fit, as an attacker would."""
    keys = ("dim", "feature_version", "features", "format_version", "max_tokens", "pooling")
    meaning = {key: manifest.get(key) for key in keys}
    if manifest.get("closed_sets"):
        meaning["closed_sets"] = manifest["closed_sets"]
    meaning["files"] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    write(folder, {**manifest, "base_id": hashlib.sha256(canonical.encode()).hexdigest()})


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and make the manifest fit it."""
    (folder / name).write_bytes(content)
    manifest = read(folder)
    manifest["files"][name] = {
        "sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
    }  # fmt: skip
    sign(folder, manifest)


def put_maps(folder: Path, **changes: np.ndarray | None) -> None:
    maps = safetensors.numpy.load((folder / MAPS).read_bytes())
    maps.update({name: array for name, array in changes.items() if array is not None})
    kept = {k: np.asarray(v, order="C") for k, v in maps.items() if changes.get(k, v) is not None}
    put(folder, MAPS, safetensors.numpy.save(kept))
