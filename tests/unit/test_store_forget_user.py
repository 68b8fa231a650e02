"""Forgetting a whole user: every file of theirs, and none that is not ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import filled_store
import pytest
from filled_store import filler

from hydra_edge.errors import StoreError, UnknownUserError
from hydra_edge.store import Store

path = filled_store.path


def test_forget_user_removes_every_file_of_theirs_only(path: Path) -> None:
    store = Store.open(path)
    store.add(filler(5))
    Store.open(path.with_name("you.db")).close()
    assert path.with_name("me.db-wal").exists()
    Store.forget_user(path)
    assert [p.name for p in path.parent.iterdir()] == ["you.db"]
    store.close()
    assert [p.name for p in path.parent.iterdir()] == ["you.db"]
    with pytest.raises(UnknownUserError, match=r"no user 'me'.*Known users: you\."):
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


def test_forget_user_leaves_who_begins_anew_under_the_name_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def unlinking(part: Path, *, missing_ok: bool = False) -> None:
        unlink(part, missing_ok=missing_ok)
        if part == path and not begun:
            begun.append(Store.open(path))

    begun: list[Store] = []
    with Store.open(path) as store:
        store.add(filler(5))
    monkeypatch.setattr(Path, "unlink", unlinking)
    Store.forget_user(path)
    monkeypatch.setattr(Path, "unlink", unlink)
    (anew,) = begun
    anew.add(filler(1))
    anew.close()
    with Store.open(path, create=False) as store:
        assert store.count() == 1
