"""What the API backend sends, and how many answers it gets for it, closed sets included."""

import api_client
import pytest
from api_client import KEY, SECTION, SECTIONS, SUBJECT, texts
from llm_server import answer, choice, completion, cut, error, one_by_one, sampler

from hydra_edge.errors import BackendError
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


# ---- what is sent


def test_render_is_the_first_request_byte_for_byte(llm, server):
    llm.complete(SUBJECT, n=3, max_tokens=24, seed=0)
    first = next(seen for seen in server.seen if seen.body["temperature"] == 0)
    assert first.raw.decode() == llm.render(SUBJECT)
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.body["messages"] == SUBJECT.messages()
    assert "stop" not in first.body


def test_render_of_a_stream_is_what_is_streamed(llm, server):
    llm.complete(SUBJECT, max_tokens=9, seed=4, on_token=[].append)
    assert server.seen[0].raw.decode() == llm.render(SUBJECT, max_tokens=9, seed=4, stream=True)


def test_without_a_key_no_authorization_is_sent(server):
    llm = OpenAIApi("m", base_url=server.url + "/", timeout_s=5)
    llm.complete(SUBJECT)
    llm.close()
    assert "authorization" not in server.seen[0].headers
    assert server.seen[0].path == "/v1/chat/completions"


def test_lone_surrogates_in_a_query_are_sent_as_question_marks(llm, server):
    llm.complete(build_prompt(BUILTIN["commit_subject"], "a\ud800b", []))
    assert "a?b" in server.seen[0].body["messages"][1]["content"]


@pytest.mark.parametrize(
    ("url", "name", "remote"),
    [
        ("http://127.0.0.1:9/v1", "openai:m@127.0.0.1:9", False),
        ("http://[::1]:9/v1", "openai:m@[::1]:9", False),
        ("https://api.example/v1", "openai:m@api.example", True),
    ],
)
def test_name_and_side_follow_the_address(url, name, remote):
    llm = OpenAIApi("m", base_url=url)
    assert (llm.name, llm.is_remote) == (name, remote)
    llm.close()
    llm.close()


# ---- candidates


def test_server_that_serves_n_is_asked_twice(llm, server):
    server.otherwise = sampler
    out = llm.complete(SUBJECT, n=5, seed=10)
    assert texts(out) == ["answer 0", "answer 11", "answer 12", "answer 13", "answer 14"]
    assert [c.greedy for c in out] == [True] + [False] * 4
    assert sorted(seen.body.get("n", 1) for seen in server.seen) == [1, 4]
    assert [c.tokens for c in out] == [3] * 5


def test_requests_are_counted_with_those_sent_again(llm, server):
    server.script += [error(503), answer(completion("an answer"))]
    llm.complete(SUBJECT)
    assert llm.requests == len(server.seen) == 2


def test_server_that_ignores_n_is_asked_for_the_rest_once_and_then_singly(llm, server):
    server.otherwise = one_by_one
    out = llm.complete(SUBJECT, n=5, seed=10)
    assert sorted(texts(out)) == [f"answer {i}" for i in (0, 11, 12, 13, 14)]
    assert len(server.seen) == 5
    server.seen.clear()
    assert sorted(texts(llm.complete(SUBJECT, n=3, seed=0))) == ["answer 0", "answer 1", "answer 2"]
    assert all("n" not in seen.body for seen in server.seen)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("status", [400, 422, 500])
def test_server_that_rejects_n_is_asked_singly(llm, server, sleeps, status, n):
    def picky(handler, seen):
        act = error(status, "Only one choice is allowed") if "n" in seen.body else sampler
        act(handler, seen)

    server.otherwise = picky
    assert len(llm.complete(SUBJECT, n=n)) == n
    assert len(server.seen) <= n + 2
    server.seen.clear()
    assert len(llm.complete(SUBJECT, n=n)) == n
    assert all("n" not in seen.body for seen in server.seen)
    assert sleeps.waited == []


@pytest.mark.parametrize("failure", [error(502), cut(b'{"choi')])
def test_server_that_fails_once_at_several_answers_is_asked_for_several_again(
    llm, server, sleeps, failure
):
    def failing(handler, seen):
        once = "n" in seen.body and not failed
        failed.extend([True] * once)
        (failure if once else sampler)(handler, seen)

    failed = []
    server.otherwise = failing
    out = llm.complete(SUBJECT, n=8, seed=0)
    assert texts(out) == [f"answer {i}" for i in range(8)]
    assert sorted(seen.body.get("n", 1) for seen in server.seen) == [1, 1, 6, 7]
    assert sleeps.waited == []
    server.seen.clear()
    llm.complete(SUBJECT, n=8)
    assert sorted(seen.body.get("n", 1) for seen in server.seen) == [1, 7]


def test_server_that_fails_at_all_but_one_answer_is_not_asked_for_every_other(llm, server):
    def failing(handler, seen):
        act = sampler if seen.body["temperature"] == 0 else error(503)
        act(handler, seen)

    server.otherwise = failing
    assert texts(llm.complete(SUBJECT, n=8)) == ["answer 0"]
    assert len(server.seen) == 6
    server.otherwise = sampler
    server.seen.clear()
    assert len(llm.complete(SUBJECT, n=8)) == 8
    assert len(server.seen) == 2


def test_answers_that_did_not_arrive_are_left_out(llm, server):
    server.otherwise = one_by_one
    llm.complete(SUBJECT, n=3)  # learns that n is ignored
    server.script.extend([cut(b'{"choi'), answer(b"<html>"), answer(completion(None))])
    out = llm.complete(SUBJECT, n=6)
    assert len(out) == 3


def test_greedy_that_failed_leaves_the_sampled(llm, server):
    def no_greedy(handler, seen):
        act = answer(b"{") if seen.body["temperature"] == 0 else sampler
        act(handler, seen)

    server.otherwise = no_greedy
    out = llm.complete(SUBJECT, n=4, seed=0)
    assert texts(out) == ["answer 1", "answer 2", "answer 3"]
    assert not any(c.greedy for c in out)


def test_temperature_zero_is_one_request_and_n_equal_answers(llm, server):
    out = llm.complete(SUBJECT, n=3, temperature=0.0)
    assert texts(out) == ["an answer"] * 3
    assert all(c.greedy for c in out)
    assert len(server.seen) == 1


def test_answers_end_at_the_stop_string_even_if_the_server_does_not(llm, server):
    server.otherwise = answer({"choices": [choice("\n one \ntwo", "length")]})
    assert [(c.text, c.finish) for c in llm.complete(SUBJECT)] == [("one", "stop")]


# ---- closed sets


def test_choices_map_free_answers_to_members_and_drop_the_rest(llm, server):
    def act(handler, seen):
        greedy = seen.body["temperature"] == 0
        told = ["politics."] if greedy else ["It is Travel", "who knows", "SPORTS or TECH"]
        answer(completion(*told))(handler, seen)

    server.otherwise = act
    out = llm.complete(SECTION, n=4, choices=SECTIONS)
    assert [(c.text, c.greedy) for c in out] == [("POLITICS", True), ("TRAVEL", False)]


def test_choices_of_which_none_was_named_quote_the_answer(llm, server):
    server.otherwise = answer(completion("I would rather not. " * 9))
    with pytest.raises(BackendError, match=r"none of the 29 allowed answers: got 'I would rather"):
        llm.complete(SECTION, choices=SECTIONS)


def test_choices_with_a_listener_tell_the_member(llm, server):
    told = []
    server.otherwise = answer(completion("travel"))
    llm.complete(SECTION, choices=SECTIONS, on_token=told.append)
    assert told == ["TRAVEL"]
