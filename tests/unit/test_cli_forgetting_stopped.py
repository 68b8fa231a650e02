"""Forgetting that is interrupted, or finds no room for the tokens: what is true is said."""

import errno
import json
import os
import signal
import sqlite3
import sys

import cli_runner
import pytest
from cli_runner import call, records
from store_items import make_head

from hydra_edge.personalizer import Personalizer
from hydra_edge.server import tokens
from hydra_edge.store import Store, erasure
from hydra_edge.store.database import Database

_own_folder, history = cli_runner.own_folder, cli_runner.history
ALL = ("forget", "--all", "--yes")


@pytest.fixture
def interrupted(monkeypatch):
    """Return how to have Ctrl-C pressed while bytes are erased, or just before."""

    def interrupted(*args, owner=Database, name="rewrite"):
        real = getattr(owner, name)

        def press(*_, **__):
            monkeypatch.setattr(owner, name, real)
            signal.raise_signal(signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            monkeypatch.setattr(owner, name, press)
            return call(*args)
        finally:
            signal.signal(signal.SIGINT, before)

    return interrupted


@pytest.fixture
def interrupted_once_stored(monkeypatch):
    """Return how to have Ctrl-C pressed as soon as a deletion of records is stored."""
    deleting = []

    class Pressing(sqlite3.Connection):
        def executemany(self, sql, *args):
            if sql.startswith("DELETE FROM records"):
                deleting.append(sql)
            return super().executemany(sql, *args)

        def execute(self, sql, *args):
            result = super().execute(sql, *args)
            if sql == "COMMIT" and deleting:
                deleting.clear()
                signal.raise_signal(signal.SIGINT)
            return result

    connect = sqlite3.connect

    def interrupted(*args):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Pressing))
        try:
            return call(*args)
        finally:
            monkeypatch.setattr(sqlite3, "connect", connect)
            signal.signal(signal.SIGINT, before)

    return interrupted


def told(result):
    return " ".join(result.stderr.split())


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("args", [("r1",), ("--source", "a"), ("--task", "note_title")])
def test_forget_interrupted_while_bytes_are_erased_says_what_is_gone(interrupted, args):
    count = len(records())
    result = interrupted("forget", *args, "--yes")

    assert result.exit_code == 130
    assert result.stdout.startswith(f"Forgotten: {count - len(records())} record")
    assert "Interrupted: deleted, but bytes of it may remain in the file" in told(result)
    with Personalizer.open() as me:
        assert me.store.is_erased()


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("args", [("r1",), ("--source", "a"), ("--task", "note_title")])
def test_forget_interrupted_once_it_is_stored_says_what_is_gone(interrupted_once_stored, args):
    count = len(records())
    with Personalizer.open() as me:
        me.store.save_head(make_head("note_title"))
    result = interrupted_once_stored("forget", *args, "--yes", "--json")

    assert result.exit_code == 130
    payload = json.loads(result.stdout)
    assert (payload["records"], payload["interrupted"]) == (count - len(records()), True)
    assert payload["bytes_remain"]
    assert "Interrupted: deleted, but bytes of it may remain in the file" in told(result)
    assert payload["not_fitted"] == (["note_title"] if args == ("r1",) else [])


def test_prune_interrupted_once_it_is_stored_says_what_is_gone(interrupted_once_stored, tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"input": text, "output": text.upper()}) for text in "abc"]
    path.write_text("\n".join(lines[:2]))
    call("import", "jsonl", "a.jsonl")
    path.write_text("\n".join(lines[1:]))
    result = interrupted_once_stored("import", "jsonl", "a.jsonl", "--prune", "--yes", "--json")

    assert result.exit_code == 130
    payload = json.loads(result.stdout)
    assert (payload["added"], payload["pruned"]["records"]) == (1, 1)
    assert payload["pruned"]["interrupted"]
    assert sorted(record.output for record in records()) == ["B", "C"]


@pytest.mark.usefixtures("history")
def test_forget_interrupted_before_it_is_stored_says_nothing_of_it(interrupted):
    result = interrupted("forget", "r1", "--yes", owner=erasure, name="mark_erasing")
    assert (result.exit_code, result.stdout, len(records())) == (130, "", 5)


@pytest.mark.usefixtures("history")
def test_forget_interrupted_while_bytes_are_erased_names_the_heads_to_fit(interrupted):
    with Personalizer.open() as me:
        me.store.save_head(make_head("note_title"))
    result = interrupted("forget", "r1", "--yes")
    assert "heads not fitted again: hydra-edge fit-head --task note_title" in told(result)

    assert len(records()) == 4  # whoever opens the file finishes
    result = interrupted("forget", "r2", "--yes", "--json")
    assert result.exit_code == 130
    payload = json.loads(result.stdout)
    assert (payload["records"], payload["interrupted"], payload["bytes_remain"]) == (1, True, True)


@pytest.mark.usefixtures("history")
def test_forget_all_interrupted_says_how_far_it_came(interrupted, home):
    call("serve", "token", "add", "editor")
    stopped = interrupted(*ALL, owner=Store, name="forget_user")
    assert (stopped.exit_code, len(records())) == (130, 5)
    assert "Interrupted: everything about me is there still." in told(stopped)
    assert "The tokens of these apps open nothing any more: editor." in told(stopped)

    stopped = interrupted(*ALL)
    file = home / "users" / "me.db"
    assert stopped.exit_code == 130
    assert f"about me is erased but for its file, {file}, which is empty. Run this again." in (
        stopped.stderr.replace("\n", " ")
    )
    assert call(*ALL).exit_code == 0
    assert not file.exists()


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("written", [True, False])
def test_forget_all_interrupted_at_the_tokens_says_how_far_it_came(monkeypatch, written):
    call("serve", "token", "add", "editor")
    write = tokens._write

    def and_stop(*args):
        if written:
            write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "_write", and_stop)
    stopped = call(*ALL)
    assert (stopped.exit_code, len(records())) == (130, 5)
    assert "Interrupted: everything about me is there still." in told(stopped)
    assert ("open nothing any more: editor." in told(stopped)) == written


@pytest.mark.usefixtures("history")
def test_forget_all_interrupted_where_only_tokens_are_left_names_them(home, monkeypatch):
    call("serve", "token", "add", "editor")
    (home / "users" / "me.db").unlink()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "_write", stop)
    stopped = call(*ALL)
    assert stopped.exit_code == 130
    assert "is erased but for the tokens of editor. Run this again." in told(stopped)


@pytest.fixture
def full(monkeypatch):
    """Have no room on the disk for new files, for so many that are written."""

    def full(times):
        left = [times]
        real = os.fsync

        def sync(descriptor):
            if left[0] > 0:
                left[0] -= 1
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", sync)

    return full


@pytest.mark.usefixtures("history")
def test_forget_all_takes_tokens_back_once_the_history_has_made_room(full):
    call("serve", "token", "add", "editor")
    full(1)
    result = call(*ALL)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "The tokens of these apps open nothing any more: editor." in result.stdout


@pytest.mark.usefixtures("history")
def test_forget_all_without_room_for_the_tokens_names_them_and_can_be_repeated(full):
    call("serve", "token", "add", "editor")
    full(2)
    result = call(*ALL)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert "tokens of editor open what the next of that name has. Then run: hydra-edge serve " in (
        told(result)
    )
    asked = call("forget", "--all")
    assert asked.exit_code == 1
    assert "Take back the tokens of editor, all there is of me?" in asked.stderr
    assert json.loads(call(*ALL, "--json").stdout)["apps_removed"] == ["editor"]
    assert "There is no user 'me'" in call(*ALL).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize("named", ["me", "Me"])
@pytest.mark.usefixtures("history")
def test_forget_all_takes_the_tokens_of_every_name_the_file_has(home, named):
    (home / "users" / "Me.db").symlink_to("me.db")
    for user, app in (("me", "editor"), ("Me", "mail")):
        call("serve", "token", "add", app, "--user", user)
    payload = json.loads(call(*ALL, "--user", named, "--json").stdout)
    assert payload["apps_removed"] == ["editor", "mail"]
