"""A base that knows nothing of people, packed around an encoder that is none."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from export.pack import Card, neutral_maps, pack
from hydra_edge.bundle import Bundle
from hydra_edge.features import feature_names
from hydra_edge.types import Role

DIM = 64  # of the vectors that tests make by hashing words


def neutral_base(folder: Path) -> Bundle:
    """Pack it in a folder that is there."""
    (folder / "file").write_bytes(b"{}")
    features: dict[Role, tuple[str, ...]] = {role: feature_names(role) for role in get_args(Role)}
    return pack(
        folder / "neutral", encoder=folder / "file", tokenizer=folder / "file",
        card=Card(DIM, "mean", 16, {}, {}), maps=neutral_maps(features), features=features,
    )  # fmt: skip
