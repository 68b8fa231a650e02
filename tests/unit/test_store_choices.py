"""Choices in the store, and how often records helped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import store_items
from filled_store import put_choice
from store_items import CANDIDATES, KEPT

from hydra_edge.store import Store, choices
from hydra_edge.types import (
    Record,
)

store = store_items.store


def test_choice_said_again_keeps_its_number_and_another_gets_a_higher_one(store: Store) -> None:
    def put(text: str, moment: float) -> int:
        return put_choice(store, "g1", candidates=CANDIDATES, text=text, moment=moment).seq

    first = put("a", 5.0)
    assert put("a", 5.0) == first
    assert put("b", 3.0) > first


def test_choices_come_back_oldest_first_by_task(store: Store) -> None:
    put_choice(
        store, "g1", query="q1", candidates=CANDIDATES, shown=["r1"], picked=0, text="greedy one",
        record_id="new",
    )  # fmt: skip
    put_choice(store, "g2", "u", "q2", candidates=CANDIDATES, text="my own \x00")
    first, second = store.choices()
    assert (first.generation_id, first.task, first.query) == ("g1", "t", "q1")
    assert (first.candidates, first.record_ids) == (KEPT, ("r1",))
    assert (first.picked, first.text, first.record_id) == (0, "greedy one", "new")
    assert (second.picked, second.text, second.record_id) == (None, "my own \x00", None)
    assert store.choices("u") == [second]


def test_put_choice_returns_what_it_stored_whatever_came_after(store: Store) -> None:
    put = put_choice(
        store, "g1", query="q1", candidates=CANDIDATES, shown=["r1"], picked=0, text="greedy one",
        record_id="new",
    )  # fmt: skip
    later = put_choice(store, "g2", query="q2", candidates=CANDIDATES, text="later")
    assert store.choices() == [put, later]
    assert (put.text, put.candidates, put.record_ids) == ("greedy one", KEPT, ("r1",))


def test_put_choice_again_for_a_generation_replaces_the_first(store: Store) -> None:
    for text in ("first thought", "second thought"):
        put_choice(store, "g1", candidates=CANDIDATES, text=text)
        put_choice(store, "", candidates=CANDIDATES, text=text)
    assert [(c.generation_id, c.text) for c in store.choices()] == [
        ("", "first thought"), ("g1", "second thought"), ("", "second thought"),
    ]  # fmt: skip


def test_helped_counts_are_of_shown_records_and_candidates_taken_as_they_were(
    store: Store,
) -> None:
    put_choice(store, "1", candidates=CANDIDATES, shown=["a", "b", "a"], picked=0)
    put_choice(store, "2", candidates=CANDIDATES, shown=["a"])
    put_choice(store, "3", candidates=CANDIDATES, shown=["a"], picked=1)
    put_choice(store, "4", "u", candidates=CANDIDATES, shown=["b"], picked=1)
    assert store.helped_counts("t") == {"a": (3, 2), "b": (1, 1)}
    assert store.helped_counts("none") == {}


def recounted(store: Store, task: str) -> dict[str, tuple[int, int]]:
    """Count by hand, from all choices."""
    counts: dict[str, tuple[int, int]] = {}
    for choice in store.choices(task):
        for record_id in set(choice.record_ids):
            shown, helped = counts.get(record_id, (0, 0))
            counts[record_id] = shown + 1, helped + (choice.picked is not None)
    return counts


def test_helped_counts_stay_true_whatever_is_put_replaced_and_forgotten(tmp_path: Path) -> None:
    rng = random.Random(5)
    ids = [f"r{i}" for i in range(6)] + ["nul\x00", "lone \ud800"]
    with Store.open(tmp_path / "u.db") as store, Store.open(tmp_path / "u.db") as other:
        store.add([Record(f"text {i}", "out", id=i) for i in ids])
        for step in range(120):
            by = rng.choice([store, other])
            shown, picked = rng.choices(ids, k=3), rng.choice([0, None])
            # Few names: many of these replace an earlier choice, often the last one.
            name, task = f"g{rng.randrange(12)}", rng.choice("tu")
            put_choice(by, name, task, candidates=CANDIDATES, shown=shown, picked=picked)
            if step % 17 == 16:
                by.forget([gone := rng.choice(ids)])
                by.add([Record("text again", "out", id=gone)])
            if rng.random() < 0.6:
                assert store.helped_counts("t") == recounted(store, "t")
                assert store.helped_counts("u") == recounted(store, "u")


def test_helped_counts_read_a_choice_once(store: Store) -> None:
    for i in range(50):
        put_choice(store, f"g{i}", candidates=CANDIDATES, shown=["a", "b"], picked=0)
    counted = store.helped_counts("t")
    counted["a"] = (7, 7)  # what was given out is the caller's
    with parsed_ids(store) as read:
        assert store.helped_counts("t") == {"a": (50, 50), "b": (50, 50)}
        put_choice(store, "new", candidates=CANDIDATES, shown=["a"])
        read.clear()
        assert store.helped_counts("t")["a"] == (51, 50)
    assert read == ['["a"]']


@contextmanager
def parsed_ids(store: Store) -> Iterator[list[str]]:
    """Collect the lists of record ids that are parsed."""
    parsed: list[str] = []
    original = choices.texts_from_json

    def noted(value: str) -> tuple[str, ...]:
        parsed.append(value)
        return original(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "texts_from_json", noted)
        yield parsed
