"""Other programs start the installation that told them to."""

import sys
from pathlib import Path

import pytest

from hydra_edge.program import command, environment, moved_folders

FOLDERS = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in (*FOLDERS, "HYDRA_EDGE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_command_is_absolute_and_there(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    program, *rest = command(["mcp"])

    assert Path(program).is_absolute()
    assert Path(program).is_file()
    assert rest[-1] == "mcp"

    script = tmp_path / "hydra-edge"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert command(["mcp"]) == [str(script), "mcp"]


def test_command_no_script_is_the_module(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    assert command(["mcp"]) == [str(tmp_path / "python"), "-m", "hydra_edge", "mcp"]


def test_environment_home_that_is_set_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_EDGE_HOME", "data")
    assert environment() == {"HYDRA_EDGE_HOME": str(tmp_path / "data")}

    monkeypatch.delenv("HYDRA_EDGE_HOME")
    assert environment() == {}


def test_environment_folders_that_are_set_go_along(monkeypatch, tmp_path):
    monkeypatch.delenv("HYDRA_EDGE_HOME")
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / name))
    assert environment() == {name: str(tmp_path / name) for name in FOLDERS}

    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert environment() == {"XDG_CONFIG_HOME": str(tmp_path / "XDG_CONFIG_HOME")}

    monkeypatch.setenv("HYDRA_EDGE_HOME", str(tmp_path))
    assert environment() == {"HYDRA_EDGE_HOME": str(tmp_path)}


@pytest.mark.parametrize("said", ["1", "0"])
def test_environment_being_offline_goes_along(monkeypatch, tmp_path, said):
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(tmp_path))
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", said)
    assert environment() == {"HYDRA_EDGE_HOME": str(tmp_path), "HYDRA_EDGE_OFFLINE": said}


def test_environment_is_what_finds_the_same_folders_again(monkeypatch, tmp_path):
    from hydra_edge.config import find_paths

    monkeypatch.delenv("HYDRA_EDGE_HOME")
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / name))
    before, carried = find_paths(), environment()
    for name in FOLDERS:
        monkeypatch.delenv(name)
    assert find_paths() != before
    for name, value in carried.items():
        monkeypatch.setenv(name, value)
    assert find_paths() == before


def test_moved_folders_are_the_same_where_the_same_history_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = {"XDG_DATA_HOME": f"{tmp_path}/.local/share/", "XDG_CACHE_HOME": f"{tmp_path}/.cache"}
    (tmp_path / "link").symlink_to(tmp_path / "data")
    data = str(tmp_path / "data")

    assert moved_folders({}) == moved_folders(usual) == {}
    assert moved_folders(usual | {"XDG_DATA_HOME": data}) == {"XDG_DATA_HOME": data}
    for home in ("data", "link"):
        found = moved_folders(usual | {"HYDRA_EDGE_HOME": str(tmp_path / home), "OTHER": "x"})
        assert found == {"HYDRA_EDGE_HOME": data}
