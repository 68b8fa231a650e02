from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.pack import MAX_BUNDLE_BYTES, Card, neutral_maps, pack
from hydra_edge.bundle import Bundle, check_maps, default_bundle_path, load_bundle
from hydra_edge.errors import BundleError
from hydra_edge.types import JsonDict, Role

FEATURES: dict[Role, tuple[str, ...]] = {"reranker": ("near", "recent"), "adapter": ("votes",)}
CARD = Card(dim=4, pooling="mean", max_tokens=16, parity={"cosine": 0.99}, provenance={})


def make_bundle(
    folder: Path, *, card: Card = CARD, features=FEATURES, closed_sets=None, **maps
) -> Bundle:
    """Pack a base of a few bytes; loading it needs no encoder that works."""
    source = folder.with_name(folder.name + "-source")
    source.mkdir(exist_ok=True)
    (source / "graph").write_bytes(b"a graph")
    (source / "tokenizer").write_bytes(b"{}")
    arrays = {**neutral_maps(features), **maps}
    return pack(
        folder, encoder=source / "graph", tokenizer=source / "tokenizer", card=card,
        maps=arrays, features=features, closed_sets=closed_sets or {},
    )  # fmt: skip


def manifest_of(folder: Path) -> JsonDict:
    return json.loads((folder / "manifest.json").read_text())


def test_default_bundle_loads_and_is_small_enough_for_a_wheel(bundle: Bundle) -> None:
    size = sum(path.stat().st_size for path in default_bundle_path().iterdir())
    assert size <= MAX_BUNDLE_BYTES
    assert bundle.path == default_bundle_path()
    assert bundle.manifest.dim == 384
    assert bundle.encoder_path.is_file()
    assert bundle.tokenizer_path.is_file()


def test_default_bundle_states_the_parity_it_was_gated_on(bundle: Bundle) -> None:
    parity = bundle.manifest.parity
    for figure, (low, high) in parity["limits"].items():
        assert low <= parity[figure] <= high, figure
    assert parity["weight_max_abs"] <= 64


def test_base_id_is_the_sha256_of_what_decides_meaning(bundle: Bundle) -> None:
    raw = manifest_of(bundle.path)
    keys = ("closed_sets", "dim", "feature_version", "features", "format_version")
    meaning = {key: raw[key] for key in (*keys, "max_tokens", "pooling")}
    meaning["files"] = {
        name: hashlib.sha256((bundle.path / name).read_bytes()).hexdigest()
        for name in ("encoder.onnx", "maps.safetensors", "tokenizer.json")
    }
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    assert bundle.base_id == hashlib.sha256(canonical.encode()).hexdigest()


def test_base_id_changes_with_maps_features_and_settings(tmp_path: Path) -> None:
    first = make_bundle(tmp_path / "first")
    mean = np.array([1, 2], np.float32)
    others = [
        make_bundle(tmp_path / "maps", **{"reranker.scale.mean": mean}),
        make_bundle(
            tmp_path / "order", features={**FEATURES, "reranker": FEATURES["reranker"][::-1]}
        ),
        make_bundle(tmp_path / "tokens", card=Card(4, "mean", 17, {}, {})),
    ]
    assert len({first.base_id, *(other.base_id for other in others)}) == 4


def test_base_id_does_not_change_with_figures_for_people(tmp_path: Path) -> None:
    first = make_bundle(tmp_path / "first")
    second = make_bundle(tmp_path / "second", card=Card(4, "mean", 16, {"cosine": 0.5}, {"a": 1}))
    assert first.base_id == second.base_id
    assert second.manifest.parity == {"cosine": 0.5}


def test_bundle_arrays_are_read_only_float32(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "base")
    array = bundle.array("reranker.scale.mean")
    assert array.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(TypeError, match="item assignment"):
        bundle.maps["reranker.scale.mean"] = array


def test_bundle_names_its_features(tmp_path: Path) -> None:
    assert make_bundle(tmp_path / "base").features("reranker") == ("near", "recent")


def test_bundle_array_of_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "base")
    with pytest.raises(BundleError, match=r"no array 'adapter\.map'.*adapter\.scale\.mean"):
        bundle.array("adapter.map")


def test_bundle_with_learned_maps_loads_them(tmp_path: Path) -> None:
    maps = {f"adapter.map.{side}": np.ones((3, 4), np.float32) for side in ("query", "other")}
    assert make_bundle(tmp_path / "base", **maps).array("adapter.map.query").shape == (3, 4)


def test_bundle_moved_elsewhere_keeps_its_identity(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "base")
    moved = tmp_path / "a folder, öäü"
    shutil.move(tmp_path / "base", moved)
    assert load_bundle(moved).base_id == bundle.base_id


def test_bundle_ignores_files_its_manifest_does_not_list(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "base")
    (bundle.path / "README").write_text("hello")
    assert load_bundle(bundle.path).base_id == bundle.base_id


def test_check_maps_accepts_what_was_loaded(bundle: Bundle) -> None:
    names = bundle.manifest.features
    sets = bundle.manifest.closed_sets
    check_maps(bundle.maps, names, bundle.manifest.dim, sets, source=bundle.path)
    with pytest.raises(BundleError, match="shape"):
        check_maps(bundle.maps, {**names, "adapter": ("one",)}, 384, sets, source=bundle.path)
    with pytest.raises(BundleError, match=r"classifier.* is unknown"):
        check_maps(bundle.maps, names, bundle.manifest.dim, source=bundle.path)


CLASSIFIER = {
    "adapter.classifier.mood.weight": np.zeros((2, 4), np.float32),
    "adapter.classifier.mood.bias": np.zeros(2, np.float32),
}


def test_closed_sets_are_read_back_and_part_of_the_identity(tmp_path: Path) -> None:
    without = make_bundle(tmp_path / "without")
    one = make_bundle(tmp_path / "one", closed_sets={"mood": ["calm", "wild"]}, **CLASSIFIER)
    other = make_bundle(tmp_path / "other", closed_sets={"mood": ["wild", "calm"]}, **CLASSIFIER)
    assert load_bundle(one.path).manifest.closed_sets == {"mood": ("calm", "wild")}
    assert len({without.base_id, one.base_id, other.base_id}) == 3


def test_a_manifest_without_closed_sets_has_none(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "made")
    raw = manifest_of(made.path)
    del raw["closed_sets"]
    (made.path / "manifest.json").write_text(json.dumps(raw))
    again = load_bundle(made.path)
    assert again.base_id == made.base_id
    assert again.manifest.closed_sets == {}


@pytest.mark.parametrize(
    "labels", [None, "calm", [], ["calm"], ["calm", "CALM"], ["calm", ""], ["calm", 3]]
)
def test_malformed_closed_sets_are_refused(tmp_path: Path, labels: object) -> None:
    made = make_bundle(tmp_path / "made", closed_sets={"mood": ["calm", "wild"]}, **CLASSIFIER)
    raw = manifest_of(made.path)
    raw["closed_sets"]["mood"] = labels
    (made.path / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"closed_sets\.mood .*distinct answers"):
        load_bundle(made.path)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_classifier_of_another_shape_or_missing_is_refused(tmp_path: Path, part: str) -> None:
    name, sets = f"adapter.classifier.mood.{part}", {"mood": ["calm", "wild"]}
    wrong = {**CLASSIFIER, name: np.zeros((3, 4) if part == "weight" else 3, np.float32)}
    with pytest.raises(BundleError, match="shape"):
        make_bundle(tmp_path / "wrong", closed_sets=sets, **wrong)
    missing = {key: value for key, value in CLASSIFIER.items() if key != name}
    with pytest.raises(BundleError, match="missing"):
        make_bundle(tmp_path / "missing", closed_sets=sets, **missing)
