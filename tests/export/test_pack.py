from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from export.__main__ import app
from export.pack import CARD_FILE, Card, load_maps, neutral_maps, pack
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.errors import BundleError
from hydra_edge.types import Role

FEATURES: dict[Role, tuple[str, ...]] = {"reranker": ("near", "recent"), "adapter": ("votes",)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "encoder.onnx").write_bytes(b"a graph")
    (folder / "tokenizer.json").write_bytes(b"{}")
    Card(4, "mean", 16, {"cosine": 0.99}, {"model": "small"}).save(folder / CARD_FILE)
    return folder


def make(source: Path, out: Path, **changes: object) -> Bundle:
    arguments = {
        "encoder": source / "encoder.onnx",
        "tokenizer": source / "tokenizer.json",
        "card": Card.load(source / CARD_FILE),
        "maps": neutral_maps(FEATURES),
        "features": FEATURES,
    }
    return pack(out, **{**arguments, **changes})


def test_pack_makes_a_bundle_that_loads(source: Path, tmp_path: Path) -> None:
    made = make(source, tmp_path / "out", quality={"gain": 0.1})
    loaded = load_bundle(tmp_path / "out")
    assert loaded.base_id == made.base_id
    assert loaded.manifest.parity == {"cosine": 0.99}
    assert loaded.manifest.provenance == {"model": "small"}
    assert loaded.manifest.quality == {"gain": 0.1}


def test_pack_of_equal_inputs_gives_equal_bytes(source: Path, tmp_path: Path) -> None:
    maps = neutral_maps(FEATURES)
    make(source, tmp_path / "one", maps=maps)
    make(source, tmp_path / "two", maps=dict(reversed(maps.items())))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_pack_replaces_a_bundle_and_leaves_nothing_else(source: Path, tmp_path: Path) -> None:
    old = make(source, tmp_path / "home" / "out")
    maps = {**neutral_maps(FEATURES), "adapter.scale.mean": np.ones(1, np.float32)}
    new = make(source, tmp_path / "home" / "out", maps=maps)
    assert old.base_id != new.base_id
    assert load_bundle(tmp_path / "home" / "out").base_id == new.base_id
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_pack_never_replaces_what_is_no_bundle(source: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "precious"
    if kind == "file":
        out.write_text("letters")
    else:
        out.mkdir()
        (out / "letters").write_text("letters")
    with pytest.raises(BundleError, match="is not a bundle"):
        make(source, out)
    assert (out if kind == "file" else out / "letters").read_text() == "letters"


@pytest.mark.parametrize("moved", [0, 1])
def test_pack_killed_while_it_delivers_leaves_nothing_to_the_next(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """``moved``: how many of the two moves were made before."""
    home, after, left = tmp_path / "home", tmp_path / "after", []
    old = make(source, home / "out")
    rename = Path.rename

    def killed(path: Path, target: Path) -> None:
        if len(left) == moved and not after.exists():
            shutil.copytree(home, after)  # what is there when the process is gone
            raise SystemExit
        left.append(path)
        rename(path, target)

    maps = {**neutral_maps(FEATURES), "adapter.scale.mean": np.ones(1, np.float32)}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(SystemExit):
            make(source, home / "out", maps=maps)
    assert len(list(after.iterdir())) == 2
    bad = {**neutral_maps(FEATURES), "adapter.scale.std": np.zeros(1, np.float32)}
    with pytest.raises(BundleError, match="feature_version is 0"):
        make(source, after / "out", feature_version=0)
    assert [path.name for path in after.iterdir()] == ["out"]
    assert load_bundle(after / "out").base_id == old.base_id, "what stood there is back"
    with pytest.raises(BundleError, match="not above 0"):
        make(source, after / "out", maps=bad)
    assert make(source, after / "out", maps=maps).base_id != old.base_id
    assert [path.name for path in after.iterdir()] == ["out"]


def test_pack_that_fails_leaves_the_old_bundle(source: Path, tmp_path: Path) -> None:
    old = make(source, tmp_path / "home" / "out")
    bad = {**neutral_maps(FEATURES), "adapter.scale.std": np.zeros(1, np.float32)}
    with pytest.raises(BundleError, match="not above 0"):
        make(source, tmp_path / "home" / "out", maps=bad)
    with pytest.raises(BundleError, match=r"feature_version is 0"):
        make(source, tmp_path / "home" / "out", feature_version=0)
    assert load_bundle(tmp_path / "home" / "out").base_id == old.base_id
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["out"]


def test_pack_stores_double_precision_maps_as_float32(source: Path, tmp_path: Path) -> None:
    maps = {name: array.astype(np.float64) for name, array in neutral_maps(FEATURES).items()}
    assert make(source, tmp_path / "out", maps=maps).base_id == make(source, tmp_path / "b").base_id


def test_neutral_maps_are_a_standard_normal_for_every_kind(source: Path, tmp_path: Path) -> None:
    bundle = make(source, tmp_path / "out")
    means = {name for name in bundle.maps if name.endswith(".mean") and "reranker.prior." in name}
    assert means == {f"reranker.prior.{kind}.mean" for kind in ("label", "rating", "text")}
    np.testing.assert_array_equal(bundle.array("reranker.prior.text.precision"), np.eye(2))
    np.testing.assert_array_equal(bundle.array("reranker.prior.text.mean"), 0)
    np.testing.assert_array_equal(bundle.array("reranker.scale.std"), 1)


def test_load_maps_reads_what_pack_wrote(source: Path, tmp_path: Path) -> None:
    bundle = make(source, tmp_path / "out")
    read = load_maps(bundle.path / "maps.safetensors")
    assert sorted(read) == sorted(bundle.maps)
    with pytest.raises(BundleError, match="cannot be read"):
        load_maps(tmp_path / "none")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"dim": 4, "unheard": 1}'])
def test_card_that_is_none_says_how_to_make_one(tmp_path: Path, content: str) -> None:
    (tmp_path / CARD_FILE).write_text(content)
    with pytest.raises(BundleError, match="python -m export encoder"):
        Card.load(tmp_path / CARD_FILE)


def test_card_survives_the_way_to_disk_and_back(tmp_path: Path) -> None:
    card = Card(4, "mean", 16, {"a": [1, 2]}, {"b": None})
    card.save(tmp_path / CARD_FILE)
    assert Card.load(tmp_path / CARD_FILE) == card
    assert json.loads((tmp_path / CARD_FILE).read_text())["dim"] == 4


def test_pack_too_large_for_a_package_is_told_by_every_command_that_makes_one(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("encoder.onnx", "tokenizer.json"):
        (source / name).write_bytes(b"{}" * 100)
    (tmp_path / "x.train.jsonl").touch()
    out = tmp_path / "out"
    monkeypatch.setattr("export.build.build", lambda *_, **__: make(source, out))
    for command in (("pack", "--encoder", source), ("build", "--data", tmp_path)):
        words = [*map(str, command), "--out", str(out)]
        assert CliRunner().invoke(app, words).exit_code == 0
        with monkeypatch.context() as smaller:
            smaller.setattr("export.pack.MAX_BUNDLE_BYTES", 300)
            done = CliRunner().invoke(app, words)

        assert isinstance(done.exception, BundleError)
        assert "out is too large for a package: got 0.0 MB; expected" in str(done.exception)
        assert load_bundle(out), "it is there all the same"
