"""The answer that is given, where some of a pool's candidates broke off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hydra_edge import adapter
from hydra_edge.types import Candidate, Double1d, Float2d


@dataclass
class Unsure:
    """A head of which nobody knows whether its best is better than what stands, a whole one."""

    given: Double1d
    standing_at: int
    features: object = None

    def scores(self, phi: Float2d) -> Double1d:
        return self.given

    def contributions(self, phi: Float2d) -> list[dict[str, float]]:
        return [{} for _ in self.given]

    def standing(self, phi: Float2d) -> int:
        assert len(phi) == 2, "it is asked of the whole ones alone"
        return self.standing_at


@pytest.mark.parametrize(("standing_at", "text"), [(0, "first whole"), (1, "second whole")])
def test_answer_that_stands_is_one_of_the_whole_ones(
    monkeypatch: pytest.MonkeyPatch, standing_at: int, text: str
) -> None:
    candidates = (
        Candidate("broken off", finish="length"), Candidate("first whole"),
        Candidate("second whole"),
    )  # fmt: skip
    monkeypatch.setattr(adapter, "pool_features", lambda *_: np.zeros((3, 1), np.float32))
    pool = type("Pool", (), {"candidates": candidates})()
    choice = adapter.choose(Unsure(np.array([3.0, 1.0, 2.0]), standing_at), pool, None)
    assert (choice.text, choice.abstained) == (text, True)
    assert [c.text for c in choice.candidates] == ["second whole", "first whole", "broken off"]
