"""Hostile and damaged arrays of a base: each is refused by a typed error before it is used."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import damaged_base
import numpy as np
import pytest
from damaged_base import MAPS, put, put_maps, read, sign, write

from hydra_edge.bundle import load_bundle
from hydra_edge.errors import BundleError, BundleHashError

folder = damaged_base.folder


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
