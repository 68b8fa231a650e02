"""A base is for the features it was made with: one made for others is refused, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.pack import Card, neutral_maps, pack
from hydra_edge.bundle import Bundle
from hydra_edge.errors import BundleVersionError
from hydra_edge.features import FEATURE_VERSION, FeatureMap, feature_names
from hydra_edge.types import Role


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
