"""Opening a user's file: creation, modes, migrations, threads, health."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hydra_edge.errors import StoreError, UnknownUserError
from hydra_edge.store import Store, faults, schema
from hydra_edge.store import backup as module
from hydra_edge.types import Record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users" / "me.db"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def snapshot(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return found


@pytest.mark.usefixtures("open_umask")
def test_open_new_file_is_its_owners_only_even_under_umask_zero(path: Path) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b")])
        assert mode(path.parent) == 0o700
        names = sorted(p.name for p in path.parent.iterdir())
        assert names == ["me.db", "me.db-shm", "me.db-wal"]
        assert {mode(p) for p in path.parent.iterdir()} == {0o600}
        store.forget([store.records()[0].id])
        assert {mode(p) for p in path.parent.iterdir()} == {0o600}
        assert store.path == path
    assert [p.name for p in path.parent.iterdir()] == ["me.db"]


def test_open_file_others_can_read_is_tightened(path: Path) -> None:
    Store.open(path).close()
    path.chmod(0o644)
    with Store.open(path) as store:
        assert mode(path) == 0o600
        path.chmod(0o640)
        assert store.check() == [f"{path} can be read by others (mode 640); expected 600."]


def test_open_side_files_others_can_read_are_tightened_too(path: Path) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b")])
        parts = [path.with_name(f"me.db-{kind}") for kind in ("wal", "shm")]
        for part in parts:
            part.chmod(0o644)
        with Store.open(path):
            assert [mode(part) for part in parts] == [0o600, 0o600]


def test_open_unknown_user_lists_those_that_exist(path: Path) -> None:
    with pytest.raises(UnknownUserError, match=r"no user 'me'.*Known users: none yet"):
        Store.open(path, create=False)
    assert not path.parent.exists()
    Store.open(path.with_name("zoe.db")).close()
    Store.open(path.with_name("ann.db")).close()
    with pytest.raises(UnknownUserError, match=r"Known users: ann, zoe\."):
        Store.open(path, create=False)
    Store.open(path.with_name("ann.db"), create=False).close()


@pytest.mark.parametrize("name", ["._me", ".hidden", "me copy", "a\x1b[31m"])
def test_files_no_user_can_have_are_not_named(path: Path, name: str) -> None:
    path.parent.mkdir()
    path.with_name(f"{name}.db").touch()
    with pytest.raises(UnknownUserError, match=r"Known users: none yet\."):
        Store.open(path, create=False)


def test_open_unknown_user_lists_near_names_first_and_five_at_most(path: Path) -> None:
    path.parent.mkdir()
    for name in ("anna", "bea", "cleo", "dora", "emma", "zoe", "zoey"):
        path.with_name(f"{name}.db").touch()
    with pytest.raises(UnknownUserError, match="users: zoey, zoe, anna, bea, cleo and 2 more"):
        Store.open(path.with_name("zoeyy.db"), create=False)


def test_open_uses_wal_and_secure_delete(path: Path) -> None:
    with Store.open(path) as store:
        connection = store._db.connection
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "secure_delete", "application_id", "user_version")
        }
    assert settings == {
        "journal_mode": "wal",
        "secure_delete": 1,
        "application_id": schema.APPLICATION_ID,
        "user_version": len(schema.MIGRATIONS),
    }


def test_open_sorts_and_rewrites_in_memory_not_in_the_systems_temp_folder(path: Path) -> None:
    with Store.open(path) as store:
        assert store._db.connection.execute("PRAGMA temp_store").fetchone() == (2,)


# One a migration, never changed: a released migration is followed, not edited. Files are out
# there that were made by it, and a release that makes others would not know them apart.
RELEASED = ("14d5b9dc3722", "43cb3fb3122b", "fb8bd820aa8d", "418c7e94246c")


def test_migrations_that_were_released_are_never_edited() -> None:
    found = [hashlib.sha256(json.dumps(m).encode()).hexdigest()[:12] for m in schema.MIGRATIONS]
    assert tuple(found[: len(RELEASED)]) == RELEASED
    assert len(found) == len(RELEASED), "a new one: add its mark"


def test_open_twice_migrates_once(path: Path) -> None:
    Store.open(path).close()
    before = snapshot(path)
    with Store.open(path) as one, Store.open(path) as two:
        one.add([Record("a", "b", id="x")])
        assert two.get("x").input == "a"
    assert snapshot(path) == before


def test_open_older_schema_is_migrated_with_its_records(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b", id="x")])
    later = ("ALTER TABLE records ADD COLUMN mood TEXT", "UPDATE records SET mood = 'fine'")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
    with Store.open(path) as store:
        assert store.get("x").output == "b"
        rows = store._db.connection.execute("SELECT mood FROM records").fetchall()
        assert rows == [("fine",)]
        assert store.check() == []


def test_open_migration_failing_midway_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b", id="x")])
    before = snapshot(path)
    broken = ("CREATE TABLE half (x)", "DELETE FROM records", "NOT SQL")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(StoreError, match="NOT"):
            Store.open(path)
    assert snapshot(path) == before
    with Store.open(path) as store:
        assert store.get("x").input == "a"


def test_open_relative_and_odd_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open(Path("50% off?#é.db")) as store:
        store.add([Record("a", "b")])
    assert (tmp_path / "50% off?#é.db").exists()


def test_open_symlink_keeps_side_files_beside_the_target(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "me.db", tmp_path / "me.db"
    Store.open(target).close()
    link.symlink_to(target)
    with Store.open(link) as store:
        store.add([Record("a", "b")])
        assert (tmp_path / "disk" / "me.db-wal").exists()
    Store.forget_user(link)
    assert not link.is_symlink()
    assert list(target.parent.iterdir()) == []


def test_open_symlink_to_nothing_is_no_unknown_user(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.with_name("gone.db"))
    with pytest.raises(StoreError, match=r"it is a link to .*gone\.db, which is not there"):
        Store.open(path, create=False)


# ---- Ctrl-C


def interrupting(_text: str) -> str:
    raise KeyboardInterrupt


def test_interrupt_inside_an_sql_function_is_an_interrupt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b", id="x")])
        with monkeypatch.context() as patched:
            patched.setattr(schema, "spaced_words", interrupting)
            with pytest.raises(KeyboardInterrupt):
                store.forget(["x"])
        assert store.get("x").input == "a"  # all or nothing
        # And it is told once: what goes wrong later is told for what it is.
        store._db.connection.execute("DROP TABLE choices")
        with pytest.raises(StoreError, match="no such table"):
            store.choices("general")


def test_interrupt_while_a_file_is_indexed_anew_at_opening_is_an_interrupt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b")])
    with monkeypatch.context() as patched:
        patched.setattr(schema, "words_mark", lambda: "other words")
        patched.setattr(schema, "spaced_words", interrupting)
        with pytest.raises(KeyboardInterrupt):
            Store.open(path)
    with Store.open(path) as store:
        assert store.check() == []


@pytest.mark.parametrize(
    ("statement", "got"),
    [
        ("UPDATE meta SET value = 'other' WHERE name = 'words'", "an index of other words"),
        (f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}", "schema"),
    ],
)
def test_file_another_release_has_now_is_read_but_not_written(
    path: Path, statement: str, got: str
) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b", id="x")])
        with sqlite3.connect(path) as other:
            other.execute(statement)
        other.close()
        for write in (lambda: store.forget(["x"]), lambda: store.add([Record("c", "d")])):
            with pytest.raises(
                StoreError, match=f"another release .* now: got {got}.* Start this program anew"
            ):
                write()
        assert [record.id for record in store.records()] == ["x"]


def test_file_indexed_anew_at_opening_counts_as_rewritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        store.add([Record("a", "b", id="x")])
        store.forget(["x"])
        store.add([Record("c", "d", id="y")])
        before = store.revision()
        with monkeypatch.context() as patched:
            patched.setattr(schema, "words_mark", lambda: "other words")
            Store.open(path).close()
        after = store.revision()
        with pytest.raises(StoreError, match="another release"):
            store.forget(["y"])
    assert after == replace(before, changes=before.changes + 1, rewrites=before.rewrites + 1)
    with Store.open(path) as store:
        store.forget(["y"])
        assert store.check() == []


# ---- backups


def test_backup_after_a_crash_holds_every_record(tmp_path: Path, path: Path) -> None:
    crashed, backup, copied = (tmp_path / name / "me.db" for name in ("crashed", "kept", "copied"))
    for folder in (crashed.parent, backup.parent, copied.parent):
        folder.mkdir()
    with Store.open(path) as store:
        store._db.connection.execute("PRAGMA wal_autocheckpoint = 0")
        store.add(Record(f"input {i}", "x", id=str(i)) for i in range(500))
        for part in ("me.db", "me.db-wal"):  # all that a crash leaves
            shutil.copy(path.with_name(part), crashed.with_name(part))
    shutil.copy(crashed, copied)
    with Store.open(copied) as store:
        assert store.count() < 500, "the file alone is no backup"
    with Store.open(crashed) as store:
        assert store.back_up(backup) == 500
    assert [part.name for part in backup.parent.iterdir()] == ["me.db"]
    with Store.open(backup) as store:
        assert store.count() == 500
        assert store.check() == []


@pytest.mark.usefixtures("open_umask")
def test_backup_is_of_one_moment_and_its_owners_only(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BACKUP_PAGES", 5)
    told: list[tuple[int, int]] = []
    with Store.open(path) as ours, Store.open(path) as theirs:
        ours.add(Record(f"input {i}", "x", private=True) for i in range(100))

        def meanwhile(_stage: str, done: int, total: int) -> None:
            told.append((done, total))
            theirs.add([Record(f"written meanwhile {done}", "x")])
            assert {mode(part) for part in tmp_path.glob(".backup.db.*")} == {0o600}

        assert ours.back_up(tmp_path / "backup.db", progress=meanwhile) == 100
        assert ours.count() > 100
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert mode(tmp_path / "backup.db") == 0o600
    with Store.open(tmp_path / "backup.db") as store:
        assert (store.count(), store.check()) == (100, [])


def test_backup_that_is_stopped_leaves_the_one_before(tmp_path: Path, path: Path) -> None:
    backup = tmp_path / "backup.db"
    backup.write_bytes(b"the one before")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with Store.open(path) as store:
        with pytest.raises(KeyboardInterrupt):
            store.back_up(backup, progress=stop)
        assert backup.read_bytes() == b"the one before"
        assert sorted(part.name for part in tmp_path.iterdir()) == ["backup.db", "users"]
        store.add([Record("a", "b")])
        assert store.back_up(backup) == 1
    with Store.open(backup) as store:
        assert store.count() == 1


def test_backup_removes_what_a_killed_one_left(tmp_path: Path, path: Path) -> None:
    names = (".backup.db.old.tmp", ".backup.db.new.tmp", ".another.db.old.tmp", "backup.db.tmp")
    for name in names:
        (tmp_path / name).write_text("private")
        if "new" not in name:
            os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    with Store.open(path) as store:
        store.back_up(tmp_path / "backup.db")
    left = {part.name for part in tmp_path.iterdir()}
    assert left == {"backup.db", "users", *names[1:]}


def test_read_only_disk_is_told_as_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unopened = sqlite3.OperationalError("unable to open database file")
    unopened.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    path.parent.mkdir()
    assert "it cannot be opened" in str(faults.explain(unopened, path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        assert "it is read-only. Make" in str(faults.explain(unopened, path))
    if hasattr(os, "statvfs"):
        state = SimpleNamespace(f_flag=os.ST_RDONLY, f_frsize=1, f_blocks=1, f_bavail=0, f_bfree=0)
        monkeypatch.setattr(os, "statvfs", lambda _: state)
        assert "it is read-only. Make" in str(faults.explain(unopened, path))


def test_backup_over_a_file_in_use_or_to_no_file_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "left.db-wal").write_bytes(b"pages of another file")
    with Store.open(path) as store:
        store.add([Record("a", "b")])
        for target, said in (
            (path, "got me.db-wal, me.db-shm beside it"),
            (tmp_path / "left.db", "got left.db-wal beside it"),
            (tmp_path, "it is no file; expected one"),
            (tmp_path / "none" / "backup.db", "No such file or directory. Expected a file in"),
        ):
            with pytest.raises(StoreError, match=f"Cannot write {target}: {said}"):
                store.back_up(target)
        assert store.count() == 1
    assert sorted(part.name for part in tmp_path.iterdir()) == ["left.db-wal", "users"]


def test_damaged_file_is_told_with_how_to_restore_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"dear diary " * 500)
    with pytest.raises(StoreError) as caught:
        Store.open(path)
    told = str(caught.value)
    assert "`hydra-edge history restore BACKUP`" in told
    assert told.index("end all programs that use it") < told.index("with its -wal and -shm")


def test_closed_store_says_so(path: Path) -> None:
    store = Store.open(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="has been closed"):
        store.count()


def test_threads_share_one_store_and_lose_nothing() -> None:
    errors: list[BaseException] = []

    def work(number: int, store: Store) -> None:
        try:
            for i in range(20):
                store.add([Record(f"thread {number} item {i}", "x")])
                store.search("item")
                store.bm25("thread", "general", 3)
                store.put_vectors("b", {f"{number}-{i}": np.zeros(2)})
        except BaseException as err:
            errors.append(err)

    with Store.in_memory() as store:
        threads = [threading.Thread(target=work, args=(n, store)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert (store.count(), store.vector_count("b")) == (80, 80)
        assert store.check() == []


def test_failing_step_leaves_nothing_behind_and_the_store_usable() -> None:
    with Store.in_memory() as store:

        def half_done() -> None:
            with store._db.writing() as connection:
                connection.execute("INSERT INTO meta VALUES ('a', 'b')")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            half_done()
        assert store._db.connection.execute("SELECT * FROM meta WHERE name = 'a'").fetchall() == []
        store.add([Record("a", "b")])
        assert store.count() == 1


def test_size_bytes_grows_with_the_history(path: Path) -> None:
    for store in (Store.in_memory(), Store.open(path)):
        empty = store.size_bytes()
        store.add(Record(f"text {i} " * 20, "x") for i in range(500))
        assert store.size_bytes() > empty + 500 * 100
        store.close()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM records_fts_docsize WHERE id = 1", "1 records are missing from the search"),
        ("INSERT INTO records_fts (rowid, input) VALUES (99, 'x')", "1 entries of the search"),
        ("DELETE FROM records_fts_data WHERE id > 10", "The search index is damaged"),
        ("CREATE TRIGGER spy AFTER INSERT ON records BEGIN SELECT 1; END", "program: spy"),
        ("DROP INDEX records_by_source", "program: records_by_source"),
        ("INSERT INTO meta VALUES ('erasing', '1')", "An erasure is not finished"),
        ("UPDATE heads SET weight = x'00'", "a head's weight is 1 bytes, expected 8 bytes"),
        ("UPDATE heads SET precision = 'text'", "a head's precision is str"),
        ("UPDATE heads SET switch = 'maybe'", "switch 'maybe'"),
        ("UPDATE heads SET features = '{'", "is not JSON"),
        ("UPDATE heads SET weight = x'000000000000c07f'", "not finite"),
        ("UPDATE heads SET report = x'ff'", "not UTF-8"),
    ],
)
def test_check_names_what_is_wrong(damage: str, problem: str) -> None:
    from hydra_edge.types import HeadState

    with Store.in_memory() as store:
        store.add([Record("a b c", "b"), Record("c", "d")])
        two = np.ones(2, dtype=np.float32)
        store.save_head(
            HeadState("t", "adapter", "b", ("f", "g"), two, np.eye(2, dtype=np.float32), "shared",
                      1, 1.0, {})
        )  # fmt: skip
        assert store.check() == []
        store._db.connection.execute(damage)
        assert any(problem in line for line in store.check()), store.check()
