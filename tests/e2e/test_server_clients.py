"""The server with the clients people have: the openai SDK and the llm command, as they come."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import test_openai_server
from serving import EchoLLM, history, serving, serving_echo

from hydra_edge.config import Config
from hydra_edge.errors import BackendAuthError, BackendError
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Completion

ROOT = Path(__file__).parents[2]
upstream = test_openai_server.url  # a real remote-style server with a real LLM, by its address
ASK = [{"role": "user", "content": "A text about parsers 4711"}]


@pytest.fixture
def served(hash_encoder):
    yield from serving_echo(hash_encoder)


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=0) as client:
        yield client


def test_sdk_gets_an_answer_with_choices_and_usage(client):
    answer = client.chat.completions.create(model="hydra-edge", messages=ASK, n=2)

    assert [c.index for c in answer.choices] == [0, 1]
    assert all("4711" in str(c.message.content) for c in answer.choices)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 32
    assert answer.model_extra["hydra_edge"]["head"]["switch"] == "shared"


def test_sdk_raw_response_carries_the_id_feedback_takes(client, served):
    raw = client.chat.completions.with_raw_response.create(model="hydra-edge", messages=ASK)
    answer = raw.parse()

    assert raw.status_code == 200
    assert answer.id == "chatcmpl-" + answer.model_extra["hydra_edge"]["generation_id"]
    taken = client.post("/feedback", body={"id": answer.id, "pick": 1}, cast_to=object)
    assert taken["text"] == answer.choices[0].message.content


def test_sdk_streams_the_winner(client):
    whole = client.chat.completions.create(model="hydra-edge", messages=ASK)
    with client.chat.completions.create(
        model="hydra-edge", messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens == 32


def test_sdk_stream_helper_puts_the_same_answer_together(client):
    with client.chat.completions.stream(model="hydra-edge", messages=ASK) as stream:
        final = stream.get_final_completion()
    assert "4711" in final.choices[0].message.content


def test_sdk_hears_the_answer_while_it_is_written(hash_encoder):
    class Waiting(EchoLLM):
        def __init__(self):
            super().__init__()
            self.may = threading.Semaphore(0)

        def complete(self, prompt, *, on_token=None, on_candidate=None, **options):
            for piece in ("one ", "piece", " more STOP and"):
                assert self.may.acquire(timeout=60)
                on_token(piece)
            return [Completion("one piece more STOP and", prompt_tokens=17, tokens=6)]

    me = Personalizer.from_records([], llm=Waiting(), encoder=hash_encoder)
    with (
        me,
        serving(me) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=0) as client,
        client.chat.completions.create(
            model="hydra-edge", messages=ASK, stream=True, stop="STOP",
            extra_body={"hydra_edge": {"candidates": 1}}, stream_options={"include_usage": True},
        ) as stream,
    ):  # fmt: skip
        first = next(stream)
        told = []
        for _ in range(3):
            me.llm.inner.may.release()
            told.append(next(stream).choices[0].delta.content)
        *_, last, usage = stream

    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert told == ["one", " piece", " more "]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra["hydra_edge"]["generation_id"] == first.id.removeprefix("chatcmpl-")
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (17, 6)


def test_sdk_raises_what_ends_a_stream_that_had_begun(hash_encoder):
    class Failing(EchoLLM):
        def complete(self, prompt, *, on_token=None, **options):
            on_token("some text")
            raise BackendError("The model is gone. Open it again.")

    me = Personalizer.from_records([], llm=Failing(), encoder=hash_encoder)
    told = []
    with (
        me,
        serving(me) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=0) as client,
        pytest.raises(openai.APIError, match="The model is gone") as failed,
    ):
        told += client.chat.completions.create(
            model="hydra-edge", messages=ASK, stream=True,
            extra_body={"hydra_edge": {"candidates": 1}},
        )  # fmt: skip
    assert failed.value.code == "backend"
    assert [chunk.choices[0].delta.content for chunk in told] == ["", "some text"]


def test_sdk_asynchronous_client_is_served(served):
    import asyncio

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.token) as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="hydra-edge", messages=[{"role": "user", "content": f"a text n{i}"}]
                    )
                    for i in range(5)
                )
            )
            return [a.choices[0].message.content.split()[-1] for a in answers]

    assert asyncio.run(ask()) == [f"n{i}" for i in range(5)]


def test_sdk_lists_and_finds_models(client):
    assert [m.id for m in client.models.list()] == ["hydra-edge", "hydra-edge/paper_title"]
    assert client.models.retrieve("hydra-edge/paper_title").owned_by == "hydra-edge"


def test_sdk_reads_our_errors_as_its_own(client, served):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="hydra-edge", messages=ASK, temperature=7)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        client.models.list(extra_headers={"Origin": "http://evil.example"})


def test_sdk_retries_a_failure_of_the_llm_and_then_has_its_answer(hash_encoder):
    class Failing(EchoLLM):
        failures = 1

        def answers(self, prompt, n):
            if self.failures:
                self.failures -= 1
                raise BackendError("once")
            return super().answers(prompt, n)

    me = Personalizer.from_records(history(), llm=Failing(), encoder=hash_encoder)
    with (
        me,
        serving(me) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=1) as client,
    ):
        answer = client.chat.completions.create(model="hydra-edge", messages=ASK)
    assert "4711" in answer.choices[0].message.content


def test_sdk_does_not_ask_again_where_the_failure_stays(hash_encoder):
    class Refused(EchoLLM):
        def answers(self, prompt, n):
            raise BackendAuthError("The key is refused. Set another one.")

    llm = Refused()
    me = Personalizer.from_records(history(), llm=llm, encoder=hash_encoder)
    with (
        me,
        serving(me) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=2) as client,
        pytest.raises(openai.InternalServerError) as failed,
    ):
        client.chat.completions.create(model="hydra-edge", messages=ASK)
    assert failed.value.code == "backend_auth"
    assert len(llm.asked) == 1


def ask_llm(folder: Path, url: str, token: str, *args: str, prompt: str) -> str:
    """Ask by the llm command, set up as docs/server.md says."""
    folder.mkdir(exist_ok=True)
    (folder / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: hydra-edge\n  api_base: {url}/v1\n"
        "  api_key_name: hydra-edge\n"
    )
    (folder / "keys.json").write_text(json.dumps({"hydra-edge": token}))
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "mine", *args, prompt],
        env={**os.environ, "LLM_USER_PATH": str(folder)},
        capture_output=True, text=True, check=False, timeout=280, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("args", [[], ["--no-stream", "-s", "Be brief."]])
def test_llm_command_gets_the_answer(served, tmp_path, args):
    said = ask_llm(tmp_path / "llm", served.url, served.token, *args, prompt="parsers 4711")
    assert "4711" in said


# The command itself, in a process of its own.


@dataclass
class Command:
    """A server started by the command, and what it printed."""

    process: subprocess.Popen[str]
    said: dict[str, str]

    @property
    def token(self) -> str:
        return Path(self.said["token_file"]).read_text().strip()

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.said["base_url"], api_key=self.token, max_retries=0)


@pytest.fixture
def command(home):
    """Start the command with options; it is stopped at the end."""
    started = []

    def start(*args: str, **env: str) -> Command:
        process = subprocess.Popen(
            [sys.executable, "-m", "hydra_edge", "serve", "--port", "0", "--json", *args],
            env={**os.environ, "HYDRA_EDGE_HOME": str(home), **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        return Command(process, json.loads(line))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def hydra(home: Path, *args: str, check: bool = True):
    done = subprocess.run(
        [sys.executable, "-m", "hydra_edge", *args],
        env={**os.environ, "HYDRA_EDGE_HOME": str(home)},
        capture_output=True, text=True, check=False, timeout=280, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_says_where_it_is_and_ends_in_order(command, number):
    running = command()
    with running.client() as client:
        assert next(m.id for m in client.models.list()) == "hydra-edge"
    assert Path(running.said["token_file"]).stat().st_mode & 0o777 == 0o600

    running.process.send_signal(number)
    _, said = running.process.communicate(timeout=60)
    assert running.process.returncode == 0
    assert "Stopped" in said
    assert running.token not in said


def test_command_serves_on_where_its_launcher_let_go_of_both_pipes(command):
    running = command()
    running.process.stdout.close()
    running.process.stderr.close()
    with running.client() as client:
        assert next(m.id for m in client.models.list()) == "hydra-edge"
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0


def test_command_opens_the_page_with_a_token_of_this_run_only(home, command, tmp_path):
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    os.mkfifo(seen)
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o700)
    running = command("--open", BROWSER=str(browser))
    url, _, token = running.said["page"].partition("#token=")
    opened = seen.read_text()  # waits for the browser
    with openai.OpenAI(base_url=running.said["base_url"], api_key=token) as client:
        assert next(m.id for m in client.models.list()) == "hydra-edge"
    assert url == running.said["url"] + "/"
    assert token != running.token
    assert stat.S_IMODE((home / "server" / "open.html").stat().st_mode) == 0o600
    assert opened.strip().endswith("/server/open.html")
    assert token not in opened

    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=60)
    assert not (home / "server" / "open.html").exists()
    again = command()
    with (
        openai.OpenAI(base_url=again.said["base_url"], api_key=token) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_command_app_token_is_shown_once_listed_and_taken_back(home, command):
    token = hydra(home, "serve", "token", "add", "editor", "-t", "paper_title").stdout.strip()
    running = command()
    listed = json.loads(hydra(home, "serve", "token", "list", "--json").stdout)
    assert listed == {
        "apps": [{"app": "editor", "user": "me", "tasks": ["paper_title"], "read_only": False}]
    }
    assert token not in json.dumps(listed)
    with openai.OpenAI(base_url=running.said["base_url"], api_key=token) as client:
        assert [m.id for m in client.models.list()] == ["hydra-edge", "hydra-edge/paper_title"]
        hydra(home, "serve", "token", "remove", "editor")
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_command_port_taken_is_a_clear_error(home, command):
    port = command().said["url"].rpartition(":")[2]
    done = hydra(home, "serve", "--port", port, check=False)
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: another program listens there" in done.stderr


def test_command_unknown_task_is_told_before_it_serves(home):
    done = hydra(home, "serve", "--port", "0", "--task", "nonsense", check=False)
    assert done.returncode == 1
    assert "No task 'nonsense'" in done.stderr


def test_command_without_the_extra_says_how_to_get_it(home):
    hide = "import sys; sys.modules['uvicorn'] = None; from hydra_edge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, "serve"], env={**os.environ, "HYDRA_EDGE_HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "extra `server` of hydra-edge" in done.stderr
    assert "pip install '.[server]'" in done.stderr


# A real LLM.


def one_candidate(client, model, **options):
    """Ask for one candidate, streamed and not; return the pieces that had text, and the text."""
    ask = {"model": model, "messages": ASK, "extra_body": {"hydra_edge": {"candidates": 1}}}
    with client.chat.completions.create(**ask, **options, stream=True) as stream:
        pieces = [chunk.choices[0].delta.content for chunk in stream]
    whole = client.chat.completions.create(**ask, **options)
    return [piece for piece in pieces if piece], whole.choices[0].message.content


@pytest.mark.model
def test_real_llm_serves_the_sdk_and_the_llm_command(home, command, tmp_path):
    hydra(home, "import", "jsonl", str(ROOT / "examples" / "papers" / "author-b.jsonl"))
    running = command("-m", "smollm2", HYDRA_EDGE_CANDIDATES="3", HYDRA_EDGE_RECORDS="1")
    with running.client() as client:
        answer = client.chat.completions.create(
            model="hydra-edge/paper_title", max_tokens=8,
            messages=[{"role": "user", "content": "We parse sentences of a new language."}],
        )  # fmt: skip
        taken = client.post("/feedback", body={"id": answer.id, "pick": 1}, cast_to=object)
        live, alone = one_candidate(client, "hydra-edge/general", max_tokens=24, stop="  ")
    ours = answer.model_extra["hydra_edge"]
    assert answer.choices[0].message.content.strip()
    assert ours["usage"]["received"] == 3
    assert answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens > 20
    assert len(ours["records"]) == 1
    assert taken["head_version"] is not None
    assert len(live) > 8
    assert "".join(live) == alone

    said = ask_llm(
        tmp_path / "llm", running.said["url"], running.token, "-o", "max_tokens", "8",
        prompt="We parse sentences of a new language.",
    )  # fmt: skip
    assert said.strip()


@pytest.mark.model
def test_real_remote_style_server_stands_behind_ours(upstream):
    """Our server in front of another one of the same form, which has the LLM."""
    api = OpenAIApi("smol", base_url=upstream, api_key=test_openai_server.KEY)
    config = Config(task="paper_title", candidates=2, records=2)
    me = Personalizer.from_records(history(4), llm=api, config=config)
    with (
        serving(me) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token) as client,
    ):
        answer = client.chat.completions.create(model="hydra-edge", messages=ASK, max_tokens=8)
        chunks = list(
            client.chat.completions.create(
                model="hydra-edge", messages=ASK, max_tokens=8, stream=True
            )
        )
        live, alone = one_candidate(client, "hydra-edge", max_tokens=8)
    api.close()

    ours = answer.model_extra["hydra_edge"]
    assert ours["usage"]["received"] == 2
    assert answer.choices[0].message.content.strip()
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == answer.choices[0].message.content
    assert len(live) == 1, "a line that a model which chats may begin with something else"
    assert "".join(live) == alone
    (chosen,) = (candidate for candidate in ours["candidates"] if candidate["chosen"])
    assert answer.choices[0].finish_reason == chosen["finish"]
    assert answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens > 20
