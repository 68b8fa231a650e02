"""The list of users, whatever state their files are in."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runner import call, loaded


@pytest.mark.parametrize(
    "args",
    [("history", "list"), ("rank", "q"), ("add", "a", "b"), ("forget", "--all", "--yes"),
     ("fit-head",), ("tasks", "list"), ("import", "jsonl", "-")],
)  # fmt: skip
def test_empty_user_name_is_not_the_default_user(home, args):
    call("add", "a text", "a title")
    result = call(*args, "-u", "", text="")

    assert result.exit_code == 2
    assert "is empty; expected a user's name" in result.stderr
    assert (home / "users" / "me.db").exists()


def test_first_user_is_begun_without_a_word():
    assert "begun" not in call("add", "a text", "a title", "-u", "anna").stderr


@pytest.mark.parametrize(
    "args",
    [("add", "a text", "a title", "--json"), ("import", "jsonl", "-", "--json"),
     ("rank", "a text", "--json")],
)  # fmt: skip
def test_user_begun_beside_others_is_told_once(monkeypatch, args):
    call("add", "a text", "a title", "-u", "me")
    call("add", "a text", "a title", "-u", "anna")
    monkeypatch.setenv("HYDRA_EDGE_USER", "ana")
    line = json.dumps({"input": "other", "output": "title"})
    first, again = call(*args, text=line), call(*args, text=line)

    assert first.exit_code == 0
    assert first.stderr.startswith("A new user 'ana' was begun, beside anna, me.\n")
    assert json.loads(first.stdout)
    assert "begun" not in again.stderr


@pytest.mark.parametrize(
    "args",
    [("rank", "q"), ("history", "list"), ("history", "sources"), ("heads", "list"), ("fit-head",),
     ("tasks", "list"), ("forget", "--all", "--yes")],
)  # fmt: skip
def test_unknown_user_is_told_with_those_that_exist(home, args):
    call("add", "a text", "a title", "-u", "me")
    call("add", "a text", "a title", "-u", "anna")
    result = call(*args, "-u", "ana")

    assert result.exit_code == 1
    assert "There is no user 'ana'" in result.stderr
    assert "Known users: anna, me." in result.stderr
    assert not (home / "users" / "ana.db").exists()


def test_dry_run_of_an_import_for_an_unknown_user_says_so():
    dry = ("import", "jsonl", "-", "-u", "ana", "--dry-run", "--json")
    line = json.dumps({"input": "other", "output": "title"})
    assert call(*dry, text=line).stderr == ""
    call("add", "a text", "a title", "-u", "anna")
    result = call(*dry, text=line)

    assert "There is no user 'ana'" in result.stderr
    assert "Known users: anna." in result.stderr
    assert json.loads(result.stdout)["read"] == 1


def test_tasks_of_a_configured_user_who_is_not_there_say_so(monkeypatch):
    monkeypatch.setenv("HYDRA_EDGE_USER", "ana")
    assert call("tasks", "list").stderr == ""
    call("add", "a text", "a title", "-u", "anna")
    result = call("tasks", "list", "--json")

    assert "There is no user 'ana'" in result.stderr
    assert "Known users: anna." in result.stderr
    assert json.loads(result.stdout)["tasks"]


def test_users_of_an_empty_folder_name_it(home):
    assert f"Nobody yet in {home / 'users'}. Next: " in " ".join(call("users").stderr.split())


@contextmanager
def ordinary_user():
    """Go on without root's right to ignore modes, wherever tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.setresgid(65534, 65534, 0)
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)


def test_users_of_a_read_only_home_are_not_called_damaged(monkeypatch):
    with tempfile.TemporaryDirectory() as name:  # where an ordinary user can get to
        monkeypatch.setenv("HYDRA_EDGE_HOME", name)
        users = Path(name) / "users"
        call("add", "a text", "a title")
        (users / "broken.db").write_bytes(b"not a database, but long enough to look" * 50)
        assert "damaged" in call("users").stdout  # and all it needs is loaded
        for path in (users / "broken.db", users / "me.db", users, Path(name)):
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
            path.chmod(0o555 if path.is_dir() else 0o400)
        with ordinary_user():
            result = call("users")
        Path(name).chmod(0o755)
        users.chmod(0o755)

    assert result.exit_code == 0
    states = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()}
    assert states["me*"] == "read-only"
    assert "writable" in result.stderr


def test_users_lists_everyone_and_marks_damage(home):
    call("add", "a text", "a title")
    (home / "users" / "broken.db").write_bytes(b"not a database, but long enough to look" * 50)
    users = {u["user"]: u for u in json.loads(call("users", "--json").stdout)["users"]}

    assert users["me"]["records"] == 1
    assert users["me"]["default"] is True
    assert users["broken"]["records"] is None
    assert "damaged" in call("users").stdout


def test_users_link_to_nothing_is_unusable_and_does_not_end_the_list(home):
    call("add", "a text", "a title")
    (home / "users" / "link.db").symlink_to(home / "gone.db")
    listed = call("users")

    assert listed.exit_code == 0
    states = {line.split()[0]: line.split()[1] for line in listed.stdout.splitlines()}
    assert (states["me*"], states["link"]) == ("1", "unusable")
    assert "gone.db, which is not there" in listed.stderr
    users = {u["user"]: u for u in loaded("users", "--json")["users"]}
    assert users["link"]["records"] is None
