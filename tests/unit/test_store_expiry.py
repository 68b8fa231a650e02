"""Answers that the log lets go of once they are older than it may keep any."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path

import filled_store
import pytest
from filled_store import SECRET_OUT, generation_of, keep, left_of, put_choice
from title_writer import Make, people

from hydra_edge.errors import DiskFullError
from hydra_edge.store import Store, erasure, log

path, store = filled_store.path, filled_store.store
DAY = 86400.0


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a test say which day it is."""
    now = [0.0]
    monkeypatch.setattr("time.time", lambda: 1.7e9 + now[0] * DAY)
    return now


def put(store: Store, name: str, text: str = "an answer") -> None:
    store.log_generation(generation_of(name, f"asked {name}", text), "m")


def kept(store: Store) -> list[str]:
    return [entry.id for entry in store.generations(with_private=True)[0]]


def test_expire_log_leaves_no_byte_of_what_is_older(
    store: Store, path: Path, clock: list[float]
) -> None:
    for i in range(50):
        store.log_generation(generation_of(f"old{i}", f"qwzjk {i} " * 30, SECRET_OUT), "m")
    clock[0] = 20
    put(store, "new", "marigold")
    assert store.expire_log(21) == 0
    clock[0] = 21.1
    assert store.expire_log(21) == 50
    assert left_of(f"qwzjk {SECRET_OUT}", path) == []
    assert store.is_erased()
    assert kept(store) == ["new"]


def test_expire_log_never_takes_choices_nor_records(store: Store, clock: list[float]) -> None:
    put(store, "g")
    put_choice(store, "g")
    keep(store, "other", "kept")
    clock[0] = 400
    assert store.expire_log(30) == 1
    assert (len(store.choices()), store.count()) == (2, 1)


@pytest.mark.parametrize("days", [1, 30])
def test_expire_log_rewrites_the_file_once_in_a_while(
    store: Store, clock: list[float], monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Answers ten times a day, or a tenth of the days: the oldest is due at nearly every one."""
    rewritten: list[float] = []
    erase = erasure.erase_bytes

    def noting(*given: object, **named: object) -> None:
        rewritten.append(clock[0])
        erase(*given, **named)

    monkeypatch.setattr(erasure, "erase_bytes", noting)
    step = min(0.1, days / 100)
    times = [step * i for i in range(int((days + 1) / step))]
    for moment in times:
        clock[0] = moment
        put(store, f"{moment}")
        store.expire_log(days)
        oldest = min(e.time for e in store.generations(with_private=True)[0])
        assert (oldest - 1.7e9) / DAY >= moment - days - 1e-6
    apart = min(1.0, days / 10)
    assert 1 <= len(rewritten) <= 1 + 1 / apart
    assert all(b - a >= apart - 2 * step for a, b in pairwise(rewritten))


def test_expire_log_finds_what_is_due_behind_an_entry_from_the_future(
    store: Store, clock: list[float]
) -> None:
    clock[0] = 9000  # of a clock that was wrong
    put(store, "ahead")
    clock[0] = 0
    put(store, "old")
    clock[0] = 31
    put(store, "new")
    assert store.expire_log(30) == 1
    assert kept(store) == ["new", "ahead"]


def test_expire_log_while_another_reads_leaves_the_bytes_to_the_next_opening(
    path: Path, clock: list[float]
) -> None:
    with Store.open(path) as store:
        put(store, "g", SECRET_OUT)
        clock[0] = 31
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM records").fetchone()
        assert store.expire_log(30) == 1
        assert not store.is_erased()
        reader.close()
    with Store.open(path) as store:
        assert store.is_erased()
        assert left_of(SECRET_OUT, path) == []


def test_answer_lets_go_of_what_is_older_than_the_setting_says(
    person: Make, clock: list[float]
) -> None:
    p = person(log_days=30)
    p.generate("about speech")
    clock[0] = 29
    second = p.generate("about vision")
    assert p.store.generation_count() == 2
    clock[0] = 31
    third = p.generate("about words")
    assert kept(p.store) == [third.id, second.id]


@pytest.mark.parametrize(("setting", "left"), [({}, 2), ({"log": False, "log_days": 30}, 0)])
def test_answer_without_the_setting_leaves_all_and_with_the_log_off_still_erases(
    person: Make, clock: list[float], setting: dict[str, object], left: int
) -> None:
    p = person(**setting)
    put(p.store, "old")
    clock[0] = 1000
    p.generate("about words")
    assert p.store.generation_count() == left


def test_answer_where_the_disk_is_full_is_given_with_a_note(
    person: Make, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> int:
        raise DiskFullError("no space is left on its disk.")

    p = person(log_days=30)
    put(p.store, "old")
    clock[0] = 31
    monkeypatch.setattr(log, "drop", full)
    made = p.generate("about words")
    assert any(note.startswith("answers older than log_days = 30 remain:") for note in made.notes)
    assert made.text
