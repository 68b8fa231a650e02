"""A stream that is closed, full or missing, and Ctrl-C before a command has begun: one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import call, records

PROGRAM = [sys.executable, "-m", "hydra_edge"]
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
# Some text, more than any buffer holds, help of the parser's own, and text of ours.
COMMANDS = [
    ("config", "list"), ("history", "export"), ("--help",), ("--version",),
    ("tasks", "list", "--json"),
]  # fmt: skip


def run(args, **streams):
    return subprocess.run(
        [*PROGRAM, *args], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        check=False, **streams,
    )  # fmt: skip


def closed(args, ends=">&-"):
    """Run a command without some of its streams: without a stdout, if nothing else is said."""
    line = f'exec "$0" "$@" {ends}'
    return subprocess.run(
        ["/bin/sh", "-c", line, *PROGRAM, *args], stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.fixture
def _history():
    lines = "".join(f'{{"input": "text {i} {"x" * 500}", "output": "o{i}"}}\n' for i in range(400))
    assert call("import", "jsonl", "-", text=lines).exit_code == 0


@full
@pytest.mark.usefixtures("_history")
@pytest.mark.parametrize("args", COMMANDS)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_stdout_is_one_line(args, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as stream:
        result = run(args, stdout=stream)
    said = result.stderr.splitlines()
    assert result.returncode == 1
    assert "error: cannot write to standard output: No space left on device" in said
    assert "Traceback" not in result.stderr
    assert "stumbled" not in result.stderr
    assert sum(line.startswith("error:") for line in said) == 1


@pytest.mark.usefixtures("_history")
@pytest.mark.parametrize("args", COMMANDS)
@pytest.mark.parametrize("ends", [">&-", ">&- <&-"])
def test_missing_stdout_is_one_line(args, ends):
    result = closed(args, ends)
    said = result.stderr.splitlines()
    assert result.returncode == 1
    assert "error: cannot write to standard output: Bad file descriptor" in said
    assert "Traceback" not in result.stderr
    assert "stumbled" not in result.stderr


def test_missing_stdout_that_is_not_needed_does_no_harm(tmp_path):
    call("add", "a text", "a title")
    result = closed(("history", "export", str(tmp_path / "out.jsonl")))
    assert (result.returncode, result.stderr) == (0, "1 record exported\n")
    assert "a title" in (tmp_path / "out.jsonl").read_text()
    assert closed(("history", "export", str(tmp_path / "b.jsonl")), ">&- 2>&-").returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("import", "jsonl", "-"), 1, ""),  # its counts, all of them 0, are on stdout
        (("import", "csv", "-"), 1, "input stream is empty"),
        (("heads", "import", "-"), 1, "not a head file"),
        (("choose", "--text", "-"), 1, "Give either the number of a candidate or an edited text"),
        (("keys", "set", "openai"), 1, "it is empty"),
        (("generate", "-"), 2, "no query"),
        (("rank",), 2, "no query"),
        (("add", "a text", "a title"), 0, "added"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_missing_stdin_is_an_empty_one(args, code, said):
    call("add", "a text", "a title", "-t", "note_title")
    result = closed(args, "<&-")
    assert result.returncode == code
    assert said in result.stderr
    assert "stumbled" not in result.stderr


@full
def test_full_stdout_does_not_hide_what_else_went_wrong():
    call("add", "a text", "a title")
    with Path("/dev/full").open("w") as stream:
        result = run(("rank", "q", "-t", "nonsense", "--json"), stdout=stream)
    assert result.returncode == 1
    assert "No task 'nonsense'" in result.stderr
    assert "cannot write to standard output" in result.stderr
    assert "Traceback" not in result.stderr


@full
def test_full_stdout_and_stderr_is_an_exit_code():
    with Path("/dev/full").open("w") as stream:
        run_ = subprocess.run(
            [*PROGRAM, "config", "list"], stdout=stream, stderr=stream, check=False
        )
    assert run_.returncode not in {0, 120}


@full
def test_full_stderr_alone_is_the_exit_code_of_the_failure():
    with Path("/dev/full").open("w") as stream:
        run_ = subprocess.run(
            [*PROGRAM, "rank", "--user", "nobody", "q"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=stream, check=False,
        )  # fmt: skip
    assert (run_.returncode, run_.stdout) == (1, b"")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16"])
def test_pipe_gets_utf8_whatever_the_locale(encoding, monkeypatch):
    texts = ["Größe 😀", "naïve — café", "日本"]
    lines = "".join(json.dumps({"input": text, "output": text[::-1]}) + "\n" for text in texts)
    call("import", "jsonl", "-", text=lines)
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    listed, exported = (
        subprocess.run([*PROGRAM, "history", *args], capture_output=True, check=True).stdout
        for args in (("list", "--json"), ("export", "-"))
    )
    subprocess.run(
        [*PROGRAM, "import", "jsonl", "-", "--user", "copy"], input=exported,
        capture_output=True, check=True,
    )  # fmt: skip

    assert {record["input"] for record in json.loads(listed.decode())["records"]} == set(texts)
    assert {record.input for record in records("copy")} == set(texts)


def test_add_keeps_the_bytes_of_its_arguments_whatever_the_locale(monkeypatch):
    for name, value in (("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0"), ("LC_ALL", "C")):
        monkeypatch.setenv(name, value)
    words = ["Größe é".encode(), "Übung".encode(), b"--task", b"note_title"]
    _, listed = (
        subprocess.run([*PROGRAM, *args], capture_output=True, check=True)
        for args in ((b"add", *words), ("history", "list", "--json"))
    )

    assert [(record.input, record.output) for record in records()] == [("Größe é", "Übung")]
    assert "Übung" in listed.stdout.decode()


def test_interrupt_before_the_commands_are_loaded_is_quiet():
    script = (
        "import sys, types\n"
        "class Slow(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        raise KeyboardInterrupt\n"
        "import hydra_edge.cli\n"
        "sys.modules['hydra_edge.cli.app'] = Slow('hydra_edge.cli.app')\n"
        "hydra_edge.cli.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
