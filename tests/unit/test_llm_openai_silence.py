"""Replies of an API without text: whose doing it was, and thoughts that our own stop ended."""

import json

import api_client
import pytest
from api_client import REPLY, SUBJECT, texts
from llm_server import answer, choice, completion, delta, error, event, stream

from hydra_edge.errors import BackendError
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm
TAG = build_prompt(BUILTIN["movie_tag"], "A film", [])  # which a stop is sent for


# ---- whose doing it was


NO = "I'm sorry, I can't help with that."
CALL = [{"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "finish", "match"),
    [
        ({"refusal": NO}, "stop", rf'refused to answer: got "{NO}".*Rephrase the query'),
        ({"refusal": NO}, "content_filter", "refused to answer"),
        ({}, "content_filter", "a filter of its host: got finish_reason 'content_filter'"),
        ({"content": ""}, "content_filter: PROHIBITED_CONTENT", "'content_filter: PROHIBITED"),
        ({"tool_calls": CALL}, "tool_calls", "called a tool.*another model"),
        ({"tool_calls": CALL, "reasoning_content": "Hm"}, "tool_calls", "called a tool"),
        ({"function_call": {"name": "search"}}, "stop", "called a tool"),
        ({"refusal": None, "tool_calls": []}, "stop", "wrote nothing: got 1 empty replies"),
        ({"refusal": 3, "tool_calls": None}, ["stop"], "wrote nothing: got 1 empty replies"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_reply_without_text_is_told_as_what_it_is(llm, server, message, finish, match, streaming):
    where = "delta" if streaming else "message"
    said = {"choices": [{where: message, "finish_reason": finish}]}
    server.otherwise = event(said) if streaming else answer(said)
    with pytest.raises(BackendError, match=match):
        llm.complete(SUBJECT, on_token=[].append if streaming else None)


def test_refusal_is_put_together_from_its_pieces_and_cut(llm, server):
    pieces = [{"choices": [{"delta": {"refusal": word}}]} for word in ("I ", "will ", "not" * 999)]
    server.otherwise = stream(*(f"data: {json.dumps(piece)}\n\n" for piece in pieces))
    with pytest.raises(BackendError, match="got 'I will notnot") as caught:
        llm.complete(SUBJECT, on_token=[].append)
    assert len(str(caught.value)) < 400


def test_one_answer_with_text_is_enough_beside_refusals(llm, server):
    def act(handler, seen):
        greedy = seen.body["temperature"] == 0
        refused = {"message": {"refusal": NO}, "finish_reason": "stop"}
        answer({"choices": [refused] if greedy else [choice("A subject"), refused]})(handler, seen)

    server.otherwise = act
    assert texts(llm.complete(SUBJECT, n=3)) == ["A subject"]


@pytest.mark.parametrize("reason", ["content_filter", "content_filter: SAFETY"])
def test_answer_that_a_filter_broke_off_is_not_called_whole(llm, server, reason):
    server.otherwise = answer({"choices": [choice("Dear Ann, the", reason)]})
    assert [c.finish for c in llm.complete(SUBJECT)] == ["cut"]


# ---- thoughts


def ends_at_stop(*texts, tokens=5):
    """Answer with these, up to a stop string that was sent, wherever it comes."""

    def act(handler, seen):
        said = [texts[i % len(texts)] for i in range(seen.body.get("n", 1))]
        for stop in seen.body.get("stop", []):
            said = [text.partition(stop)[0] for text in said]
        if seen.body.get("stream"):
            stream(*map(delta, said[0]), delta(None, "stop"), "data: [DONE]\n\n")(handler, seen)
            return
        usage = {"prompt_tokens": 10, "completion_tokens": tokens * len(said)}
        answer(completion(*said) | {"usage": usage})(handler, seen)

    return act


@pytest.mark.parametrize("streaming", [False, True])
def test_thought_that_our_stop_ended_is_asked_for_again_without(llm, server, streaming):
    server.otherwise = ends_at_stop("<think>\nLet me think.\n</think>\n\nMy title\nAnother")
    told = []
    for _ in range(2):
        (out,) = llm.complete(TAG, on_token=told.append if streaming else None)
        assert out.text == "My title"
    assert ["stop" in seen.body for seen in server.seen] == [True, False, False]
    assert "".join(told) == ("My title" * 2 if streaming else "")
    sent = server.seen[-1].raw.decode()
    assert sent == llm.render(TAG, max_tokens=48, stream=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_stop_right_behind_a_thought_is_no_answer_either(llm, server, streaming):
    server.otherwise = ends_at_stop("<think>Hm.</think>\nMy title")
    (out,) = llm.complete(TAG, on_token=[].append if streaming else None)
    assert out.text == "My title"
    assert ["stop" in seen.body for seen in server.seen] == [True, False]


def test_thought_of_a_request_made_in_vain_is_paid_for_all_the_same(llm, server):
    server.otherwise = ends_at_stop("<think>\nHm.\n</think>\n\nMy title")
    (out,) = llm.complete(TAG)
    assert (out.prompt_tokens, out.tokens) == (20, 10)


def test_answers_beside_a_thought_that_our_stop_ended_are_kept(llm, server):
    server.otherwise = ends_at_stop("My title", "<think>\nHm.\n</think>\n\nAnother")
    assert texts(llm.complete(TAG, n=3)) == ["My title", "My title"]
    assert len(server.seen) == 2
    assert texts(llm.complete(TAG, n=3)) == ["My title", "My title", "Another"]


@pytest.mark.parametrize("streaming", [False, True])
def test_thought_apart_that_our_stop_ended_is_asked_for_again_without(llm, server, streaming):
    where = "delta" if streaming else "message"

    def act(handler, seen):
        cut = {"content": None, "reasoning_content": "Let me"}
        message = cut if "stop" in seen.body else {"content": "My title"}
        said = {"choices": [{where: message, "finish_reason": "stop"}]}
        (event(said) if streaming else answer(said))(handler, seen)

    server.otherwise = act
    out = llm.complete(TAG, on_token=[].append if streaming else None)
    assert texts(out) == ["My title"]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("finish", "requests", "match"),
    [
        ("length", 1, r"reasoning_effort none.*leave room for both: --max-tokens"),
        ("stop", 2, r"reasoning_effort none.*more room would not help"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_thoughts_only_says_whether_more_room_would_help(
    llm, server, finish, requests, match, streaming
):
    whole = answer({"choices": [choice("<think>Hm", finish)]})
    server.otherwise = stream(delta("<think>Hm", finish)) if streaming else whole
    with pytest.raises(BackendError, match=match):
        llm.complete(TAG, on_token=[].append if streaming else None)
    assert len(server.seen) == requests


def test_stop_that_is_not_sent_is_not_blamed(server):
    def act(handler, seen):
        no_stop = error(400, "Unsupported parameter: 'stop'", code="unsupported_parameter")
        (no_stop if "stop" in seen.body else answer(completion("<think>Hm")))(handler, seen)

    server.otherwise = act
    llm = OpenAIApi("m", base_url=server.url)
    with pytest.raises(BackendError, match="thinks aloud"):
        llm.complete(TAG)
    assert len(server.seen) == 2
    llm.close()


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("She wants a day.\nLet me say so.\n</think>\n\nHi Ann,\nyes.", "Hi Ann,\nyes."),
        ("Hm</think>\n\nHi", "Hi"),
        ("<think>Hm</think>Hi", "Hi"),
        ("Hi, end it by </think> as R1 does.", "Hi, end it by </think> as R1 does."),
        ("Hi, write <think>\n</think>\nfirst", "Hi, write <think>\n</think>\nfirst"),
    ],
)
def test_thought_that_begins_in_the_prompt_is_no_part_of_a_whole_answer(llm, server, said, text):
    server.otherwise = answer(completion(said))
    assert texts(llm.complete(REPLY)) == [text]


def test_thought_that_begins_in_the_prompt_and_is_all_there_is_is_no_answer(llm, server):
    server.otherwise = answer({"choices": [choice("Let me think.\n</think>", "length")]})
    with pytest.raises(BackendError, match="thinks aloud"):
        llm.complete(REPLY)
