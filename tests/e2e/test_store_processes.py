"""The store under real processes: writing at once, and killed at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hydra_edge.store import Store
from hydra_edge.types import AddResult, Record

_PRELUDE = """
import sys
from pathlib import Path
from hydra_edge.store import Store, database, schema
from hydra_edge.types import Record

path, arguments = Path(sys.argv[1]), sys.argv[2:]

def say(text):
    print(text, flush=True)

def records(n, name="r"):
    return [Record(f"input {i} of {name} word{i}", f"output {i}", id=f"{name}{i}")
            for i in range(n)]

def stop_here():
    say("here")
    sys.stdin.read()  # until killed
"""


@contextmanager
def running(script: str, path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a process of its own; it is gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + script, str(path), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL


def records(n: int, name: str = "r") -> list[Record]:
    return [
        Record(f"input {i} of {name} word{i}", f"output {i}", id=f"{name}{i}") for i in range(n)
    ]


def indexed(store: Store) -> int:
    connection = store._db.connection
    return int(connection.execute("SELECT COUNT(*) FROM records_fts_docsize").fetchone()[0])


ADD_IN_PIECES = """
say("ready")
sys.stdin.readline()
size = int(arguments[1])
with Store.open(path) as store:
    mine = records(2000, arguments[0])
    for start in range(0, len(mine), size):
        store.add(mine[start:start + size])
say("done")
"""


def test_two_processes_adding_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "me.db"  # made by whichever comes first
    with (
        running(ADD_IN_PIECES, path, "a", "100") as a,
        running(ADD_IN_PIECES, path, "b", "250") as b,
    ):
        assert [line(a), line(b)] == ["ready", "ready"]
        go(a)
        go(b)
        assert [line(a), line(b)] == ["done", "done"]
        assert [a.wait(timeout=60), b.wait(timeout=60)] == [0, 0]
    with Store.open(path) as store:
        wanted = records(2000, "a") + records(2000, "b")
        assert sorted(store.records(), key=lambda r: r.id) == sorted(wanted, key=lambda r: r.id)
        assert indexed(store) == 4000
        assert store.check() == []


CREATE = """
say("ready")
sys.stdin.readline()
with Store.open(path) as store:
    store.add(records(1, arguments[0]))
say("done")
"""


def test_processes_creating_one_file_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "users" / "me.db"
    with (
        running(CREATE, path, "a") as a,
        running(CREATE, path, "b") as b,
        running(CREATE, path, "c") as c,
    ):
        everyone = (a, b, c)
        assert [line(p) for p in everyone] == ["ready"] * 3
        for process in everyone:
            go(process)
        assert [line(p) for p in everyone] == ["done"] * 3
    with Store.open(path) as store:
        assert {r.id for r in store.records()} == {"a0", "b0", "c0"}
        assert store.check() == []


def test_forgetting_while_another_process_adds_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "me.db"
    with Store.open(path) as store:
        store.add(records(5, "old"))
        with running(ADD_IN_PIECES, path, "a", "50") as adder:
            assert line(adder) == "ready"
            go(adder)
            for i in range(5):
                assert store.forget([f"old{i}"]).records == 1
            assert line(adder) == "done"
        assert {r.id for r in store.records()} == {r.id for r in records(2000, "a")}
        assert store.check() == []


STOP_INSIDE_A_BATCH = """
split, calls = schema.index_words, 0

def counting(text):
    global calls
    calls += 1
    if calls == int(arguments[0]):
        stop_here()
    return split(text)

schema.index_words = counting  # called by the index's triggers, so inside the transaction
with Store.open(path) as store:
    calls = 0
    store.add(records(3000))
"""


@pytest.mark.parametrize("calls", [1, 999, 1001, 3456])
def test_kill_inside_a_batch_leaves_the_batches_before_it(tmp_path: Path, calls: int) -> None:
    path = tmp_path / "me.db"
    with running(STOP_INSIDE_A_BATCH, path, str(calls)) as process:
        assert line(process) == "here"
        kill(process)
    with Store.open(path) as store:
        # The triggers split two texts of each record.
        whole = (calls - 1) // 2 // 500 * 500
        assert store.records() == records(whole)
        assert indexed(store) == whole
        assert store.check() == []
        assert store.add(records(3000)) == AddResult(added=3000 - whole, unchanged=whole)
        assert [r.id for r in store.search("word2999")] == ["r2999"]


STOP_WHENEVER = """
with Store.open(path) as store:
    store.add(records(200_000), progress=lambda stage, done, total: say(done))
"""


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_kill_while_importing_leaves_whole_indexed_records(tmp_path: Path, batches: int) -> None:
    path = tmp_path / "me.db"
    with running(STOP_WHENEVER, path) as process:
        told = [int(line(process)) for _ in range(batches)][-1]
        kill(process)
    with Store.open(path) as store:
        n = store.count()
        assert n >= told
        assert n % 500 == 0
        assert n < 200_000
        assert store.records() == records(n)
        assert indexed(store) == n
        assert store.check() == []


STOP_WHILE_CREATING = """
register = schema.register_functions

def with_stop(connection):
    interrupted = register(connection)
    connection.create_function("stop_here", 0, stop_here)
    return interrupted

database.register_functions = with_stop
schema.MIGRATIONS = ((*schema.MIGRATIONS[0], "SELECT stop_here()"),)
Store.open(path)
"""


def test_kill_while_creating_leaves_a_file_that_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "me.db"
    with running(STOP_WHILE_CREATING, path) as process:
        assert line(process) == "here"
        kill(process)
    assert path.exists()
    with Store.open(path) as store:
        assert store.add(records(3)) == AddResult(added=3)
        assert store.check() == []


STOP_WHILE_ERASING = """
database.Database.rewrite = lambda self: stop_here()
with Store.open(path) as store:
    store.forget(["secret"])
"""


def test_kill_before_bytes_are_erased_is_made_good_at_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "me.db"
    with Store.open(path) as store:
        store.add([*records(50), Record("qwzjk zzyzx", "vermillion", id="secret")])
    with running(STOP_WHILE_ERASING, path) as process:
        assert line(process) == "here"
        kill(process)
    assert b"vermillion" in b"".join(p.read_bytes() for p in tmp_path.glob("me.db*"))
    with Store.open(path) as store:
        assert store.count() == 50
        raw = b"".join(p.read_bytes() for p in tmp_path.glob("me.db*"))
        assert b"input 8 of r word8" in raw
        assert [word for word in (b"qwzjk", b"zzyzx", b"vermillion") if word in raw] == []
        assert store.check() == []


def test_kill_right_after_a_pool_is_kept_loses_no_pool(tmp_path: Path) -> None:
    script = """
from hydra_edge.types import Completion
with Store.open(path) as store:
    for i in range(5):
        store.put_pool(str(i), task="t", model="m", query_id="", record_ids=(),
                       completions=[Completion(f"paid {i}")])
    stop_here()
"""
    path = tmp_path / "me.db"
    with running(script, path) as process:
        assert line(process) == "here"
        kill(process)
    with Store.open(path) as store:
        assert [p.completions[0].text for p in store.pools()] == [f"paid {i}" for i in range(5)]
