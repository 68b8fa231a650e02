"""Commands over kept answers: tasks of a file in turn, and where the figures go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from bench_users import answer, label_rows, text_rows, write
from typer.testing import CliRunner

import bench.kept
from bench import again, command, picks, stopping, votes
from bench.guard import BenchError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hash_encoder, scripted):
    """Run a command on fakes; answers are kept from one call to the next."""
    llm = scripted(answer)
    monkeypatch.setattr("export.cache.open_llm", lambda *_: llm)
    monkeypatch.setattr(again, "open_llm", lambda *_: llm)
    monkeypatch.setattr(bench.kept, "Encoder", lambda _bundle: hash_encoder)
    monkeypatch.setattr(command, "RUNS", tmp_path / "runs")

    def call(app: typer.Typer, *options: object) -> str:
        words = ["--llm", "/models/x.gguf", "--cache", tmp_path / "cache", "--queries", "3"]
        result = CliRunner().invoke(app, [str(word) for word in (*words, *options)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    call.llm = llm
    return call


def figures(folder: Path, name: str) -> dict:
    (path,) = (folder / "runs").iterdir()
    assert path.name == name
    return json.loads(path.read_text())


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """One file of two label tasks and one of free text."""
    rows = [label_rows(i, 14, task) for task in ("colour_of_day", "mood") for i in range(2)]
    return write(tmp_path / "two.jsonl", *rows, text_rows(0, 14))


def test_votes_of_every_task_of_a_file_are_counted(run, tmp_path: Path, two: Path) -> None:
    output = run(votes.app, "--data", two, "--task", "colour_of_day", "--task", "mood")
    found = figures(tmp_path, "votes-x.gguf.json")
    assert list(found["tasks"]) == ["colour_of_day", "mood"]
    assert {task["pools"] for task in found["tasks"].values()} == {6}
    assert output.splitlines()[-1] == f"written to {tmp_path / 'runs' / 'votes-x.gguf.json'}"


def test_kept_figures_without_json_leave_the_documented_ones(
    run, tmp_path: Path, two: Path
) -> None:
    documented = tmp_path / "votes-x.gguf.json"
    documented.write_text("measured long ago")
    run(votes.app, "--data", two, "--task", "mood")

    assert documented.read_text() == "measured long ago"
    run(votes.app, "--data", two, "--task", "mood", "--json", documented)
    assert json.loads(documented.read_text()) == figures(tmp_path, documented.name)


def test_kept_figures_name_command_machine_and_base(run, tmp_path: Path, two: Path, bundle) -> None:
    run(votes.app, "--data", two, "--task", "mood")
    found = figures(tmp_path, "votes-x.gguf.json")

    assert found["command"] == (
        "python -m bench.votes --data two.jsonl --task mood --queries 3 --llm x.gguf"
    )
    assert found["base_id"] == bundle.base_id
    assert {"processor", "isa", "versions"} <= found["machine"].keys()
    assert str(tmp_path) not in json.dumps(found), "no path of this machine"


def test_stopping_follows_the_tasks_asked_for(run, tmp_path: Path, two: Path) -> None:
    run(stopping.app, "--data", two, "--task", "paper-title")
    assert list(figures(tmp_path, "stopping-x.gguf.json")["tasks"]) == ["paper_title"]


@pytest.mark.parametrize(
    ("app", "match"),
    [(votes.app, "paper_title is of kind text; expected label or rating"),
     (stopping.app, "colour_of_day is of kind label; expected tasks of free text")],
)  # fmt: skip
def test_tasks_of_another_kind_are_refused_before_any_is_measured(
    run, two: Path, app: typer.Typer, match: str
) -> None:
    with pytest.raises(BenchError, match=rf"{match}.*--task"):
        run(app, "--data", two)
    assert run.llm.prompts == []


def test_picks_are_simulated_for_every_task_of_a_file(run, tmp_path: Path) -> None:
    rows = [text_rows(i, 30, task) for task in ("paper_title", "news_headline") for i in range(3)]
    run(picks.app, "--data", write(tmp_path / "a.jsonl", *rows), "--queries", "20")
    found = figures(tmp_path, "picks-x.gguf.json")
    assert list(found["tasks"]) == ["news_headline", "paper_title"]


def test_again_asks_every_task_of_a_file(run, tmp_path: Path, two: Path) -> None:
    run(votes.app, "--data", two, "--task", "colour_of_day", "--task", "mood")
    (tmp_path / "runs" / "votes-x.gguf.json").unlink()
    run(again.app, "--data", two, "--task", "colour_of_day", "--task", "mood")
    found = figures(tmp_path, "again-x.gguf.json")
    assert [task["same_choice"] for task in found["tasks"].values()] == [1.0, 1.0]
