"""Files that are not what they should be: damaged, foreign, newer, full, read-only, hostile."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import filled_store
import numpy as np
import pytest
from filled_store import put_choice

from hydra_edge.errors import HydraError, StoreError
from hydra_edge.store import Store, schema
from hydra_edge.types import Completion, Record

path = filled_store.path


def fill(store: Store, n: int) -> None:
    """Put something into every table."""
    store.add(Record(f"input {i} of many words", f"output {i}", id=f"r{i}") for i in range(n))
    store.put_vectors("b", {f"h{i}": np.ones(64, dtype=np.float16) for i in range(50)})
    filled_store.fill(store, "c")


@pytest.fixture
def filled(path: Path) -> Path:
    """Make a closed file with something in every table."""
    with Store.open(path) as store:
        fill(store, 300)
    return path


def look_at_everything(store: Store) -> None:
    for record in store.records():
        store.get(record.id)
    store.tasks()
    store.search("input many")
    store.bm25("input 7 words", "general", 10)
    store.bm25("input 7 words", "general", 10, postings=2)
    store.fill_vectors(np.zeros((50, 2)), {f"h{i}": i for i in range(50)}, "b")
    store.pools()
    store.choices()
    store.helped_counts("t")
    store.last_generation()
    store.heads()


def use_everything(path: Path) -> None:
    """Read, search, write and forget, as any day would."""
    with Store.open(path) as store:
        look_at_everything(store)
        store.check()
        store.add([Record("new", "x")])
        store.forget([store.records(limit=1)[0].id])


def error_of(action: Callable[[], None]) -> HydraError | None:
    """Return the error of ours that an action ends in; any other one is a failure."""
    try:
        action()
    except HydraError as err:
        return err
    return None


@pytest.mark.parametrize(
    "content", [b"dear diary " * 500, b"xy", b"\x89PNG\r\n" + bytes(9000), b"SQLite format 3\x00"]
)
def test_open_file_that_is_no_database_is_refused_untouched(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"not a hydra-edge file.*Restore the file from a backup"):
        Store.open(path)
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["me.db"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE records (id, input, output)",
        "PRAGMA application_id = 42",
        "PRAGMA user_version = 1",
    ],
)
def test_open_database_of_another_program_is_refused_untouched(path: Path, statement: str) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"database of another program.*Nothing was changed"):
        Store.open(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["me.db"]


def test_open_file_of_a_newer_release_is_refused_untouched(filled: Path) -> None:
    connection = sqlite3.connect(filled)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = filled.read_bytes()
    with pytest.raises(StoreError, match=r"got schema 99; this release reads up to \d+.*upgrade"):
        Store.open(filled)
    assert filled.read_bytes() == before


def test_open_empty_file_left_by_a_stopped_creation_is_used(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with Store.open(path) as store:
        assert store.add([Record("a", "b")]).added == 1


def test_open_emptied_file_with_a_wal_is_not_taken_for_new(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    wal = path.with_name("me.db-wal")
    wal.write_bytes(b"\x37\x7f\x06\x82 pages that could still be saved")
    with pytest.raises(StoreError, match="it is empty, but its -wal is not"):
        Store.open(path)
    assert wal.stat().st_size
    assert path.stat().st_size == 0


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.02])
def test_truncated_file_is_refused_untouched(filled: Path, part: float) -> None:
    content = filled.read_bytes()
    cut = content[: int(len(content) * part)]
    filled.write_bytes(cut)
    with pytest.raises(StoreError, match=r"damaged.*Restore the file from a backup"):
        use_everything(filled)
    assert filled.read_bytes() == cut


def test_damaged_schema_is_refused_untouched(filled: Path) -> None:
    content = filled.read_bytes()
    broken = content[:100] + bytes(3996) + content[4096:]
    filled.write_bytes(broken)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(filled)
    assert filled.read_bytes() == broken


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_bytes_end_in_a_store_error_or_in_nothing(filled: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(filled.read_bytes())
    for _ in range(rng.choice([1, 20, 400])):
        content[rng.randrange(rng.choice([100, 4096, len(content)]))] = rng.randrange(256)
    filled.write_bytes(content)
    for part in filled.parent.glob("me.db-*"):
        part.unlink()
    error = error_of(lambda: use_everything(filled))
    assert error is None or isinstance(error, StoreError)
    assert error is None or str(filled) in str(error) or "record" in str(error)
    assert filled.stat().st_size >= len(content) // 2


@pytest.mark.parametrize("table", ["records", "pools", "choices", "log", "heads", "vectors"])
def test_values_of_other_kinds_end_in_a_store_error_or_in_nothing(table: str) -> None:
    refused = 0
    with Store.in_memory() as whole:
        fill(whole, 5)
        columns = [row[1] for row in whole._db.connection.execute(f"PRAGMA table_info({table})")]
        values = ("NULL", "7", "'text'", "x'fffe00'", "'[1]'", "'[[1,2,3,4,5]]'")
        for column, value in itertools.product(columns, values):
            # Each in a store of its own: one that an error came from may be in use a while yet.
            with Store.in_memory() as store:
                connection = store._db.connection
                whole._db.connection.backup(connection)
                with contextlib.suppress(sqlite3.IntegrityError):
                    connection.execute(f"UPDATE {table} SET {column} = {value}")
                for action in (lambda: look_at_everything(store), lambda: store.forget(["r1"])):
                    error = error_of(action)
                    assert error is None or isinstance(error, StoreError)
                    refused += error is not None
                assert isinstance(store.check(), list)
    # A vector that is none counts as missing: it can be made again, which nothing else here can.
    assert bool(refused) == (table != "vectors")


def test_text_that_is_not_utf8_is_not_quoted_in_the_error(filled: Path) -> None:
    connection = sqlite3.connect(filled)
    schema.register_functions(connection)
    connection.execute("DROP TRIGGER records_changed")
    connection.execute("UPDATE records SET input = CAST(x'73656372657420ff' AS TEXT)")
    connection.commit()
    connection.close()
    with Store.open(filled) as store, pytest.raises(StoreError, match="not UTF-8") as caught:
        store.records()
    assert "secret" not in str(caught.value)


def test_open_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(path)


def test_open_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("not a folder")
    with pytest.raises(StoreError, match="Cannot open"):
        Store.open(tmp_path / "users" / "me.db")


def limited(store: Store, extra_pages: int) -> None:
    connection = store._db.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + extra_pages}")


@pytest.mark.parametrize("extra_pages", [0, 3, 40, 400])
def test_full_disk_keeps_whole_batches_and_says_how_many(path: Path, extra_pages: int) -> None:
    with Store.open(path) as store:
        limited(store, extra_pages)
        with pytest.raises(
            StoreError, match=r"no space is left.*first \d+ are stored; adding all of them again"
        ) as caught:
            store.add(Record(f"text number {i} " * 10, "x", id=str(i)) for i in range(10_000))
        stored = store.count()
        assert f"first {stored} are stored" in str(caught.value)
        assert stored % 500 == 0
        assert store.check() == []
        store._db.connection.execute("PRAGMA max_page_count = 1000000")
        result = store.add(Record(f"text number {i} " * 10, "x", id=str(i)) for i in range(2000))
        assert result.unchanged == min(stored, 2000)
        assert store.count() == max(stored, 2000)


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s.put_vectors("b", {f"n{i}": np.ones(2000) for i in range(50)}),
        lambda s: s.put_pool(
            "new", task="t", model="m", query_id="", record_ids=(),
            completions=[Completion("x" * 50_000)],
        ),
        lambda s: put_choice(s, "new", query="q" * 50_000, candidates=[]),
    ],
)  # fmt: skip
def test_full_disk_stores_a_thing_wholly_or_not_at_all(
    filled: Path, write: Callable[[Store], None]
) -> None:
    with Store.open(filled) as store:
        limited(store, 2)
        before = (store.vector_count("b"), len(store.pools()), len(store.choices()))
        with pytest.raises(StoreError, match=r"no space is left on its disk\. Free some"):
            write(store)
        assert (store.vector_count("b"), len(store.pools()), len(store.choices())) == before
        assert store.check() == []


@pytest.mark.parametrize(
    ("code", "free", "told"),
    [
        (sqlite3.SQLITE_FULL, 1 << 30, "no space is left on its disk"),
        (sqlite3.SQLITE_IOERR | (19 << 8), 0, "no space is left on its disk"),  # of the -shm file
        (sqlite3.SQLITE_CANTOPEN, 4096, "no space is left on its disk"),
        (sqlite3.SQLITE_IOERR, 1 << 30, "its disk does not work as it should"),
        (sqlite3.SQLITE_CANTOPEN, 1 << 30, "it cannot be opened"),
        (sqlite3.SQLITE_CANTOPEN, None, "it cannot be opened"),
    ],
)
def test_open_that_sqlite_gives_up_says_what_was_wrong(
    filled: Path, monkeypatch: pytest.MonkeyPatch, code: int, free: int | None, told: str
) -> None:
    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql == "PRAGMA application_id":
                super().execute("ROLLBACK")  # SQLite does so by itself
                error = sqlite3.OperationalError("what SQLite says")
                error.sqlite_errorcode = code
                raise error
            return super().execute(sql, *values)

    def usage(_folder: Path) -> SimpleNamespace:
        if free is None:
            raise OSError("no such folder")
        return SimpleNamespace(free=free)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Failing))
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(StoreError, match=told):
        Store.open(filled)


def test_file_held_by_another_program_is_told_after_waiting(filled: Path) -> None:
    other = sqlite3.connect(filled)
    with Store.open(filled) as store:
        other.execute("BEGIN IMMEDIATE")
        store._db.connection.execute("PRAGMA busy_timeout = 10")
        assert store.count() == 300  # reading needs no lock
        with pytest.raises(StoreError, match=r"another program is writing to it.*Try again"):
            store.set_private(["r1"], True)
        other.rollback()
        assert store.set_private(["r1"], True) == 1
    other.close()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Make a folder that an ordinary user can get to, wherever tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_ordinary_user(path: Path) -> subprocess.CompletedProcess[str]:
    """Open and write a user's file without root's right to ignore modes."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hydra_edge.errors import HydraError\n"
        "from hydra_edge.store import Store\n"
        "from hydra_edge.types import Record\n"
        "if os.geteuid() == 0:\n"
        "    os.setegid(65534); os.seteuid(65534)\n"
        "try:\n"
        "    with Store.open(Path(sys.argv[1])) as store:\n"
        "        store.add([Record('a', 'b')])\n"
        "except HydraError as err:\n"
        "    print(type(err).__name__, err)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_read_only_home_is_told_with_what_to_do(shared_folder: Path) -> None:
    shared_folder.chmod(0o555)
    run = as_ordinary_user(shared_folder / "users" / "me.db")
    assert run.stderr == ""
    assert run.stdout.startswith("ConfigError Cannot create the folder")
    assert "HYDRA_EDGE_HOME" in run.stdout
    run = as_ordinary_user(shared_folder / "me.db")
    assert run.stdout.startswith("StoreError Cannot open")
    assert "HYDRA_EDGE_HOME" in run.stdout


def test_read_only_folder_or_file_is_told_and_the_file_is_left_alone(shared_folder: Path) -> None:
    path = shared_folder / "me.db"
    Store.open(path).close()
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    for file_mode, folder_mode in ((0o400, 0o755), (0o600, 0o555)):
        path.chmod(file_mode)
        shared_folder.chmod(folder_mode)
        before = path.read_bytes()
        run = as_ordinary_user(path)
        assert run.stderr == ""
        assert run.stdout.startswith("StoreError Cannot ")
        assert "HYDRA_EDGE_HOME" in run.stdout
        assert path.read_bytes() == before
    shared_folder.chmod(0o755)
