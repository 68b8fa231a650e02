"""Records in the store: ids, updates, order, counts, hostile texts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filled_store import cached_vectors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hydra_edge.errors import RecordNotFoundError, StoreError
from hydra_edge.store import Store
from hydra_edge.types import AddResult, Completion, Record, text_hash
from hydra_edge.utility import tokens

HOSTILE = [
    "plain words",
    "nul\x00inside\x00",
    "\x00",
    "lone \ud800 surrogate",
    "\ud83d\ude00 as a pair of surrogates",
    "emoji 🎉👩‍👩‍👧 family",
    "שלום עולם",
    "مرحبا بالعالم \u202eabc",
    "日本語のテスト",
    "안녕하세요 세계",
    "नमस्ते दुनिया",
    "'; DROP TABLE records; --",
    '" OR input:* NEAR(a b) ^x',
    "tab\tnew\nline\r\n",
    "İstanbul ẞ ŉ",
    "",
]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.in_memory() as opened:
        yield opened


def test_add_record_without_id_is_filed_under_its_content(store: Store) -> None:
    record = Record("in", "out", task="t", time=5.0, private=True, source="s")
    assert store.add([record]) == AddResult(added=1)
    assert store.records() == [replace(record, id=record.content_hash[:16])]


def test_add_same_records_again_changes_nothing(store: Store) -> None:
    records = [Record(f"in {i}", "out", id="" if i % 2 else f"id{i}") for i in range(20)]
    store.add(records)
    before = store.records()
    assert store.add(records) == AddResult(unchanged=20)
    assert store.records() == before


def test_add_known_record_now_private_marks_it(store: Store) -> None:
    record = Record("in", "out", id="a")
    store.add([record])
    assert store.add([replace(record, private=True)]) == AddResult(updated=1)
    assert store.get("a").private
    assert store.add([record]) == AddResult(unchanged=1)
    assert store.get("a").private


def test_add_same_id_and_source_replaces_content_in_place(store: Store) -> None:
    store.add([Record("old words", "x", id="a", source="f", time=3.0), Record("other", "y")])
    changed = store.add([Record("fresh words", "z", id="a", source="f", private=True)])
    assert changed == AddResult(updated=1)
    assert store.records()[0] == Record(
        "fresh words", "z", id="a", source="f", time=3.0, private=True
    )
    assert store.search("old") == []
    assert [r.id for r in store.search("fresh")] == ["a"]
    assert store.count() == 2
    assert store.check() == []


def test_add_replaced_text_loses_its_vector_unless_another_has_it(store: Store) -> None:
    store.add([Record("old", "shared", id="a"), Record("b", "shared", id="b")])
    hashes = [text_hash("old"), text_hash("shared")]
    store.put_vectors("base", {h: np.ones(4, dtype=np.float32) for h in hashes})
    store.add([Record("new", "new", id="a")])
    assert set(cached_vectors(store, hashes, "base")) == {text_hash("shared")}


def put_pools(store: Store) -> None:
    """Keep pools about a, with a shown, with a in words only, and about others."""
    for key, query_id, shown in (
        ("about", "a", ("b",)),
        ("shown", "b", ("b", "a")),
        ("others", "b", ("c", "aa")),
        ("nobody", "", ()),
    ):
        store.put_pool(
            key, task="t", model="m", query_id=query_id, record_ids=shown,
            completions=[Completion(f"answer {key}"), Completion("shared")],
        )  # fmt: skip


@pytest.mark.parametrize(("text", "output"), [("new", "out"), ("old", "another"), ("new", "new")])
def test_add_replaced_text_takes_pools_about_it_or_showing_it_with_it(
    store: Store, text: str, output: str
) -> None:
    store.add([Record("old", "out", id="a"), Record("b", "shared", id="b")])
    put_pools(store)
    answers = [text_hash(t) for t in ("answer about", "answer others", "shared")]
    store.put_vectors("base", {h: np.ones(4) for h in answers})
    assert store.add([Record(text, output, id="a")]).updated == 1
    assert [p.key for p in store.pools()] == ["others", "nobody"]
    assert cached_vectors(store, answers, "base").keys() == set(answers[1:])
    assert store.check() == []


@pytest.mark.parametrize(
    "again",
    [
        Record("old", "out", id="a"),
        Record("old", "out", id="a", private=True),
        Record("old", "out", id="a", time=9.0),
        Record("old", "out", id="a", task="other"),
        Record("new", "out", id="a", source="elsewhere"),  # is stored beside it
    ],
)
def test_add_that_replaces_no_text_keeps_pools_and_vectors(store: Store, again: Record) -> None:
    store.add([Record("old", "out", id="a"), Record("b", "out", id="b")])
    put_pools(store)
    store.put_vectors("base", {text_hash("old"): np.ones(4)})
    store.add([again])
    assert len(store.pools()) == 4
    assert cached_vectors(store, [text_hash("old")], "base")


def test_add_stopped_in_a_later_batch_leaves_nothing_made_of_a_replaced_text(
    store: Store,
) -> None:
    old = [Record(f"old {i}", "out", id=f"r{i}") for i in range(600)]
    store.add(old)
    store.put_vectors("base", {text_hash(r.input): np.ones(4) for r in old})
    for key, name in (("first batch", "r1"), ("second batch", "r550")):
        store.put_pool(key, task="t", model="m", query_id=name, record_ids=(), completions=())

    def broken() -> Iterator[Record]:
        for i in range(590):
            yield Record(f"new {i}", "out", id=f"r{i}")
        raise OSError("cable pulled")

    with pytest.raises(OSError, match="cable pulled"):
        store.add(broken())
    left = cached_vectors(store, [text_hash(r.input) for r in old], "base")
    assert left.keys() == {text_hash(f"old {i}") for i in range(500, 600)}
    assert [p.key for p in store.pools()] == ["second batch"]


def test_add_batch_that_fails_keeps_what_was_made_of_its_texts(store: Store) -> None:
    store.add([Record("old", "out", id="a")])
    put_pools(store)
    store.put_vectors("base", {text_hash("old"): np.ones(4)})
    store._db.connection.execute(
        "CREATE TRIGGER full BEFORE DELETE ON pools BEGIN INSERT INTO meta VALUES ('x', NULL); END"
    )
    with pytest.raises(StoreError, match="NOT NULL"):
        store.add([Record("new", "out", id="a")])
    assert store.get("a").input == "old"
    assert len(store.pools()) == 4
    assert cached_vectors(store, [text_hash("old")], "base")


def test_add_same_id_from_other_source_is_renamed_idempotently(store: Store) -> None:
    first = Record("one", "x", id="a", source="f")
    second = Record("two", "y", id="a", source="g")
    store.add([first])
    assert store.add([second]) == AddResult(renamed=1)
    renamed = f"a~{second.content_hash[:6]}"
    assert store.get("a") == first
    assert store.get(renamed) == replace(second, id=renamed)
    assert store.add([second]) == AddResult(unchanged=1)
    assert store.add([first, second]) == AddResult(unchanged=2)


@pytest.mark.parametrize("order", [1, -1])
def test_add_id_used_twice_in_one_call_keeps_both_whatever_the_order(
    store: Store, order: int
) -> None:
    pair = [Record("one", "x", id="a", source="f"), Record("two", "y", id="a", source="f")]
    assert store.add(pair) == AddResult(added=1, renamed=1)
    assert store.add(pair[::order]) == AddResult(unchanged=2)
    assert {r.input for r in store.records()} == {"one", "two"}


def test_add_known_id_again_with_other_content_in_one_call_keeps_the_known_one(
    store: Store,
) -> None:
    known = Record("one", "x", id="a")
    store.add([known])
    assert store.add([known, Record("two", "y", id="a")]) == AddResult(unchanged=1, renamed=1)
    assert store.get("a").input == "one"


def test_add_replacing_a_private_record_keeps_it_private(store: Store) -> None:
    store.add([Record("one", "x", id="a", private=True)])
    assert store.add([Record("two", "x", id="a")]) == AddResult(updated=1)
    assert store.get("a").private


def test_add_id_crafted_to_block_renaming_is_stored_all_the_same(store: Store) -> None:
    wanted = Record("mine", "x", id="a", source="f")
    blocker = Record("blocker", "x", id=f"a~{wanted.content_hash[:6]}", source="g")
    store.add([Record("holder", "x", id="a", source="g"), blocker])
    assert store.add([wanted]) == AddResult(renamed=1)
    assert store.add([wanted]) == AddResult(unchanged=1)
    assert store.count() == 3


def test_add_tells_progress_after_each_batch(store: Store) -> None:
    told: list[tuple[str, int, int]] = []
    records = [Record(str(i), "x") for i in range(1200)]
    store.add(records, progress=lambda *step: told.append(step))
    assert told == [("records", 500, 1200), ("records", 1000, 1200), ("records", 1200, 1200)]
    told.clear()
    store.add(iter(records[:3]), progress=lambda *step: told.append(step))
    assert told == [("records", 3, 0)]


def test_add_source_failing_midway_keeps_whole_batches(store: Store) -> None:
    def broken() -> Iterator[Record]:
        for i in range(700):
            yield Record(str(i), "x")
        raise OSError("cable pulled")

    with pytest.raises(OSError, match="cable pulled"):
        store.add(broken())
    assert store.count() == 500
    assert store.check() == []


def test_records_are_ordered_by_time_then_as_added(store: Store) -> None:
    store.add([Record("undated", "x", id="u")])  # added now: long after the dated ones
    store.add(
        [
            Record("c", "x", id="c", time=30.0),
            Record("a", "x", id="a", time=10.0),
            Record("b1", "x", id="b1", time=20.0),
            Record("b2", "x", id="b2", time=20.0),
        ]
    )
    assert [r.id for r in store.records()] == ["a", "b1", "b2", "c", "u"]
    assert [r.id for r in store.records(newest_first=True)] == ["u", "c", "b2", "b1", "a"]
    assert [r.id for r in store.records(limit=2, offset=1)] == ["b1", "b2"]
    assert store.records(limit=0) == []


def test_records_by_task_and_source_are_only_those(store: Store) -> None:
    store.add(
        [
            Record("1", "x", task="t", source="f"),
            Record("2", "x", task="t", source="g"),
            Record("3", "x", task="u", source="f"),
        ]
    )
    assert [r.input for r in store.records(task="t")] == ["1", "2"]
    assert [r.input for r in store.records(task="t", source="f")] == ["1"]
    assert store.tasks() == {"t": 2, "u": 1}
    assert store.sources() == {"f": 2, "g": 1}
    assert (store.count(), store.count("t"), store.count("none")) == (3, 2, 0)


def test_counts_until_moments_are_those_of_one_moment_each(store: Store) -> None:
    times = [3.0, 1.0, None, 2.0, 2.0, 4.0]
    store.add(Record(f"in {i}", "out", "note_title", f"r{i}", t) for i, t in enumerate(times))
    store.add([Record("of another task", "out", "general", "other", 0.5)])
    moments = [2.0, 0.0, 2.5, 1e9, float("inf")]
    counts = store.counts_until("note_title", moments)
    assert counts == [store.count("note_title", until=moment) for moment in moments]
    assert counts == [3, 0, 3, 5, 6]
    assert store.counts_until("nothing", moments) == [0] * 5


def test_count_of_a_source(store: Store) -> None:
    store.add([Record("a", "x", "t", source="one"), Record("b", "x", "u", source="one")])
    store.add([Record("c", "x", "t", source="two")])
    assert store.count(source="one") == 2
    assert store.count("t", source="one") == 1
    assert store.count("t") == 2
    assert store.count(source="three") == 0


@pytest.mark.parametrize("at_once", [0, 500])
def test_texts_in_use_are_found_alike_whether_few_or_many_are_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("hydra_edge.store.records.CHUNK", at_once or 500)
    store.add([Record("in", "out", id="a"), Record("\ud83d lone", "É", id="b")])
    asked = ["in", "out", "\ud83d lone", "\ufffd lone", "É", "é", "other", "in "]  # bytes, too
    monkeypatch.setattr("hydra_edge.store.records.CHUNK", at_once)
    _, found = store.texts_in_use(asked)
    assert found == {"in", "out", "\ud83d lone", "É"}


def test_count_until_a_moment_has_what_was_made_at_it(store: Store) -> None:
    store.add([Record("a", "b", "t", id="a", time=5.0)])
    assert [store.count("t", until=moment) for moment in (4.9, 5.0, 5.1)] == [0, 1, 1]


def test_time_that_is_not_finite_is_unknown(store: Store) -> None:
    store.add([Record("a", "x", id="a", time=float("nan")), Record("b", "x", time=float("inf"))])
    assert [r.time for r in store.records()] == [None, None]


def test_time_in_the_future_is_unknown_but_for_a_clock_that_is_ahead(store: Store) -> None:
    now = time.time()
    late = Record("late", "x", id="late", time=now + 3 * 86_400)
    store.add([late, Record("ahead", "x", id="ahead", time=now + 3600)])
    store.add([Record("after", "x", id="after")])
    assert [r.id for r in store.records()] == ["late", "after", "ahead"]
    assert store.get("late").time is None
    assert store.get("ahead").time == now + 3600
    assert store.add([late]).unchanged == 1
    assert store.add([replace(late, time=now - 5)]).updated == 1
    store.add([replace(late, output="edited")])
    assert store.get("late").time == now - 5


def test_get_unknown_id_suggests_ids_that_begin_like_it(store: Store) -> None:
    store.add([Record("1", "x", id="commit-77"), Record("2", "x", id="mail-1")])
    with pytest.raises(RecordNotFoundError, match=r"'commit-7'.*begin like it: commit-77\. .*list"):
        store.get("commit-7")
    with pytest.raises(RecordNotFoundError, match=r"no record ''\. "):
        store.get("")
    with pytest.raises(RecordNotFoundError) as caught:
        store.get("commit" * 100_000)
    assert "begin like it: commit-77." in str(caught.value)
    assert len(str(caught.value)) < 300


def test_hostile_texts_come_back_unchanged_from_disk_and_are_found(tmp_path: Path) -> None:
    path = tmp_path / "u.db"
    records = [
        Record(text, f"{text} answer", task=f"t{text}", id=f"i{text}", source=f"s{text}")
        for text in HOSTILE
    ]
    with Store.open(path) as store:
        store.add(records)
    with Store.open(path) as store:
        assert store.records() == records
        assert store.check() == []
        for record in records:
            assert store.get(record.id) == record
            assert store.records(task=record.task) == [record]
            assert store.sources()[record.source] == 1
            for sought in (*tokens(record.input), record.input):
                assert record in store.search(sought, limit=100) or not sought.strip()
        for record in records:
            store.forget([record.id])
            assert store.check() == []
        assert store.count() == 0


def test_record_of_one_megabyte_is_kept_found_and_forgotten(tmp_path: Path) -> None:
    text = "".join(f"word{i} " for i in range(100_000)) + "x" * 200_000
    with Store.open(tmp_path / "u.db") as store:
        store.add([Record(text, "out", id="big"), Record("small word7", "out", id="small")])
        assert store.get("big").input == text
        assert [r.id for r in store.search("word99999")] == ["big"]
        assert [r.id for r in store.search("x" * 200_000)] == ["big"]
        assert {i for i, _ in store.bm25("word7 word8", "general", 5)} == {"big", "small"}
        assert [i for i, _ in store.bm25(text, "general", 1)] == ["big"]
        store.forget(["big"])
        assert store.check() == []
        assert store.size_bytes() < 300_000


def test_records_table_is_readable_by_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "u.db"
    with Store.open(path) as store:
        store.add([Record("in", "out", id="a", task="t", time=1.5, private=True, source="s")])
    with sqlite3.connect(path) as other:
        row = other.execute(
            "SELECT id, input, output, task, time, private, source FROM records"
        ).fetchall()
    other.close()
    assert row == [("a", "in", "out", "t", 1.5, 1, "s")]


def test_add_error_in_a_later_batch_tells_how_many_are_stored(store: Store) -> None:
    store._db.connection.execute(
        "CREATE TRIGGER full AFTER INSERT ON records WHEN new.id = 'id700' BEGIN "
        "INSERT INTO meta VALUES ('x', NULL); END"
    )
    with pytest.raises(StoreError, match=r"NOT NULL.*the first 500 are stored.*safe"):
        store.add(Record("a", "b", id=f"id{i}") for i in range(1000))
    assert store.count() == 500


texts = st.text(st.characters(), max_size=40) | st.sampled_from(HOSTILE)
records = st.builds(
    Record,
    input=texts,
    output=texts,
    task=st.sampled_from(["t", "u"]),
    id=st.sampled_from(["", "a", "b", "c"]),
    time=st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
    private=st.booleans(),
    source=st.sampled_from(["f", "g"]),
)


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=st.lists(st.lists(records, max_size=6), max_size=4), data=st.data())
def test_any_records_round_trip_are_findable_and_forgettable(
    calls: list[list[Record]], data: st.DataObject
) -> None:
    with Store.in_memory() as store:
        for call in calls:
            result = store.add(call)
            total = result.added + result.updated + result.unchanged + result.renamed
            assert total == len(call)
            assert store.add(call).unchanged >= result.added
            contents = {(r.task, r.input, r.output) for r in store.records()}
            assert {(r.task, r.input, r.output) for r in call} <= contents
        stored = store.records()
        for record in stored:
            assert store.get(record.id) == record
            for word in tokens(record.input) + tokens(record.output):
                assert record in store.search(word, limit=1000)
            if tokens(record.input):
                assert record.id in dict(store.bm25(record.input, record.task, 1000))
        assert store.check() == []
        if stored:
            gone = data.draw(st.sets(st.sampled_from([r.id for r in stored]), min_size=1))
            assert store.forget(sorted(gone)).records == len(gone)
            assert store.records() == [r for r in stored if r.id not in gone]
            assert store.check() == []


def test_tasks_counted_before_another_program_added_and_forgot_are_counted_again(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path / "me.db") as ours, Store.open(tmp_path / "me.db") as theirs:
        ours.add([Record("a", "b", task="t", id="first")])
        counted = ours.tasks()
        counted["t"] = 7  # what was given out is the caller's
        assert ours.tasks() == {"t": 1}
        theirs.add([Record("c", "d", task="u"), Record("e", "f", task="u")])
        assert ours.tasks() == {"u": 2, "t": 1}
        theirs.forget(["first"])
        assert ours.tasks() == {"u": 2}
