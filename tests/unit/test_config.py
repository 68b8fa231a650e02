"""Settings: precedence, types, and files only their owner can read."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hydra_edge.config import _BOUNDS, Config, load_config, save_setting, way_online
from hydra_edge.errors import ConfigError
from hydra_edge.paths import expanded, find_paths
from hydra_edge.privatefiles import make_private_dir, write_private


def test_find_paths_home_moves_everything(home: Path) -> None:
    paths = find_paths()
    for path in (paths.users, paths.config_file, paths.keys_file, paths.cache, paths.tasks):
        assert path.is_relative_to(home)
    assert not home.exists(), "asking for a path must not create it"


def test_find_paths_without_home_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_EDGE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere/data")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere/config")
    paths = find_paths()
    assert str(paths.users).startswith("/somewhere/data/hydra-edge")
    assert str(paths.keys_file).startswith("/somewhere/config/hydra-edge")


@pytest.mark.parametrize(
    "name", ["../evil", "", "Jörg", "a/b", ".hidden", "x" * 65, "a\x00b", "a b"]
)
def test_user_file_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used\. Expected 1-64 letters a-z or A-Z,"):
        find_paths().user_file(name)


def test_load_config_environment_wins_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = find_paths()
    save_setting(paths, "candidates", "4")
    save_setting(paths, "temperature", "1")
    assert (load_config(paths).candidates, load_config(paths).temperature) == (4, 1.0)
    monkeypatch.setenv("HYDRA_EDGE_CANDIDATES", "2")
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "yes")
    assert load_config(paths).candidates == 2
    assert load_config(paths).offline is True


def test_empty_variable_leaves_offline_on(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = find_paths()
    for name, value in {"offline": "true", "candidates": "4", "user": "ann", "log": "no"}.items():
        save_setting(paths, name, value)
    for name in ("OFFLINE", "CANDIDATES", "USER", "LOG", "TEMPERATURE", "MODEL"):
        monkeypatch.setenv(f"HYDRA_EDGE_{name}", "")
    settings = load_config(paths)
    assert settings == Config(user="ann", candidates=4, offline=True, log=False)
    assert "config set offline false" in way_online(paths)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("OFLINE", "OFFLINE"), ("TEMPRATURE", "TEMPERATURE"), ("TIMEOUT", "TIMEOUT_S"),
     ("BASEURL", "BASE_URL"), ("UESR", "USER"), ("MODLE", "MODEL"),
     ("offline", "OFFLINE"), ("HOM", "HOME"), ("DEBUGG", "DEBUG")],
)  # fmt: skip
def test_unknown_variable_near_a_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(f"HYDRA_EDGE_{variable}", "")
    load_config(find_paths())
    monkeypatch.setenv(f"HYDRA_EDGE_{variable}", "1")
    match = rf"HYDRA_EDGE_{variable}: unknown setting; did you mean HYDRA_EDGE_{meant}\?"
    with pytest.raises(ConfigError, match=match):
        load_config(find_paths())


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("HYDRAEDGE_KEY_OPENAI", "KEY_OPENAI"),
     ("HYDRAEDGE_OFFLINE", "OFFLINE"), ("HYDRA_EGDE_OFFLINE", "OFFLINE"),
     ("HYDRA_EDGEOFFLINE", "OFFLINE"), ("HYRDA_EDGE_BASE_URL", "BASE_URL"),
     ("HIDRA_EDGE_USER", "USER"), ("hydraedge_home", "HOME")],
)  # fmt: skip
def test_setting_behind_a_mistyped_prefix_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "")
    load_config(find_paths())
    monkeypatch.setenv(variable, "1")
    match = rf"environment {variable}: unknown setting; did you mean HYDRA_EDGE_{meant}\?"
    with pytest.raises(ConfigError, match=match):
        load_config(find_paths())


@pytest.mark.parametrize(
    "variable",
    ["HYDRA_FULL_ERROR", "HYDRA_OFFLINE", "HYDRA_HOME", "HYDRA_CORE_USER", "EDGE_OFFLINE",
     "HYDRA_EDGE", "HYDRAEDGE_PORT", "HYDRAEDGE_OFLINE", "HYDRA_EDGES_HOME",
     "HYDRA_EDGE2_LOG", "MONKEY_OPENAI", "HYDRA_EDGES_KEY_X"],
)  # fmt: skip
def test_variable_of_another_project_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert load_config(find_paths()) == Config()


def test_variable_like_no_setting_is_an_applications_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("DEBUG", "KEY_OPENAI", "KEY_OFFLINE", "REQUIRE_BROWSER", "SCREENSHOTS",
            "SCREENSHOT_CALLS", "TRAINING_DATA")  # fmt: skip
    theirs = ("PORT", "CONTAINER", "VERSION", "DB_URL", "BASE_DIR", "API_BASE_URL", "USER_ID",
              "MODEL_DIR", "DEBUG_LOG", "ONLINE", "MODE_OF_USE")  # fmt: skip
    for name in (*ours, *theirs):
        monkeypatch.setenv(f"HYDRA_EDGE_{name}", "1")
    monkeypatch.setenv("OFLINE", "1")
    assert load_config(find_paths()) == Config()


def test_save_setting_keeps_comments_and_mode() -> None:
    paths = find_paths()
    make_private_dir(paths.config)
    write_private(paths.config_file, "# mine\nuser = 'ann' # me\n")
    save_setting(paths, "task", "commit_subject")
    text = paths.config_file.read_text()
    assert "# mine" in text
    assert "# me" in text
    assert load_config(paths).user == "ann"
    assert stat.S_IMODE(paths.config_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.config.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("colour", "red", "Unknown setting 'colour'. Known: user"),
        ("candidates", "many", "expected a whole number"),
        ("temperature", "warm", "expected a number"),
        ("log", "perhaps", "expected true or false"),
        ("offline", "", "expected true or false"),
        ("user", "../x", "config set: User name '../x' cannot be used. Expected 1-64"),
        ("user", "", "User name '' cannot be used"),
        *((name, str(least - 1), "expected .* or more") for name, (least, _) in _BOUNDS.items()),
        *((name, str(most + 1), f"and {most} at most") for name, (_, most) in _BOUNDS.items()),
    ],
)
def test_save_setting_bad_input_changes_nothing(name: str, value: str, match: str) -> None:
    paths = find_paths()
    with pytest.raises(ConfigError, match=match):
        save_setting(paths, name, value)
    assert not paths.config_file.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("candidates", 0), ("records", -1), ("temperature", -0.1), ("timeout_s", 0.0),
     ("threads", -1), ("temperature", float("nan"))],
)  # fmt: skip
def test_settings_below_their_least_value_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .* cannot be used; expected .* or more"):
        replace(Config(), **{name: value})


@pytest.mark.parametrize(("name", "most"), [(name, most) for name, (_, most) in _BOUNDS.items()])
def test_settings_above_their_greatest_value_are_refused_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch, name: str, most: float
) -> None:
    beyond, match = most + 1, f"{name} = .* cannot be used; expected .* and {most} at most"
    assert getattr(Config(**{name: most}), name) == most
    with pytest.raises(ConfigError, match=match):
        Config(**{name: beyond})
    paths = find_paths()
    make_private_dir(paths.config)
    write_private(paths.config_file, f"{name} = {beyond}\n")
    with pytest.raises(ConfigError, match=match):
        load_config(paths)
    paths.config_file.unlink()
    monkeypatch.setenv(f"HYDRA_EDGE_{name.upper()}", str(beyond))
    with pytest.raises(ConfigError, match=match):
        load_config(paths)


def test_load_config_default_user_that_cannot_be_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYDRA_EDGE_USER", "a/b")
    with pytest.raises(ConfigError, match=r"environment HYDRA_EDGE_USER: User name 'a/b'"):
        load_config(find_paths())


def test_config_file_with_a_byte_order_mark_is_read_and_edited() -> None:
    paths = find_paths()
    make_private_dir(paths.config)
    paths.config_file.write_bytes(b"\xef\xbb\xbfcandidates = 3\n")
    assert load_config(paths).candidates == 3
    save_setting(paths, "records", "2")
    assert (load_config(paths).candidates, load_config(paths).records) == (3, 2)


def test_load_config_broken_file_says_where(home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("user = ")
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read.*Expected TOML"):
        load_config(find_paths())
    (home / "config.toml").write_text("candidates = true")
    with pytest.raises(ConfigError, match="candidates = True cannot be used"):
        load_config(find_paths())


def test_write_private_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError, match="surrogates"):
        write_private(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left behind"


def test_write_private_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / ".[1].json.123-456.tmp"
    left.write_text("a key")
    write_private(tmp_path / "[1].json", "{}")
    assert left.exists(), "another program may be writing it"
    os.utime(left, (time.time() - 7200,) * 2)
    write_private(tmp_path / "[1].json", "{}")
    assert [part.name for part in tmp_path.iterdir()] == ["[1].json"]


def test_make_private_dir_refused_place_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Set HYDRA_EDGE_HOME"):
        make_private_dir(tmp_path / "file" / "below")


def test_expanded_knows_the_users_home_and_leaves_nobodys(monkeypatch):
    monkeypatch.setenv("HOME", "/a/home")
    assert expanded("~/notes") == Path("/a/home/notes")
    assert expanded("~nobody-at-all/notes") == Path("~nobody-at-all/notes")
