"""docs/server.md by the letter: its commands and programs are run against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving import serving_echo

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def served(hash_encoder):
    yield from serving_echo(hash_encoder)


@pytest.fixture
def follow(served, tmp_path, home):
    """Run a block of the page where the page's address and folder are this test's."""

    def run(program: list[str], text: str) -> str:
        text = text.replace("http://127.0.0.1:4937", served.url)
        text = text.replace("~/.local/share/hydra-edge", str(home))
        (tmp_path / "llm").mkdir(exist_ok=True)
        folder = str(Path(sys.executable).parent)
        done = subprocess.run(
            program, input=text, capture_output=True, text=True, check=False, timeout=280,
            env={
                **os.environ, "HYDRA_EDGE_HOME": str(home), "LLM_USER_PATH": str(tmp_path / "llm"),
                "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            },
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def test_page_curl_gets_an_answer(follow):
    (curl,) = [block for block in blocks("sh") if block.startswith("curl")]
    assert '"content":"answer' in follow(["bash", "-e"], curl)


def test_page_llm_command_gets_an_answer(follow):
    (llm,) = [block for block in blocks("sh") if "llm keys set" in block]
    assert "answer" in follow(["bash", "-e"], llm)


def test_page_programs_run_one_after_the_other(follow):
    said = follow([sys.executable, "-"], "\n".join(blocks("python")))
    lines = said.splitlines()
    assert lines[0].startswith("answer")
    assert "shared" in lines[1]
    assert lines[2].endswith("1")  # the end of the stream, then what was added
    assert lines[3] == "What I wrote"


def test_page_commands_for_apps_run(follow):
    (tokens,) = [block for block in blocks("sh") if "serve token" in block]
    assert "editor" in follow(["bash", "-e"], tokens)


def test_page_leaves_out_no_block():
    kinds = re.findall(r"^```(\w*)$", PAGE, re.MULTILINE)
    assert sorted(kind for kind in kinds if kind) == ["python"] * 2 + ["sh"] * 3
