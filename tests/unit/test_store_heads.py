"""Heads in the store: versions, the one in use, what is refused."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import store_items
from filled_store import put_choice
from store_items import make_head

from hydra_edge.errors import ShapeError, StoreError
from hydra_edge.store import Store
from hydra_edge.types import (
    HeadState,
    Record,
)

store = store_items.store


def same_head(a: HeadState, b: HeadState) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        if isinstance(getattr(a, f.name), np.ndarray)
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(HeadState)
    )


def test_save_head_numbers_versions_and_makes_the_newest_current(store: Store) -> None:
    state = make_head()
    saved = [store.save_head(replace(state, n_queries=i)) for i in range(3)]
    assert [s.version for s in saved] == [1, 2, 3]
    assert state.version == 0
    current = store.head("t", "adapter")
    assert current is not None
    assert same_head(current, saved[2])
    assert current.weight.dtype == current.precision.dtype == np.float32
    assert store.save_head(make_head(role="reranker")).version == 1
    assert store.head("t", "reranker") is not None
    assert store.head("u", "adapter") is None
    assert [(h.role, h.version) for h in store.heads("t")] == [
        ("adapter", 1), ("adapter", 2), ("adapter", 3), ("reranker", 1),
    ]  # fmt: skip
    assert store.heads("u") == []


def test_rollback_head_goes_back_and_forward_and_saving_goes_on_from_the_last(
    store: Store,
) -> None:
    for i in range(3):
        store.save_head(make_head(seed=i))
    assert store.rollback_head("t", "adapter").version == 2
    assert store.rollback_head("t", "adapter").version == 1
    assert store.rollback_head("t", "adapter") is None
    assert store.head("t", "adapter") is None
    assert [h.version for h in store.heads("t")] == [1, 2, 3]
    with pytest.raises(StoreError, match=r"no earlier version .*in use: none; kept: 1, 2, 3"):
        store.rollback_head("t", "adapter")
    assert store.rollback_head("t", "adapter", 3).version == 3
    store.rollback_head("t", "adapter", 1)
    current = store.head("t", "adapter")
    assert current is not None
    assert current.version == 1
    assert store.save_head(make_head()).version == 4
    with pytest.raises(StoreError, match=r"version 9 .*in use: 4; kept: 1, 2, 3, 4"):
        store.rollback_head("t", "adapter", 9)
    with pytest.raises(StoreError, match=r"in use: none; kept: none"):
        store.rollback_head("nothing", "adapter")


def test_save_head_keeps_the_last_twenty_versions(store: Store) -> None:
    for i in range(25):
        store.save_head(make_head(seed=i))
    store.save_head(make_head("u"))
    assert [h.version for h in store.heads("t")] == list(range(6, 26))


def test_save_head_keeps_twenty_fitted_versions_beside_twenty_steps(store: Store) -> None:
    def step() -> None:
        store.save_head(replace(make_head(), report={"choice": "g"}))

    store.save_head(make_head())
    for _ in range(25):
        step()
    assert [h.version for h in store.heads("t")] == [1, *range(7, 27)]
    for _ in range(25):
        store.save_head(make_head())
    assert [h.version for h in store.heads("t")] == [*range(7, 27), *range(32, 52)]
    for _ in range(19):  # the last that was fitted is what is left when all steps are taken back
        step()
    assert [store.rollback_head("t", "adapter") for _ in range(19)][-1].version == 51


def test_drop_stale_heads_keeps_only_what_learned_from_nothing_forgotten(store: Store) -> None:
    store.save_head(replace(make_head("t"), stale=True))
    store.save_head(make_head("t"))
    store.save_head(replace(make_head("u"), stale=True))
    store.save_head(replace(make_head("gone"), stale=True))
    store.add([Record("in", "out", task=task) for task in ("t", "u")])
    assert store.drop_stale_heads("t") == 2
    assert [(h.task, h.version) for h in store.heads()] == [("t", 2), ("u", 1)]
    assert store.drop_stale_heads("u") == 1
    assert store.head("u", make_head("u").role) is None


def test_drop_stale_heads_keeps_what_can_be_fitted_on_choices(store: Store) -> None:
    store.save_head(replace(make_head("chosen"), stale=True))
    store.save_head(replace(make_head("gone"), stale=True))
    put_choice(store, "g", "chosen", "asked", candidates=[])
    store.drop_stale_heads("t")
    assert [head.task for head in store.heads()] == ["chosen"]


def test_drop_stale_heads_of_the_one_in_use_goes_back_to_the_newest_left(store: Store) -> None:
    for seed in range(2):
        store.save_head(make_head(seed=seed))
    store.save_head(replace(make_head(), stale=True))
    store.save_head(make_head(role="reranker"))
    store.save_head(make_head(role="reranker"))
    store.save_head(replace(make_head("gone", role="reranker"), stale=True))
    store.rollback_head("t", "reranker")
    assert store.drop_stale_heads("t") == 2
    current = {role: store.head("t", role) for role in ("adapter", "reranker")}
    assert {role: head and head.version for role, head in current.items()} == {
        "adapter": 2, "reranker": 1,
    }  # fmt: skip
    assert store.head("gone", "reranker") is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": np.zeros(2, dtype=np.float32)}, r"weight: got shape \(2,\); expected \(3,\)"),
        ({"precision": np.zeros((3, 2), dtype=np.float32)}, r"expected \(3, 3\)"),
        ({"weight": np.full(3, np.nan, dtype=np.float32)}, "not finite"),
        ({"prior_scale": math.inf}, "prior scale is inf"),
    ],
)
def test_save_head_that_does_not_fit_is_refused(
    store: Store, change: dict[str, object], match: str
) -> None:
    with pytest.raises(ShapeError, match=match):
        store.save_head(replace(make_head(), **change))
    assert store.heads() == []


def test_save_head_with_a_report_that_is_not_json_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="report is not JSON"):
        store.save_head(replace(make_head(), report={"x": object()}))
