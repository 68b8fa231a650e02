"""Measuring decoding: the models that are there, on the cores that are free, against its goals."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from bench import latency
from bench.guard import BenchError
from bench.report import can_plot
from hydra_edge.errors import UnknownModelError
from hydra_edge.llm.threads import Look, Machine, Threads


def timed(decode: ModuleType) -> Any:
    """Make the timings of one model, every contestant as fast as the others."""
    runs = {name for both in decode.RATIOS.values() for name in both}
    return decode.Timings("a.gguf", 400, 2, {name: [4.0, 4.0] for name in runs})


def test_decode_measures_the_models_that_are_there(monkeypatch: pytest.MonkeyPatch):
    decode = pytest.importorskip("bench.decode")
    asked: list[tuple[str | int, ...]] = []

    def file_of(name: str) -> Path:
        if name == "gemma3":
            raise UnknownModelError("Model 'gemma3' is not installed.")
        if name == "smollm2":
            raise BenchError("No model 'smollm2' here")
        return Path(name)

    monkeypatch.setattr(decode, "model_file", file_of)
    monkeypatch.setattr(decode, "free_threads", lambda: 2)

    def measure(models: list[str], *, pairs: int, threads: int) -> dict[str, object]:
        asked.append((*models, pairs, threads))
        return {model: timed(decode) for model in models}

    monkeypatch.setattr(decode, "measure_in_full", measure)
    told: list[str] = []
    figures: dict[str, Any] = {"machine": {"cores": 2}}

    found = latency._decode(False, 0, figures, told.append)
    assert found == {"smollm2-q8": timed(decode).ratios()}
    assert set(figures["machine"]) == {"cores", "llm_threads", "llama_cpp", "llama_cpp_python"}
    assert figures["machine"]["llm_threads"] == 2
    detail = figures["decode_detail"]["smollm2-q8"]
    assert detail["file"] == "a.gguf"
    assert set(detail["runs"]["best8_16"]) == {"n", "p50_ms", "p95_ms", "p99_ms"}
    latency._decode(True, 1, figures, told.append)
    assert figures["machine"]["llm_threads"] == 1
    assert asked == [("smollm2-q8", 7, 2), ("smollm2-q8", 3, 1)]
    del told[2:]
    assert [line.split(" was not measured")[0] for line in told] == [
        "decoding of smollm2", "decoding of gemma3"
    ]  # fmt: skip
    monkeypatch.setattr(decode, "MODELS", ("gemma3",))
    assert latency._decode(False, 0, figures, told.append) is None


def test_decode_model_asked_for_that_is_missing_is_told_before_any_contest(
    monkeypatch: pytest.MonkeyPatch,
):
    decode = pytest.importorskip("bench.decode")
    monkeypatch.setattr(decode, "Contest", lambda *_: pytest.fail("a contest began"))
    monkeypatch.setattr(decode, "smollm2_file", lambda: Path("smollm2.gguf"))
    with pytest.raises(BenchError, match="No model 'llama'"):
        decode.measure_in_full(["smollm2", "llama"], threads=1)


def test_what_ran_before_decoding_is_measured_takes_no_thread_of_it(
    monkeypatch: pytest.MonkeyPatch,
):
    decode = pytest.importorskip("bench.decode")

    class Rested(Machine):
        """Busy for the last minute, and not in the second that is looked at."""

        at = 0.0

        def look(self) -> Look:
            return Look(self.at, 0.0, 0.0)

        def mean(self) -> float:
            return 2.0

        def cores(self) -> int:
            return 2

    rested = Rested()
    monkeypatch.setattr(decode, "Threads", lambda: Threads(0, rested))
    monkeypatch.setattr(decode.time, "sleep", lambda s: setattr(rested, "at", rested.at + s))

    assert Threads(0, rested).now() == 1
    assert decode.free_threads() == 2


def test_verdicts_of_decoding_are_by_model_and_shown_and_drawn(tmp_path: Path):
    made = {"best8_over_greedy_16": 1.809, "over_bare_loop": 0.96, "bare8_over_greedy_16": 1.2}
    figures = {"decode": {"gemma3": made}, "machine": {"processor": "P", "load_1min": 0.0}}

    assert list(latency.verdicts(figures)) == [
        ("decode.gemma3.best8_over_greedy_16", 1.809, "<= 1.4", False),
        ("decode.gemma3.over_bare_loop", 0.96, ">= 0.95", True),
    ]
    out = io.StringIO()
    latency.show(figures, Console(file=out, width=100))
    lines = [line.split() for line in out.getvalue().splitlines() if "gemma3" in line]
    assert [line[1].rpartition(".")[2] for line in lines] == list(made)
    assert "NOT MET" in " ".join(lines[0])
    if can_plot():
        assert latency.plot(figures, tmp_path / "a.png").stat().st_size > 5_000
