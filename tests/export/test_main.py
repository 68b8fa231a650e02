from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from export.pack import CARD_FILE, Card, neutral_maps
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.encoder import Encoder
from hydra_edge.features import feature_names

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "encoder.npz"


def export(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "export", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip


@pytest.fixture
def encoder_folder(bundle: Bundle, tmp_path: Path) -> Path:
    """What ``python -m export encoder`` leaves, taken from the shipped base."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in (bundle.encoder_path, bundle.tokenizer_path):
        (folder / path.name).write_bytes(path.read_bytes())
    Card(384, "mean", 128, {"cosine": 0.99}, {"model": "x"}).save(folder / CARD_FILE)
    return folder


@pytest.mark.parametrize("command", ["encoder", "build", "answers", "pack", "golden"])
def test_export_help_has_an_example(command: str) -> None:
    done = export(command, "--help")
    assert done.returncode == 0
    assert f"python -m export {command}" in done.stdout


def test_export_encoder_without_data_says_what_to_give(tmp_path: Path) -> None:
    done = export("encoder", "--out", tmp_path / "out", "--data", tmp_path)
    assert done.returncode == 1
    assert "Error: --data: found no file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_export_that_cannot_write_says_so_on_one_line(encoder_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = export("pack", "--encoder", encoder_folder, "--out", tmp_path / "file" / "base")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_export_without_a_package_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "a.train.jsonl").write_text("{}")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None; "
        "import export.__main__ as e; "
        f"sys.argv = ['export', 'encoder', '--out', {str(tmp_path / 'out')!r}, "
        f"'--data', {str(tmp_path)!r}]; e.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is not installed; expected the export extra" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--pools", "80,40,4"), "expected NAME=TEXT_USERS,LABEL_USERS,QUERIES"),
        (("--pools", "smollm2=80"), "--pools smollm2=80 is not understood"),
        (("--llm", "gemma3", "--pools", "smollm2=1,1,1"), "expected some of gemma3"),
        (
            ("--only", "pakc"),
            "--only: got pakc; expected some of onnx, mine, label, train, agree, pack",
        ),
        (("--only", "mine"), "Stage mine cannot run: found no encoder.onnx"),
    ],
)
def test_export_build_that_cannot_run_says_why_on_one_line(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    (tmp_path / "a.jsonl").write_text("")
    done = export(
        "build", "--data", tmp_path / "a.jsonl", "--out", tmp_path / "base",
        "--work", tmp_path / "work", "--replay", *options,
    )  # fmt: skip
    assert done.returncode == 1
    error = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1
    assert told in error[0]
    assert not (tmp_path / "base").exists()


def test_export_build_says_that_labels_of_single_records_are_for_ones_own_use() -> None:
    told = " ".join(export("build", "--help").stdout.replace("│", " ").split())
    assert "RECORD_QUERIES,RECORDS" in told
    assert "for your own use: no stage reads these labels. Without them none is asked for" in told


def test_export_answers_packs_what_has_grown(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"k":"b","g":true,"c":[]}\n{"k":"a","g":true,"c":[]}\n')
    assert "m.jsonl.gz: 2 answers" in export("answers", "--folder", tmp_path).stderr
    assert "holds no answers that are not packed" in export("answers", "--folder", tmp_path).stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["m.jsonl.gz"]


def test_export_pack_makes_a_bundle_this_release_can_use(
    encoder_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "quality.json").write_text('{"gain": 0.1}')
    done = export(
        "pack", "--encoder", encoder_folder, "--out", tmp_path / "base",
        "--quality", tmp_path / "quality.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = load_bundle(tmp_path / "base")
    assert made.base_id[:12] in done.stderr
    assert made.features("reranker") == feature_names("reranker")
    assert made.manifest.quality == {"gain": 0.1}


def test_export_pack_names_learned_features_after_the_maps(
    encoder_folder: Path, tmp_path: Path
) -> None:
    import safetensors.numpy

    features = {"reranker": feature_names("reranker", 3), "adapter": feature_names("adapter")}
    maps = neutral_maps(features)
    for side in ("query", "other"):
        maps[f"reranker.map.{side}"] = np.ones((3, 384), np.float32)
    safetensors.numpy.save_file(maps, tmp_path / "maps.safetensors")
    done = export(
        "pack", "--encoder", encoder_folder, "--out", tmp_path / "base",
        "--maps", tmp_path / "maps.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_bundle(tmp_path / "base").features("reranker") == features["reranker"]


def test_export_pack_takes_classifiers_with_their_closed_sets(
    encoder_folder: Path, tmp_path: Path
) -> None:
    import safetensors.numpy

    features = {role: feature_names(role) for role in ("reranker", "adapter")}
    maps = neutral_maps(features) | {
        "adapter.classifier.mood.weight": np.ones((2, 384), np.float32),
        "adapter.classifier.mood.bias": np.zeros(2, np.float32),
    }
    safetensors.numpy.save_file(maps, tmp_path / "maps.safetensors")
    (tmp_path / "closed_sets.json").write_text('{"mood": ["calm", "wild"]}')
    given = (
        "pack", "--encoder", encoder_folder, "--out", tmp_path / "base",
        "--maps", tmp_path / "maps.safetensors",
    )  # fmt: skip
    assert "classifier.mood" in export(*given).stderr
    done = export(*given, "--closed-sets", tmp_path / "closed_sets.json")
    assert done.returncode == 0, done.stderr
    assert load_bundle(tmp_path / "base").manifest.closed_sets == {"mood": ("calm", "wild")}


def test_export_pack_without_an_encoder_says_how_to_make_one(tmp_path: Path) -> None:
    done = export("pack", "--encoder", tmp_path, "--out", tmp_path / "base")
    assert done.returncode == 1
    assert "python -m export encoder" in done.stderr
    assert not (tmp_path / "base").exists()


@pytest.mark.export
def test_export_makes_a_base_from_the_weights_that_matches_the_reference(tmp_path: Path) -> None:
    pytest.importorskip("optimum")
    with np.load(GOLDEN) as golden:
        texts, reference = [str(text) for text in golden["texts"]], golden["vectors"]
    filled = [text for text in texts if text.strip()]  # a history holds no blank answer
    data = tmp_path / "own.jsonl"
    lines = [
        {"user": user, "id": f"{user}{i}", "seq": i, "time": None, "task": "general",
         "input": f"{texts[(i + 1) % len(texts)]} {text}", "output": text}
        for user, n in (("a", 12), ("b", 11)) for i, text in zip(range(n), cycle(filled))
    ]  # fmt: skip
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    # User a is measured; b, with fewer than a dozen records, shows how large channels become.
    done = export("encoder", "--out", tmp_path / "encoder", "--data", data)
    assert done.returncode == 0, done.stderr
    assert "int8_spearman" in done.stdout
    packed = export("pack", "--encoder", tmp_path / "encoder", "--out", tmp_path / "base")
    assert packed.returncode == 0, packed.stderr
    base = load_bundle(tmp_path / "base")
    assert base.manifest.parity["weight_max_abs"] <= 64
    assert (Encoder(base).encode(texts) * reference).sum(axis=1).min() >= 0.97
    # The reference itself can be made again.
    again = tmp_path / "again.npz"
    made = export("golden", "--texts", GOLDEN.with_suffix(".txt"), "--out", again)
    assert made.returncode == 0, made.stderr
    with np.load(again) as remade:
        np.testing.assert_allclose(remade["vectors"], reference, atol=1e-5)
