"""A chat answer streamed while it is made: what is sent when, and how it ends badly."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager

import pytest
from llm_server import Server as RemoteServer
from llm_server import answer, delta, hang_until_left, stream
from llm_server import completion as reply
from serving import LONG_S, EchoLLM, GatedLLM, chat, history, serving

from hydra_edge.config import Config
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Completion

CHAT = "/v1/chat/completions"
ONE = {"candidates": 1}


class WritingLLM(EchoLLM):
    """Writes ``pieces``, each once it may; the answer is their sum."""

    def __init__(self, *pieces: str) -> None:
        super().__init__()
        self.pieces = pieces
        self.may = threading.Semaphore(0)
        self.stopped = threading.Event()

    def complete(self, prompt, *, on_token=None, should_stop=None, on_candidate=None, **options):
        self.asked.append(prompt)
        for piece in self.pieces:
            while not self.may.acquire(timeout=0.002):
                if should_stop is not None and should_stop():
                    self.stopped.set()
                    return []
            if on_token is not None:
                on_token(piece)
        made = Completion("".join(self.pieces), True, len(self.pieces), prompt_tokens=21)
        if on_candidate is not None:
            on_candidate(made)
        return [made]


class SteppingLLM(EchoLLM):
    """Finishes a candidate whenever it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Semaphore(0)

    def complete(self, prompt, *, n=1, on_candidate=None, **options):
        made = self.answers(prompt, n)
        for completion in made:
            assert self.may.acquire(timeout=LONG_S)
            on_candidate(completion)
        return made


class FailingLLM(EchoLLM):
    def __init__(self, error: Exception, after: str = "") -> None:
        super().__init__()
        self.error = error
        self.after = after

    def complete(self, prompt, *, on_token=None, **options):
        if self.after:
            on_token(self.after)
        raise self.error


@pytest.fixture
def serve(hash_encoder):
    @contextmanager
    def start(llm, task="general", **options):
        records = history(4) if task == "paper_title" else []
        me = Personalizer.from_records(
            records, llm=llm, encoder=hash_encoder, config=Config(task=task)
        )
        with me, serving(me, **options) as served:
            yield served

    return start


@contextmanager
def streamed(served, **more):
    """Ask for a stream; yield the response and its lines as they come."""
    with (
        served.client() as client,
        client.stream("POST", CHAT, json=chat("parsers 1", stream=True, **more)) as response,
    ):
        yield response, (line for line in response.iter_lines() if line)


def content(line):
    event = json.loads(line.removeprefix("data: "))
    return "".join(c["delta"].get("content", "") for c in event["choices"])


def test_live_answer_begins_with_its_id_before_there_is_a_candidate(serve):
    llm = GatedLLM()
    with serve(llm, "paper_title") as served, streamed(served) as (response, lines):
        assert llm.started.acquire(timeout=LONG_S)
        first = json.loads(next(lines).removeprefix("data: "))
        llm.gate.set()
        *_, last, done = (line for line in lines if line[0] != ":")

    assert response.status_code == 200
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (first["model"], first["object"]) == ("hydra-edge", "chat.completion.chunk")
    ours = json.loads(last.removeprefix("data: "))["hydra_edge"]
    assert first["id"] == "chatcmpl-" + ours["generation_id"]
    assert done == "data: [DONE]"


def test_live_answer_of_one_candidate_comes_as_it_is_written(serve):
    llm = WritingLLM(" Dear", " all,\n", "  the end", " is", " near ")
    with serve(llm) as served, streamed(served, hydra_edge=ONE) as (_, lines):
        told = [content(next(lines))]
        for _ in llm.pieces:
            llm.may.release()  # nothing more is written until this piece has arrived
            told.append(content(next(lines)))
        rest = list(lines)
        llm.may.release(len(llm.pieces))
        with served.client() as client:
            whole = client.post(CHAT, json=chat("parsers 1", hydra_edge=ONE)).json()

    assert told == ["", "Dear", " all,", "\n  the end", " is", " near"]
    assert "".join(told) == whole["choices"][0]["message"]["content"]
    assert len(rest) == 2  # why it ended, and that it did
    assert whole["usage"] == {"prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 26}


def test_live_answer_never_shows_a_stop_nor_what_follows_it(serve):
    llm = WritingLLM("one E", "ND", "ED EN", "DE", "ND two")
    llm.may.release(2 * len(llm.pieces))
    body = {"hydra_edge": ONE, "stop": ["ENDEND", "DED"]}
    with serve(llm) as served:
        with streamed(served, **body) as (_, lines):
            told = [content(line) for line in lines if line != "data: [DONE]"]
        with served.client() as client:
            whole = client.post(CHAT, json=chat("parsers 1", **body)).json()["choices"][0]

    assert "".join(told) == whole["message"]["content"] == "one EN"
    assert whole["finish_reason"] == "stop"


def test_live_label_is_told_whole(serve):
    llm = WritingLLM("POL", "ITICS")
    llm.may.release(len(llm.pieces))
    with (
        serve(llm, "news_category") as served,
        streamed(served, hydra_edge=ONE) as (_, lines),
    ):
        told = [content(line) for line in lines if line != "data: [DONE]"]
    assert len([text for text in told if text]) == 1


def test_live_answer_says_of_each_candidate_that_it_is_finished_and_nothing_more(serve):
    llm = SteppingLLM()
    with (
        serve(llm, "paper_title") as served,
        streamed(served, hydra_edge={"candidates": 3}, n=2) as (_, lines),
    ):
        told = [next(lines)]
        for _ in range(3):
            llm.may.release()
            told.append(next(lines))
        events = [json.loads(line.removeprefix("data: ")) for line in list(lines)[:-1]]

    assert told[1:] == [": 1 of 3 candidates", ": 2 of 3 candidates", ": 3 of 3 candidates"]
    texts = {0: "", 1: ""}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert sorted(texts) == [0, 1]
    assert all(text.endswith(" to 1") for text in texts.values())


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"model": "hydra-edge/nonsense"}, 404, "unknown_task"),
        ({"temperature": 9}, 400, "invalid_value"),
    ],
)
def test_live_request_that_cannot_be_served_has_its_status(serve, more, status, code):
    with serve(EchoLLM()) as served, streamed(served, **more) as (response, lines):
        body = json.loads("".join(lines))
    assert (response.status_code, body["error"]["code"]) == (status, code)


def test_live_request_that_finds_no_llm_or_no_place_has_its_status(serve, hash_encoder):
    remote = EchoLLM()
    remote.is_remote = True
    config = Config(task="general", offline=True)
    me = Personalizer.from_records([], llm=remote, encoder=hash_encoder, config=config)
    with me, serving(me) as served, streamed(served) as (response, _):
        assert response.status_code == 403

    llm = GatedLLM()
    with (
        serve(llm, queue=0) as served,
        streamed(served) as (first, lines),
    ):
        assert first.status_code == 200
        with streamed(served) as (second, _):
            assert second.status_code == 429
        llm.gate.set()
        assert list(lines)[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (BackendError("no"), "backend", "server_error"),
        (ContextLengthError("no"), "context_length_exceeded", "invalid_request_error"),
        (ZeroDivisionError("a text of mine"), "internal", "server_error"),
    ],
)
@pytest.mark.parametrize("after", ["", "some text"])
def test_live_answer_that_fails_ends_with_the_error(serve, capfd, error, code, kind, after):
    with (
        serve(FailingLLM(error, after)) as served,
        streamed(served, hydra_edge=ONE) as (response, lines),
    ):
        *before, last = list(lines)
    told = json.loads(last.removeprefix("data: "))["error"]

    assert response.status_code == 200
    assert [content(line) for line in before] == ["", after][: 1 + bool(after)]
    assert (told["code"], told["type"]) == (code, kind)
    assert "a text of mine" not in last + capfd.readouterr().err


def test_live_answer_whose_time_is_over_ends_with_the_error(serve):
    with serve(GatedLLM(), timeout_s=2.0) as served, streamed(served) as (response, lines):
        *_, last = lines
    assert response.status_code == 200
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"


def test_live_client_that_hangs_up_while_a_remote_llm_stalls_frees_it(serve):
    def stall(handler, seen):
        stream(delta("one"))(handler, seen)
        hang_until_left(handler, seen)

    with RemoteServer() as remote:
        remote.otherwise = stall
        llm = OpenAIApi("m", base_url=remote.url, timeout_s=2 * LONG_S, retries=0)
        with serve(llm) as served:
            with streamed(served, hydra_edge=ONE) as (_, lines):
                assert [content(next(lines)) for _ in range(2)] == ["", "one"]
            assert remote.left.wait(LONG_S)
            remote.otherwise = answer(reply("two"))
            with served.client() as client:
                again = client.post(CHAT, json=chat("parsers 1", hydra_edge=ONE)).json()
        llm.close()
    assert again["choices"][0]["message"]["content"] == "two"


def test_live_server_told_twice_to_stop_waits_for_no_remote_llm(serve):
    asked = threading.Event()

    def silent(handler, seen):
        asked.set()
        hang_until_left(handler, seen)

    with RemoteServer() as remote:
        remote.otherwise = silent
        llm = OpenAIApi("m", base_url=remote.url, timeout_s=2 * LONG_S, retries=0)
        with serve(llm) as served, streamed(served, hydra_edge=ONE) as (_, lines):
            assert content(next(lines)) == ""
            assert asked.wait(LONG_S)
            served.server.stop()
            served.stop()
        llm.close()
        assert remote.left.wait(LONG_S)


def test_live_answer_whose_llm_breaks_off_says_so(serve):
    with RemoteServer() as remote:
        remote.otherwise = stream(delta("some"), delta(" text"))
        llm = OpenAIApi("m", base_url=remote.url)
        with serve(llm) as served, streamed(served, hydra_edge=ONE) as (_, lines):
            *_, last, done = lines
        llm.close()
    end = json.loads(last.removeprefix("data: "))
    assert done == "data: [DONE]"
    assert end["choices"][0]["finish_reason"] == "length"
    assert "the answer is not whole" in " ".join(end["hydra_edge"]["notes"])


def test_live_client_that_hangs_up_in_the_middle_frees_the_llm(serve):
    llm = WritingLLM("one", " two", " three")
    body = json.dumps(chat("parsers 1", stream=True, hydra_edge=ONE)).encode()
    with serve(llm) as served:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
            f"Authorization: Bearer {served.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", served.port), timeout=LONG_S) as sock:
            sock.sendall(head.encode() + body)
            llm.may.release()
            seen = b""
            while b'"one"' not in seen:
                seen += sock.recv(65536)
        assert llm.stopped.wait(LONG_S)

        llm.may.release(len(llm.pieces))
        with served.client() as client:
            again = client.post(CHAT, json=chat("parsers 1", hydra_edge=ONE)).json()
    assert again["choices"][0]["message"]["content"] == "one two three"
