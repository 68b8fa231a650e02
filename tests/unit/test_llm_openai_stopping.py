"""Answers of an API told as they arrive, and requests that are stopped or closed under way."""

import threading

import api_client
import pytest
from api_client import REPLY, SECTION, SECTIONS, SUBJECT, texts
from llm_server import (
    answer,
    completion,
    delta,
    error,
    hang,
    hang_until_left,
    one_by_one,
    sampler,
    stream,
)

from hydra_edge.errors import BackendError
from hydra_edge.llm.openai_api import OpenAIApi

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


@pytest.fixture
def patient(server):
    """Wait longer than any test: only what ends the wait early lets one pass."""
    api = OpenAIApi("m", base_url=server.url, timeout_s=120, retries=0)
    yield api
    api.close()


# ---- listening


def test_candidates_are_told_as_they_arrive(llm, server):
    server.otherwise = one_by_one
    told = []
    out = llm.complete(SUBJECT, n=5, on_candidate=told.append)
    assert sorted(texts(told)) == sorted(texts(out))
    assert len(out) == 5


def test_candidates_of_a_closed_set_are_told_as_members(llm, server):
    server.script.extend([answer(completion("Travel.")), answer(completion("tech", "a cow"))])
    told = []
    llm.complete(SECTION, n=3, choices=SECTIONS, on_candidate=told.append)
    assert sorted(texts(told)) == ["TECH", "TRAVEL"]


def test_equal_answers_are_told_as_often_as_they_count(llm, server):
    told = []
    out = llm.complete(SUBJECT, n=3, temperature=0.0, on_candidate=told.append)
    assert told == out
    assert len(out) == 3


# ---- stopping


def test_stop_said_before_asks_for_nothing(llm, server):
    assert llm.complete(SUBJECT, n=4, should_stop=lambda: True) == []
    assert llm.complete(SUBJECT, on_token=[].append, should_stop=lambda: True) == []
    assert server.seen == []


def test_stop_leaves_replies_that_do_not_come_and_keeps_the_rest(llm, server):
    def only_greedy(handler, seen):
        act = sampler if seen.body["temperature"] == 0 else hang
        act(handler, seen)

    server.otherwise = only_greedy
    told = []
    out = llm.complete(SUBJECT, n=4, should_stop=lambda: bool(told), on_candidate=told.append)
    assert texts(out) == texts(told) == ["answer 0"]
    llm.close()  # with a request left behind


def test_stop_in_a_stream_hangs_up(llm, server):
    hung_up = threading.Event()

    def endless(handler, seen):
        try:
            while True:
                stream(delta("more "))(handler, seen)
        except OSError:
            hung_up.set()

    server.otherwise = endless
    told = []
    out = llm.complete(REPLY, on_token=told.append, should_stop=lambda: len(told) >= 3)
    assert out == []
    assert hung_up.wait(30)


@pytest.mark.parametrize("n", [1, 3])
def test_stop_before_a_reply_begins_returns_at_once_and_hangs_up(patient, server, n):
    asked = threading.Event()

    def silent(handler, seen):
        asked.set()
        hang_until_left(handler, seen)

    server.otherwise = silent
    on_token = [].append if n == 1 else None
    assert patient.complete(SUBJECT, n=n, on_token=on_token, should_stop=asked.is_set) == []
    assert server.left.wait(30)


def test_stop_in_a_stream_that_stalls_returns_at_once_and_hangs_up(patient, server):
    def stall(handler, seen):
        stream(delta("A subject"))(handler, seen)
        hang_until_left(handler, seen)

    server.otherwise = stall
    told, looks = [], []

    def later():
        looks.extend(told)
        return len(looks) > 3  # well after the piece: nothing more comes to ask at

    assert patient.complete(REPLY, on_token=told.append, should_stop=later) == []
    assert told == ["A subject"]
    assert server.left.wait(30)


@pytest.mark.parametrize("n", [1, 3])
def test_wait_for_another_try_is_told_when_to_end(server, n):
    stopped = threading.Event()
    said = []

    def sleep(seconds, give_up):
        said.append(give_up())
        stopped.set()
        said.append(give_up())

    server.otherwise = answer({}, 429, Retry_After="30")
    llm = OpenAIApi("m", base_url=server.url, sleep=sleep)
    on_token = [].append if n == 1 else None
    assert llm.complete(SUBJECT, n=n, on_token=on_token, should_stop=stopped.is_set) == []
    assert said[-1] is True
    llm.close()


def test_close_ends_a_request_that_waits(patient, server):
    asked = threading.Event()

    def silent(handler, seen):
        asked.set()
        hang_until_left(handler, seen)

    server.otherwise = silent
    failed = []

    def ask():
        try:
            patient.complete(SUBJECT)
        except BackendError as err:
            failed.append(err)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert asked.wait(30)
    patient.close()
    thread.join(30)
    assert len(failed) == 1
    assert server.left.wait(30)


def test_connection_is_used_again_after_a_whole_reply(llm, server):
    ports = []

    def note(handler, seen):
        ports.append(handler.client_address[1])
        act = error(500) if len(ports) == 1 else sampler
        act(handler, seen)

    server.otherwise = note
    for _ in range(3):
        llm.complete(SUBJECT)
    assert len(ports) == 4
    assert len(set(ports)) == 1


def test_request_that_fails_for_good_lets_the_others_finish(llm, server):
    refused = threading.Event()

    def act(handler, seen):
        if seen.body["temperature"] == 0:
            assert refused.wait(30)
            sampler(handler, seen)
        else:
            error(401)(handler, seen)
            refused.set()

    server.otherwise = act
    assert texts(llm.complete(SUBJECT, n=2)) == ["answer 0"]
