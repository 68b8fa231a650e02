"""ONNX Runtime reports nothing and keeps no files: its telemetry is off before it is loaded."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hydra_edge.encoder import import_onnxruntime

ROOT = Path(__file__).parents[2]
# The only place that may import it.
PLACE = ROOT / "hydra_edge" / "encoder.py"
# What a Python needs to start; no more, for telemetry may know a test server by its environment.
NEEDED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")
# Where programs keep files for a person, on any system.
FOLDERS = (
    "HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
    "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR", "TEMP", "TMP",
)  # fmt: skip


def hydra(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a person does who has nothing of ONNX Runtime's yet."""
    env = {name: os.environ[name] for name in NEEDED if name in os.environ}
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        env[name] = str(folder / name)
    env |= {"HYDRA_EDGE_HOME": str(folder / "ours"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "hydra_edge", *arguments], env=env, cwd=ROOT, check=True,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip


def test_ranking_leaves_no_file_outside_of_our_folder(tmp_path: Path) -> None:
    hydra(tmp_path, "add", "a text about parsers", "Fix parser")
    done = hydra(tmp_path, "rank", "the parser fails", "--json")

    assert "Fix parser" in done.stdout
    assert done.stderr == ""
    files = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert files
    assert [path for path in files if not path.is_relative_to(tmp_path / "ours")] == []


def test_ranking_with_a_cache_that_cannot_be_written_warns_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    hydra(tmp_path, "add", "a text about parsers", "Fix parser")
    done = hydra(tmp_path, "rank", "the parser fails", XDG_CACHE_HOME=str(tmp_path / "file"))

    assert "Fix parser" in done.stdout
    assert "onnxruntime" not in done.stderr


@pytest.mark.parametrize("before", [None, "0"])
def test_import_onnxruntime_switches_off_what_was_loaded_before(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    loaded = SimpleNamespace(disable_telemetry_events=lambda: told.append("off"))
    monkeypatch.setitem(sys.modules, "onnxruntime", loaded)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before or "")
    if before is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")

    assert import_onnxruntime() is loaded
    assert told == ["off"]
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_import_onnxruntime_that_knows_no_telemetry_is_as_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")
    monkeypatch.setitem(sys.modules, "onnxruntime", old := SimpleNamespace())
    assert import_onnxruntime() is old


def test_onnxruntime_is_imported_in_one_place() -> None:
    found = set()
    for package in ("hydra_edge", "export", "bench", "examples"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += (
                    [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                )
                if any(name.partition(".")[0] == "onnxruntime" for name in names):
                    found.add(path)
    assert found == {PLACE}
