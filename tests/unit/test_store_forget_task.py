"""Forgetting a task: its records, and what is its own without any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import filled_store
import numpy as np
import pytest
from filled_store import filler, generation_of, head_of, left_of, put_choice, put_pool

from hydra_edge.errors import RecordNotFoundError
from hydra_edge.store import Store
from hydra_edge.types import Completion, ForgetReceipt, Record, text_hash

path, store = filled_store.path, filled_store.store

SECRET = "xylophone rendezvous at the harbour, qwzjk"


@pytest.fixture
def filled(store: Store) -> Store:
    """A task with a record, a choice, a pool, a log entry and a head; and another task."""
    store.add([*filler(50), Record(SECRET, "zzyzx title", task="diary", id="d1", source="notes")])
    store.put_vectors("b", {text_hash(t): np.ones(4) for t in (SECRET, "asked qwzjk", "kept")})
    put_pool(store, "theirs", "harmless", query_id="f0-1")
    generation = replace(generation_of("g1", "asked qwzjk", "answered zzyzx"), task="diary")
    store.log_generation(generation, "m")
    put_choice(store, "g1", "diary", "asked qwzjk", picked=0)
    store.log_generation(generation_of("g2", "harmless", "z", ("f0-1",)), "m")
    store.save_head(head_of("diary"))
    store.save_head(head_of("t"))
    return store


def test_forget_task_takes_all_of_it_and_leaves_other_tasks_alone(
    filled: Store, path: Path
) -> None:
    expected = ForgetReceipt(records=1, vectors=2, choices=1, log_entries=1, heads=1)
    assert filled.would_forget(task="diary") == expected
    assert filled.forget(task="diary") == expected
    assert left_of("xylophone rendezvous qwzjk zzyzx diary", path) == []
    assert filled.tasks() == {"t": 50}
    assert [(h.task, h.stale) for h in filled.heads()] == [("t", False)]
    assert [filled.generation(g) is None for g in ("g1", "g2")] == [True, False]
    assert [p.key for p in filled.pools()] == ["theirs"]


def test_forget_task_takes_pools_and_choices_that_name_no_record(filled: Store) -> None:
    filled.forget(["d1"])
    answers = [Completion("an answer")]
    filled.put_pool(
        "own", task="diary", model="m", query_id="gone", record_ids=(), completions=answers
    )
    receipt = filled.forget(task="diary")
    assert (receipt.records, receipt.pools, receipt.heads) == (0, 1, 1)
    assert "diary" not in {h.task for h in filled.heads()}


def test_forget_task_marks_heads_of_another_that_was_shown_its_records(filled: Store) -> None:
    put_pool(filled, "shown", "some answer", query_id="f0-2", record_ids=("d1",))
    receipt = filled.forget(task="diary")
    assert (receipt.pools, receipt.tasks) == (1, ("t",))
    assert [(h.task, h.stale) for h in filled.heads()] == [("t", True)]


def test_forget_unknown_task_names_those_there_are_and_erases_nothing(filled: Store) -> None:
    for forget in (filled.forget, filled.would_forget):
        with pytest.raises(RecordNotFoundError, match=r"task 'dairy'.*'t', 'diary'"):
            forget(task="dairy")
    assert filled.count() == 51


def test_forget_task_and_source_together_counts_each_record_once(filled: Store) -> None:
    assert filled.forget(source="notes", task="diary").records == 1
