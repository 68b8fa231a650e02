"""The whole way with the real command, the shipped base, and a real GGUF."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "examples" / "papers" / "author-b.jsonl"
Run = Callable[..., subprocess.CompletedProcess[str]]
QUERY = "We present a neural parser that learns from few annotated sentences of a new language."


def hydra(home: Path, *args: str, stdin: str | None = None, check: bool = True, **env: str):
    command = [sys.executable, "-m", "hydra_edge", *args]
    result = subprocess.run(
        command, capture_output=True, text=True, input=stdin if stdin is not None else "",
        env={**os.environ, "HYDRA_EDGE_HOME": str(home), **env}, check=False, timeout=280,
    )  # fmt: skip
    if check:
        assert result.returncode == 0, f"{args}: {result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import the sample and fit the reranker, once."""
    home = tmp_path_factory.mktemp("fitted")
    hydra(home, "import", "jsonl", str(SAMPLE), "--user", "me")
    hydra(home, "fit-head", "--user", "me", "--no-llm")
    return home


@pytest.fixture
def mine(fitted: Path, tmp_path: Path) -> Path:
    """Give a test its own copy of the fitted home."""
    return Path(shutil.copytree(fitted, tmp_path / "mine"))


def test_import_is_idempotent_and_asks_no_llm(mine: Path) -> None:
    result = hydra(mine, "import", "jsonl", str(SAMPLE), "--user", "me")
    assert "0 added" in result.stdout + result.stderr
    assert "0 LLM calls" in result.stdout + result.stderr
    listed = json.loads(hydra(mine, "history", "list", "--user", "me", "--json").stdout)
    assert len(listed["records"] if isinstance(listed, dict) else listed) > 0


def test_fit_head_prints_the_four_rows_and_what_is_on(mine: Path) -> None:
    text = hydra(mine, "fit-head", "--user", "me", "--no-llm").stdout
    for row in ("unpersonalized", "prompt-only RAG", "shared head", "my head"):
        assert row in text
    report = json.loads(hydra(mine, "fit-head", "--user", "me", "--no-llm", "--json").stdout)
    fit = report["fits"][0] if "fits" in report else report
    assert "paper_title" in json.dumps(fit)


def test_rank_json_is_what_scripts_rely_on(mine: Path) -> None:
    args = ("rank", QUERY, "--user", "me", "--task", "paper_title", "--json")
    answer = json.loads(hydra(mine, *args).stdout)
    assert set(answer) >= {"records", "head"}
    assert len(answer["records"]) == 4
    for record in answer["records"]:
        assert set(record) >= {"id", "score", "input", "output", "contributions"}
        assert sum(record["contributions"].values()) == pytest.approx(record["score"], abs=1e-3)
    assert answer["head"]["role"] == "reranker"


def test_forget_erases_every_byte(mine: Path) -> None:
    line = json.loads(SAMPLE.read_text().splitlines()[0])
    database = mine / "users" / "me.db"
    assert line["output"].encode() in database.read_bytes()
    hydra(mine, "forget", line["id"], "--user", "me", "--yes")
    left = b"".join(p.read_bytes() for p in (mine / "users").iterdir())
    assert line["output"].encode() not in left
    assert line["input"][:60].encode() not in left
    missing = hydra(mine, "forget", line["id"], "--user", "me", "--yes", check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: ")


def test_git_history_of_a_real_repository(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    git = ["git", "-C", str(repo), "-c", "user.email=me@example.org", "-c", "user.name=Me"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "config", "user.email", "me@example.org"], check=True)
    for i in range(6):
        message = f"parser: fix case {i}\n\nThe parser failed on case {i} because of a bug.\n"
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", message], check=True)
    home = tmp_path / "home"
    out = hydra(home, "import", "git", str(repo), "--user", "dev")
    assert "6" in out.stdout + out.stderr
    answer = json.loads(hydra(home, "rank", "a bug in the parser", "-u", "dev", "--json").stdout)
    assert answer["task"] == "commit_subject"
    assert all(r["output"].startswith("parser: fix") for r in answer["records"])


def test_offline_refuses_a_remote_model(mine: Path) -> None:
    result = hydra(
        mine, "generate", QUERY, "-u", "me", "-m", "openai:some-model", "--offline", check=False
    )
    assert result.returncode == 1
    assert "remote" in result.stderr
    assert result.stdout == ""


def test_unknown_user_lists_those_that_exist(mine: Path) -> None:
    result = hydra(mine, "rank", QUERY, "--user", "nobody", check=False)
    assert result.returncode == 1
    assert "me" in result.stderr
    assert "Traceback" not in result.stderr


def test_read_only_home_is_a_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = hydra(blocked / "home", "add", "a", "b", "--user", "me", check=False)
    assert result.returncode == 1
    assert "HYDRA_EDGE_HOME" in result.stderr


@pytest.mark.model
def test_generate_with_a_real_local_llm(mine: Path) -> None:
    args = ("generate", QUERY, "--user", "me", "--task", "paper_title", "--max-tokens", "12")
    result = hydra(mine, *args, "--json")
    answer = json.loads(result.stdout)
    assert set(answer) >= {"text", "candidates", "records", "head", "usage"}
    assert answer["text"] in [c["text"] for c in answer["candidates"]]
    assert answer["usage"]["received"] == 8
    assert len(answer["records"]) == 4
    plain = hydra(mine, *args)
    assert plain.stdout.strip() == answer["text"], "the same seed gives the same answer"


@pytest.mark.model
def test_default_command_reads_stdin_and_prints_only_the_answer(mine: Path) -> None:
    result = hydra(mine, "-u", "me", "-n", "1", "--max-tokens", "8", stdin=QUERY)
    assert len(result.stdout.strip().splitlines()) == 1


@pytest.mark.model
def test_dry_run_prints_the_prompt_and_answers_nothing(mine: Path) -> None:
    result = hydra(mine, QUERY, "-u", "me", "--dry-run", "--system", "Be brief.")
    assert result.stdout.startswith("Be brief.\n")
    assert result.stdout.rstrip("\n").endswith("Title:")
    assert json.loads(hydra(mine, "doctor", "--json").stdout)


@pytest.mark.model
def test_label_task_answers_with_a_member(tmp_path: Path) -> None:
    lines = [
        {"input": f"a film about robots and space {i}", "output": ["sci-fi", "comedy"][i % 2],
         "task": "movie_tag"}
        for i in range(12)
    ]  # fmt: skip
    text = "\n".join(json.dumps(line) for line in lines)
    hydra(tmp_path, "import", "jsonl", "-", "--user", "me", stdin=text)
    answer = json.loads(hydra(tmp_path, "robots in space", "-u", "me", "--json").stdout)
    assert answer["text"] in [c["text"] for c in answer["candidates"]]
    assert len(answer["candidates"]) == 15
    assert sum(c["count"] for c in answer["candidates"]) == 8


@pytest.mark.model
def test_fit_with_llm_resumes_and_choose_learns(mine: Path) -> None:
    first = json.loads(hydra(mine, "fit-head", "-u", "me", "--calls", "20", "--json").stdout)
    assert '"llm_calls": ' in json.dumps(first)
    hydra(mine, "generate", QUERY, "-u", "me", "--max-tokens", "8")
    chosen = json.loads(hydra(mine, "choose", "1", "-u", "me", "--json").stdout)
    assert chosen["head_version"] >= 1
    edited = json.loads(
        hydra(mine, "feedback", "--text", "My own title", "-u", "me", "--json").stdout
    )
    assert edited["text"] == "My own title"
    heads = hydra(mine, "heads", "list", "-u", "me").stdout
    assert "adapter" in heads
