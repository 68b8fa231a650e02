"""What all commands of the bench share: one line for an error, and results that say how made."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench import clock, command
from bench.command import command_of, given, head, new_app, parse_sizes, start
from bench.guard import BenchError

ROOT = Path(__file__).parents[2]
MISSING = "nowhere.jsonl"
READERS = (
    "again", "borrowed", "latency", "memory", "peers", "picks", "quality", "scale", "stopping",
    "votes",
)  # fmt: skip
# Every command, told of a file or a model that is not there.
WRONG = {
    **dict.fromkeys(READERS, ("--data", MISSING)),
    "decode": ("--models", "nowhere"),
    "leak": ("--model", "nowhere"),
    "packages": (MISSING, MISSING),
    "raters": (MISSING,),
    "soak": ("--model", "nowhere"),
}


def run(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Start a command as a terminal does; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as stopped:
        start(app)
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("name", WRONG)
def test_command_told_of_what_is_not_there_says_so_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in ("decode", "leak"):
        pytest.importorskip("llama_cpp")
    module = importlib.import_module(f"bench.{name}")

    assert run(module.app, monkeypatch, *WRONG[name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "nowhere" in line


def test_every_command_is_among_those_told_of_what_is_not_there() -> None:
    files = (ROOT / "bench").glob("*.py")
    commands = [path.stem for path in files if "\n    start(app)\n" in path.read_text()]

    assert sorted(commands) == sorted(WRONG)


def test_runs_are_no_file_of_the_repository() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert f"{command.RUNS.relative_to(ROOT).as_posix()}/" in ignored


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError(28, "No space left on device", "f.json"),
      "error: [Errno 28] No space left on device: 'f.json'. Put it right and run the same again."),
     (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"),
      "error: sklearn is not installed; expected the bench and local extras. Run pip install "
      "'.[bench,local]' in a clone of hydra-edge.")],
)  # fmt: skip
def test_start_what_a_person_can_put_right_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = new_app()

    @app.command()
    def main() -> None:
        raise error

    assert run(app, monkeypatch) == 1
    assert capsys.readouterr().err == f"{line}\n"


def test_parse_sizes_accepts_whole_numbers_only() -> None:
    assert parse_sizes("16, 0,4,4") == (0, 4, 16)
    assert parse_sizes("") == ()
    assert parse_sizes("1000,", "--sizes", least=1) == (1000,)
    with pytest.raises(BenchError, match="--history is '0,-4'; expected whole numbers"):
        parse_sizes("0,-4")
    for text in ("0,4", "4,x", ",", ""):
        with pytest.raises(BenchError, match=f"--sizes is '{text}'; .* of at least 1: --sizes"):
            parse_sizes(text, "--sizes", least=1)


def test_given_are_the_options_figures_depend_on() -> None:
    app, found = new_app(), []

    @app.command()
    def main(
        context: typer.Context,
        data: command.Texts = None,
        sizes: command.Sizes = "10",
        quick: command.Quick = False,
        draw: command.Plot = False,
        json_path: command.Figures = None,
    ) -> None:
        found.append(command_of("scale", given(context)))

    words = ["--data", "/x/my a.gz", "--data", "b.gz", "--quick", "--plot", "--json", "/x/out.json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert found == ["python -m bench.scale --data 'my a.gz' --data b.gz --quick"]


def test_command_of_names_files_without_their_folders() -> None:
    options = {"data": [Path("/x/a.gz"), Path("b.gz")], "task": [], "seed": 0, "bundle": None}
    assert command_of("quality", options | {"llm": "/models/x.gguf"}) == (
        "python -m bench.quality --data a.gz --data b.gz --seed 0 --llm x.gguf"
    )


@pytest.mark.parametrize(
    ("name", "package"), [("decode", "llama_cpp"), ("leak", "llama_cpp"), ("soak", "uvicorn")]
)
def test_command_without_its_extra_says_so_in_one_line(name: str, package: str) -> None:
    code = f"import runpy, sys; sys.modules['{package}'] = None; sys.argv = ['{name}']; "
    code += f"runpy.run_module('bench.{name}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_head_names_command_machine_version_and_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    made = head("scale", {"threads": 1}, "ab" * 32)

    assert made["command"] == "python -m bench.scale --threads 1"
    assert made["base_id"] == "ab" * 32
    assert made["version"] == made["machine"]["versions"]["hydra-edge"]
    assert made["machine"]["load_1min"] == 1.5
    # Where no time is measured, the same figures are the same bytes whatever else runs.
    untimed = head("votes", {}, timed=False)
    assert set(made["machine"]) - set(untimed["machine"]) == {"load_1min", "clock"}
    assert "base_id" not in untimed


@pytest.mark.parametrize(
    ("flags", "best"),
    [("fpu avx avx2 avx512f avx512_vnni", "avx512_vnni"), ("fpu avx avx2", "avx2"), ("fpu", None)],
)
def test_isa_is_the_best_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, flags: str, best: str | None
) -> None:
    monkeypatch.setattr(clock, "_said", {"flags": flags, "model name": "P"}.get)

    assert clock.machine()["isa"] == best
