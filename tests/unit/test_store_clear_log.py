"""Clearing the log of answers given, also of choices, and of what is older than a moment."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

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
)

from hydra_edge.errors import BytesRemainError, DiskFullError
from hydra_edge.store import Store, erasure, log
from hydra_edge.store.database import Database
from hydra_edge.types import Candidate, Record, text_hash

path, store = filled_store.path, filled_store.store


def test_clear_log_leaves_no_byte_of_it(store: Store, path: Path) -> None:
    for i in range(50):
        store.log_generation(generation_of(str(i), f"qwzjk {i} " * 30, SECRET_OUT), "m")
    assert left_of("qwzjk vermillion", path) == ["qwzjk", "vermillion"]
    store.clear_log()
    assert left_of("qwzjk vermillion passphrase", path) == []


def test_clear_log_with_choices_leaves_no_byte_of_those_nothing_was_kept_of(
    store: Store, path: Path
) -> None:
    keep(store, "kept", "an answer kept")
    put_choice(store, "g", query=SECRET_IN, text=SECRET_OUT)
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
    put_choice(store, "g", query=SECRET_IN, candidates=candidates, text=SECRET_OUT)
    store.clear_log()
    assert set(cached_vectors(store, hashes, "b")) == set(hashes), "the choice is still there"
    store.clear_log(choices=True)
    for base in ("b", "another"):
        assert list(cached_vectors(store, hashes, base)) == hashes[-1:]


def test_clear_log_before_a_moment_leaves_no_byte_of_what_is_older(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    for i in range(50):
        store.log_generation(generation_of(f"old{i}", f"qwzjk {i} " * 30, SECRET_OUT), "m")
    put_choice(store, "old1", query=SECRET_IN, text="rendezvous")
    border = float(next(clock))
    for i in range(50):
        store.log_generation(generation_of(f"new{i}", f"marigold {i} " * 30, "thistle"), "m")
    put_choice(store, "new1", query="saffron", text="bergamot")
    assert store.clear_log(before=border) == 50
    assert left_of("qwzjk vermillion passphrase", path) == ["qwzjk"], "the choice is still there"
    assert store.clear_log(choices=True, before=border) == 1
    assert left_of(f"qwzjk {SECRET_OUT} {SECRET_IN[:30]}", path) == []
    younger = "marigold thistle saffron bergamot"
    assert left_of(younger, path) == younger.split()


def test_clear_log_before_a_moment_that_was_stopped_is_finished_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(self: Database) -> None:
        raise KeyboardInterrupt

    with Store.open(path) as store:
        for i in range(50):
            store.log_generation(generation_of(str(i), f"qwzjk {i} " * 30, SECRET_OUT), "m")
        with monkeypatch.context() as patch:
            patch.setattr(Database, "rewrite", power_cut)
            with pytest.raises(KeyboardInterrupt, match=r"^$"):
                store.clear_log(before=9e9)
        assert any("not finished" in line for line in store.check())
    with Store.open(path) as store:
        assert left_of(f"qwzjk {SECRET_OUT}", path) == []
        assert store.check() == []


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


@pytest.fixture
def portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few entries be many."""
    monkeypatch.setattr("hydra_edge.store.forget._PORTION", 16)


def log_much(store: Store, n: int = 100) -> None:
    with store.together():
        for i in range(n):
            store.log_generation(generation_of(str(i), f"qwzjk {i} " * 400, SECRET_OUT), "m")


def entries_left(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as other:
        return other.execute("SELECT COUNT(*) FROM log").fetchone()[0]


@pytest.mark.usefixtures("portions")
def test_clear_log_takes_little_room_beside_the_file(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal, sizes = path.with_name("me.db-wal"), []
    empty = erasure.empty_wal

    def watching(db: Database) -> None:
        sizes.append(wal.stat().st_size)
        empty(db)
        assert wal.stat().st_size == 0

    log_much(store)
    size = path.stat().st_size + wal.stat().st_size
    empty(store._db)
    monkeypatch.setattr(erasure, "empty_wal", watching)
    told: list[tuple[str, int, int]] = []
    assert store.clear_log(progress=lambda *so_far: told.append(so_far)) == 100
    assert len(sizes) == 7
    assert max(sizes) < size / 3
    assert told == [("answers", done, 100) for done in (16, 32, 48, 64, 80, 96, 100)]
    assert left_of(f"qwzjk {SECRET_OUT}", path) == []


@pytest.mark.usefixtures("portions")
def test_clear_log_stopped_midway_leaves_the_newest_and_a_mark(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_stage: str, done: int, _total: int) -> None:
        if done > 30:
            raise KeyboardInterrupt

    with Store.open(path) as store:
        log_much(store)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            store.clear_log(progress=stop)
        assert not store.is_erased()
        last = store.last_generation()
        assert last is not None
        assert (last.id, store.last_is_missing(), store.generation_count()) == ("99", False, 68)
    with Store.open(path) as store:
        assert store.is_erased()
        assert store.clear_log() == 68


def filling(monkeypatch: pytest.MonkeyPatch, room: int, entries: int = 10**9) -> None:
    """Let the disk have room for so many log entries at a time, and for so many in all."""
    drop = log.drop

    def full(connection: sqlite3.Connection, gone: Sequence[int]) -> int:
        nonlocal entries
        if len(gone) > min(room, entries):
            raise DiskFullError("no space is left on its disk.")
        entries -= len(gone)
        return drop(connection, gone)

    monkeypatch.setattr(log, "drop", full)


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("room", [1, 3, 16])
def test_clear_log_on_a_nearly_full_disk_goes_in_smaller_portions(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    log_much(store, 50)
    filling(monkeypatch, room)
    assert store.clear_log() == 50
    assert left_of("qwzjk", path) == []


@pytest.mark.usefixtures("portions")
def test_clear_log_on_a_full_disk_says_how_far_it_came_and_goes_on_later(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_much(store, 50)
    with monkeypatch.context() as patch:
        filling(patch, 16, entries=20)
        with pytest.raises(
            DiskFullError, match=r"got 20 of 50 answers deleted.*Free a megabyte.*--before TIME"
        ):
            store.clear_log()
    assert entries_left(path) == 30
    assert store.clear_log() == 30
    assert left_of("qwzjk", path) == []


@pytest.mark.usefixtures("portions")
def test_clear_log_lets_others_log_meanwhile_and_leaves_what_they_did(
    store: Store, path: Path
) -> None:
    log_much(store)
    with Store.open(path) as other:
        added: list[int] = []

        def add(_stage: str, done: int, _total: int) -> None:
            other.log_generation(generation_of(f"new{done}", "asked", "an answer"), "m")
            added.append(done)

        assert store.clear_log(progress=add) == 100
        assert store.generation_count() == len(added) == 7
        last = store.last_generation()
        assert last is not None
        assert (last.id, store.last_is_missing()) == ("new100", False)


def test_clear_log_of_one_answer_leaves_the_others(store: Store, path: Path) -> None:
    for name, word in (("a", "marigold"), ("b", "bergamot"), ("c", "saffron")):
        store.log_generation(generation_of(name, word, word), "m")
        put_choice(store, name, query=word, text=word)
    assert store.clear_log(generation_id="b") == 1
    assert [e.id for e in store.generations(with_private=True)[0]] == ["c", "a"]
    assert left_of("bergamot", path) == ["bergamot"], "the choice is still there"
    assert store.clear_log(generation_id="b", choices=True) == 1
    assert left_of("bergamot", path) == []
    assert not store.last_is_missing()
    assert store.clear_log(generation_id="c", choices=True) == 2
    assert store.last_is_missing()
    assert [choice.generation_id for choice in store.choices()] == ["a"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_choice_taken_back_leaves_no_byte_of_it(store: Store, path: Path, kept: bool) -> None:
    store.add([Record(SECRET_IN, SECRET_OUT, task="t", id="choice-g", source="choices")] * kept)
    record_id = "choice-g" if kept else None
    put_choice(store, "g", query=SECRET_IN, text=SECRET_OUT, record_id=record_id)
    assert left_of(SECRET_OUT, path) != []
    withdrawn = store.withdraw_choice("g")
    assert withdrawn is not None
    assert withdrawn.with_record is kept
    assert left_of(f"xylophone qwzjk {SECRET_OUT}", path) == []
    assert store.is_erased()


def test_forget_on_a_full_disk_erases_nothing_and_names_what_makes_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise DiskFullError("no space is left on its disk. Free some space and try again.")

    store.add([Record(SECRET_IN, SECRET_OUT, id="a")])
    monkeypatch.setattr("hydra_edge.store.vectors.drop", full)
    with pytest.raises(DiskFullError, match=r"Nothing is erased\. .*history clear-log"):
        store.forget(["a"])
    assert store.count() == 1
