"""``serve`` and its tokens as they are called: what is refused before anybody is served."""

import json
import sys
from pathlib import Path

import pytest
from cli_runner import call

from hydra_edge.config import find_paths
from hydra_edge.server.tokens import TokenFiles


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--user", "nobody"), "There is no user 'nobody'"),
        (("-t", "nonsense"), "No task 'nonsense'. Known tasks:"),
        (("-t", "note_title", "-t", "nonsense"), "No task 'nonsense'. Known tasks:"),
    ],
)
def test_token_for_whom_or_what_nobody_knows_is_refused(flags, said):
    result = call("serve", "token", "add", "editor", *flags)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not TokenFiles.of(find_paths()).apps.exists()


def test_token_for_tasks_and_a_user_that_are_there_is_made():
    call("add", "a text", "a title", "-u", "ada", "-t", "recipes")
    made = call("serve", "token", "add", "editor", "-u", "ada", "-t", "Recipes", "-t", "chat")
    assert made.exit_code == 0, made.stderr
    (app,) = json.loads(call("serve", "token", "list", "--json").stdout)["apps"]
    assert (app["user"], app["tasks"]) == ("ada", ["recipes", "chat"])


@pytest.mark.parametrize("timeout", ["0", "0s", "0.5ms"])
def test_serve_timeout_that_leaves_no_time_is_a_usage_error(timeout, monkeypatch):
    monkeypatch.setattr("hydra_edge.cli.serve._serve", lambda *_, **__: None)
    refused = call("serve", "--timeout", timeout)
    assert refused.exit_code == 2
    assert f"'{timeout}' leaves no time for any request; expected 1ms or more" in refused.stderr
    assert call("serve", "--timeout", "1ms").exit_code == 0


REMOTE = ("-m", "openai:m", "--base-url", "https://api.example/v1")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-m", "nope"), "No model 'nope'. Known:"),
        (("-m", "openai:"), "expected openai:MODEL"),
        (("-m", "gone.gguf"), "No model file gone.gguf"),
        (("-m", "openai:m", "--base-url", "foo"), "expected http(s)://host"),
        ((*REMOTE, "--offline"), "nothing may leave this machine"),
    ],
)
def test_serve_llm_that_could_answer_nobody_is_refused_at_once(flags, said, monkeypatch):
    served = []
    monkeypatch.setattr("hydra_edge.cli.serve._serve", lambda *_, **__: served.append(True))
    refused = call("serve", *flags)
    assert (refused.exit_code, refused.stdout, served) == (1, "", [])
    assert said in refused.stderr


@pytest.mark.parametrize(
    "flags", [(), ("-m", "smollm2"), ("-m", "./own.gguf"), ("-m", "chat:own.gguf"), REMOTE]
)
def test_serve_opens_no_local_llm_before_anybody_asks(flags, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("own.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("hydra_edge.llm.models._open_gguf", lambda *_, **__: 1 / 0)
    served = []
    monkeypatch.setattr("hydra_edge.cli.serve._serve", lambda *_, **__: served.append(True))
    started = call("serve", *flags)
    assert (started.exit_code, served) == (0, [True]), started.stderr


def test_serve_model_file_without_llama_cpp_is_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.chdir(tmp_path)
    Path("own.gguf").write_bytes(b"GGUF")
    served = []
    monkeypatch.setattr("hydra_edge.cli.serve._serve", lambda *_, **__: served.append(True))
    refused = call("serve", "-m", "./own.gguf")
    assert (refused.exit_code, served) == (1, [])
    assert "A local model needs llama-cpp-python, which is not installed" in refused.stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_serve_open_tells_a_person_the_address_should_no_page_open(monkeypatch, terminal):
    monkeypatch.setattr("hydra_edge.server.run.serve", lambda *_, ready: ready(None))
    monkeypatch.setattr("hydra_edge.server.run.open_page", lambda *_: True)
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: terminal)
    said = call("serve", "--open", "--port", "0").stderr
    assert ("If the page does not open: http://127.0.0.1:" in said) is terminal
    assert ("/#token=he-" in said) is terminal


@pytest.fixture
def ready(monkeypatch):
    """Let the command come to where it is ready, and end there."""
    monkeypatch.setattr("hydra_edge.server.run.serve", lambda *_, ready: ready(None))


def test_serve_json_line_comes_after_all_remarks(ready, monkeypatch):
    said = []
    monkeypatch.setattr("hydra_edge.cli.output.note", lambda text, **_: said.append(text))
    monkeypatch.setattr("hydra_edge.cli.output.write_json", said.append)
    assert call("serve", "--port", "0", "--json").exit_code == 0
    *_, ends, told, stopped = said
    assert (ends, sorted(told), stopped) == (
        "Ctrl-C ends it.", ["base_url", "token_file", "url"], "Stopped."
    )  # fmt: skip


def test_serve_goes_on_where_nobody_reads_its_remarks(ready, monkeypatch):
    def gone(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("hydra_edge.cli.output.note", gone)
    served = call("serve", "--port", "0", "--json")
    assert served.exit_code == 0, served.output
    assert json.loads(served.stdout)["url"].startswith("http://127.0.0.1:")


PROXY = "http://me:secret@proxy.example:3128"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("excepted", ["", "localhost", "127.0.0.1,localhost", "*"])
def test_serve_says_that_a_proxy_would_see_what_apps_ask(ready, monkeypatch, name, excepted):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", excepted)
    monkeypatch.setenv(name, PROXY)
    said = " ".join(call("serve", "--port", "0").stderr.split())
    is_told = f"{name} is set: an app that has it, too," in said
    assert is_told is (excepted in ("", "localhost"))
    assert ("Set NO_PROXY=127.0.0.1,localhost for your apps." in said) is is_told
    assert "secret" not in said


def test_serve_says_nothing_of_a_proxy_for_other_addresses(ready, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert "PROXY" not in call("serve", "--port", "0").stderr
