"""SIGTERM: heeded as Ctrl-C is, what was done being told, with an exit code of its own."""

import json
import os
import signal
import subprocess
import sys

import cli_runner
import pytest
from cli_runner import FakePersonalizer, call, records

from hydra_edge import cli
from hydra_edge.cli import interrupt
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.store.database import Database
from hydra_edge.types import Record

_own_folder, history = cli_runner.own_folder, cli_runner.history
pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends a program at once elsewhere")


@pytest.fixture(autouse=True)
def _terminable():
    """Let SIGTERM be taken as the command line takes it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interrupt.leave_on_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)
    interrupt._came.clear()


def terminate():
    """Be told to end."""
    signal.raise_signal(signal.SIGTERM)


def once(monkeypatch, owner, name, *, after=False):
    """Be told to end when a method is called the first time, before it or after."""
    real = getattr(owner, name)

    def told(*args, **flags):
        monkeypatch.setattr(owner, name, real)
        if not after:
            terminate()
        result = real(*args, **flags)
        if after:
            terminate()
        return result

    monkeypatch.setattr(owner, name, told)


def ends(monkeypatch, how):
    """Return the exit code of a program whose command ends so."""
    monkeypatch.setattr(cli, "_run", how)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_program_told_to_end_has_the_exit_code_of_the_signal(monkeypatch):
    def stopped():
        sys.exit(130)

    def noted():
        with interrupt.Interrupt("Stopping") as stop:
            terminate()
        assert stop.wanted
        sys.exit(130)

    assert ends(monkeypatch, stopped) == 130
    assert ends(monkeypatch, noted) == 143
    interrupt._came.clear()
    assert ends(monkeypatch, terminate) == 143


@pytest.mark.parametrize("code", [0, 1, 2, None])
def test_program_that_ends_by_itself_keeps_its_exit_code(monkeypatch, code):
    assert ends(monkeypatch, lambda: sys.exit(code)) == code


@pytest.mark.usefixtures("history")
def test_rename_told_to_end_says_what_is_renamed(monkeypatch):
    once(monkeypatch, Store, "rename_task", after=True)
    handler = signal.getsignal(signal.SIGTERM)
    result = call("tasks", "rename", "chat", "talk", "--yes")
    assert (result.exit_code, interrupt.exit_code()) == (130, 143)
    assert "Stopping once the task is renamed" in result.stderr
    assert result.stdout.startswith("chat is talk now: 3 records")
    assert {record.task for record in records()} == {"note_title", "talk"}
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.usefixtures("history")
def test_forget_told_to_end_says_what_is_gone(monkeypatch):
    once(monkeypatch, Database, "rewrite")
    result = call("forget", "r1", "--yes", "--json")
    assert (result.exit_code, interrupt.exit_code()) == (130, 143)
    payload = json.loads(result.stdout)
    assert (payload["records"], payload["interrupted"], payload["bytes_remain"]) == (1, True, True)
    assert "bytes of it may remain in the file" in " ".join(result.stderr.split())
    assert len(records()) == 4


@pytest.mark.usefixtures("history")
def test_forget_all_told_to_end_says_how_far_it_is(monkeypatch):
    once(monkeypatch, Store, "forget_user")
    result = call("forget", "--all", "--yes")
    assert (result.exit_code, interrupt.exit_code()) == (130, 143)
    assert "everything about me is there still" in " ".join(result.stderr.split())
    assert len(records()) == 5


def test_import_told_to_end_keeps_what_was_read(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"input": t, "output": t.upper()}) + "\n" for t in "abc"))
    once(monkeypatch, Personalizer, "add")
    result = call("import", "jsonl", "a.jsonl", "--json")
    assert (result.exit_code, interrupt.exit_code()) == (130, 143)
    assert "Stopping after this record" in result.stderr
    assert json.loads(result.stdout)["added"] == len(records())


class Fitting(FakePersonalizer):
    """Is told to end while it fits."""

    def fit_head(self, task=None, *, should_stop=None, **flags):
        terminate()
        assert should_stop()
        return super().fit_head(task, **flags)


def test_fit_head_told_to_end_reports_what_is_fitted():
    me = Fitting()
    me.store.add([Record("text", "words", "chat")])
    result = call("fit-head", "-t", "chat", "--no-llm", "--json", opener=me.open)
    assert (result.exit_code, interrupt.exit_code()) == (130, 143)
    payload = json.loads(result.stdout)
    assert payload["interrupted"]
    assert [report["task"] for report in payload["reports"]] == ["chat"]


def test_second_signal_ends_at_once():
    with interrupt.Interrupt("Stopping") as stop:
        terminate()
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            terminate()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_signal_that_others_take_is_left_to_them(handler):
    signal.signal(signal.SIGTERM, handler)
    with interrupt.Interrupt("Stopping") as stop:
        terminate()
        assert signal.getsignal(signal.SIGTERM) is handler
    assert not stop.wanted


RENAMED = """
import signal, sys
from hydra_edge import cli
from hydra_edge.store import Store

real = Store.rename_task

def told(*args, **flags):
    result = real(*args, **flags)
    signal.raise_signal(signal.SIGTERM)
    return result

Store.rename_task = told
sys.argv[1:] = ["tasks", "rename", "chat", "talk", "--yes"]
cli.main()
"""


@pytest.mark.usefixtures("history")
def test_rename_of_a_program_told_to_end_is_told_by_it():
    done = subprocess.run(
        [sys.executable, "-c", RENAMED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 143
    assert done.stdout.startswith("chat is talk now: 3 records")
