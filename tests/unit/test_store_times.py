"""Times of records that are there: what puts them right, and what leaves them alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import store_items

from hydra_edge.records import AssumedTime
from hydra_edge.store import Store
from hydra_edge.types import AddResult, Record

store = store_items.store
NOTE = Record("text", "title", "note_title", "a.md", 100.0, source="markdown:/notes")


@pytest.mark.parametrize("source", [NOTE.source, "jsonl:/h", "git:/r", "add"])
def test_time_that_its_source_says_now_is_taken(store: Store, source: str) -> None:
    record = replace(NOTE, source=source)
    store.add([record])
    before = store.revision()
    assert store.add([replace(record, time=50.0)]) == AddResult(updated=1)
    assert store.get("a.md").time == 50.0
    assert store.revision().rewrites == before.rewrites + 1
    assert store.add([replace(record, time=50.0)]) == AddResult(unchanged=1)


@pytest.mark.parametrize(
    "again",
    [
        replace(NOTE, time=AssumedTime(50.0)), replace(NOTE, time=None),
        replace(NOTE, time=50.0, source="jsonl:/other"),
    ],
)  # fmt: skip
def test_time_that_nobody_or_another_source_says_changes_none(store: Store, again: Record) -> None:
    store.add([NOTE])
    assert store.add([again]) == AddResult(unchanged=1)
    assert store.get("a.md").time == 100.0


@pytest.mark.parametrize("source", ["", "app:mail", "choices", "jsonl:-"])
def test_time_of_the_clock_or_of_a_pipe_changes_none(store: Store, source: str) -> None:
    record = replace(NOTE, source=source)
    store.add([record])
    assert store.add([replace(record, time=50.0)]) == AddResult(unchanged=1)
    assert store.get("a.md").time == 100.0


@pytest.mark.parametrize(("source", "taken"), [("add", True), ("", False), ("app:mail", False)])
def test_answer_kept_by_a_clock_that_was_ahead_gets_the_time_somebody_says(
    store: Store, monkeypatch: pytest.MonkeyPatch, source: str, taken: bool
) -> None:
    now = time.time()
    kept = replace(NOTE, id="choice-1", source="choices", time=now + 400 * 86400.0)
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda: now + 400 * 86400.0)
        store.add([kept])
    said = replace(kept, source=source, time=50.0)
    assert store.add([said]) == (AddResult(updated=1) if taken else AddResult(unchanged=1))
    assert store.get("choice-1").time == (50.0 if taken else kept.time)
    assert store.get("choice-1").source == "choices"


def test_assumed_time_dates_a_record_that_has_none(store: Store) -> None:
    store.add([replace(NOTE, time=None)])
    assert store.add([replace(NOTE, time=AssumedTime(50.0))]) == AddResult(updated=1)
    assert type(store.get("a.md").time) is float


def test_source_with_a_text_at_two_times_says_the_first_every_time(store: Store) -> None:
    twice = [Record("a", "b", time=at, source="jsonl:/h") for at in (5.0, 9.0)]
    assert store.add(twice) == AddResult(added=1, unchanged=1)
    assert store.add(twice) == AddResult(unchanged=2)
    assert store.add([replace(twice[0], time=6.0), twice[1]]) == AddResult(updated=1, unchanged=1)
    assert [record.time for record in store.records()] == [6.0]


def test_time_comes_along_when_a_record_becomes_another_source_s(store: Store) -> None:
    store.add([NOTE])
    assert store.add([replace(NOTE, time=50.0, source="markdown:/moved")]).updated == 1
    assert [(r.time, r.source) for r in store.records()] == [(50.0, "markdown:/moved")]
