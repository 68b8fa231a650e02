"""A backup put in the place of a user's file: checked first, all of it or nothing, nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import filled_store
import pytest
from filled_store import SECRET_IN, SECRET_OUT, generation_of, head_of, left_of, put_choice

from hydra_edge.errors import DiskFullError, StoreError, UnknownUserError
from hydra_edge.store import Contents, Store, restore, schema
from hydra_edge.store import backup as backups
from hydra_edge.types import Record

path = filled_store.path


@pytest.fixture
def backup(tmp_path: Path, path: Path) -> Path:
    """Make a backup of five records, and let the history go on."""
    with Store.open(path) as store:
        store.add(Record(f"input {i}", "old", id=str(i), time=float(i)) for i in range(5))
        put_choice(store, "g")
        store.save_head(head_of("t"))
        store.back_up(tmp_path / "kept.db", task_files={"t": "kind = 'label'"})
        store.add([Record("said since", "new", id="new", time=99.0)])
        store.log_generation(generation_of("a", "asked", "told"), "m")
    return tmp_path / "kept.db"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "_WAIT_S", 0.0)


def ids(path: Path) -> list[str]:
    with Store.open(path, create=False) as store:
        assert store.check() == []
        return [record.id for record in store.records()]


def names(path: Path) -> list[str]:
    return sorted(part.name for part in path.parent.iterdir())


OLD, NEW = ["0", "1", "2", "3", "4", "new"], ["0", "1", "2", "3", "4"]


def test_restore_is_the_backup_and_keeps_what_was_there(path: Path, backup: Path) -> None:
    bytes_before, beside = backup.read_bytes(), names(backup)
    done = Store.restore(path, backup)
    assert done.backup == Contents(records=5, choices=1, heads=1, answers=0, newest=4.0)
    assert done.before == Contents(records=6, choices=1, heads=1, answers=1, newest=99.0)
    assert done.task_files == {"t": "kind = 'label'"}
    assert ids(path) == NEW
    assert done.kept is not None
    assert names(path) == sorted(["me.db", done.kept.name])
    assert {stat.S_IMODE(part.stat().st_mode) for part in path.parent.iterdir()} == {0o600}
    assert (backup.read_bytes(), names(backup)) == (bytes_before, beside)
    assert b"kind = 'label'" not in path.read_bytes()
    again = Store.restore(path, done.kept)
    assert (again.backup, again.task_files, ids(path)) == (done.before, {}, OLD)


def test_restore_leaves_no_byte_of_what_was_there_but_in_the_copy(path: Path, backup: Path) -> None:
    with Store.open(path) as store:
        store.add([Record(SECRET_IN, SECRET_OUT, id="s")])
    kept = Store.restore(path, backup).kept
    assert kept is not None
    kept.unlink()
    assert left_of(f"xylophone qwzjk {SECRET_OUT}", path) == []


def test_would_restore_says_the_same_and_changes_nothing(path: Path, backup: Path) -> None:
    before = names(path)
    foreseen = Store.would_restore(path, backup)
    assert (names(path), ids(path)) == (before, OLD)
    done = Store.restore(path, backup)
    assert (foreseen.backup, foreseen.before) == (done.backup, done.before)


def test_restore_begins_somebody_who_is_not_there_yet(tmp_path: Path, backup: Path) -> None:
    new = tmp_path / "laptop" / "users" / "ada.db"
    done = Store.restore(new, backup)
    assert (done.before, done.kept, names(new), ids(new)) == (None, None, ["ada.db"], NEW)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


def test_restore_while_another_has_the_file_open_is_refused(path: Path, backup: Path) -> None:
    with Store.open(path) as other:
        with pytest.raises(StoreError, match=r"another program has it open.*End `serve`, `mcp`"):
            Store.restore(path, backup)
        other.add([Record("said meanwhile", "x", id="z", time=100.0)])
    assert ids(path) == [*OLD, "z"]
    assert names(path) == ["me.db"]


def test_restore_waits_for_a_program_that_ends(
    path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_WAIT_S", 60.0)
    other = Store.open(path)
    other.count()
    monkeypatch.setattr("time.sleep", lambda _seconds: other.close())
    Store.restore(path, backup)
    assert ids(path) == NEW


def test_restore_lets_nobody_in_until_it_is_done(path: Path, backup: Path) -> None:
    refused = []

    def look(_stage: str, _done: int, _total: int) -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other:
            try:
                other.execute("SELECT COUNT(*) FROM records").fetchone()
            except sqlite3.OperationalError as err:
                refused.append(str(err))

    Store.restore(path, backup, progress=look)
    assert set(refused) == {"database is locked"}
    assert ids(path) == NEW


@pytest.mark.parametrize("call", range(4))
def test_restore_stopped_is_the_one_or_the_other(
    path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Ctrl-C while the copy is made, and while the file is overwritten: at first, and when done."""
    pages = 20
    monkeypatch.setattr(backups, "_BACKUP_PAGES", pages)
    told: list[bool] = []

    def stop(_stage: str, done: int, total: int) -> None:
        told.append(done == total)
        is_second = told[:-1].count(True) == 1
        if (is_second, told[-1]) == divmod(call, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store.restore(path, backup, progress=stop)
    if call < 3:
        assert (names(path), ids(path)) == (["me.db"], OLD)
    else:
        (kept,) = restore.kept_copies(path)
        assert ids(path) == NEW
        shutil.copy(kept, path)
        assert ids(path) == OLD


_KILLED = """
import os, sys
from pathlib import Path
from hydra_edge.store import Store, backup
backup._BACKUP_PAGES = 1
copies = 0
def die(_stage, done, total):
    global copies
    copies += done == total
    if copies == 1 and done == total - 1 - int(sys.argv[3]):
        os._exit(9)
Store.restore(Path(sys.argv[1]), Path(sys.argv[2]), progress=die)
"""


@pytest.mark.parametrize("left", [0, 10])
def test_restore_killed_while_it_overwrites_leaves_what_was_there(
    path: Path, backup: Path, left: int
) -> None:
    with Store.open(path) as store:  # more pages than SQLite holds back before it writes
        store.add(Record("many words " * 300, str(i), id=f"b{i}", time=1e3) for i in range(900))
    before = len(ids(path))
    Store.restore(path.with_name("big.db"), path)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), str(path.with_name("big.db")), str(left)],
        check=False,
    )
    assert done.returncode == 9
    assert path.with_name("me.db-journal").stat().st_size > 0
    assert len(ids(path)) == before


def test_restore_on_a_full_disk_changes_nothing(
    path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, calls = backups.copy_pages, []

    def full(source: sqlite3.Connection, target: sqlite3.Connection, progress: None) -> None:
        calls.append(target)
        if len(calls) == 2:
            err = sqlite3.OperationalError("database or disk is full")
            err.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise err
        copy(source, target, progress)

    monkeypatch.setattr(restore, "copy_pages", full)
    with pytest.raises(DiskFullError, match="no space is left"):
        Store.restore(path, backup)
    assert (names(path), ids(path)) == (["me.db"], OLD)


@pytest.mark.parametrize("content", [b"dear diary " * 500, b"SQLite format 3\0 no more"])
def test_restore_over_what_cannot_be_read_keeps_it_as_it_stands(
    path: Path, backup: Path, content: bytes
) -> None:
    path.write_bytes(content)
    done = Store.restore(path, backup)
    assert (done.before, bool(done.fault)) == (None, True)
    assert "Restore the file" not in done.fault
    assert ids(path) == NEW
    assert done.kept is not None
    assert done.kept.read_bytes() == content


@pytest.mark.parametrize("content", [b"dear diary " * 500, b"", None])
def test_restore_takes_no_wal_that_is_left_for_the_backups(
    path: Path, backup: Path, content: bytes | None
) -> None:
    """It may be all that is left of the history, and is kept."""
    wal = path.with_name("me.db-wal")
    with Store.open(path) as store:
        store._db.connection.execute("PRAGMA wal_autocheckpoint = 0")
        store.add(Record(f"xylophone {i}", "x") for i in range(50))
        pages = wal.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    wal.write_bytes(pages)
    kept = Store.restore(path, backup).kept
    assert ids(path) == NEW
    assert kept is not None
    assert b"xylophone" not in path.read_bytes()
    assert b"xylophone" in b"".join(part.read_bytes() for part in restore.kept_copies(path))
    Store.forget_user(path)
    assert names(path) == []


def test_restore_over_a_damaged_page_keeps_it(path: Path, backup: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    done = Store.restore(path, backup)
    assert ids(path) == NEW
    assert done.kept is not None
    assert done.kept.read_bytes()[4096:] == b"\xff" * 4096 + whole[8192:]


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8192])


def _changed(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as other, other:
        for statement in statements:
            other.execute(statement)


def _of_a_newer_release(file: Path) -> None:
    _changed(file, "PRAGMA user_version = 99")


def _of_another_program(file: Path) -> None:
    _changed(file, "PRAGMA application_id = 7")


def _with_a_trigger(file: Path) -> None:
    _changed(
        file, "CREATE TABLE spy (x)",
        "CREATE TRIGGER copying AFTER INSERT ON log BEGIN INSERT INTO spy VALUES (new.query); END",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_truncated, "damaged"),
        (_of_a_newer_release, "newer hydra-edge: got schema 99"),
        (_of_another_program, "SQLite database of another program"),
        (_with_a_trigger, "schema was changed by another program: copying, spy"),
        (lambda file: file.write_bytes(b""), "got an empty file"),
        (lambda file: file.write_text('{"input": "x"}\n'), "hydra-edge import jsonl"),
        (lambda file: file.write_bytes(os.urandom(5000)), "got something else"),
        (Path.unlink, "got nothing of that name"),
    ],
)
def test_restore_from_what_is_no_sound_backup_changes_nothing(
    path: Path, backup: Path, harm: Callable[[Path], object], said: str
) -> None:
    harm(backup)
    for way in (Store.would_restore, Store.restore):
        with pytest.raises(StoreError, match=said) as caught:
            way(path, backup)
        assert str(backup) in str(caught.value)
        assert ".hydra-edge.tmp" not in str(caught.value)
    assert (names(path), ids(path)) == (["me.db"], OLD)


def test_restore_from_the_history_itself_is_refused(path: Path, backup: Path) -> None:
    assert backup.exists()
    with pytest.raises(StoreError, match="it is the history itself"):
        Store.restore(path, path)
    assert ids(path) == OLD


def test_restore_over_another_programs_file_is_refused(path: Path, backup: Path) -> None:
    _of_another_program(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        Store.restore(path, backup)
    assert path.read_bytes() == before


def test_restore_over_a_newer_releases_file_keeps_it(path: Path, backup: Path) -> None:
    _of_a_newer_release(path)
    done = Store.restore(path, backup)
    assert "newer hydra-edge" in done.fault
    assert done.kept is not None
    with contextlib.closing(sqlite3.connect(done.kept)) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (99,)
    assert ids(path) == NEW


def test_restore_over_a_link_to_nothing_is_refused(path: Path, backup: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("away.db"))
    with pytest.raises(StoreError, match="it is a link to"):
        Store.restore(path, backup)
    assert names(path) == ["me.db"]


def test_restore_of_an_earlier_schema_is_migrated_and_its_file_stays(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "earlier.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:3])
        with Store.open(path) as store:
            store.save_head(head_of("t"))
            store.back_up(earlier)
    before = earlier.read_bytes()
    Store.restore(path.with_name("ada.db"), earlier)
    with Store.open(path.with_name("ada.db")) as store:
        assert (len(store.heads()), store.check()) == (1, [])
    assert earlier.read_bytes() == before


def test_restore_takes_what_stands_in_the_wal_of_a_copied_file(tmp_path: Path, path: Path) -> None:
    copied = tmp_path / "from-another-laptop.db"
    with Store.open(path) as store:
        store._db.connection.execute("PRAGMA wal_autocheckpoint = 0")
        store.add(Record(f"input {i}", "x", id=str(i)) for i in range(5))
        shutil.copy(path, copied)
        shutil.copy(path.with_name("me.db-wal"), copied.with_name(copied.name + "-wal"))
    new = path.with_name("ada.db")
    assert Store.restore(new, copied).backup.records == 5
    assert ids(new) == NEW


def test_restore_with_a_damaged_index_makes_it_anew(path: Path, backup: Path) -> None:
    _changed(backup, "DELETE FROM records_fts_data WHERE id > 10")
    Store.restore(path, backup)
    with Store.open(path) as store:
        assert store.check() == []
        assert len(store.search("input")) == 5


def test_restore_removes_what_a_killed_one_left_an_hour_ago(path: Path, backup: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        for age in ("old", "new"):
            left = path.with_name(f".me.db.{age}.hydra-edge.tmp{end}")
            left.write_text("private")
            if age == "old":
                os.utime(left, (time.time() - 7200,) * 2)
    Store.would_restore(path, backup)
    assert len(names(path)) == 5
    assert not [name for name in names(path) if ".old." in name]


def test_forget_all_takes_the_copies_along_but_nobody_elses(path: Path, backup: Path) -> None:
    other = path.with_name("me.db.before-2026-01-31-120000.db")  # of a person with such a name
    for file in (path, other):
        kept = Store.restore(file, backup).kept
        assert (kept is None) == (file == other)
    Store.forget_user(path)
    assert names(path) == [other.name]
    with pytest.raises(UnknownUserError):
        Store.forget_user(path)
