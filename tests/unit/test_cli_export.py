"""Where ``history export`` and ``heads export`` write: into files, through links, into pipes."""

import os
import stat
import threading
from pathlib import Path

import pytest
from cli_runner import call

from hydra_edge.cli.files import write_text
from hydra_edge.config import find_paths, save_setting
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _history():
    with Personalizer.open(create=True) as me:
        me.add([Record("a text", "a title", "note_title", source="notes")])


@pytest.mark.usefixtures("_history")
def test_export_existing_file_is_kept_unless_forced():
    out = Path("out.jsonl")
    out.write_text("precious")
    result = call("history", "export", "out.jsonl")
    assert result.exit_code == 1
    assert "out.jsonl: a file of that name is there" in result.stderr
    assert "--force to replace it" in result.stderr
    assert out.read_text() == "precious"

    assert call("history", "export", "out.jsonl", "--force").exit_code == 0
    assert "a title" in out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.usefixtures("_history")
def test_export_of_a_head_existing_file_is_kept_unless_forced():
    call("fit-head", "-t", "note_title", "--no-llm")
    with Personalizer.open() as me:
        me.add([Record(f"text {i} of mine", f"title {i}", "note_title") for i in range(6)])
        me.fit_head("note_title", use_llm=False)
    out = Path("head.json")
    out.write_text("precious")
    args = ("heads", "export", "head.json", "-r", "reranker")
    assert call(*args).exit_code == 1
    assert out.read_text() == "precious"
    assert call(*args, "--force").exit_code == 0
    assert "hydra-edge-head" in out.read_text()


@pytest.mark.usefixtures("_history")
@pytest.mark.parametrize("there", [True, False])
def test_export_through_a_link_writes_its_target(there):
    folder = Path("elsewhere")
    folder.mkdir()
    if there:
        (folder / "real").write_text("old")
    Path("link").symlink_to(folder / "real")
    assert call("history", "export", "link", "--force").exit_code == 0
    assert Path("link").is_symlink()
    assert "a title" in (folder / "real").read_text()
    assert [path.name for path in folder.iterdir()] == ["real"]
    assert stat.S_IMODE((folder / "real").stat().st_mode) == 0o600


def into_a_pipe(name):
    """Read a pipe to its end while something is written to it."""
    got = []
    reader = threading.Thread(target=lambda: got.append(Path(name).read_text()), daemon=True)
    reader.start()
    return reader, got


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("linked", [True, False])
def test_write_text_into_a_pipe_leaves_it_a_pipe(linked):
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    reader, got = into_a_pipe("pipe")
    write_text("link" if linked else "pipe", ["some ", "text"])
    assert stat.S_ISFIFO(os.lstat("pipe").st_mode)  # else the reader waits for ever
    assert Path("link").is_symlink()
    reader.join()
    assert got == ["some text"]
    assert sorted(path.name for path in Path().iterdir()) == ["link", "pipe"]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system has no /dev/fd")
def test_write_text_into_a_process_substitution_arrives():
    here, there = os.pipe()
    try:
        write_text(f"/dev/fd/{there}", ["some text"])
    finally:
        os.close(there)
    with os.fdopen(here) as stream:
        assert stream.read() == "some text"


def test_export_to_a_folder_or_an_endless_link_is_one_line():
    call("add", "a text", "a title")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    for name in ("folder", "loop"):
        result = call("history", "export", name)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert f"Cannot write {name}" in result.stderr
    assert Path("loop").is_symlink()


def test_config_set_through_a_link_writes_its_target(home):
    home.mkdir()
    Path("dotfiles").mkdir()
    real = Path("dotfiles/config.toml")
    real.write_text("# mine\n")
    (home / "config.toml").symlink_to(real.absolute())
    save_setting(find_paths(), "candidates", "4")
    assert (home / "config.toml").is_symlink()
    assert real.read_text() == "# mine\ncandidates = 4\n"


@pytest.mark.usefixtures("_history")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("-t", "nope"), "No record of task 'nope'; tasks: note_title."),
        (("--source", "nope"), "No record comes from 'nope'; sources: notes."),
        (("-t", "nope", "--source", "notes"), "No record of task 'nope'"),
        (("--source", ""), "No record comes from ''"),
    ],
)
def test_export_of_what_is_not_there_is_an_error(args, said):
    result = call("history", "export", "out.jsonl", *args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not Path("out.jsonl").exists()


def test_export_of_two_that_never_met_is_an_error():
    with Personalizer.open(create=True) as me:
        me.add([Record("a", "b", "chat", source="x"), Record("c", "d", "tweet", source="y")])
    result = call("history", "export", "-t", "chat", "--source", "y")
    assert result.exit_code == 1
    assert "No record of task 'chat' comes from 'y'" in result.stderr


def test_export_of_an_empty_history_is_no_error():
    with Personalizer.open(create=True):
        pass
    assert call("history", "export").exit_code == 0
