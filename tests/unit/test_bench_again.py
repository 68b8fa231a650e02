"""Asking again what was answered before: what counts as the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench.again import Pair, _chosen, same, summed_up
from hydra_edge.types import Completion


def test_an_answer_is_the_same_in_its_place_with_its_tokens() -> None:
    before = [Completion("red", tokens=1), Completion("blue", tokens=2), Completion("x", tokens=1)]
    assert same(before, before) == 3
    assert same(before, [before[1], before[0], before[2]]) == 1
    assert same(before, [Completion("red", tokens=2), *before[1:]]) == 2
    assert same(before, before[:1]) == 1


def test_of_blank_answers_nothing_is_chosen() -> None:
    blank = SimpleNamespace(pool=SimpleNamespace(candidates=()))
    assert _chosen(SimpleNamespace(), blank) == ("", 0.0)


def test_a_pool_that_lost_an_answer_is_not_the_same() -> None:
    found = summed_up([Pair(8, 8, True, 0.5, 0.5), Pair(8, 7, False, 1.0, 0.0)])
    assert found["pools"] == 2
    assert found["answers"] == 16
    assert found["same_answers"] == pytest.approx(15 / 16)
    assert found["same_pools"] == pytest.approx(0.5)
    assert found["same_choice"] == pytest.approx(0.5)
    assert found["utility_kept"] == pytest.approx(0.75)
    assert found["utility_again"] == pytest.approx(0.25)
