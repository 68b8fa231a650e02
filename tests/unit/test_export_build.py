"""What the stages of a build say they are made from, as far as that decides what runs again."""

from __future__ import annotations

import json
from pathlib import Path

from progress import quiet

from export.build import _Build
from export.mine import Plan
from export.workshop import Settings, Workshop
from hydra_edge.types import JsonDict


def parameters(folder: Path, **mark: object) -> dict[str, JsonDict]:
    """Return each stage's parameters for a file whose only line is marked so."""
    file = folder / "a.train.jsonl"
    line = {"user": "u", "task": "paper_title", "input": "a text", "output": "a title"}
    file.write_text(json.dumps(line | mark), encoding="utf-8")
    settings = Settings((file,), folder / "base", folder / "work", folder / "answers", Plan())
    made = _Build(Workshop(settings, folder), quiet, lambda _line: None, None, None)
    return {stage.name: stage.parameters for stage in made.stages()}


def test_stages_that_read_records_run_again_where_private_lines_were_once_read(
    tmp_path: Path,
) -> None:
    plain, marked = parameters(tmp_path), parameters(tmp_path, private=True)
    changed = {name for name in plain if plain[name] != marked[name]}
    assert changed == {"onnx", "mine", "label", "train", "agree"}
    assert all(marked[name] == plain[name] | {"private": "left out"} for name in changed)


def test_stages_of_files_without_private_lines_are_what_they_were(tmp_path: Path) -> None:
    assert parameters(tmp_path) == parameters(tmp_path, private=False)
    assert not any("private" in of for of in parameters(tmp_path).values())
