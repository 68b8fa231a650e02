"""The command line on systems that expand arguments, code text otherwise, or tell less."""

from __future__ import annotations

import io
import json
import ntpath
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.core
from cli_runner import COMMAND, call
from typer._click import utils
from typer.testing import CliRunner

from hydra_edge.cli import options
from hydra_edge.cli.files import read_text
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record


class Module:
    """A module of which some names say something else."""

    def __init__(self, module: object, **other: object) -> None:
        self._module = module
        vars(self).update(other)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the parser of the command line, and it alone, take this for Windows."""
    monkeypatch.setattr(typer.core, "os", Module(os, name="nt"))
    path = Module(os.path, expandvars=ntpath.expandvars)
    monkeypatch.setattr(utils, "os", Module(os, path=path))


@pytest.mark.usefixtures("on_windows")
@pytest.mark.parametrize("query", ["$SECRET_KEY or %SECRET_KEY%?", "~", "*.md", "[np]*"])
def test_query_is_asked_as_it_was_typed_on_windows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_KEY", "sk-secret")
    for name in ("notes.md", "plan.md"):
        Path(name).touch()
    with Personalizer.open(create=True) as me:
        me.add([Record("a text", "A title", "note_title")])
    args = ["hydra-edge", query, "-m", "openai:gpt-4o", "--dry-run", "--json"]
    monkeypatch.setattr(sys, "argv", args)
    with CliRunner().isolation() as (out, err, _):
        with pytest.raises(SystemExit) as ended:
            COMMAND.main(prog_name="hydra-edge")
        sys.stdout.flush()
        printed, told = out.getvalue(), err.getvalue()
    assert not ended.value.code, told
    assert query in json.loads(printed)["prompts"][0]
    assert b"sk-secret" not in printed


def piped(monkeypatch: pytest.MonkeyPatch, raw: bytes, encoding: str = "cp1252") -> None:
    """Give the command a pipe on stdin that Python reads in the console's encoding."""
    stdin = io.TextIOWrapper(io.BytesIO(raw), encoding=encoding)
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_file_or_pipe_is_read_in_utf_8_whatever_the_console_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: bytes
) -> None:
    raw = mark + '{"task": "заметки"}'.encode()
    (tmp_path / "head.json").write_bytes(raw)
    piped(monkeypatch, raw)
    for name in ("-", str(tmp_path / "head.json")):
        assert read_text(name) == '{"task": "заметки"}'


def test_head_that_is_no_utf_8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_bytes(b"\xff\xfe{}")
    for name in ("-", str(tmp_path / "head.json")):
        ended = call("heads", "import", name, text=b"\xff\xfe{}")
        assert ended.exit_code == 1
        assert ended.stderr.count("\n") == 1
        assert f"Cannot read {'stdin' if name == '-' else name}" in ended.stderr
        assert "Expected a text file in UTF-8" in ended.stderr


def test_pipe_that_stays_silent_is_said_to_be_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, notes = threading.Event(), []

    class Silent(io.BytesIO):
        """A pipe that a system cannot wait for, as Windows', and that nothing comes from."""

        def read(self, size: int | None = -1) -> bytes:
            assert said.wait(30)
            return super().read(size)

    def note(text: str) -> None:
        notes.append(text)
        said.set()

    monkeypatch.setattr(options, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(options.output, "note", note)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Silent("é\n".encode())))
    assert options.read_stdin() == "é\n"
    assert [text.partition(";")[0] for text in notes] == ["Waiting for text on stdin"]


def test_pipe_that_speaks_is_not_remarked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_PATIENCE_S", 600.0)
    monkeypatch.setattr(options.output, "note", lambda text: pytest.fail(text))
    for raw in (b"a text", b""):
        piped(monkeypatch, raw)
        assert options.read_stdin() == raw.decode()


def test_terminal_that_is_ended_once_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.BytesIO):
        """Ends a reading at each Ctrl-D; one was given."""

        ends = 0

        def read(self, _size: int | None = -1) -> bytes:
            self.ends += 1
            return b""

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=terminal))
    assert options.read_stdin() == ""
    assert terminal.ends == 1
