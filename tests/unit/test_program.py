"""Other programs start the installation that told them to."""

import sys
from pathlib import Path

from hydra_edge.program import command, environment


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
