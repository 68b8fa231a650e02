"""The pages of the MCP server and the git hook: what they tell a person to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from git_repository import QUIET, GitRepository

from hydra_edge import Record
from hydra_edge.config import find_paths
from hydra_edge.store import Store

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(command: list[str], folder: Path, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["mcp.md", "git-hook.md"])
def test_page_shell_commands_run_as_written(page: str, tmp_path: Path) -> None:
    repo = GitRepository(tmp_path / "repo")
    repo.write("a.py", "x = 1\n")
    repo.git("commit", "-q", "-m", "Start", "-m", "There was nothing yet.")
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    commands = [line for line in lines if not line.startswith("pip ")]
    assert len(commands) >= 3

    home = tmp_path / "person"
    home.mkdir()
    environment = {**QUIET, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    out = run(["sh", "-e", "-c", "\n".join(commands)], repo.path, **environment)

    assert "installed" in out if page == "git-hook.md" else "taken out of" in out


def test_mcp_page_program_runs_as_written(tmp_path: Path, home: Path) -> None:
    (block,) = blocks("mcp.md", "python")
    paths = find_paths()  # those of HYDRA_EDGE_HOME: not where HOME alone would lead to
    paths.users.mkdir(parents=True, mode=0o700)
    with Store.open(paths.user_file("me")) as store:
        store.add([Record("A new parser", "Parsing anew", "paper_title")])
    environment = {"HOME": str(tmp_path), "HYDRA_EDGE_HOME": str(home)}

    told = run([sys.executable, "-c", block], tmp_path, **environment)

    assert "'personalize'" in told
    assert "Parsing anew" in told
