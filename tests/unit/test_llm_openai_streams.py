"""An API's answer as it is written: its pieces, its end, and where it breaks off."""

import json
import threading

import api_client
import pytest
from api_client import REPLY, SUBJECT
from llm_server import (
    answer,
    completion,
    delta,
    error,
    hang_until_left,
    sampler,
    stream,
)

from hydra_edge.errors import BackendError

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


def test_stream_tells_every_piece_and_returns_their_sum(llm, server):
    told = []
    parts = [": hello\n\n", *map(delta, [" A", " sub", "ject "]), "data:\n\n"]
    parts += ["event: ping\ndata: \n\n", delta(None, "stop")]
    server.otherwise = stream(*parts, "data: [DONE]\n\n")
    out = llm.complete(REPLY, on_token=told.append)
    assert told == ["A", " sub", "ject"]
    assert [(c.text, c.finish, c.greedy) for c in out] == [("A subject", "stop", True)]


def test_stream_says_at_its_end_what_was_spent(llm, server):
    usage = {"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 2}}
    last = f"data: {json.dumps(usage)}\n\n"
    server.otherwise = stream(delta("A subject"), delta(None, "stop"), last, "data: [DONE]\n\n")
    (out,) = llm.complete(SUBJECT, on_token=[].append)
    assert (out.prompt_tokens, out.tokens) == (40, 2)
    assert server.seen[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "Unrecognized request argument supplied: stream_options"),
        answer({"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}, 422),
        error(400, code="unsupported_parameter", param="stream_options"),
    ],
)
def test_stream_of_a_server_that_cannot_say_what_was_spent_is_still_one(llm, server, refusal):
    server.script.append(refusal)
    server.otherwise = sampler
    for _ in range(2):
        (out,) = llm.complete(SUBJECT, on_token=[].append)
        assert (out.text, out.prompt_tokens) == ("answer 0", 0)
    assert ["stream_options" in seen.body for seen in server.seen] == [True, False, False]


def test_stream_pieces_put_together_are_the_answer_where_a_character_is_broken(llm, server):
    told = []
    server.otherwise = stream(*map(delta, ["a \ud83d", "\ude00 b"]), "data: [DONE]\n\n")
    (out,) = llm.complete(SUBJECT, on_token=told.append)
    assert "".join(told) == out.text == "a ?? b"


@pytest.mark.parametrize(
    ("parts", "finish"),
    [
        ([delta("some"), delta(" text")], "cut"),
        ([delta("some text"), 'data: {"choi'], "cut"),
        ([delta("some text"), 'data: {"error": {"message": "gpu"}}\n\n'], "cut"),
        ([delta("some text", "length"), "data: [DONE]\n\n"], "length"),
        ([delta("some text", "max_tokens"), "data: [DONE]\n\n"], "length"),
        ([delta("some text", "content_filter"), "data: [DONE]\n\n"], "cut"),
        ([delta("some text", "error"), "data: [DONE]\n\n"], "cut"),
        ([delta("some text"), "data: [DONE]\n\n"], "stop"),
        ([delta("some text\nand more")], "stop"),
        ([json.dumps(completion("some text"), indent=1)], "stop"),
    ],
)
def test_stream_that_breaks_off_keeps_what_came(llm, server, parts, finish):
    server.otherwise = stream(*parts)
    out = llm.complete(SUBJECT, on_token=[].append)
    assert [(c.text, c.finish) for c in out] == [("some text", finish)]


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([], "not whole JSON"),
        ([delta(" ")], "wrote nothing"),
        (["data: {"], "not whole JSON"),
        (['data: {"error": 1}\n\n'], "in place of an answer: 1"),
        (["data: [DONE]\n\n"], "wrote nothing"),
    ],
)
def test_stream_without_an_answer_is_an_error(llm, server, parts, match):
    server.otherwise = stream(*parts)
    with pytest.raises(BackendError, match=match):
        llm.complete(SUBJECT, on_token=[].append)


def test_stream_that_is_interrupted_hangs_up(llm, server):
    def stall(handler, seen):
        stream(delta("A subject"))(handler, seen)
        hang_until_left(handler, seen)

    def interrupt(_piece):
        raise KeyboardInterrupt

    server.otherwise = stall
    with pytest.raises(KeyboardInterrupt):
        llm.complete(SUBJECT, on_token=interrupt)
    assert server.left.wait(30)


def test_stream_is_told_in_the_callers_thread_and_in_order(llm, server):
    pieces = [f" {i}" for i in range(200)]
    server.otherwise = stream("data:\n\n", *map(delta, pieces), "data: [DONE]\n\n")
    told, threads = [], set()

    def listen(piece):
        told.append(piece)
        threads.add(threading.get_ident())

    llm.complete(SUBJECT, on_token=listen)
    assert "".join(told) == "".join(pieces).strip()
    assert threads == {threading.get_ident()}
