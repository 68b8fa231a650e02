"""Forgetting that cannot end at once: another program reads, the disk is full, the power fails."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import filled_store
import pytest
from filled_store import SECRET_IN, SECRET_OUT, filler, left_of

from hydra_edge.errors import BytesRemainError, DiskFullError
from hydra_edge.store import Store, erasure
from hydra_edge.store.database import Database
from hydra_edge.types import ForgetReceipt, Record

path, store = filled_store.path, filled_store.store


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


def test_forget_while_another_program_is_killed_before_it_erases_leaves_that_to_be_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = Database.rewrite

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def rewriting(db: Database) -> None:
        rewrite(db)
        with monkeypatch.context() as patched:
            patched.setattr(erasure, "erase_bytes", killed)
            with pytest.raises(KeyboardInterrupt):
                other.forget(["secret"])

    with Store.open(path) as store, Store.open(path) as other:
        store.add([*filler(300), Record(SECRET_IN, SECRET_OUT, id="secret"), Record("a", "b")])
        monkeypatch.setattr(Database, "rewrite", rewriting)
        assert store.forget([store.records(limit=1)[0].id]) == ForgetReceipt(records=1)
        monkeypatch.setattr(Database, "rewrite", rewrite)
        assert not store.is_erased()
    assert left_of("qwzjk", path) == ["qwzjk"]
    with Store.open(path) as store:
        assert store.is_erased()
        assert left_of(f"{SECRET_IN[:30]} {SECRET_OUT}", path) == []
