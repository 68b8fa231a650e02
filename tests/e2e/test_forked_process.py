"""A process forked off one that has a history open: refused, where records would be lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

_PRELUDE = """
import os, sys, threading
from hydra_edge import Personalizer, Record
from hydra_edge.errors import StoreError

def record(name):
    return Record(f"input {name}", f"output {name}", id=name, task="notes")

def refused(what):
    try:
        what()
    except StoreError as err:
        print("refused:", str(err).split(": ", 1)[1], flush=True)
    else:
        print("served", flush=True)

def in_child(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return child
"""


def run(script: str, home: Path) -> list[str]:
    """Run a script in a process of its own, with this home; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + script], capture_output=True, text=True, check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HYDRA_EDGE_HOME": str(home)},
    )  # fmt: skip
    return done.stdout.splitlines()


def test_child_that_adds_after_its_parent_closed_is_refused_and_nothing_is_lost(tmp_path: Path):
    printed = run(
        """
closed, is_closed = os.pipe()

def work():
    os.read(closed, 1)
    refused(lambda: p.add(record("b")))
    refused(lambda: p.store.add([record("c")]))
    p.close()

with Personalizer.open("me", create=True) as p:
    p.add(record("a"))
    child = in_child(work)
os.write(is_closed, b".")
os.waitpid(child, 0)
with Personalizer.open("me") as again:
    again.add(record("d"))
    print(sorted(r.id for r in again.store.records()), again.store.check())
""",
        tmp_path,
    )
    why = "it was opened before this process was forked; expected one opened in this process."
    assert [line[: len("refused: ") + len(why)] for line in printed[:2]] == [f"refused: {why}"] * 2
    assert printed[2] == "['a', 'd'] []"


def test_child_forked_while_a_thread_works_hears_why_and_does_not_wait(tmp_path: Path):
    printed = run(
        """
p = Personalizer.open("me", create=True)
held, done = threading.Event(), threading.Event()

def hold():
    with p._fitting.held(), p.working():
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()

def work():
    for what in (
        lambda: p.rank("x"), lambda: p.fit_head("notes"), lambda: p.forget("a"),
        p.clear_log, lambda: p.clear_log(choices=True), lambda: p.generate("x"),
    ):
        refused(what)
    p.close()
    print("closed", flush=True)

os.waitpid(in_child(work), 0)
done.set()
thread.join()
p.close()
""",
        tmp_path,
    )
    assert [line.split(":")[0] for line in printed] == ["refused"] * 6 + ["closed"]


def test_child_forked_while_the_llm_is_opened_hears_why_and_does_not_wait(tmp_path: Path):
    printed = run(
        """
from hydra_edge.llm import models

p = Personalizer.open("me", create=True)
begun, gate = threading.Event(), threading.Event()

def open_slowly(*_):
    begun.set()
    gate.wait()
    raise RuntimeError

models.open_llm = open_slowly
threading.excepthook = lambda _: None
thread = threading.Thread(target=lambda: p.llm)
thread.start()
begun.wait()

def work():
    for what in (lambda: p.llm, p.fit_prompts, lambda: p.engine, lambda: p.bundle):
        refused(what)
    p.close()
    print("closed", flush=True)

os.waitpid(in_child(work), 0)
gate.set()
thread.join()
p.close()
""",
        tmp_path,
    )
    assert [line.split(":")[0] for line in printed] == ["refused"] * 4 + ["closed"]


def test_history_in_memory_goes_on_in_a_child(tmp_path: Path):
    printed = run(
        """
from hydra_edge.store import Store

with Store.in_memory() as store:
    store.add([record("a")])
    os.waitpid(in_child(lambda: print(store.count(), flush=True)), 0)
    print(store.count())
""",
        tmp_path,
    )
    assert printed == ["1", "1"]
