"""Runs ``bench.quality`` as a command, on an LLM and an encoder that are fakes."""

from __future__ import annotations

import json
from pathlib import Path

import bench_users
import pytest
from bench_users import label_rows, stores_closed, write
from typer.testing import CliRunner

import bench.quality
from bench.quality import app

llm = bench_users.llm
QUERIES = ("--queries", "3")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hash_encoder, llm):
    """Run the command on fakes; ``opened`` counts the models it opened."""
    opened: list[str] = []

    def open_llm(name, _config, _paths):
        opened.append(name)
        return llm

    monkeypatch.setattr("export.cache.open_llm", open_llm)
    monkeypatch.setattr(bench.quality, "Encoder", lambda _bundle: hash_encoder)

    def call(
        *options: object, out: str = "out.json", code: int = 0, queries: tuple[str, ...] = QUERIES
    ):
        words = [
            "--llm", "scripted", "--users", "3", *queries, "--fit-pools", "3",
            "--cache", tmp_path / "cache", "--json", tmp_path / out, "--no-plot", *options,
        ]  # fmt: skip
        with stores_closed():
            result = CliRunner().invoke(app, [str(w) for w in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return json.loads((tmp_path / out).read_text()), result.output

    call.opened = opened
    return call


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write(tmp_path / "never_seen.jsonl", *(label_rows(i, 24) for i in range(4)))
