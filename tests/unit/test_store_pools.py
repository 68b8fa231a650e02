"""Pools in the store: by task, model and purpose."""

from __future__ import annotations

import store_items

from hydra_edge.store import Store, StoredPool
from hydra_edge.types import (
    Completion,
)

store = store_items.store


COMPLETIONS = (
    Completion("first \ud800\x00", greedy=True, tokens=3, logprob=-0.5),
    Completion("second 日本", tokens=2, finish="length"),
)


def test_pool_comes_back_as_it_was(store: Store) -> None:
    store.put_pool(
        "k", task="t", model="m", query_id="q", record_ids=["a", "b"], completions=COMPLETIONS
    )
    assert store.pool("k") == COMPLETIONS
    assert store.pool("other") is None
    assert store.pools() == [StoredPool("k", "t", "m", "pool", "q", ("a", "b"), COMPLETIONS)]


def test_pools_are_found_by_task_model_and_purpose(store: Store) -> None:
    for key, task, model, purpose in (
        ("1", "t", "m", "pool"),
        ("2", "t", "m", "rag"),
        ("3", "t", "n", "pool"),
        ("4", "u", "m", "pool"),
    ):
        store.put_pool(
            key, task=task, model=model, query_id="", record_ids=(), completions=(), purpose=purpose
        )
    assert [p.key for p in store.pools("t")] == ["1", "2", "3"]
    assert [p.key for p in store.pools("t", model="m")] == ["1", "2"]
    assert [p.key for p in store.pools("t", model="m", purpose="rag")] == ["2"]
    assert [p.key for p in store.pools(purpose="pool")] == ["1", "3", "4"]
    assert store.pools("x") == []


def test_put_pool_under_the_same_key_replaces(store: Store) -> None:
    for text in ("old", "new"):
        store.put_pool(
            "k", task="t", model="m", query_id="", record_ids=(), completions=[Completion(text)]
        )
    assert store.pool("k") == (Completion("new"),)
    assert len(store.pools()) == 1
