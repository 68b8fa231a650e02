"""One file under other Pythons, and under libraries of SQLite that allow less than ours."""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
import sys
import unicodedata
from contextlib import closing
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest

from hydra_edge.errors import StoreError
from hydra_edge.store import Store, check, database, schema
from hydra_edge.types import Record

_SWITCHES = {"defensive": (1010, 1), "untrusted": (1017, 0)}  # of sqlite3_db_config


def switch(connection: sqlite3.Connection, name: str) -> None:
    """Set what some libraries of SQLite are built with, as Apple's."""
    try:
        configure = ctypes.CDLL(_sqlite3.__file__).sqlite3_db_config
    except (AttributeError, OSError):
        pytest.skip("this Python's SQLite cannot be reached by ctypes")
    option, value = _SWITCHES[name]
    handle = ctypes.c_void_p.from_address(id(connection) + object.__basicsize__)
    is_now = ctypes.c_int(-1)
    configure(handle, ctypes.c_int(option), ctypes.c_int(value), ctypes.byref(is_now))
    assert is_now.value == value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.db"


def use(store: Store) -> None:
    assert store.add([Record("a b", "c", id="x"), Record("d e", "f", id="y")]).added == 2
    assert [record.id for record in store.search("d")] == ["y"]
    assert store.reindex() == 2
    store.forget(["x"])
    assert store.search("a") == []
    assert store.check() == []


@pytest.mark.parametrize("name", _SWITCHES)
def test_history_under_a_stricter_sqlite_is_made_and_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    connect = sqlite3.connect

    def connecting(*args: Any, **more: Any) -> sqlite3.Connection:
        connection = connect(*args, **more)
        switch(connection, name)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connecting)
    with Store.open(path) as store:
        use(store)
    with Store.open(path) as store:
        assert store.count() == 1
        assert store.back_up(path.with_name("backup.db")) == 1
    with Store.in_memory() as store:
        use(store)


def test_damaged_index_under_a_defensive_sqlite_is_mended_where_python_can(path: Path) -> None:
    with Store.open(path) as store:
        store.add([Record("a b", "c", id="x")])
        store._db.connection.execute("DELETE FROM records_fts_data WHERE id = 10")
    with Store.open(path) as store:
        switch(store._db.connection, "defensive")
        if sys.version_info >= (3, 12):
            assert store.reindex() == 1
            assert store.check() == []
        else:
            with pytest.raises(StoreError, match="may not be modified"):
                store.reindex()
        assert store.get("x").input == "a b"


def test_reindex_that_finds_no_room_writes_no_more() -> None:
    class Full:
        asked = 0

        def execute(self, _statement: str) -> None:
            self.asked += 1
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[misc] - as SQLite sets it
            raise error

    full = Full()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        schema.reindex(full)  # type: ignore[arg-type] - stands for a connection
    assert full.asked == 1, "SQLite may have ended the transaction"


def test_modes_are_no_fault_where_a_system_has_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        path.chmod(0o644)
        assert any("can be read by others" in fault for fault in store.check())
        windows = SimpleNamespace(name="nt")
        monkeypatch.setattr(check, "os", windows)
        assert store.check() == []


def test_file_of_a_network_share_is_named_without_a_host(path: Path) -> None:
    share = PureWindowsPath(r"\\server\share\a b\me.db")
    assert database.file_uri(share) == "file:////server/share/a%20b/me.db"
    assert database.file_uri(PureWindowsPath(r"C:\me.db")) == "file:///C:/me.db"
    Store.open(path).close()
    with closing(sqlite3.connect(f"file:///{path}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    assert tables[0]


@pytest.mark.parametrize("version", ["15.1.0", "17.0.0"])
def test_file_opened_by_a_python_of_a_later_unicode_stays_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    with Store.open(path) as store:
        store.add([Record("a b", "c")])
        before = store.revision()
        with monkeypatch.context() as other:
            other.setattr(unicodedata, "unidata_version", version)
            schema.words_mark.cache_clear()
            Store.open(path).close()
        schema.words_mark.cache_clear()
        assert store.revision() == before
        assert store.add([Record("d e", "f")]).added == 1


def test_words_mark_is_that_of_files_written_by_python_3_11() -> None:
    released = "f78fb36c7ac91c82549692a23b7c58d85f2159b5eeea0c16ed2dfe2a9b5f06e1"
    assert schema.words_mark() == released
