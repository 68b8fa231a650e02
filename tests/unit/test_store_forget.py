"""Forgetting: afterwards no byte of the text is left in the file or beside it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filled_store import generation_of, head_of
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.errors import (
    BytesRemainError,
    DiskFullError,
    RecordNotFoundError,
    StoreError,
    UnknownUserError,
)
from hydra_edge.prompt import SHOT_WORDS, fold
from hydra_edge.store import Store, forget
from hydra_edge.store.database import Database
from hydra_edge.store.forget import Traces
from hydra_edge.types import Candidate, Completion, ForgetReceipt, Record, text_hash

SECRET_IN = "Xylophone rendezvous qwzjk behind the harbour at midnight"
SECRET_OUT = "Vermillion passphrase zzyzx"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users" / "me.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


def raw_bytes(path: Path) -> bytes:
    """Everything on disk, lower-cased as the index stores it."""
    return b"".join(p.read_bytes() for p in sorted(path.parent.iterdir())).lower()


def left_of(text: str, path: Path) -> list[str]:
    """Return the words of a text still found in the raw bytes."""
    raw = raw_bytes(path)
    return [word for word in text.lower().split() if word.encode() in raw]


def filler(n: int, seed: int = 0) -> list[Record]:
    rng = random.Random(seed)
    words = [f"common{i}" for i in range(300)]
    return [
        Record(" ".join(rng.choices(words, k=30)), rng.choice(words), task="t", id=f"f{seed}-{i}")
        for i in range(n)
    ]


def put_pool(
    store: Store,
    key: str,
    *texts: str,
    query_id: str = "",
    record_ids: tuple[str, ...] = (),
) -> None:
    store.put_pool(
        key,
        task="t",
        model="m",
        query_id=query_id,
        record_ids=record_ids,
        completions=[Completion(text) for text in texts],
    )


def test_forget_record_leaves_no_byte_of_it_anywhere(store: Store, path: Path) -> None:
    secret = Record(SECRET_IN, SECRET_OUT, task="t", id="secret-record-id", source="diary")
    store.add(filler(300))
    store.add([secret])
    store.add(filler(300, seed=1))
    store.put_vectors("b", {text_hash(t): np.ones(4) for t in (SECRET_IN, SECRET_OUT, "kept")})
    put_pool(store, "about", "some answer", query_id="secret-record-id")
    put_pool(store, "shown", f"copied: {SECRET_OUT}", record_ids=("secret-record-id", "f0-1"))
    put_pool(store, "kept", "harmless", query_id="f0-1", record_ids=("f0-2",))
    store.log_generation(generation_of("g1", "unrelated", "x", ("secret-record-id",)), "m")
    store.log_generation(generation_of("g2", SECRET_IN, "y"), "m")
    store.log_generation(generation_of("g3", "harmless", "z", ("f0-1",)), "m")
    store.put_choice("g2", "t", SECRET_IN, [Candidate("y")], (), 0, "y", "secret-record-id")
    store.put_choice("g3", "t", "harmless", [Candidate("z")], ("f0-1",), 0, "z", None)
    store.save_head(head_of("t"))
    store.save_head(head_of("u"))
    assert left_of(f"{SECRET_IN} {SECRET_OUT} secret-record-id diary", path)

    receipt = store.forget(["secret-record-id"])

    assert receipt == ForgetReceipt(
        records=1, vectors=2, pools=2, choices=1, log_entries=2, tasks=("t",)
    )
    assert left_of("Xylophone rendezvous qwzjk harbour midnight", path) == []
    assert left_of(f"{SECRET_OUT} secret-record-id diary", path) == []
    assert text_hash(SECRET_IN).encode() not in raw_bytes(path)
    assert store.check() == []
    assert store.count() == 600
    assert [p.key for p in store.pools()] == ["kept"]
    assert store.generation("g3") is not None
    assert [c.generation_id for c in store.choices()] == ["g3"]
    assert [(h.task, h.stale) for h in store.heads()] == [("t", True), ("u", False)]
    assert path.with_name("me.db-wal").stat().st_size < 20_000  # only the finished mark


def test_forget_source_takes_all_of_it_and_nothing_else(store: Store, path: Path) -> None:
    mine = [Record(f"qwzjk{i} words", f"zzyzx{i}", id=f"d{i}", source="diary") for i in range(700)]
    store.add(mine)
    store.add(filler(50))
    assert store.forget(source="diary").records == 700
    raw = raw_bytes(path)
    assert b"qwzjk" not in raw
    assert b"zzyzx" not in raw
    assert b"diary" not in raw
    assert store.count() == 50
    assert store.sources() == {"": 50}


def test_forget_ids_and_source_together_counts_each_record_once(store: Store) -> None:
    store.add([Record("a", "x", id="a", source="s"), Record("b", "x", id="b")])
    assert store.forget(["a", "b", "a"], source="s").records == 2


def test_forget_unknown_id_or_source_erases_nothing(store: Store) -> None:
    store.add([Record("a", "x", id="a", source="s")])
    with pytest.raises(RecordNotFoundError, match="'nope'"):
        store.forget(["a", "nope"])
    with pytest.raises(RecordNotFoundError, match=r"source 'nope'\. Known sources: 's'"):
        store.forget(["a"], source="nope")
    with pytest.raises(RecordNotFoundError) as caught:
        store.forget(source="nope" * 100_000)
    assert len(str(caught.value)) < 200
    with pytest.raises(RecordNotFoundError, match="no record id and no source"):
        store.forget()
    assert store.count() == 1


def test_forget_keeps_what_another_record_says_too(store: Store) -> None:
    store.add(
        [
            Record("one", "shared answer of two", id="a"),
            Record("two", "shared answer of two", id="b"),
        ]
    )
    store.put_vectors("b", {text_hash("shared answer of two"): np.ones(2)})
    put_pool(store, "k", "shared answer of two")
    receipt = store.forget(["a"])
    assert (receipt.vectors, receipt.pools) == (0, 0)
    assert store.forget(["b"]).pools == 1


def test_forget_finds_the_text_inside_other_texts_whatever_the_spacing(store: Store) -> None:
    store.add([Record("q", f"{SECRET_OUT}\n  and  more", id="a"), Record("x", "5", id="b")])
    put_pool(store, "inside", f"Well: {SECRET_OUT} and more!", "other")
    put_pool(store, "part", SECRET_OUT)
    put_pool(store, "label", "5", "4")
    put_pool(store, "chance", "25 things")
    assert store.forget(["a"]).pools == 1
    assert store.forget(["b"]).pools == 1
    assert {p.key for p in store.pools()} == {"part", "chance"}


def test_forget_record_made_by_a_choice_takes_its_whole_trail(store: Store, path: Path) -> None:
    """The pool an answer was chosen from names neither the answer nor its record."""
    samples = ("A first sampled answer zzyzx", "Another sampled answer qwzjk")
    put_pool(store, "of the query", samples[1], samples[0], samples[0])
    put_pool(store, "other", "A third sampled answer altogether")
    store.log_generation(generation_of("g", "typed query", samples[0], (), samples[1:]), "m")
    edited = "the user's own words"
    store.add([Record("the query as kept", edited, task="t", id="choice-g")])
    candidates = [Candidate(t) for t in samples]
    store.put_choice("g", "t", "typed query", candidates, (), None, edited, "choice-g")
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
    store.put_choice("g", "t", "typed query", candidates, (), 0, labels[0], "choice-g")
    assert store.forget(["choice-g"]).pools == 1


def test_forget_leaves_pools_that_were_answered_with_the_same_labels(store: Store) -> None:
    """A label says nothing of anyone: the same ones were drawn for another text."""
    put_pool(store, "of another query", "TECH", "SPORTS", query_id="other")
    store.add([Record("the query as kept", "TECH", task="t", id="choice-g")])
    store.add([Record("another text", "TECH", task="t", id="other")])
    candidates = [Candidate("TECH"), Candidate("SPORTS")]
    store.put_choice("g", "t", "typed query", candidates, (), 0, "TECH", "choice-g")
    receipt = store.forget(["choice-g"])
    assert (receipt.choices, receipt.pools) == (1, 0)


def test_forget_keeps_vectors_of_what_a_pool_it_took_and_a_record_both_say(store: Store) -> None:
    store.add([Record("about it", SECRET_OUT, id="a"), Record("x", "said by another", id="b")])
    put_pool(store, "k", "said by another", "said by none", record_ids=("a",))
    hashes = [text_hash(text) for text in ("said by none", "said by another")]
    store.put_vectors("b", {key: np.ones(2) for key in hashes})
    receipt = store.forget(["a"])
    assert (receipt.pools, receipt.vectors) == (1, 1)
    assert list(store.vectors(hashes, "b")) == hashes[1:]


def keep(store: Store, name: str, answer: str, *shown: str) -> None:
    """Keep an answer to a query, which was shown records, as one of the history."""
    store.add([Record(f"query {name}", answer, task="t", id=f"choice-{name}")])
    store.put_choice(
        name, "t", f"query {name}", [Candidate(answer)], shown, 0, answer, f"choice-{name}"
    )


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
        store.put_choice(str(day), "t", query, [Candidate("x")], shown, None, answer, name)
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
    store.put_choice(
        "g", "t", "query g", [Candidate("x")], ["secret"], None, "their own", "choice-g-app:x"
    )
    assert store.forget(["secret"]).repeats == 1
    assert [record.id for record in store.records()] == ["choice-g-app:x"]


def test_forget_reads_each_log_entry_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="a")])
    for i in range(600):  # more than are asked for at once
        shown = ("a",) if i % 2 else ()
        store.log_generation(generation_of(f"g{i}", f"query {i}", f"answer {i}", shown), "m")
    store.put_choice("g2", "t", "query 2", [Candidate("kept")], (), 0, "kept", None)
    store.put_choice("g4", "t", "query 4", [Candidate("shown a")], ("a",), 0, "shown a", None)
    unpacked: Counter[Any] = Counter()
    unpack = forget.log.candidates_of

    def counting(value: Any) -> tuple[Candidate, ...]:
        unpacked[value] += 1
        return unpack(value)

    monkeypatch.setattr(forget.log, "candidates_of", counting)
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
        store.put_choice(name, "t", "query", [Candidate("x")], ("a",), 0, "x", None)
    store.log_generation(generation_of("other", "query", "answer"), "m")
    receipt = store.forget(["a"])
    assert (receipt.log_entries, receipt.choices) == (len(names), len(names))
    assert store.generation("other") is not None


def test_forget_marks_heads_of_every_task_it_took_a_choice_of(store: Store) -> None:
    store.add([Record("to my diary", SECRET_OUT, task="diary", id="secret")])
    store.put_choice("g", "t", SECRET_OUT, [Candidate("x")], (), 0, "x", None)
    for task in ("t", "diary", "another"):
        store.save_head(head_of(task))
    assert store.forget(["secret"]).tasks == ("diary", "t")
    assert {head.task: head.stale for head in store.heads()} == {
        "another": False, "diary": True, "t": True,
    }  # fmt: skip


def test_forget_marks_heads_of_every_task_it_took_a_pool_of(store: Store) -> None:
    store.add([Record("to my diary", SECRET_OUT, task="diary", id="secret")])
    put_pool(store, "k", f"Well: {SECRET_OUT}", query_id="q")
    for task in ("t", "diary", "another"):
        store.save_head(head_of(task))
    assert store.forget(["secret"]).tasks == ("diary", "t")


def test_forget_record_edited_since_takes_the_choice_it_was_kept_of(store: Store) -> None:
    store.add([Record("the query", "was", task="t", id="choice-g")])
    store.put_choice("g", "t", "asked", [Candidate("x")], (), None, "was", "choice-g")
    store.add([Record("the query", "is now", task="t", id="choice-g")])
    assert store.get("choice-g").output == "is now"
    assert store.forget(["choice-g"]).choices == 1
    assert store.choices() == []


def test_clear_log_with_choices_leaves_no_byte_of_those_nothing_was_kept_of(
    store: Store, path: Path
) -> None:
    keep(store, "kept", "an answer kept")
    store.put_choice("g", "t", SECRET_IN, [Candidate("x")], (), None, SECRET_OUT, None)
    store.save_head(head_of("t"))
    assert store.clear_log() == 0
    assert left_of(SECRET_OUT, path) != []
    assert store.clear_log(choices=True) == 1
    assert left_of(f"xylophone qwzjk {SECRET_OUT}", path) == []
    assert [choice.record_id for choice in store.choices()] == ["choice-kept"]
    (head,) = store.heads()
    assert head.stale


def test_clear_log_with_choices_leaves_no_vector_of_what_was_erased(store: Store) -> None:
    store.add([Record("an input", "said elsewhere", task="t", id="r")])
    gone = [SECRET_IN, SECRET_OUT, "a candidate"]
    hashes = [text_hash(text) for text in (*gone, "said elsewhere")]
    candidates = [Candidate("a candidate"), Candidate("said elsewhere")]
    for base in ("b", "another"):
        store.put_vectors(base, {key: np.ones(4) for key in hashes})
    store.put_choice("g", "t", SECRET_IN, candidates, (), None, SECRET_OUT, None)
    store.clear_log()
    assert set(store.vectors(hashes, "b")) == set(hashes), "the choice is still there"
    store.clear_log(choices=True)
    for base in ("b", "another"):
        assert list(store.vectors(hashes, base)) == hashes[-1:]


def test_forget_keeps_answers_that_only_say_the_same(store: Store) -> None:
    """A label is everybody's, and an answer that was not shown the record repeats nothing."""
    store.add([Record(SECRET_IN, "TECH", task="t", id="short")])
    store.add([Record("another", SECRET_OUT, task="t", id="long")])
    keep(store, "label", "TECH", "short")
    keep(store, "not-shown", SECRET_OUT)
    assert store.forget(["short", "long"]).repeats == 0
    assert {record.id for record in store.records()} == {"choice-label", "choice-not-shown"}


def test_forget_after_many_small_changes_leaves_no_word_in_the_index(
    store: Store, path: Path
) -> None:
    rng = random.Random(7)
    alive: dict[str, str] = {}
    for step in range(25):
        new = {f"n{step}-{i}": f"sec{rng.randrange(16**9):09x}" for i in range(rng.randint(1, 9))}
        for some in (list(new)[::2], list(new)[1::2]):
            store.add(Record(f"{new[i]} common{i}", "x", id=i) for i in some)
        alive |= new
        if step % 6 == 5:
            gone = rng.sample(sorted(alive), rng.randint(1, len(alive) - 1))
            words = [alive.pop(i) for i in gone]
            store.forget(gone)
            raw = raw_bytes(path)
            # The end of a word: the index may share the beginning with its neighbour.
            assert [w for w in words if w[-6:].encode() in raw] == []
            assert store.check() == []
    assert store.count() == len(alive)
    assert all(store.search(word) for word in alive.values())


def test_forget_replaced_content_leaves_no_byte_of_the_old_one(store: Store, path: Path) -> None:
    store.add([*filler(40), Record("qwzjk old", "zzyzx old", id="a")])
    store.add([Record("new", "newer", id="a")])
    store.forget(["a"])
    assert left_of("qwzjk zzyzx newer", path) == []


def test_clear_log_leaves_no_byte_of_it(store: Store, path: Path) -> None:
    for i in range(50):
        store.log_generation(generation_of(str(i), f"qwzjk {i} " * 30, SECRET_OUT), "m")
    assert left_of("qwzjk vermillion", path) == ["qwzjk", "vermillion"]
    store.clear_log()
    assert left_of("qwzjk vermillion passphrase", path) == []


def test_forget_while_another_reads_says_so_and_the_next_opening_finishes(path: Path) -> None:
    with Store.open(path) as store:
        store.add([*filler(30), Record(SECRET_IN, SECRET_OUT, id="a")])
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM records").fetchone()
        store._db.connection.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(
            BytesRemainError, match=r"bytes may remain in .*Close other programs"
        ) as caught:
            store.forget(["a"])
        assert caught.value.receipt == ForgetReceipt(records=1)
        assert store.count() == 30
        assert left_of("qwzjk", path) == ["qwzjk"]
        assert any("not finished" in line for line in store.check())
        with Store.open(path):  # the reader is still there: nothing to be done yet
            assert left_of("qwzjk", path) == ["qwzjk"]
        reader.rollback()
        with Store.open(path) as again:
            assert left_of(f"{SECRET_IN[:30]} {SECRET_OUT}", path) == []
            assert again.check() == []
        reader.close()


def test_forget_on_a_full_disk_asks_for_space_and_for_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Database) -> None:
        raise DiskFullError("Cannot use it: no space is left on its disk.")

    store.add([Record(SECRET_IN, SECRET_OUT, id="a")])
    monkeypatch.setattr(Database, "rewrite", full)
    with pytest.raises(BytesRemainError, match="Free some space and run `hydra-edge doctor`") as e:
        store.forget(["a"])
    assert "Close" not in str(e.value)


def test_forget_without_room_to_rewrite_waits_for_an_opening_with_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    rewrite = Database.rewrite

    def counting(db: Database) -> None:
        tried.append(db.label)
        rewrite(db)

    monkeypatch.setattr(Database, "rewrite", counting)
    with Store.open(path) as store:
        store.add([*filler(3000), Record(SECRET_IN, SECRET_OUT, id="a")])
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=400_000))
            with pytest.raises(
                BytesRemainError,
                match=r"got 0 MB free on its disk; expected \d MB.*Free some space and run",
            ) as caught:
                store.forget(["a"])
            assert caught.value.receipt == ForgetReceipt(records=1)
            assert path.with_name("me.db-wal").stat().st_size == 0
            before = path.read_bytes()
            with Store.open(path) as again:
                (told,) = again.check()
                assert again.count() == 3000
            assert (path.read_bytes(), tried) == (before, [])
    assert "Close other programs using the file, or free " in told
    assert told.endswith(" MB on its disk, and open it again.")
    with Store.open(path) as store:
        assert tried == [str(path)]
        assert left_of(f"{SECRET_IN[:30]} {SECRET_OUT}", path) == []
        assert store.check() == []


def test_forget_that_fills_the_disk_empties_the_wal_again(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = path.with_name("me.db-wal")

    def full(self: Database) -> None:
        assert wal.stat().st_size > 0
        raise DiskFullError("Cannot use it: no space is left on its disk.")

    store.add([*filler(300), Record(SECRET_IN, SECRET_OUT, id="a")])
    monkeypatch.setattr(Database, "rewrite", full)
    with pytest.raises(BytesRemainError, match=r"no space is left on its disk\. Free some space"):
        store.forget(["a"])
    assert wal.stat().st_size == 0
    assert store.count() == 300


def test_forget_asks_for_no_more_room_than_what_is_kept_takes(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages no longer in use are not copied; where nobody can tell the room, it is tried."""
    store.add([*filler(3000), Record(SECRET_IN, SECRET_OUT, id="a", source="diary")])
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1_000_000))
    assert store._db.connection.execute("PRAGMA page_count").fetchone()[0] * 4096 > 1_500_000
    store.forget([f"f0-{i}" for i in range(3000)])
    assert path.stat().st_size < 400_000

    def unknown(_folder: Path) -> SimpleNamespace:
        raise OSError("no such call")

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    store.forget([], source="diary")
    assert left_of(f"{SECRET_IN[:30]} {SECRET_OUT}", path) == []


def test_clear_log_while_another_reads_says_how_much_is_deleted(store: Store, path: Path) -> None:
    store.log_generation(generation_of("g", "query", "text"), "m")
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM records").fetchone()
    store._db.connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(BytesRemainError, match="Close other programs") as caught:
        store.clear_log()
    reader.close()
    assert (caught.value.cleared, "Free some" in str(caught.value)) == (1, False)


def test_forget_stopped_before_its_bytes_are_erased_is_finished_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(self: Database) -> None:
        raise KeyboardInterrupt

    with Store.open(path) as store:
        store.add([*filler(30), Record(SECRET_IN, SECRET_OUT, id="a")])
        with monkeypatch.context() as patch:
            patch.setattr(Database, "rewrite", power_cut)
            with pytest.raises(KeyboardInterrupt, match=r"^$"):
                store.forget(["a"])
        assert any("not finished" in line for line in store.check())
    with Store.open(path) as store:
        assert left_of(f"{SECRET_IN[:30]} {SECRET_OUT}", path) == []
        assert store.check() == []


def test_forget_in_memory_works_too() -> None:
    with Store.in_memory() as store:
        store.add([Record("a", "x", id="a")])
        assert store.forget(["a"]) == ForgetReceipt(records=1)


def test_forget_user_removes_every_file_of_theirs_only(path: Path) -> None:
    store = Store.open(path)
    store.add(filler(5))
    Store.open(path.with_name("you.db")).close()
    assert path.with_name("me.db-wal").exists()
    Store.forget_user(path)
    assert [p.name for p in path.parent.iterdir()] == ["you.db"]
    store.close()
    assert [p.name for p in path.parent.iterdir()] == ["you.db"]
    with pytest.raises(UnknownUserError, match="no user 'me'"):
        Store.forget_user(path)


def test_forget_user_removes_a_file_that_was_never_written(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    Store.forget_user(path)
    assert not path.exists()


def test_forget_user_removes_a_damaged_file_of_ours(path: Path) -> None:
    Store.open(path).close()
    path.write_bytes(path.read_bytes()[:100] + b"garbage")
    with pytest.raises(StoreError, match="damaged"):
        Store.open(path)
    Store.forget_user(path)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["text", "sqlite", "folder"])
def test_forget_user_refuses_what_is_not_ours(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "me.db"
    if kind == "text":
        path.write_text("dear diary, " * 20)
    elif kind == "sqlite":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE records (x)")
        connection.close()
    else:
        path.mkdir()
    with pytest.raises(StoreError, match=r"not removed: it is not a hydra-edge file"):
        Store.forget_user(path)
    assert path.exists()


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        (SECRET_IN, True),
        (f"before {SECRET_IN} after", True),
        (SECRET_IN.replace(" ", "\n "), True),
        (SECRET_IN[:-1], False),
        (SECRET_IN.upper(), False),
        ("yes", True),
        (" yes ", True),
        ("yes indeed", False),
        ("", False),
    ],
)
def test_traces_long_texts_are_found_inside_short_ones_only_whole(text: str, touched: bool) -> None:
    traces = Traces(["id"], [SECRET_IN, SECRET_IN + " and on", "yes", " "])
    assert traces.touch([], [text]) is touched
    assert traces.touch(["other", None], ["no"]) is False
    assert traces.touch(["id"], []) is True


@pytest.mark.parametrize("around", ["{}", "{} after", "before {}", "before {} after"])
@pytest.mark.parametrize("more", [0, 1])
def test_traces_of_many_texts_are_found_at_either_end_of_another(around: str, more: int) -> None:
    text = "x" * (forget.DISTINCTIVE + more)
    others = [f"another text that is forgotten {i}" for i in range(100)]
    assert list(Traces([], [*others, text]).long_ones_in(around.format(text))) == [text]


words = st.sampled_from(["alpha ", "beta ", "x", "xx", "日本", "harbour at midnight "])
few_words = st.lists(words, min_size=1, max_size=8).map("".join)


@given(texts=st.lists(few_words, max_size=6), around=few_words, within=st.integers(0, 5))
def test_traces_few_or_many_are_found_alike(texts: list[str], around: str, within: int) -> None:
    traces = Traces([], texts)
    text = " ".join(f"{around} {''.join(texts[within : within + 1])} {around}".split())
    one_by_one = set(traces.long_ones_in(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forget, "_FEW", -1)
        assert set(traces.long_ones_in(text)) == one_by_one
    folded = {" ".join(known.split()) for known in texts}
    assert one_by_one == {known for known in folded if len(known) >= 16 and known in text}
