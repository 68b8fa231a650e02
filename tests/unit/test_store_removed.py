"""A user's file that is removed or replaced while another program has it open."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import filled_store
import numpy as np
import pytest
from cli_runner import call
from filled_store import put_choice

from hydra_edge.config import find_paths
from hydra_edge.errors import StoreError
from hydra_edge.store import Store, database, forget
from hydra_edge.store.database import Database
from hydra_edge.types import Candidate, Record, text_hash

SECRET = "Xylophone rendezvous qwzjk behind the harbour"
REMOVED = r"removed by another program: got no file of that name; expected the one .*open it again"
path, store = filled_store.path, filled_store.store


def fill(store: Store) -> None:
    """Put the secret into every table."""
    secrets = [
        Record(SECRET, f"{SECRET} {i}", task="t", id=f"r{i}", source="csv:a") for i in range(200)
    ]
    store.add(secrets)
    store.add([replace(secrets[0], source=f"csv:{SECRET}")])
    store.put_vectors("base", {text_hash(SECRET): np.ones(4)})
    filled_store.fill(store, SECRET)


def rows(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the rows of every table that a user's data could be in."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'records_fts%' "
        "AND name NOT IN ('meta', 'records_terms')"
    ).fetchall()
    return {
        name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for (name,) in tables
    }


CALLS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.records(),
    "revision": lambda store: store.revision(),
    "search": lambda store: store.search("qwzjk"),
    "vectors": lambda store: store.fill_vectors(np.zeros((1, 2)), {text_hash(SECRET): 0}, "base"),
    "log": lambda store: store.generation("g"),
    "add": lambda store: store.add([Record("new", "x")]),
    "choose": lambda store: put_choice(store, "g", candidates=[Candidate("c")], picked=0, text="c"),
    "clear": lambda store: store.clear_log(),
    "forget": lambda store: store.forget(["r1"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_open_store_whose_user_was_forgotten_gives_and_takes_nothing(
    store: Store, path: Path, name: str
) -> None:
    fill(store)
    Store.forget_user(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=REMOVED):
            CALLS[name](store)
    assert not path.exists()


def test_open_store_whose_file_was_replaced_says_so_and_leaves_the_new_one(
    store: Store, path: Path
) -> None:
    fill(store)
    Store.forget_user(path)
    with Store.open(path) as new:
        new.add([Record("of the new file", "x")])
        with pytest.raises(StoreError, match="got another file of that name"):
            store.add([Record("lost", "x")])
        store.close()
        assert [record.input for record in new.records()] == ["of the new file"]
        assert new.check() == []


def test_file_moved_away_and_back_is_still_the_one_that_was_opened(
    store: Store, path: Path
) -> None:
    fill(store)
    path.rename(path.with_name("away"))
    with pytest.raises(StoreError, match=REMOVED):
        store.count()
    path.with_name("away").rename(path)
    assert store.count() == 200


def test_removal_is_found_out_before_a_batch_of_an_import_is_stored(
    store: Store, path: Path
) -> None:
    def remove(_stage: str, _done: int, _total: int) -> None:
        path.unlink()

    with pytest.raises(StoreError, match=f"{REMOVED}.*the first 500 are stored"):
        store.add((Record(str(i), "x") for i in range(700)), progress=remove)


def test_transaction_under_way_ends_although_the_file_goes(store: Store, path: Path) -> None:
    fill(store)
    with store._db.reading() as outer:
        path.unlink()
        with store._db.reading():
            assert outer.execute("SELECT COUNT(*) FROM records").fetchone() == (200,)
    with pytest.raises(StoreError, match=REMOVED):
        store.count()
    assert not store._db.connection.in_transaction


def test_platform_without_inodes_goes_unchecked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(database, "_identity", lambda _path: (next(numbers), 0))
    with Store.open(path) as store:
        store.add([Record("a", "x")])
        assert store.count() == 1


def test_store_in_memory_has_no_file_to_miss() -> None:
    with Store.in_memory() as store:
        store.add([Record("a", "x")])
        assert store.count() == 1


def test_forget_user_leaves_open_connections_nothing_to_read(store: Store, path: Path) -> None:
    """A program that does not look whether the file is there holds the bytes of an empty one."""
    fill(store)
    connection = store._db.connection
    assert set(rows(connection).values()) == {1, 200}, "every table is filled"
    held = path.open("rb")
    Store.forget_user(path)
    assert set(rows(connection).values()) == {0}
    assert connection.execute("SELECT * FROM records_fts('qwzjk')").fetchall() == []
    with held:
        left = held.read().lower()
    assert b"qwzjk" not in left
    assert len(left) < 200_000


def test_forget_user_stopped_before_the_file_goes_leaves_an_empty_history(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(_path: Path, **_options: object) -> None:
        raise KeyboardInterrupt

    with Store.open(path) as store:
        fill(store)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", power_cut)
            with pytest.raises(KeyboardInterrupt, match=r"^$"):
                Store.forget_user(path)
        assert store.count() == 0
        assert store.check() == []
    Store.forget_user(path)
    assert not path.exists()


def test_forget_user_stopped_before_its_bytes_are_erased_is_finished_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(_db: Database) -> None:
        raise KeyboardInterrupt

    with Store.open(path) as store:
        fill(store)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "rewrite", power_cut)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            Store.forget_user(path)
    with Store.open(path) as store:
        assert store.count() == 0
        assert store.check() == []
        assert b"qwzjk" not in b"".join(p.read_bytes().lower() for p in path.parent.iterdir())


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_forget_user_removes_a_file_that_another_program_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    monkeypatch.setattr(forget, "_REMOVE_WAIT_S", 0.01)
    with Store.open(path) as store:
        fill(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(begin)
        other.execute("SELECT COUNT(*) FROM records").fetchone()
        Store.forget_user(path)
        assert list(path.parent.iterdir()) == []
        other.close()
        with pytest.raises(StoreError, match=REMOVED):
            store.records()


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TRIGGER records_removed",
        "DROP TABLE pools",
        "DELETE FROM records_fts_data",
        "UPDATE meta SET value = 'damaged'",
        "PRAGMA user_version = 99",
    ],
)
def test_forget_user_removes_a_file_that_cannot_be_emptied(path: Path, damage: str) -> None:
    with Store.open(path) as store:
        fill(store)
    with sqlite3.connect(path) as other:
        other.execute(damage)
    other.close()
    Store.forget_user(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_forget_user_in_a_folder_that_cannot_be_written_says_so(path: Path) -> None:
    Store.open(path).close()
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StoreError, match=r"Cannot remove .*Check who owns both"):
            Store.forget_user(path)
    finally:
        path.parent.chmod(0o700)


def test_forget_all_reaches_a_program_that_is_running() -> None:
    path = find_paths().user_file("me")
    with Store.open(path) as running:
        fill(running)
        assert call("forget", "--all", "--yes").exit_code == 0
        for work in (CALLS["read"], CALLS["add"]):
            with pytest.raises(StoreError, match=REMOVED):
                work(running)
