"""Editing the configuration of AI applications loses nothing of theirs."""

import json
import stat
import sys
from pathlib import Path

import cli_runner
import pytest

from hydra_edge.errors import CancelledError, ConfigError
from hydra_edge.mcp.clients import (
    add_server,
    config_path,
    entry,
    own_config_path,
    remove_server,
)
from hydra_edge.program import VARIABLES

SERVER = {"command": "/opt/hydra-edge", "args": ["mcp"]}
OTHERS = """{
    "theme": "dark",
    "mcpServers": {
        "zeta": {"command": "zeta", "args": ["--größe", "1"]},
        "alpha": {"url": "https://example.org/mcp"}
    },
    "last": [1, 2.5, null, true]
}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.json"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("client", "platform", "expected"),
    [
        ("claude", "darwin", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude", "linux", ".config/Claude/claude_desktop_config.json"),
        ("claude", "win32", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("cursor", "linux", ".cursor/mcp.json"),
        ("cursor", "win32", ".cursor/mcp.json"),
        ("lmstudio", "darwin", ".lmstudio/mcp.json"),
    ],
)
def test_config_path_of_each_platform(client, platform, expected):
    home = Path("/h")

    assert config_path(client, platform=platform, home=home, environment={}) == home / expected


@pytest.mark.parametrize(("platform", "name"), [("linux", "XDG_CONFIG_HOME"), ("win32", "APPDATA")])
def test_config_path_environment_moves_it(platform, name):
    found = config_path(
        "claude", platform=platform, home=Path("/h"), environment={name: "/elsewhere"}
    )

    assert found == Path("/elsewhere/Claude/claude_desktop_config.json")


def test_config_path_unknown_client_lists_those_known():
    with pytest.raises(ConfigError, match="expected claude, cursor, lmstudio"):
        own_config_path("emacs")


def test_add_server_no_file_is_made_private(path):
    edit = add_server(path.parent / "new" / "config.json", SERVER)

    assert edit.changed
    assert edit.backup is None
    assert read(edit.path) == {"mcpServers": {"hydra-edge": SERVER}}
    assert stat.S_IMODE(edit.path.stat().st_mode) == 0o600


def test_add_server_all_else_is_kept_in_order_with_a_backup(path):
    path.write_text(OTHERS, encoding="utf-8")
    path.chmod(0o640)
    edit = add_server(path, SERVER)

    config = read(path)
    assert list(config) == ["theme", "mcpServers", "last"]
    assert list(config["mcpServers"]) == ["zeta", "alpha", "hydra-edge"]
    assert config["mcpServers"].pop("hydra-edge") == SERVER
    assert config == json.loads(OTHERS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert edit.backup.read_text(encoding="utf-8") == OTHERS
    assert stat.S_IMODE(edit.backup.stat().st_mode) == 0o640
    assert sorted(p.name for p in path.parent.iterdir() if p.is_file()) == [
        "config.json", "config.json.before-hydra-edge",
    ]  # fmt: skip


def test_add_server_layout_of_the_file_is_kept(path):
    path.write_bytes(b"\xef\xbb\xbf" + OTHERS.replace("\n", "\r\n").encode())
    add_server(path, SERVER)

    written = path.read_bytes()
    assert written.startswith(b'\xef\xbb\xbf{\r\n    "theme"')
    assert b"\n" not in written.replace(b"\r\n", b"")
    assert "größe".encode() in written


def test_add_server_twice_changes_nothing_more(path):
    path.write_text(OTHERS, encoding="utf-8")
    add_server(path, SERVER)
    before = path.read_bytes(), path.stat().st_mtime_ns
    edit = add_server(path, SERVER)

    assert not edit.changed
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_add_server_what_the_person_added_to_ours_stays(path):
    old = {"command": "old", "args": [], "disabled": True, "env": {"A": "1"}}
    path.write_text(json.dumps({"mcpServers": {"hydra-edge": old}}), encoding="utf-8")
    add_server(path, {**SERVER, "env": {"HYDRA_EDGE_HOME": "/data"}})

    assert read(path)["mcpServers"]["hydra-edge"] == {
        **SERVER, "disabled": True, "env": {"A": "1", "HYDRA_EDGE_HOME": "/data"},
    }  # fmt: skip


@pytest.mark.parametrize("now", [{}, {"HYDRA_EDGE_HOME": "/new"}], ids=["plain", "moved"])
def test_add_server_variables_of_an_earlier_entry_go(path, monkeypatch, now):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    mine = {"A": "1", "HYDRA_EDGE_DEBUG": "1"}
    old = {**SERVER, "env": {**mine, **dict.fromkeys(VARIABLES, "/old")}}
    path.write_text(json.dumps({"mcpServers": {"hydra-edge": old}}), encoding="utf-8")
    for name, value in now.items():
        monkeypatch.setenv(name, value)

    assert add_server(path, entry(["mcp"])).changed

    assert read(path)["mcpServers"]["hydra-edge"]["env"] == mine | now


@pytest.mark.parametrize("text", ["", "\n", "{}", '{"mcpServers": {}}'])
def test_add_server_empty_file_is_filled(path, text):
    path.write_text(text, encoding="utf-8")
    add_server(path, SERVER)

    assert read(path) == {"mcpServers": {"hydra-edge": SERVER}}


@pytest.mark.parametrize(
    "data",
    [
        b'{"mcpServers": {',
        b'{"a": 1, // mine\n "mcpServers": {}}',
        b"[]",
        b'{"mcpServers": []}',
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
    ],
    ids=["cut", "comment", "list", "servers", "twice", "nan", "utf-16", "deep"],
)
@pytest.mark.parametrize("edit", [lambda p: add_server(p, SERVER), remove_server])
def test_edit_file_not_understood_is_left_alone(path, data, edit):
    path.write_bytes(data)

    with pytest.raises(ConfigError, match="left as it"):
        edit(path)
    assert path.read_bytes() == data
    assert list(path.parent.glob("config*")) == [path]


@pytest.mark.parametrize(
    "value",
    ["1e400", "[-1e400]", '"\\ud800"'],
    ids=["number", "negative", "surrogate"],
)
def test_edit_what_cannot_be_written_again_is_left_alone(path, value):
    data = f'{{"n": {value}, "mcpServers": {{}}}}'.encode()
    path.write_bytes(data)

    with pytest.raises(ConfigError, match="left as it is"):
        add_server(path, SERVER)
    assert path.read_bytes() == data
    assert list(path.parent.glob("config*")) == [path]


def test_edit_link_stays_a_link(path, tmp_path):
    kept = tmp_path / "dotfiles.json"
    kept.write_text(OTHERS, encoding="utf-8")
    path.symlink_to(kept)
    add_server(path, SERVER)

    assert path.is_symlink()
    assert "hydra-edge" in read(kept)["mcpServers"]


def test_edit_folder_in_the_way_is_a_clear_error(path):
    path.mkdir()

    with pytest.raises(ConfigError, match="cannot be read"):
        add_server(path, SERVER)


def test_remove_server_undoes_add_server(path):
    path.write_text(OTHERS, encoding="utf-8")
    add_server(path, SERVER)
    assert remove_server(path).changed

    assert read(path) == json.loads(OTHERS)
    assert list(read(path)["mcpServers"]) == ["zeta", "alpha"]
    assert not remove_server(path).changed


def test_remove_server_no_file_makes_none(path):
    assert not remove_server(path).changed
    assert not path.exists()


def test_entry_home_of_our_own_goes_with_it(monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HYDRA_EDGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYDRA_EDGE_HOME", "/data")
    assert entry(["mcp"])["env"] == {"HYDRA_EDGE_HOME": "/data"}

    monkeypatch.delenv("HYDRA_EDGE_HOME")
    assert "env" not in entry(["mcp"])

    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "1")
    assert entry(["mcp"])["env"] == {"XDG_DATA_HOME": "/elsewhere", "HYDRA_EDGE_OFFLINE": "1"}


# ---- the commands


def test_serving_without_the_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "hydra_edge.mcp.server", None)
    result = cli_runner.call("mcp")

    assert result.exit_code == 1
    assert "the extra `mcp` of hydra-edge" in result.stderr
    assert "pip install '.[mcp]'" in result.stderr


@pytest.mark.parametrize("mode", ["--write", "--print"])
def test_install_without_the_extra_is_refused_as_serving_is(path, monkeypatch, mode):
    monkeypatch.setitem(sys.modules, "hydra_edge.mcp.server", None)
    result = cli_runner.call("mcp", "install", "--client", "claude", "--path", str(path), mode)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == cli_runner.call("mcp").stderr
    assert not path.exists()


def test_install_print_writes_nothing(path):
    cli_runner.call("add", "a text", "a title", "--user", "ada")
    result = cli_runner.call(
        "mcp", "install", "--client", "claude", "--path", str(path), "--user", "ada"
    )

    assert result.exit_code == 0, result.output
    server = json.loads(result.stdout)["mcpServers"]["hydra-edge"]
    assert server["args"][-3:] == ["mcp", "--user", "ada"]
    assert str(path) in result.stderr
    assert not path.exists()


def test_install_write_then_uninstall(path):
    path.write_text(OTHERS, encoding="utf-8")
    place = ("--client", "cursor", "--path", str(path))
    written = cli_runner.call(
        "mcp", "install", *place, "--write", "--json", "-t", "commit_subject", "--allow-private"
    )
    again = cli_runner.call("mcp", "install", *place, "--write", "-t", "commit_subject",
                            "--allow-private")  # fmt: skip
    args = read(path)["mcpServers"]["hydra-edge"]["args"]
    removed = cli_runner.call("mcp", "uninstall", *place)

    assert json.loads(written.stdout)["changed"]
    assert args[-4:] == ["mcp", "--task", "commit_subject", "--allow-private"]
    assert "nothing to change" in again.stdout
    assert "taken out" in removed.stdout
    assert read(path) == json.loads(OTHERS)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--user", "nobody"), "There is no user 'nobody'"),
        (("--task", "nonsense"), "No task 'nonsense'. Known tasks:"),
        (("--user", "nobody", "--task", "nonsense"), "There is no user 'nobody'"),
    ],
)
def test_install_for_whom_or_what_nobody_knows_is_refused(path, flags, said):
    for mode in ("--write", "--print"):
        result = cli_runner.call(
            "mcp", "install", "--client", "cursor", "--path", str(path), mode, *flags
        )
        assert (result.exit_code, result.stdout) == (1, "")
        assert said in result.stderr
    assert not path.exists()


def test_install_task_of_ones_own_records_is_taken(path):
    cli_runner.call("add", "a text", "a title", "--user", "ada", "-t", "recipes")
    result = cli_runner.call(
        "mcp", "install", "--client", "cursor", "--path", str(path), "-u", "ada", "-t", "Recipes"
    )
    assert result.exit_code == 0, result.stderr


def test_serving_a_task_nobody_knows_is_refused_before_it_begins():
    cli_runner.call("add", "a text", "a title")
    result = cli_runner.call("mcp", "-t", "nonsense")
    assert result.exit_code == 1
    assert "No task 'nonsense'. Known tasks:" in result.stderr


@pytest.mark.parametrize("mode", ["--write", "--print"])
def test_install_begins_the_history_that_its_server_needs(path, home, mode):
    cli_runner.call("mcp", "install", "--client", "cursor", "--path", str(path), mode)
    asked = []

    def opened(_user, *, create, **_):
        asked.append(create)
        raise CancelledError("enough")

    cli_runner.call("mcp", opener=opened)
    assert asked == [False]
    assert (home / "users" / "me.db").exists()


def test_serving_where_the_history_is_gone_says_so_in_one_line_and_begins_none(
    path, home, monkeypatch
):
    place = ("--client", "cursor", "--path", str(path), "--write", "-t", "commit_subject")
    cli_runner.call("mcp", "install", *place)
    server = read(path)["mcpServers"]["hydra-edge"]
    home.rename(home.with_name("moved"))
    result = cli_runner.call(*server["args"][-3:])

    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert f"There is no user 'me' in {home}/users" in result.stderr
    again = "hydra-edge mcp install --client NAME --write --task commit_subject\n"
    assert result.stderr.endswith(again)
    assert not home.exists()
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(home.with_name("moved")))
    cli_runner.call("mcp", "install", *place)
    assert read(path)["mcpServers"]["hydra-edge"]["env"]["HYDRA_EDGE_HOME"].endswith("moved")


def test_install_broken_file_is_exit_1_and_untouched(path):
    path.write_text("{", encoding="utf-8")
    result = cli_runner.call(
        "mcp", "install", "--client", "lmstudio", "--path", str(path), "--write"
    )

    assert result.exit_code == 1
    assert "left as it is" in result.stderr
    assert path.read_text(encoding="utf-8") == "{"
