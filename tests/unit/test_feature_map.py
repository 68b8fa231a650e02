"""A base is for the features it was made with: one made for others is refused, and says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.pack import Card, neutral_maps, pack
from hydra_edge.adapter import pool_features
from hydra_edge.bundle import Bundle
from hydra_edge.errors import BundleError, BundleVersionError
from hydra_edge.features import FEATURE_VERSION, FeatureMap, Pool, feature_names
from hydra_edge.history import History
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Candidate, Record, Role


def base(folder: Path, *, version: int, names: dict[Role, tuple[str, ...]]) -> Bundle:
    folder.mkdir()
    (folder / "file").write_bytes(b"{}")
    return pack(
        folder / "base", encoder=folder / "file", tokenizer=folder / "file",
        card=Card(4, "mean", 16, {}, {}), maps=neutral_maps(names), features=names,
        feature_version=version,
    )  # fmt: skip


NAMES: dict[Role, tuple[str, ...]] = {
    "reranker": feature_names("reranker"), "adapter": feature_names("adapter"),
}  # fmt: skip


@pytest.mark.parametrize("version", [FEATURE_VERSION - 1, FEATURE_VERSION + 1])
def test_a_base_made_for_another_version_of_the_features_is_refused(
    tmp_path: Path, version: int
) -> None:
    other = base(tmp_path / "other", version=version, names=NAMES)
    with pytest.raises(
        BundleVersionError, match=rf"version {version} of the features.*bundle use default"
    ):
        FeatureMap(other, "adapter")
    assert FeatureMap(base(tmp_path / "own", version=FEATURE_VERSION, names=NAMES), "adapter")


def test_a_base_made_for_features_of_other_names_is_refused(tmp_path: Path) -> None:
    names = NAMES | {"adapter": (*NAMES["adapter"][:-1], "mood")}
    other = base(tmp_path / "other", version=FEATURE_VERSION, names=names)
    with pytest.raises(BundleVersionError, match="differ in log_own_fit, mood"):
        FeatureMap(other, "adapter")
    assert FeatureMap(other, "reranker")


def test_learned_features_are_products_of_two_maps_and_come_last(tmp_path: Path) -> None:
    names: dict[Role, tuple[str, ...]] = {
        "reranker": feature_names("reranker", 1), "adapter": feature_names("adapter", 2),
    }  # fmt: skip
    assert names["reranker"][-2:] == ("map_input_0", "map_output_0")
    assert names["adapter"][-2:] == ("map_candidate_0", "map_candidate_1")
    maps = neutral_maps(names) | {
        "reranker.map.query": np.eye(4, dtype=np.float32)[:1],
        "reranker.map.other": np.eye(4, dtype=np.float32)[:1],
        "adapter.map.query": np.array([[1, 0, 0, 0], [0, 2, 0, 0]], dtype=np.float32),
        "adapter.map.other": np.array([[0, 0, 1, 0], [1, 0, 0, 1]], dtype=np.float32),
    }
    (tmp_path / "file").write_bytes(b"{}")
    bundle = pack(
        tmp_path / "base", encoder=tmp_path / "file", tokenizer=tmp_path / "file",
        card=Card(4, "mean", 16, {}, {}), maps=maps, features=names,
    )  # fmt: skip
    query = np.array([3, 5, 0, 0], dtype=np.float32)
    others = np.array([[1, 0, 0, 0], [0, 0, 2, 1]], dtype=np.float32)
    feature_map = FeatureMap(bundle, "adapter")
    assert feature_map.names == names["adapter"]
    np.testing.assert_allclose(feature_map.learned(query, others), [[0, 10], [6, 10]])
    plain = FeatureMap(base(tmp_path / "plain", version=FEATURE_VERSION, names=NAMES), "adapter")
    assert plain.learned(query, others).shape == (2, 0)


def with_half_at(tmp_path: Path, value: list[float]) -> Bundle:
    (tmp_path / "file").write_bytes(b"{}")
    maps = neutral_maps(NAMES) | {"adapter.half_at": np.array(value, dtype=np.float32)}
    return pack(
        tmp_path / "base", encoder=tmp_path / "file", tokenizer=tmp_path / "file",
        card=Card(4, "mean", 16, {}, {}), maps=maps, features=NAMES,
    )  # fmt: skip


def test_few_records_are_believed_as_the_base_says(tmp_path: Path) -> None:
    assert FeatureMap(with_half_at(tmp_path, [6.0]), "adapter").half_at == 6.0
    silent = base(tmp_path / "silent", version=FEATURE_VERSION, names=NAMES)
    assert FeatureMap(silent, "adapter").half_at == 0.0


@pytest.mark.parametrize("value", [[-1.0], [1.0, 2.0], [float("nan")]])
def test_a_number_of_records_that_is_none_is_refused(tmp_path: Path, value: list[float]) -> None:
    with pytest.raises(BundleError, match="half_at"):
        with_half_at(tmp_path, value)


@pytest.mark.parametrize(("task", "drawn"), [("news_headline", True), ("movie_tag", False)])
def test_pool_features_draw_in_free_text_only(tmp_path: Path, task: str, drawn: bool) -> None:
    spec, unit = BUILTIN[task], np.eye(4, dtype=np.float32)
    records = [Record("in", "classic", task, id="r")]
    history = History.build(spec, records, unit[:1], unit[1:2])
    pool = Pool(
        "query", unit[0], (Candidate("classic"), Candidate("comedy")), unit[1:3], (),
        np.zeros((0, 4), dtype=np.float32), np.zeros(1, dtype=np.int64),
        np.ones(1, dtype=np.float32),
    )  # fmt: skip
    place = NAMES["adapter"].index("support_near")
    one, all_ = (
        pool_features(FeatureMap(with_half_at(folder, [half_at]), "adapter"), pool, history)
        for folder, half_at in ((tmp_path / "a", 1.0), (tmp_path / "b", 0.0))
        if not folder.mkdir()
    )
    said = np.array([1.0, 0.0], dtype=np.float32)
    np.testing.assert_allclose(all_[:, place], said, atol=1e-6)
    np.testing.assert_allclose(one[:, place], [0.75, 0.25] if drawn else said, atol=1e-6)
