"""Clearing the log of answers given, also of choices, and of what is older than a moment."""

from __future__ import annotations

import sqlite3
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
)

from hydra_edge.errors import BytesRemainError
from hydra_edge.store import Store
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
    store.put_choice("old1", "t", SECRET_IN, [Candidate("x")], (), None, "rendezvous", None)
    border = float(next(clock))
    for i in range(50):
        store.log_generation(generation_of(f"new{i}", f"marigold {i} " * 30, "thistle"), "m")
    store.put_choice("new1", "t", "saffron", [Candidate("x")], (), None, "bergamot", None)
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
