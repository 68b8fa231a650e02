"""A hostile or broken API: the key stays, memory stays, the terminal stays, and it ends."""

from __future__ import annotations

import gzip
import logging
import traceback

import pytest
from llm_server import Server, Sleeps, answer, choice, completion, delta, flood, stream

from hydra_edge.answering import Pieces
from hydra_edge.candidates import Callbacks, Draw, complete_within_context
from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    HydraError,
)
from hydra_edge.llm.http import MAX_REPLY_BYTES
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record

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


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("target", [f"http://{KEY}\u009b2J\u2100x/", "http://["])
def test_redirect_to_no_address_is_an_error_without_the_key(llm, server, target, streaming, capfd):
    server.otherwise = answer({}, 302, Location=target.encode().decode("latin-1"))
    with pytest.raises(BackendError, match="redirects to another address, which") as caught:
        llm.complete(
            PROMPT, n=1 if streaming else 3, on_token=[].append if streaming else None
        )  # fmt: skip
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("streaming", [False, True])
def test_retry_after_a_date_beyond_all_calendars_is_tried_again(llm, server, streaming, capfd):
    asked = {"Retry-After": "Mon, 99999999999 Jan 2020 00:00:00 GMT"}
    server.otherwise = answer({}, 429, **asked)
    with pytest.raises(BackendRateLimitError, match="got 429 2 times"):
        llm.complete(PROMPT, on_token=[].append if streaming else None)
    assert capfd.readouterr() == ("", "")


def test_fault_at_a_reply_is_told_by_its_type_and_without_the_key(llm, monkeypatch, capfd):
    def fault(*args, **kwargs):
        raise ArithmeticError(f"{KEY}\u009b2J")

    monkeypatch.setattr("hydra_edge.llm.openai_api.read_reply", fault)
    with pytest.raises(BackendError, match="could not be read: got ArithmeticError;") as caught:
        llm.complete(PROMPT, n=3)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert capfd.readouterr() == ("", "")


def test_cookies_are_not_kept(llm, server):
    server.otherwise = answer(completion("an answer"), Set_Cookie="track=me; Path=/")
    for on_token in (None, None, [].append):
        llm.complete(PROMPT, on_token=on_token)
    assert len(server.seen) == 3
    assert not [seen for seen in server.seen if "cookie" in seen.headers]


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


@pytest.mark.parametrize("streaming", [False, True])
def test_answer_far_beyond_max_tokens_is_cut_off(llm, server, streaming):
    told = []
    text = "word " * 10_000
    server.otherwise = stream(delta(text), delta(text), "data: [DONE]\n\n") if streaming else (
        answer(completion(text))
    )  # fmt: skip
    (out,) = llm.complete(PROMPT, max_tokens=10, on_token=told.append if streaming else None)
    assert (out.text, out.finish) == (text[:640].strip(), "length")
    assert "".join(told) == (out.text if streaming else "")


@pytest.mark.timeout(60)  # read anew for each line it would take minutes
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["indented as ours", "of a layout of its own"])
def test_answer_of_half_a_million_lines_is_read_in_one_pass(llm, server, streaming, own):
    parts = ["x\n  y", *["\n  y" * 50_000] * 10, "\ny" if own else ""]
    server.otherwise = (
        stream(*map(delta, parts)) if streaming else answer(completion("".join(parts)))
    )
    told = []
    shown = Record("a mail", "Hello,\nI agree", task="email_reply", id="r")
    prompt = build_prompt(BUILTIN["email_reply"], "the text", [shown])
    pieces = Pieces(told.append)
    _, (out,) = complete_within_context(
        llm, prompt, Draw(1, 0.0, 1 << 16),
        Callbacks(on_token=pieces if streaming else None),
    )  # fmt: skip
    text = "".join(parts)
    assert out.text == (text if own else text.replace("\n  ", "\n"))
    if streaming:
        pieces.finish(out.text)
        assert "".join(told) == out.text


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
