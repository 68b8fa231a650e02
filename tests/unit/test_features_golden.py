"""Features are what the shipped base, and every head that is stored, was fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from feature_scenes import GOLDEN, features

from hydra_edge.features import ADAPTER_FEATURES, RERANKER_FEATURES

# Other processors round sums of float32 otherwise, by some 1e-6.
CLOSE = 1e-4

with np.load(GOLDEN) as _golden:
    KEPT = {name: _golden[name] for name in _golden.files}


@pytest.fixture(scope="module")
def computed() -> dict[str, np.ndarray]:
    return features()


def test_scenes_are_those_that_are_kept(computed: dict[str, np.ndarray]) -> None:
    assert computed.keys() == KEPT.keys()


@pytest.mark.parametrize("scene", KEPT)
def test_features_are_computed_as_for_the_shipped_base(
    computed: dict[str, np.ndarray], scene: str
) -> None:
    names = RERANKER_FEATURES if scene.endswith("reranker") else ADAPTER_FEATURES
    far = np.abs(computed[scene] - KEPT[scene]).max(axis=0) > CLOSE
    changed = [name for name, is_far in zip(names, far, strict=True) if is_far]
    assert not changed, (
        f"computed otherwise than before: {changed}. Heads of other features do not fit: undo it, "
        "or raise FEATURE_VERSION, build the base again, and write tests/golden/features.npz anew "
        "(tests/unit/feature_scenes.py says how)."
    )
