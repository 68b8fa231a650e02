"""The demo's own steps; what they show is the engine's, tested elsewhere."""

import importlib.util
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from git_repository import GitRepository, quiet

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


def test_demo_home_with_anything_else_in_it_is_left_alone(demo, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    thesis = tmp_path / "mine" / "thesis.tex"
    thesis.write_text("three years")
    monkeypatch.setattr(demo, "run", lambda _: pytest.fail("something was run"))
    for home in (tmp_path / "mine", thesis):
        monkeypatch.setattr(sys, "argv", ["demo.py", "--home", str(home)])
        with pytest.raises(SystemExit, match="got something that no demo made; expected"):
            demo.main()

    assert thesis.read_text() == "three years"


def test_demo_home_of_an_earlier_demo_is_made_anew(demo, tmp_path):
    home = tmp_path / "demo"
    for _ in range(2):
        demo.fresh_home(home)
        assert [path.name for path in home.iterdir()] == [demo.MARKER]
        (home / "me.sqlite").touch()


@pytest.mark.parametrize("history", ["nowhere", "file", "repository of others"])
def test_demo_that_cannot_read_the_history_says_so_without_a_traceback(
    tmp_path, monkeypatch, history
):
    quiet(monkeypatch)
    (tmp_path / "file").write_text("x")
    if history == "repository of others":
        repo = GitRepository(tmp_path / history)
        repo.git("-c", "user.email=b@b", "commit", "--allow-empty", "-m", "One\n\nbody")
    command = [sys.executable, DEMO, "--history", tmp_path / history, "--home", tmp_path / "home"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert ("--author NAME" in done.stderr) == (history == "repository of others")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_demo_takes_the_commits_of_the_author_named(demo, tmp_path):
    repo = GitRepository(tmp_path / "repo")
    for email in ("b@b", "c@c"):
        repo.git("-c", f"user.email={email}", "commit", "--allow-empty", "-m", f"{email}\n\nbody")
    what, (record,) = demo.read_history(tmp_path / "repo", "B@b")

    assert what.startswith("commits by B@b in ")
    assert record.output == "b@b"
