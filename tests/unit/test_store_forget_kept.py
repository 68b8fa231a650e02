"""What was made of a forgotten record: answers kept, choices, their pools and log entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import filled_store
import numpy as np
import pytest
from filled_store import (
    SECRET_IN,
    SECRET_OUT,
    cached_vectors,
    generation_of,
    head_of,
    keep,
    left_of,
    put_choice,
    put_pool,
    raw_bytes,
)

from hydra_edge.prompt import SHOT_WORDS, fold
from hydra_edge.store import Store, forget, traces
from hydra_edge.store.database import Database
from hydra_edge.types import Candidate, ForgetReceipt, Record, text_hash

path, store = filled_store.path, filled_store.store


def test_forget_record_made_by_a_choice_takes_its_whole_trail(store: Store, path: Path) -> None:
    """The pool an answer was chosen from names neither the answer nor its record."""
    samples = ("A first sampled answer zzyzx", "Another sampled answer qwzjk")
    put_pool(store, "of the query", samples[1], samples[0], samples[0])
    put_pool(store, "other", "A third sampled answer altogether")
    store.log_generation(generation_of("g", "typed query", samples[0], (), samples[1:]), "m")
    edited = "the user's own words"
    store.add([Record("the query as kept", edited, task="t", id="choice-g")])
    candidates = [Candidate(t) for t in samples]
    put_choice(
        store, "g", query="typed query", candidates=candidates, text=edited, record_id="choice-g"
    )
    store.put_vectors("b", {text_hash(samples[1]): np.ones(2)})
    receipt = store.forget(["choice-g"])
    assert receipt == ForgetReceipt(records=1, vectors=1, pools=1, choices=1, log_entries=1)
    assert left_of("zzyzx qwzjk typed own", path) == []
    assert [p.key for p in store.pools()] == ["other"]


def test_forget_finds_the_pool_of_a_closed_set_by_what_was_sampled_of_it(store: Store) -> None:
    """A choice lists the whole set; its pool has the answers that were drawn alone."""
    labels = ("a long label that was drawn", "a long label nobody drew")
    put_pool(store, "of the query", labels[0])
    store.add([Record("the query as kept", labels[0], task="t", id="choice-g")])
    store.add([Record("another text", labels[0], task="t", id="other")])
    candidates = [Candidate(labels[0], count=8), Candidate(labels[1], count=0)]
    put_choice(
        store, "g", query="typed query", candidates=candidates, picked=0, text=labels[0],
        record_id="choice-g",
    )  # fmt: skip
    assert store.forget(["choice-g"]).pools == 1


def test_forget_leaves_pools_that_were_answered_with_the_same_labels(store: Store) -> None:
    """A label says nothing of anyone: the same ones were drawn for another text."""
    put_pool(store, "of another query", "TECH", "SPORTS", query_id="other")
    store.add([Record("the query as kept", "TECH", task="t", id="choice-g")])
    store.add([Record("another text", "TECH", task="t", id="other")])
    candidates = [Candidate("TECH"), Candidate("SPORTS")]
    put_choice(
        store, "g", query="typed query", candidates=candidates, picked=0, text="TECH",
        record_id="choice-g",
    )  # fmt: skip
    receipt = store.forget(["choice-g"])
    assert (receipt.choices, receipt.pools) == (1, 0)


def test_forget_record_edited_since_takes_the_choice_it_was_kept_of(store: Store) -> None:
    store.add([Record("the query", "was", task="t", id="choice-g")])
    put_choice(store, "g", query="asked", text="was", record_id="choice-g")
    store.add([Record("the query", "is now", task="t", id="choice-g")])
    assert store.get("choice-g").output == "is now"
    assert store.forget(["choice-g"]).choices == 1
    assert store.choices() == []


def test_forget_marks_heads_of_every_task_it_took_a_choice_of(store: Store) -> None:
    store.add([Record("to my diary", SECRET_OUT, task="diary", id="secret")])
    put_choice(store, "g", query=SECRET_OUT, picked=0)
    for task in ("t", "diary", "another"):
        store.save_head(head_of(task))
    assert store.forget(["secret"]).tasks == ("diary", "t")
    assert {head.task: head.stale for head in store.heads()} == {
        "another": False, "diary": True, "t": True,
    }  # fmt: skip


# ---- answers kept that repeat it


def test_forget_takes_kept_answers_that_repeat_the_record_they_were_shown(
    store: Store, path: Path
) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="secret")])
    keep(store, "copied", f"As you say:  {SECRET_OUT} ", "secret")
    keep(store, "of-the-copy", f"Again: as you say: {SECRET_OUT}", "choice-copied")
    keep(store, "own", "Nothing like it, but my own words", "secret")
    receipt = store.forget(["secret"])
    assert (receipt.records, receipt.repeats) == (3, 2)
    assert [record.id for record in store.records()] == ["choice-own"]
    assert left_of(SECRET_OUT, path) == []
    assert store.check() == []


def test_forget_a_record_and_its_copy_by_name_counts_each_once(store: Store) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="secret")])
    keep(store, "copied", f"As you say: {SECRET_OUT}", "secret")
    receipt = store.forget(["secret", "choice-copied"])
    assert (receipt.records, receipt.repeats) == (2, 0)


def test_forget_follows_answers_whatever_was_chosen_again_last(store: Store) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="secret")])
    keep(store, "second", f"Again, as you say: {SECRET_OUT}", "choice-first")
    keep(store, "first", f"As you say: {SECRET_OUT}", "secret")
    assert store.forget(["secret"]).repeats == 2
    assert store.records() == []


def test_forget_keeps_own_answers_to_a_query_that_comes_again(store: Store) -> None:
    query = "Summarize the stand-up of today for me"
    store.add([Record(query, "We shipped the parser of the week", task="t", id="monday")])
    shown = ["monday"]
    for day, answer in enumerate(("Anna fixed the cache bug.", "The release slipped again.")):
        name = f"choice-{day}"
        store.add([Record(query, answer, task="t", id=name)])
        put_choice(store, str(day), query=query, shown=shown, text=answer, record_id=name)
        shown = [*shown, name]
    assert store.forget(["monday"]).repeats == 0
    assert [record.output[:4] for record in store.records()] == ["Anna", "The "]


def test_forget_takes_an_answer_that_says_all_its_llm_was_shown(store: Store, path: Path) -> None:
    long = " ".join(f"zzyzx{i}" for i in range(SHOT_WORDS + 50))
    store.add([Record("what is it", long, task="t", id="long")])
    keep(store, "copied", f"Well, {fold(long, multiline=False)}", "long")
    keep(store, "half", "zzyzx0 zzyzx1 zzyzx2 zzyzx3", "long")
    assert store.forget(["long"]).repeats == 1
    assert [record.id for record in store.records()] == ["choice-half"]
    assert b"zzyzx40" not in raw_bytes(path)


def test_forget_takes_an_answer_that_says_as_much_of_an_input_as_its_llm_was_shown(
    store: Store,
) -> None:
    long = " ".join(f"zzyzx{i}" for i in range(SHOT_WORDS + 50))
    store.add([Record(long, "a title", task="t", id="long")])
    keep(store, "copied", f"Well, {' '.join(long.split()[:SHOT_WORDS])}", "long")
    keep(store, "half", "zzyzx0 zzyzx1 zzyzx2 zzyzx3", "long")
    assert store.forget(["long"]).repeats == 1
    assert [record.id for record in store.records()] == ["choice-half"]


def test_forget_takes_what_any_source_kept_of_an_answer(store: Store) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="secret")])
    keep(store, "g", SECRET_OUT, "secret")
    store.add([Record("query g", "their own", task="t", id="choice-g-app:x", source="app:x")])
    put_choice(
        store, "g", query="query g", shown=["secret"], text="their own", record_id="choice-g-app:x"
    )
    assert store.forget(["secret"]).repeats == 1
    assert [record.id for record in store.records()] == ["choice-g-app:x"]


def test_forget_keeps_answers_that_only_say_the_same(store: Store) -> None:
    """A label is everybody's, and an answer that was not shown the record repeats nothing."""
    store.add([Record(SECRET_IN, "TECH", task="t", id="short")])
    store.add([Record("another", SECRET_OUT, task="t", id="long")])
    keep(store, "label", "TECH", "short")
    keep(store, "not-shown", SECRET_OUT)
    assert store.forget(["short", "long"]).repeats == 0
    assert {record.id for record in store.records()} == {"choice-label", "choice-not-shown"}


# ---- the log


def test_forget_reads_each_log_entry_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="a")])
    for i in range(600):  # more than are asked for at once
        shown = ("a",) if i % 2 else ()
        store.log_generation(generation_of(f"g{i}", f"query {i}", f"answer {i}", shown), "m")
    put_choice(store, "g2", query="query 2", candidates=[Candidate("kept")], picked=0, text="kept")
    put_choice(
        store, "g4", query="query 4", candidates=[Candidate("shown a")], shown=("a",), picked=0,
        text="shown a",
    )  # fmt: skip
    unpacked: Counter[Any] = Counter()
    unpack = forget.log.counts_of

    def counting(value: Any) -> list[tuple[str, int]]:
        unpacked[value] += 1
        return unpack(value)

    monkeypatch.setattr(forget.log, "counts_of", counting)
    receipt = store.forget(["a"])
    # 300 were shown the record; of one more the choice was, and only this one is read again.
    assert (receipt.log_entries, receipt.choices) == (301, 1)
    assert unpacked.total() == 600 + 2 + 1
    assert store.generation("g2") is not None
    assert store.generation("g4") is None


def test_forget_finds_the_other_half_of_very_many_answers(store: Store) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="a")])
    names = [f"g{i}" for i in range(1100)] + ["g\ud800"]
    for name in names:
        store.log_generation(generation_of(name, "query", "answer"), "m")
        put_choice(store, name, query="query", shown=("a",), picked=0)
    store.log_generation(generation_of("other", "query", "answer"), "m")
    receipt = store.forget(["a"])
    assert (receipt.log_entries, receipt.choices) == (len(names), len(names))
    assert store.generation("other") is not None


@pytest.mark.parametrize("logged", ["alike", "otherwise", "not at all"])
@pytest.mark.parametrize("where", ["query", "candidate", "taken"])
def test_forget_finds_what_was_chosen_however_its_answer_is_logged(
    store: Store, path: Path, logged: str, where: str
) -> None:
    """What a choice shares with its log entry is looked for but once."""
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    said = {"query": "asked", "candidate": "an answer that was drawn", "taken": "my own"}
    said[where] = f"Well: {SECRET_OUT}!"
    query, drawn, taken = said.values()
    pool = (Candidate(drawn, count=1), Candidate("another one", count=2))
    if logged != "not at all":
        asked = query if logged == "alike" else "asked something else"
        answer = replace(generation_of("g", asked, drawn), candidates=pool)
        store.log_generation(answer, "m")
    put_pool(store, "of it", drawn, "another one")
    hashes = [text_hash(text) for text in (drawn, "another one")]
    store.put_vectors("b", {key: np.ones(4) for key in hashes})
    put_choice(store, "g", query=query, candidates=pool, text=taken)
    receipt = store.forget(["a"])
    assert (receipt.choices, receipt.log_entries) == (1, logged != "not at all")
    assert (receipt.pools, receipt.vectors) == (1, 2)
    assert cached_vectors(store, hashes, "b") == {}
    assert left_of(SECRET_OUT, path) == []


def test_forget_finds_choices_that_name_no_answer_by_themselves(store: Store, path: Path) -> None:
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    store.log_generation(generation_of("", SECRET_OUT, "x"), "m")
    for _ in range(2):
        put_choice(store, "", query=SECRET_OUT, text="y")
    assert store.forget(["a"]).choices == 2
    assert left_of(SECRET_OUT, path) == []


def test_forget_leaves_a_choice_and_its_log_entry_that_hold_nothing_of_it(store: Store) -> None:
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    store.log_generation(generation_of("g", "asked", "a drawn answer"), "m")
    put_choice(store, "g", query="asked", candidates=[Candidate("a drawn answer")], picked=0)
    assert store.forget(["a"]) == ForgetReceipt(records=1)
    assert (len(store.choices()), store.last_is_missing()) == (1, False)


def test_forget_tells_how_far_it_is_and_what_that_raises_leaves_all_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_TOLD_EACH", 4)
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    for i in range(5):
        store.log_generation(generation_of(str(i), "asked", SECRET_OUT), "m")
        put_pool(store, f"k{i}", "an answer")
    told: list[tuple[str, int, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        if done == 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        store.forget(["a"], progress=stop)
    assert (store.count(), store.generation("4") is not None, store.check()) == (1, True, [])
    told.clear()
    receipt = store.forget(["a"], progress=lambda *so_far: told.append(so_far))
    assert (receipt.records, receipt.log_entries) == (1, 5)
    assert told == [("answers", done, 10) for done in (4, 8, 10)]


def say_again(store: Store) -> None:
    """Keep an answer that repeats the record, and log another."""
    store.add([Record("said again", f"Well: {SECRET_OUT}", task="t", id="choice-g")])
    put_choice(store, "g", query="asked", shown=("a",), text="y", record_id="choice-g")
    store.log_generation(generation_of("late", "asked", SECRET_OUT), "m")


def test_forget_lets_other_programs_write_while_it_looks_and_takes_what_they_wrote(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    find, looked = forget.find, []

    def finding(*args: Any) -> Any:
        looked.append(find(*args))
        if len(looked) == 1:
            with Store.open(path) as other:
                say_again(other)
        return looked[-1]

    monkeypatch.setattr(forget, "find", finding)
    receipt = store.forget(["a"])
    assert (receipt.records, receipt.repeats, receipt.log_entries) == (2, 1, 1)
    assert len(looked) == 2
    assert left_of(SECRET_OUT, path) == []


def test_forget_takes_what_another_thread_wrote_once_it_had_looked(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    reading = Database.reading

    @contextmanager
    def then_written(db: Database) -> Iterator[Any]:
        with reading(db) as connection:
            yield connection
        monkeypatch.setattr(Database, "reading", reading)
        say_again(store)

    monkeypatch.setattr(Database, "reading", then_written)
    receipt = store.forget(["a"])
    assert (receipt.records, receipt.repeats, receipt.log_entries) == (2, 1, 1)
    assert left_of(SECRET_OUT, path) == []


def test_forget_looks_but_once_where_nobody_writes(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    find, looked = forget.find, []

    def finding(*args: Any) -> Any:
        looked.append(args)
        return find(*args)

    monkeypatch.setattr(forget, "find", finding)
    with Store.open(path) as other:
        assert other.count() == 1
        store.forget(["a"])
    assert len(looked) == 1


def test_forget_what_takes_no_time_tells_nothing(store: Store) -> None:
    store.add([Record("about it", SECRET_OUT, task="t", id="a")])
    put_pool(store, "k", "an answer")
    told: list[object] = []
    store.forget(["a"], progress=lambda *so_far: told.append(so_far))
    assert told == []
