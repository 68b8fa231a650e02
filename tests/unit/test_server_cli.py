"""The command: light until it serves, and its page opened without the token being seen."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys

import pytest
from cli_runner import call

from hydra_edge.config import find_paths
from hydra_edge.errors import ConfigError
from hydra_edge.server import run
from hydra_edge.server.tokens import Doorkeeper, Scope, TokenFiles, owner_token


@pytest.mark.parametrize("args", [["serve", "--help"], ["serve", "token", "list"]], ids=" ".join)
def test_command_loads_no_web_framework_before_it_serves(args):
    code = (
        "import sys; from hydra_edge.cli import main\n"
        f"sys.argv = ['hydra-edge', *{args!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "loaded = {'starlette', 'uvicorn', 'h11', 'anyio'} & set(sys.modules)\n"
        "sys.exit(repr(loaded) if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_token_added_works_and_is_not_listed():
    token = call("serve", "token", "add", "editor", "-t", "Note-Title", "--read-only")
    listed = call("serve", "token", "list")

    scope = Doorkeeper(TokenFiles.of(find_paths()), []).scope(token.stdout.strip())
    assert scope == Scope("editor", "me", ("note_title",), True)
    assert token.stdout.strip() not in token.stderr + listed.output
    assert "editor" in listed.stdout
    assert "note_title" in listed.stdout


def test_token_added_for_a_program_is_json():
    call("add", "a", "b", "-u", "ada")
    told = json.loads(call("serve", "token", "add", "editor", "--user", "ada", "--json").stdout)
    assert set(told) == {"app", "token"}
    (app,) = json.loads(call("serve", "token", "list", "--json").stdout)["apps"]
    assert (app["app"], app["user"], app["tasks"]) == ("editor", "ada", [])


@pytest.mark.parametrize("elsewhere", [False, True])
def test_token_list_says_why_the_owners_token_cannot_be_used(tmp_path, elsewhere):
    place = tmp_path / "mine" if elsewhere else None
    files = TokenFiles.of(find_paths(), place)
    owner_token(files)
    flags = ["--token-file", str(place)] if elsewhere else []
    assert call("serve", "token", "list", *flags).exit_code == 0
    files.owner.write_text("")
    listed = call("serve", "token", "list", *flags)

    assert listed.exit_code == 1
    assert f"{files.owner} holds no token" in listed.stderr.replace("\n", " ")


def test_token_removed_or_named_wrongly_says_so():
    call("serve", "token", "add", "editor")
    assert "opens nothing" in call("serve", "token", "remove", "editor").stderr
    again = call("serve", "token", "remove", "editor")
    assert again.exit_code == 1
    assert "No app 'editor' has a token" in again.stderr


@pytest.mark.parametrize("args", [["--port", "70000"], ["--queue", "-1"], ["--timeout", "soon"]])
def test_serve_option_that_cannot_be_used_is_a_usage_error(args):
    assert call("serve", *args).exit_code == 2


def test_serve_on_a_port_that_is_taken_renews_no_token():
    files = TokenFiles.of(find_paths())
    token = owner_token(files)
    with run.bind(0) as sock:
        failed = call("serve", "--new-token", "--port", str(sock.getsockname()[1]))
    assert "another program listens there" in failed.stderr
    assert owner_token(files) == token


def test_port_bound_twice_is_refused_before_anybody_serves():
    with run.bind(0) as sock, pytest.raises(ConfigError, match="another program listens"):
        run.bind(sock.getsockname()[1])


@pytest.mark.parametrize(("system", "option"), [("linux", "REUSE"), ("win32", "EXCLUSIVE")])
def test_port_is_ours_alone_on_every_system(monkeypatch, system, option):
    class Socket(socket.socket):
        """Notes which option is set, of two that are no numbers of this system."""

        def setsockopt(self, level, name, value):
            asked.append((level, name, value))

    asked = []
    monkeypatch.setattr(run.sys, "platform", system)
    monkeypatch.setattr(run.socket, "socket", Socket)
    monkeypatch.setattr(run.socket, "SO_REUSEADDR", "REUSE")
    monkeypatch.setattr(run.socket, "SO_EXCLUSIVEADDRUSE", "EXCLUSIVE", raising=False)
    run.bind(0).close()
    assert asked == [(socket.SOL_SOCKET, option, 1)]


def test_serve_has_no_way_to_listen_elsewhere():
    assert call("serve", "--host", "0.0.0.0").exit_code == 2


def test_page_is_opened_by_a_private_file_that_holds_the_token(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(run.webbrowser, "open", lambda url: opened.append(url) or True)
    folder = tmp_path / "server"

    assert run.open_page("http://127.0.0.1:1/#token=he-secret", folder)

    assert opened == [(folder / "open.html").as_uri()]
    assert "he-secret" not in opened[0]
    assert stat.S_IMODE((folder / "open.html").stat().st_mode) == 0o600
    assert '"http://127.0.0.1:1/#token=he-secret"' in (folder / "open.html").read_text()
    run.forget_page(folder)
    run.forget_page(folder)
    assert list(folder.iterdir()) == []
