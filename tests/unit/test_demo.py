"""The demo's own steps; what they show is the engine's, tested elsewhere."""

import importlib.util
import stat
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture
def demo(home):
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fails", [False, True])
def test_demo_history_is_readable_by_its_owner_only_and_gone_once_imported(
    demo, tmp_path, monkeypatch, fails
):
    file = tmp_path / "demo" / "history.jsonl"
    seen = []

    class Enough(Exception):
        pass

    def run(command):
        seen.append((command[1], file.exists()))
        if command[1] == "import":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert len(file.read_text().splitlines()) > 10
        if fails or command[1] != "import":
            raise Enough

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--home", str(tmp_path / "demo")])
    with pytest.raises(Enough):
        demo.main()
    assert seen == [("import", True), *([] if fails else [("fit-head", False)])]
    assert not file.exists()
