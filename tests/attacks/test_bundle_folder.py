"""Hostile and damaged bases: each is refused by a typed error before its content is used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import damaged_base
import pytest
from damaged_base import MAPS, put, put_maps, read, sign, write

from hydra_edge.bundle import load_bundle
from hydra_edge.errors import BundleError, BundleHashError, BundleVersionError

folder = damaged_base.folder


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
