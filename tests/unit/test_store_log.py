"""The log of answers in the store, and clearing it."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, replace

import pytest
import store_items
from filled_store import put_choice
from store_items import CANDIDATES, KEPT, make_generation, make_head

from hydra_edge.store import Store
from hydra_edge.store.log import candidates_of, pack_candidates
from hydra_edge.types import (
    Candidate,
    Record,
    Usage,
)

store = store_items.store


def test_log_generation_comes_back_without_texts_of_records(store: Store) -> None:
    store.log_generation(make_generation(), "model-x")
    logged = store.generation("g1")
    assert logged is not None
    assert asdict(logged) | {"time": 0} == {
        "id": "g1", "task": "t", "query": "the query", "text": "greedy one", "model": "model-x",
        "candidates": tuple(asdict(c) for c in KEPT), "record_ids": ("r1", "r2"),
        "usage": asdict(Usage(llm_calls=1, prompt_tokens=20, latency_ms=3.5)), "time": 0,
    }  # fmt: skip
    assert "shown" not in "\n".join(map(str, store._db.connection.iterdump()))
    assert store.generation("g2") is None


def test_log_generation_keeps_how_a_candidate_ended(store: Store) -> None:
    ends = tuple(
        Candidate(text, zero_shot=drawn_without, finish=finish)
        for text, finish, drawn_without in (
            ("whole", "stop", True), ("at its", "length", False), ("broken", "cut", True)
        )
    )  # fmt: skip
    store.log_generation(replace(make_generation(), candidates=ends), "m")
    logged = store.generation("g1")
    assert logged is not None
    assert logged.candidates == ends
    assert candidates_of(pack_candidates(ends)) == ends


@pytest.mark.parametrize("row", ['["a",1,false,null,0.5]', '["a",1,false,null,0.5,true]'])
def test_candidates_of_an_earlier_release_are_taken_for_whole(row: str) -> None:
    (candidate,) = candidates_of(f"[{row}]")
    assert (candidate.text, candidate.finish) == ("a", "stop")
    assert candidate.zero_shot is ("true" in row)
    if candidate.zero_shot:  # nothing is added to what an earlier release reads
        assert pack_candidates([candidate]) == f"[{row}]"


def test_usage_of_a_later_release_is_read_as_far_as_it_is_known(store: Store) -> None:
    store.log_generation(make_generation(), "m")
    with store._db.writing() as connection:
        connection.execute("UPDATE log SET usage = json_set(usage, '$.later', 5)")
        connection.execute("UPDATE log SET usage = json_remove(usage, '$.latency_ms')")
    logged = store.generation("g1")
    assert logged is not None
    assert logged.usage == Usage(llm_calls=1, prompt_tokens=20)


def test_last_generation_is_the_newest_of_its_task(store: Store) -> None:
    assert store.last_generation() is None
    for id_, task in (("1", "t"), ("2", "u"), ("3", "t")):
        store.log_generation(make_generation(id_, task), "m")
    found = [store.last_generation(), store.last_generation("u"), store.last_generation("x")]
    assert [f and f.id for f in found] == ["3", "2", None]


def test_clear_log_empties_it_and_keeps_the_rest(store: Store) -> None:
    store.add([Record("a", "b")])
    for i in range(3):
        store.log_generation(make_generation(str(i)), "m")
    assert store.clear_log() == 3
    assert store.last_generation() is None
    assert store.clear_log() == 0
    assert store.count() == 1


@pytest.fixture
def _ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that never says the same twice."""
    monkeypatch.setattr(time, "time", itertools.count(1.0).__next__)


@pytest.mark.usefixtures("_ticking")
def test_clear_log_with_choices_marks_the_heads_stored_since_their_answers(store: Store) -> None:
    store.save_head(make_head())
    store.save_head(make_head("u"))
    for task in ("t", "u"):
        store.log_generation(make_generation(task, task), "m")
    put_choice(store, "t", candidates=CANDIDATES, picked=0, text="first thought")
    store.save_head(make_head())  # learned from the first
    put_choice(store, "t", candidates=CANDIDATES, picked=1, text="second thought")
    store.save_head(make_head())
    put_choice(store, "u", "u", candidates=CANDIDATES, picked=0, text="kept", record_id="r1")
    store.save_head(make_head("u"))
    assert store.clear_log(choices=True) == 3
    assert [(h.task, h.version) for h in store.heads() if h.stale] == [("t", 2), ("t", 3)]


@pytest.mark.usefixtures("_ticking")
def test_clear_log_with_choices_whose_answers_are_not_logged_marks_every_head(
    store: Store,
) -> None:
    store.save_head(make_head())
    store.log_generation(make_generation(), "m")
    put_choice(store, "g1", candidates=CANDIDATES, picked=0, text="taken")
    store.clear_log()
    assert store.clear_log(choices=True) == 1
    assert [h.stale for h in store.heads()] == [True]


def test_clear_log_with_choices_marks_by_what_came_first_whatever_the_clock_said(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes backwards: what comes later has the earlier time."""
    monkeypatch.setattr(time, "time", itertools.count(1e9, -1.0).__next__)
    store.save_head(make_head())
    store.log_generation(make_generation("g1", "t"), "m")
    put_choice(store, "g1", candidates=CANDIDATES, picked=0, text="first thought")
    store.save_head(make_head())
    store.save_head(make_head(role="reranker"))
    put_choice(store, "g1", candidates=CANDIDATES, picked=1, text="second thought")
    store.clear_log(choices=True)
    stale = [(h.role, h.version, h.stale) for h in store.heads()]
    assert stale == [("adapter", 1, False), ("adapter", 2, True), ("reranker", 1, True)]


def test_clear_log_with_choices_leaves_heads_stored_before_though_the_log_was_cleared(
    store: Store,
) -> None:
    for i in range(3):
        store.log_generation(make_generation(str(i), "t"), "m")
    store.save_head(make_head())
    store.clear_log()
    store.log_generation(make_generation("g1", "t"), "m")
    put_choice(store, "g1", candidates=CANDIDATES, picked=0, text="taken")
    assert store.clear_log(choices=True) == 2
    assert [h.stale for h in store.heads()] == [False]


@pytest.mark.usefixtures("_ticking")
@pytest.mark.parametrize("report", ["{}", '{"seen": "damaged"}'])
def test_clear_log_with_choices_marks_heads_of_an_earlier_release_by_their_time(
    store: Store, report: str
) -> None:
    store.save_head(make_head())
    store.log_generation(make_generation("g1", "t"), "m")
    put_choice(store, "g1", candidates=CANDIDATES, picked=0, text="taken")
    store.save_head(make_head())
    with store._db.writing() as connection:
        connection.execute("UPDATE heads SET report = ?", (report,))
    store.clear_log(choices=True)
    assert [h.stale for h in store.heads()] == [False, True]


@pytest.mark.usefixtures("_ticking")
def test_clear_log_before_a_moment_leaves_what_is_as_old_as_it_or_younger(store: Store) -> None:
    for id_ in "abc":
        store.log_generation(make_generation(id_), "m")
        put_choice(store, id_, candidates=CANDIDATES, shown=["r1"], picked=0, text="taken")
    put_choice(
        store, "kept", candidates=CANDIDATES, shown=["r1"], picked=0, text="taken", record_id="r1",
        moment=0.0,
    )  # fmt: skip
    assert store.helped_counts("t") == {"r1": (4, 4)}
    middle = store.generation("b")
    assert middle is not None
    assert store.clear_log(before=middle.time) == 1
    assert store.clear_log(before=middle.time) == 0
    assert [store.generation(id_) is not None for id_ in "abc"] == [False, True, True]
    assert len(store.choices()) == 4
    assert store.clear_log(choices=True, before=middle.time) == 1
    assert {choice.generation_id for choice in store.choices()} == {"b", "c", "kept"}
    assert store.helped_counts("t") == {"r1": (3, 3)}
    last = store.last_generation()
    assert (last and last.id, store.last_is_missing()) == ("c", False)


@pytest.mark.usefixtures("_ticking")
def test_clear_log_before_a_moment_marks_the_heads_stored_since_the_answers_that_went(
    store: Store,
) -> None:
    store.save_head(make_head())
    for id_, task in (("a", "t"), ("b", "u")):
        store.log_generation(make_generation(id_, task), "m")
        put_choice(store, id_, task, candidates=CANDIDATES, picked=0, text="taken")
        store.save_head(make_head(task))
    younger = store.generation("b")
    assert younger is not None
    assert store.clear_log(choices=True, before=younger.time) == 2
    assert [(h.task, h.version) for h in store.heads() if h.stale] == [("t", 2)]
    assert store.revision().rewrites == 1
    store.clear_log(choices=True, before=younger.time)
    assert store.revision().rewrites == 1, "no choice went"


def test_clear_log_before_a_moment_that_takes_the_newest_has_no_other_taken_for_the_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back between the two: the newest answer has the earlier time."""
    monkeypatch.setattr(time, "time", iter([2000.0, 1000.0, 3000.0]).__next__)
    for id_ in ("first", "newest"):
        store.log_generation(make_generation(id_), "m")
    assert store.clear_log(before=1500.0) == 1
    assert store.generation("first") is not None
    assert store.last_is_missing()
    store.log_generation(make_generation("next"), "m")
    assert not store.last_is_missing()


def test_clear_log_before_a_moment_leaves_an_answer_unlogged_that_was(store: Store) -> None:
    store.log_generation(make_generation("a"), "m")
    store.mark_unlogged()
    store.clear_log(before=1.0)
    assert store.last_is_missing()


def test_clear_log_counts_as_a_rewrite_only_where_choices_went(store: Store) -> None:
    store.log_generation(make_generation("g1", "t"), "m")
    store.clear_log(choices=True)
    put_choice(store, "g1", candidates=CANDIDATES, picked=0, text="taken")
    store.clear_log()
    assert store.revision().rewrites == 0
    store.clear_log(choices=True)
    assert store.revision().rewrites == 1
