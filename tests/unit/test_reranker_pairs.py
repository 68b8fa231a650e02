"""Which of a pseudo-query's records a head is fitted on."""

from __future__ import annotations

import pytest

from hydra_edge.reranker import _spread


@pytest.mark.parametrize(("rows", "pairs"), [(50, 16), (17, 16), (200, 5)])
def test_the_best_half_is_taken_and_of_the_others_the_last_too(rows: int, pairs: int) -> None:
    taken = _spread(rows, pairs).tolist()
    half = pairs // 2
    assert taken[:half] == list(range(half))
    assert taken[-1] == rows - 1
    assert len(set(taken)) == pairs
    gaps = [b - a for a, b in zip(taken[half:], taken[half + 1 :], strict=False)]
    assert max(gaps) - min(gaps) <= 1, "evenly"


def test_all_are_taken_where_there_are_no_more() -> None:
    assert _spread(9, 16).tolist() == list(range(9))
