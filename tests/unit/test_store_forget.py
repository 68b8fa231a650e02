"""Forgetting records: afterwards no byte of them is left in the file or beside it."""

from __future__ import annotations

import random
from pathlib import Path

import filled_store
import numpy as np
import pytest
from filled_store import (
    SECRET_IN,
    SECRET_OUT,
    cached_vectors,
    filler,
    generation_of,
    head_of,
    left_of,
    put_choice,
    put_pool,
    raw_bytes,
)

from hydra_edge.errors import RecordNotFoundError
from hydra_edge.store import Store
from hydra_edge.types import Candidate, ForgetReceipt, Record, text_hash

path, store = filled_store.path, filled_store.store


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
    put_choice(
        store, "g2", query=SECRET_IN, candidates=[Candidate("y")], picked=0, text="y",
        record_id="secret-record-id",
    )  # fmt: skip
    put_choice(
        store, "g3", query="harmless", candidates=[Candidate("z")], shown=("f0-1",), picked=0,
        text="z",
    )  # fmt: skip
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
    with pytest.raises(RecordNotFoundError, match="no record id, no source and no task"):
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


def test_forget_keeps_vectors_of_what_a_pool_it_took_and_a_record_both_say(store: Store) -> None:
    store.add([Record("about it", SECRET_OUT, id="a"), Record("x", "said by another", id="b")])
    put_pool(store, "k", "said by another", "said by none", record_ids=("a",))
    hashes = [text_hash(text) for text in ("said by none", "said by another")]
    store.put_vectors("b", {key: np.ones(2) for key in hashes})
    receipt = store.forget(["a"])
    assert (receipt.pools, receipt.vectors) == (1, 1)
    assert list(cached_vectors(store, hashes, "b")) == hashes[1:]


def test_what_goes_with_a_record_leaves_no_vector_of_an_answer_with_space_around_it(
    store: Store,
) -> None:
    """The candidates that are made of a pool have none around."""
    store.add(Record(f"input {i}", f"output {i}", task="t", id=i) for i in "ab")
    answers = {i: f"a sampled answer about {i}" for i in "ab"}
    for i, answer in answers.items():
        put_pool(store, f"pool {i}", f" {answer}\n", query_id=i)
    hashes = {i: text_hash(answer) for i, answer in answers.items()}
    store.put_vectors("b", {key: np.ones(4) for key in hashes.values()})
    store.forget(["a"])
    assert list(cached_vectors(store, list(hashes.values()), "b")) == [hashes["b"]]
    store.add([Record("edited", "output b", task="t", id="b")])
    assert cached_vectors(store, list(hashes.values()), "b") == {}


def test_forget_marks_heads_of_every_task_it_took_a_pool_of(store: Store) -> None:
    store.add([Record("to my diary", SECRET_OUT, task="diary", id="secret")])
    put_pool(store, "k", f"Well: {SECRET_OUT}", query_id="q")
    for task in ("t", "diary", "another"):
        store.save_head(head_of(task))
    assert store.forget(["secret"]).tasks == ("diary", "t")


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


def test_forget_in_memory_works_too() -> None:
    with Store.in_memory() as store:
        store.add([Record("a", "x", id="a")])
        assert store.forget(["a"]) == ForgetReceipt(records=1)
