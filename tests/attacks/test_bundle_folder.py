"""Hostile and damaged bases: each is refused by a typed error before its content is used."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from export.pack import Card, neutral_maps, pack
from hydra_edge.bundle import load_bundle
from hydra_edge.errors import BundleError, BundleHashError, BundleVersionError
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


def test_sound_bundle_loads_after_being_signed_again(folder: Path) -> None:
    # Guards the other tests: their helper alone makes nothing unloadable.
    put_maps(folder)
    assert load_bundle(folder).features("adapter") == ("votes",)


# --- where the base should be ---


def test_bundle_path_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found nothing; expected a folder"):
        load_bundle(tmp_path / "nowhere")


def test_bundle_path_of_a_file_says_so(folder: Path) -> None:
    with pytest.raises(BundleError, match="found a file; expected a folder"):
        load_bundle(folder / "manifest.json")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_bundle_path_no_filesystem_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="expected a folder"):
        load_bundle(tmp_path / name)


def test_bundle_folder_without_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        load_bundle(tmp_path)


def test_bundle_manifest_being_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path)


# --- the manifest ---


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not JSON"),
        (b"\x80\x04\x95", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"dim": NaN}', "NaN is not a number"),
        (b'{"dim": -Infinity}', "is not a number"),
        (b'{"dim": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 150_000, "nested too deeply"),
        (b"[]", "holds a list; expected an object"),
        (b'"x"', "holds a str; expected an object"),
        (b" " * (2 << 20), "too large"),
        (b"{}", "format_version is missing"),
    ],
)
def test_bundle_manifest_that_is_no_object_is_refused(
    folder: Path, content: bytes, complaint: str
) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=complaint):
        load_bundle(folder)


@pytest.mark.parametrize("version", [2, 99])
def test_bundle_of_newer_format_asks_for_an_upgrade(folder: Path, version: int) -> None:
    # A newer format may have any other fields: only its version is read.
    write(folder, {"format_version": version, "shards": []})
    with pytest.raises(BundleVersionError, match=rf"{version}, newer .* expected 1\. Upgrade"):
        load_bundle(folder)


@pytest.mark.parametrize("version", [0, -1])
def test_bundle_of_older_format_asks_to_be_made_again(folder: Path, version: int) -> None:
    write(folder, {**read(folder), "format_version": version})
    with pytest.raises(BundleVersionError, match=r"older .* expected 1\. Make it again"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", "1"), ("format_version", True), ("format_version", 1.0),
        ("feature_version", 0), ("feature_version", None),
        ("dim", 0), ("dim", "384"), ("dim", 1 << 40), ("dim", 4.5),
        ("pooling", "cls"), ("pooling", ["mean"]),
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 10**9),
        ("features", []), ("features", {"reranker": ["near"]}),
        ("features", {"reranker": [], "adapter": ["votes"]}),
        ("features", {"reranker": ["a", "a"], "adapter": ["votes"]}),
        ("features", {"reranker": [1], "adapter": ["votes"]}),
        ("features", {"reranker": "near", "adapter": ["votes"]}),
        ("files", []), ("quality", []), ("parity", 1), ("provenance", "me"),
        ("base_id", "xyz"), ("base_id", 7),
    ],
)  # fmt: skip
def test_bundle_field_of_wrong_type_or_range_is_refused(
    folder: Path, field: str, value: object
) -> None:
    write(folder, {**read(folder), field: value})
    with pytest.raises(BundleError, match=rf"manifest\.json: {field}\S* is .*expected"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "field",
    ["feature_version", "base_id", "dim", "pooling", "max_tokens", "features", "files", "quality"],
)
def test_bundle_field_missing_is_refused(folder: Path, field: str) -> None:
    manifest = read(folder)
    del manifest[field]
    write(folder, manifest)
    with pytest.raises(BundleError, match=f"{field} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dim", 5), ("max_tokens", 17), ("feature_version", 99), ("base_id", "0" * 64)],
)
def test_bundle_changed_after_signing_does_not_match_its_base_id(
    folder: Path, field: str, value: object
) -> None:
    write(folder, {**read(folder), field: value})
    with pytest.raises(BundleHashError, match=r"base_id is .* The manifest was changed"):
        load_bundle(folder)


@pytest.mark.parametrize("depth", [50, 900])
def test_bundle_complaint_about_a_nested_value_stays_short(folder: Path, depth: int) -> None:
    value: object = 1
    for _ in range(depth):
        value = [value]
    text = json.dumps({**read(folder), "dim": "HERE"}).replace('"HERE"', json.dumps(value))
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="expected") as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 600


# --- the files ---


@pytest.mark.parametrize(
    "name",
    [
        "../graph", "..", ".", "", "/etc/hostname", "a/b", "a\\b", "sub/../graph", ".hidden",
        "graph\0", "C:graph", "x" * 300, "manifest.json", "encoder.onnx\n", "ﬁle",
    ],
)  # fmt: skip
def test_bundle_file_name_that_is_not_plain_is_refused(folder: Path, name: str) -> None:
    manifest = read(folder)
    manifest["files"][name] = {"sha256": hashlib.sha256(b"a graph").hexdigest(), "size": 7}
    sign(folder, manifest)
    with pytest.raises(BundleError, match="a name in files"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", MAPS])
def test_bundle_file_not_listed_is_refused(folder: Path, name: str) -> None:
    manifest = read(folder)
    del manifest["files"][name]
    sign(folder, manifest)
    with pytest.raises(BundleError, match=f"expected {name} among them"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", MAPS])
def test_bundle_file_missing_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing; expected [\d,]+ bytes"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", MAPS])
def test_bundle_file_with_one_bit_flipped_fails_its_hash(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleHashError, match=rf"{name} has sha256 .* expected .* damaged"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", MAPS])
def test_bundle_file_of_other_size_is_refused(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(BundleHashError, match=rf"{name} has [\d,]+ bytes; expected [\d,]+"):
        load_bundle(folder)


def test_bundle_extra_file_is_verified_once_listed(folder: Path) -> None:
    put(folder, "extra.bin", b"more")
    assert "extra.bin" in load_bundle(folder).manifest.files
    (folder / "extra.bin").write_bytes(b"less")
    with pytest.raises(BundleHashError, match=r"extra\.bin has sha256"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "entry",
    [
        None, "abc", {}, {"sha256": "0" * 64}, {"size": 7}, {"sha256": "0" * 63, "size": 7},
        {"sha256": "A" * 64, "size": 7}, {"sha256": 0, "size": 7},
        {"sha256": "0" * 64, "size": -1}, {"sha256": "0" * 64, "size": "7"},
        {"sha256": "0" * 64, "size": True}, {"sha256": "0" * 64, "size": 1 << 60},
    ],
)  # fmt: skip
def test_bundle_file_described_badly_is_refused(folder: Path, entry: object) -> None:
    manifest = read(folder)
    manifest["files"]["encoder.onnx"] = entry
    write(folder, manifest)
    with pytest.raises(BundleError, match=r"files\.encoder\.onnx"):
        load_bundle(folder)


def test_bundle_file_linked_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    # Even though the content is what the manifest states.
    (folder / "encoder.onnx").unlink()
    (folder / "encoder.onnx").symlink_to(tmp_path / "graph")
    with pytest.raises(BundleError, match="a link out of the folder"):
        load_bundle(folder)


def test_bundle_file_linked_to_itself_is_refused(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    (folder / "encoder.onnx").symlink_to(folder / "encoder.onnx")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(folder)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_bundle_file_that_is_no_regular_file_is_refused(
    folder: Path, make: Callable[[Path], None]
) -> None:
    # A pipe would block whoever opens it.
    (folder / "encoder.onnx").unlink()
    make(folder / "encoder.onnx")
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(folder)


# --- the arrays ---


def full(shape: tuple[int, ...], value: float = 0.0, dtype: type = np.float32) -> np.ndarray:
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("reranker.scale.mean", full((2,), np.nan), "holds NaN"),
        ("reranker.scale.mean", full((2,), np.inf), "holds NaN or values beyond"),
        ("reranker.prior.text.mean", full((2,), -np.inf), "holds NaN or values beyond"),
        ("reranker.prior.text.mean", full((2,), 1e35), r"values beyond 1e\+30"),
        ("reranker.prior.text.precision", full((2, 2), np.nan), "holds NaN"),
        ("reranker.scale.mean", full((3,)), r"shape \(3,\); expected shape \(2,\)"),
        ("reranker.scale.mean", full((2, 1)), r"shape \(2, 1\)"),
        ("reranker.scale.mean", full(()), r"shape \(\)"),
        ("reranker.scale.mean", full((0,)), r"shape \(0,\)"),
        ("adapter.prior.label.precision", full((1,), 1), r"expected shape \(1, 1\)"),
        ("adapter.prior.label.tau", full((2,), 1), r"expected shape \(1,\)"),
        ("reranker.scale.std", full((2,), 0), "not above 0"),
        ("reranker.scale.std", full((2,), -1), "not above 0"),
        ("adapter.prior.rating.tau", full((1,), 0), "not above 0"),
        ("reranker.prior.label.precision", -np.eye(2, dtype=np.float32), "not positive definite"),
        ("reranker.prior.label.precision", full((2, 2), 1), "not positive definite"),
        ("reranker.prior.label.precision", full((2, 2), 0), "not positive definite"),
        (
            "reranker.prior.label.precision",
            np.array([[1, 0.5], [0, 1]], np.float32),
            "not symmetric",
        ),
        (  # more than a trip through float32 may do, and a head would refuse it
            "reranker.prior.label.precision",
            np.array([[1, 0.5], [0.50005, 1]], np.float32),
            "not symmetric",
        ),
        ("reranker.scale.mean", full((2,), dtype=np.float64), "type float64; expected float32"),
        ("reranker.scale.mean", full((2,), dtype=np.float16), "type float16"),
        ("reranker.scale.mean", full((2,), dtype=np.int32), "type int32"),
        ("reranker.map.query", full((3, 4)), r"reranker\.map\.other' is missing"),
        ("reranker.map.query", full(()), r"reranker\.map\.other' is missing"),
        ("stranger", full((2,)), "'stranger' is unknown"),
        ("reranker.prior.mean", full((2,)), "is unknown"),
        ("writer.scale.mean", full((2,)), "is unknown"),
        ("adapter.prior.my_task.mean", full((1,)), r"my_task\.precision' is missing"),
        ("reranker.scale.mean", None, "is missing"),
        ("adapter.prior.text.tau", None, "is missing"),
        ("adapter.prior.text.precision", None, "is missing"),
    ],
)
def test_bundle_array_that_cannot_be_used_is_refused(
    folder: Path, name: str, array: np.ndarray | None, complaint: str
) -> None:
    put_maps(folder, **{name: array})
    with pytest.raises(BundleError, match=complaint):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("query", "other"), [((3, 4), (2, 4)), ((3, 5), (3, 5)), ((12,), (12,)), ((3, 4), (4, 3))]
)
def test_bundle_learned_maps_of_unlike_shapes_are_refused(
    folder: Path, query: tuple[int, ...], other: tuple[int, ...]
) -> None:
    arrays = {"adapter.map.query": full(query), "adapter.map.other": full(other)}
    put_maps(folder, **arrays)
    with pytest.raises(BundleError, match=r"adapter\.map\.\w+' has shape"):
        load_bundle(folder)


def put_closed_sets(folder: Path, sets: object, **changes: np.ndarray | None) -> None:
    """State closed sets, with classifiers of zeros where they are such sets at all."""
    arrays: dict[str, np.ndarray | None] = {}
    for task, answers in sets.items() if isinstance(sets, dict) else ():
        n = len(answers) if isinstance(answers, list) else 2
        arrays[f"adapter.classifier.{task}.weight"] = full((n, 4))
        arrays[f"adapter.classifier.{task}.bias"] = full((n,))
    write(folder, {**read(folder), "closed_sets": sets})
    put_maps(folder, **{**arrays, **changes})


def test_bundle_with_a_sound_closed_set_loads(folder: Path) -> None:
    # Guards the tests below, as above.
    put_closed_sets(folder, {"mood": ["calm", "wild"]})
    assert load_bundle(folder).manifest.closed_sets == {"mood": ("calm", "wild")}


@pytest.mark.parametrize("sets", [None, [], "mood", 1, [["calm", "wild"]]])
def test_bundle_closed_sets_that_are_no_object_are_refused(folder: Path, sets: object) -> None:
    put_closed_sets(folder, sets)
    with pytest.raises(BundleError, match=r"closed_sets is .*expected an object"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "answers",
    [
        None, 2, True, "calm", {}, {"calm": 0, "wild": 1}, [], ["calm"], ["calm", "calm"],
        ["calm", "CALM"], ["straße", "STRASSE"], ["calm", ""], ["calm", None], ["calm", ["wild"]],
    ],
)  # fmt: skip
def test_bundle_answers_of_a_closed_set_that_are_no_set_are_refused(
    folder: Path, answers: object
) -> None:
    put_closed_sets(folder, {"mood": answers})
    with pytest.raises(BundleError, match=r"mood.* is .*expected .*distinct answers"):
        load_bundle(folder)


def test_bundle_answers_changed_after_signing_do_not_match_the_base_id(folder: Path) -> None:
    # The arrays fit: only the meaning of their rows is another.
    put_closed_sets(folder, {"mood": ["calm", "wild"]})
    write(folder, {**read(folder), "closed_sets": {"mood": ["wild", "calm"]}})
    with pytest.raises(BundleHashError, match=r"base_id is .* The manifest was changed"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("part", "array", "complaint"),
    [
        ("weight", None, "weight' is missing"),
        ("bias", None, "bias' is missing"),
        ("weight", full((3, 4)), r"shape \(3, 4\); expected shape \(2, 4\)"),
        ("weight", full((2, 5)), r"shape \(2, 5\); expected shape \(2, 4\)"),
        ("weight", full((4, 2)), r"shape \(4, 2\)"),
        ("weight", full((8,)), r"shape \(8,\)"),
        ("weight", full(()), r"shape \(\)"),
        ("weight", full((2, 4), np.nan), "holds NaN"),
        ("bias", full((2, 1)), r"shape \(2, 1\); expected shape \(2,\)"),
        ("bias", full((3,)), r"shape \(3,\)"),
        ("bias", full((2,), np.inf), "holds NaN or values beyond"),
        ("bias", full((2,), dtype=np.float64), "type float64; expected float32"),
        ("scale", full((2,)), "scale' is unknown"),
    ],
)
def test_bundle_classifier_that_cannot_be_used_is_refused(
    folder: Path, part: str, array: np.ndarray | None, complaint: str
) -> None:
    put_closed_sets(
        folder, {"mood": ["calm", "wild"]}, **{f"adapter.classifier.mood.{part}": array}
    )
    with pytest.raises(BundleError, match=complaint):
        load_bundle(folder)


@pytest.mark.parametrize("role", ["adapter", "reranker"])
def test_bundle_classifier_of_a_task_that_is_not_listed_is_refused(folder: Path, role: str) -> None:
    arrays = {f"{role}.classifier.other.weight": full((2, 4))}
    put_closed_sets(folder, {"mood": ["calm", "wild"]}, **arrays)
    with pytest.raises(BundleError, match=r"classifier\.other\.weight' is unknown"):
        load_bundle(folder)


# Names that read like those of other arrays, whose rules are not a classifier's or a prior's.
@pytest.mark.parametrize("task", ["x.gain.y", "x.zero_shot.y", "a.std", "a.tau", "a.precision", ""])
def test_bundle_closed_set_named_like_other_arrays_loads(folder: Path, task: str) -> None:
    arrays = {f"adapter.classifier.{task}.bias": full((2,), -1)}
    put_closed_sets(folder, {task: ["calm", "wild"]}, **arrays)
    assert load_bundle(folder).manifest.closed_sets == {task: ("calm", "wild")}


@pytest.mark.parametrize("task", ["x.gain.y", "x.zero_shot.y"])
def test_bundle_prior_named_like_other_arrays_loads(folder: Path, task: str) -> None:
    head = f"adapter.prior.{task}"
    arrays = {f"{head}.mean": full((1,), -1), f"{head}.precision": full((1, 1), 1)}
    put_maps(folder, **arrays, **{f"{head}.tau": full((1,), 1)})
    assert f"{head}.mean" in load_bundle(folder).maps


@pytest.mark.parametrize("answers", [["calm"], ["calm", "wild"]])
def test_bundle_complaint_about_a_closed_set_of_a_long_name_stays_short(
    folder: Path, answers: list[str]
) -> None:
    manifest = {**read(folder), "closed_sets": {"x" * 500_000: answers}}
    sign(folder, manifest)  # without its arrays
    with pytest.raises(BundleError, match="expected") as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 600


def test_bundle_whose_arrays_fit_other_features_is_refused(folder: Path) -> None:
    manifest = read(folder)
    manifest["features"]["reranker"].append("unheard")
    sign(folder, manifest)
    with pytest.raises(BundleError, match=r"shape \(2,\); expected shape \(3,\)"):
        load_bundle(folder)


def header(claims: object, payload: bytes = b"") -> bytes:
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return struct.pack("<Q", len(text)) + text + payload


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.",  # a pickle
        b"PK\x03\x04" + b"\0" * 100,  # an npz
        struct.pack("<Q", 1 << 60) + b"{}",
        header(b"not json"),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"\0" * 8),
        header({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}),
        header({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"\0\0"),
        header({"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        header(b"[" * 100_000),
    ],
)
def test_bundle_maps_that_are_no_safetensors_are_refused(folder: Path, content: bytes) -> None:
    put(folder, MAPS, content)
    with pytest.raises(BundleError, match=r"maps\.safetensors"):
        load_bundle(folder)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_bundle_maps_truncated_are_refused(folder: Path, keep: int) -> None:
    put(folder, MAPS, (folder / MAPS).read_bytes()[:keep])
    with pytest.raises(BundleError, match="is not a safetensors file"):
        load_bundle(folder)


def test_bundle_maps_too_large_for_memory_are_refused_unread(folder: Path) -> None:
    with (folder / MAPS).open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: takes no disk, but hashing it would take minutes
    manifest = read(folder)
    manifest["files"][MAPS]["size"] = 1 << 40
    sign(folder, manifest)
    with pytest.raises(BundleError, match="expected at most 268,435,456"):
        load_bundle(folder)
