"""A hostile or broken API: the key stays, memory stays, the terminal stays, and it ends."""

from __future__ import annotations

import gzip
import logging
import traceback

import pytest
from llm_server import Server, Sleeps, answer, choice, completion, delta, flood, stream

from hydra_edge.errors import BackendAuthError, BackendError, BackendTimeoutError, HydraError
from hydra_edge.llm.http import MAX_REPLY_BYTES
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN

KEY = "sk-secret-0123456789"
PROMPT = build_prompt(BUILTIN["commit_subject"], "the text", [])


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def other():
    with Server() as running:
        yield running


@pytest.fixture
def llm(server):
    api = OpenAIApi("m", base_url=server.url, api_key=KEY, timeout_s=10, retries=1, sleep=Sleeps())
    yield api
    api.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("streaming", [False, True])
def test_redirect_takes_neither_key_nor_prompt_elsewhere(llm, server, other, status, streaming):
    server.otherwise = answer({}, status, Location=f"{other.url}/chat/completions")
    with pytest.raises(BackendError, match=f"redirects to 127.0.0.1:{other.server_port}"):
        llm.complete(PROMPT, on_token=[].append if streaming else None)
    assert other.seen == []


def test_proxy_of_the_environment_does_not_see_what_is_for_this_machine(server, other, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{other.server_port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    llm = OpenAIApi("m", base_url=server.url, api_key=KEY, timeout_s=10)
    llm.complete(PROMPT)
    llm.close()
    assert other.seen == []
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_key_sent_back_is_in_no_error_and_no_log(llm, server, status, caplog):
    caplog.set_level(logging.DEBUG)
    echo = {"message": f"bad key {KEY}", "param": KEY, "code": KEY, "type": KEY}
    server.otherwise = answer({"error": echo}, status)
    for on_token in (None, [].append):
        with pytest.raises(HydraError, match=r"127\.0\.0\.1") as caught:
            llm.complete(PROMPT, on_token=on_token)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert KEY not in shown
    assert KEY not in repr(llm) + llm.name + caplog.text


def test_answer_that_names_no_member_is_quoted_without_the_key(llm, server):
    server.otherwise = answer(completion(f"your key is {KEY}"))
    with pytest.raises(BackendError, match=r"your key is \*\*\*"):
        llm.complete(PROMPT, choices=["A", "B"])


@pytest.mark.parametrize("key", ["sk-1\r\nX-Evil: 1", "sk 1", "sk-ключ", "sk-\x00"])
def test_key_that_would_break_a_header_is_refused_unseen(key):
    with pytest.raises(BackendAuthError, match="characters no key has") as caught:
        OpenAIApi("m", base_url="http://127.0.0.1:9/v1", api_key=key)
    assert key not in str(caught.value)


def test_password_in_the_address_is_refused_unseen():
    with pytest.raises(HydraError, match="carries a user name or password") as caught:
        OpenAIApi("m", base_url="http://me:hunter2@127.0.0.1:9/v1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_endless_reply_is_cut_short(llm, server, streaming):
    server.otherwise = flood
    with pytest.raises(BackendError, match=r"sent too much|without line breaks"):
        llm.complete(PROMPT, on_token=[].append if streaming else None)


def test_endless_stream_of_events_is_cut_short_and_its_text_kept(llm, server):
    def endless(handler, seen):
        stream(delta("an answer "))(handler, seen)
        while True:
            handler.wfile.write(b": nothing\n\n" * 4096)

    server.otherwise = endless
    (out,) = llm.complete(PROMPT, on_token=[].append)
    assert (out.text, out.finish) == ("an answer", "cut")


def test_endless_error_body_is_cut_short(llm, server):
    def act(handler, seen):
        handler.send_response(400)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    server.otherwise = act
    with pytest.raises(BackendError, match="got 400"):
        llm.complete(PROMPT)


def test_reply_that_drips_for_ever_ends(server):
    def drip(handler, seen):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.stopping.wait(0.01):
            handler.wfile.write(b" ")

    server.otherwise = drip
    llm = OpenAIApi("m", base_url=server.url, timeout_s=0.2, sleep=Sleeps())
    with pytest.raises(BackendTimeoutError, match="for one reply"):
        llm.complete(PROMPT)
    llm.close()
    assert len(server.seen) == 1


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 OK\r\nX-Drip: ", b""])
def test_headers_that_drip_for_ever_end(server, beginning, streaming):
    def drip(handler, seen):
        handler.wfile.write(beginning or b"HTTP/1.1 20")
        for _ in range(1000):  # without an end of ours the client would wait for this one
            if handler.server.stopping.wait(0.01):
                return
            handler.wfile.write(b"0")
        handler.wfile.write(b"\r\nContent-Length: 2\r\n\r\n{}")

    server.otherwise = drip
    llm = OpenAIApi("m", base_url=server.url, timeout_s=0.2, retries=1, sleep=Sleeps())
    with pytest.raises(BackendTimeoutError, match=r"did not answer: waited 0\.2 s"):
        llm.complete(PROMPT, on_token=[].append if streaming else None)
    llm.close()
    assert len(server.seen) == 2


def test_compressed_bomb_is_not_unpacked(llm, server):
    assert MAX_REPLY_BYTES < 1 << 24
    bomb = gzip.compress(b'{"choices": [], "x": "' + b" " * (1 << 24) + b'"}')
    server.otherwise = answer(bomb, Content_Encoding="gzip")
    with pytest.raises(BackendError, match="not whole JSON"):
        llm.complete(PROMPT)
    assert server.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "body",
    [b'{"choices": ' + b"[" * 200_000, b'{"choices": ' + b"9" * 10_000 + b"}", b"\xff\xfe\x00"],
)
def test_json_made_to_hurt_is_an_error(llm, server, body):
    server.otherwise = answer(body)
    with pytest.raises(BackendError, match="not whole JSON"):
        llm.complete(PROMPT)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("odd", [[], {}, [[{}]], {"a": []}, 4.5, None])
def test_error_body_of_odd_types_is_an_error_that_tells_the_rest(llm, server, odd, streaming):
    said = {"message": "no such thing", "code": odd, "type": odd, "param": odd, "detail": odd}
    server.otherwise = answer({"error": said}, 400)
    with pytest.raises(BackendError, match=r"got 400 \(no such thing\)"):
        llm.complete(PROMPT, on_token=[].append if streaming else None)


def test_escape_sequences_do_not_reach_the_terminal_through_errors(llm, server):
    server.otherwise = answer({"error": {"message": "\x1b[2Jgone\r\nfake: line\u202e"}}, 400)
    with pytest.raises(BackendError, match="gone") as caught:
        llm.complete(PROMPT)
    assert all(c.isprintable() for c in str(caught.value))


def test_lone_surrogates_of_an_answer_can_be_stored(llm, server):
    server.otherwise = answer({"choices": [choice("a\ud800b")]})
    (out,) = llm.complete(PROMPT)
    assert out.text.encode("utf-8") == b"a?b"


def test_more_answers_than_asked_for_are_not_taken(llm, server):
    server.otherwise = answer(completion(*["x"] * 500))
    assert len(llm.complete(PROMPT, n=3)) == 3
