"""An API that fails or refuses: what is tried again, and which error is raised."""

import re

import api_client
import pytest
from api_client import SUBJECT, texts
from llm_server import answer, error, event, hang, hang_up, one_by_one, reported

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    ContextLengthError,
    UnknownModelError,
)
from hydra_edge.llm.openai_api import OpenAIApi

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


# ---- errors in place of answers


@pytest.mark.parametrize(
    ("streaming", "form"), [(False, answer), (True, answer), (True, event)],
)  # fmt: skip
def test_rate_limit_reported_with_status_200_is_retried_as_one(
    llm, server, sleeps, streaming, form
):
    server.script.extend([form(reported(code=429, message="slow down"))] * 2)
    out = llm.complete(SUBJECT, on_token=[].append if streaming else None)
    assert texts(out) == ["an answer"]
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(sleeps.waited))
    assert len(sleeps.waited) == 2

    server.seen.clear()
    server.otherwise = form(reported(code="429", message="slow down"))
    with pytest.raises(BackendRateLimitError, match=r"got 429 4 times \(slow down\)"):
        llm.complete(SUBJECT, on_token=[].append if streaming else None)
    assert len(server.seen) == 4


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("said", "kind", "match"),
    [
        (reported(message="the gpu is gone"), BackendError, "answer: the gpu is gone"),
        (reported(code=401, message="who?"), BackendAuthError, r"got 401 \(who\?\)"),
        (reported(code=400, message="maximum context length"), ContextLengthError, "not fit"),
        ({"error": "words"}, BackendError, "answer: words"),
    ],
)
def test_error_with_status_200_says_why(llm, server, said, kind, match, streaming):
    server.otherwise = answer(said)
    with pytest.raises(kind, match=match):
        llm.complete(SUBJECT, on_token=[].append if streaming else None)
    assert sum(seen.method == "POST" for seen in server.seen) == 1


# ---- patience


@pytest.mark.parametrize("failure", [error(500), error(503), error(429), hang_up])
def test_passing_failure_is_retried_with_growing_waits(llm, server, sleeps, failure):
    server.script.extend([failure] * 3)
    assert texts(llm.complete(SUBJECT)) == ["an answer"]
    assert len(server.seen) == 4
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(sleeps.waited))


def test_retry_after_is_honoured(llm, server, sleeps):
    server.script.append(answer({}, 429, Retry_After="7"))
    llm.complete(SUBJECT)
    assert sleeps.waited == [7.0]


@pytest.mark.parametrize(
    ("failure", "match"),
    [
        (answer({}, 429, Retry_After="3600"), r"got 429 1 time .*Try again in 3,600 s"),
        (answer({}, 503, Retry_After="3600"), r"got 503 1 time .*Try again in 3,600 s"),
        (error(429, "no money", code="insufficient_quota"), r"used up: got 429 1 time \(no money"),
    ],
)
@pytest.mark.parametrize("n", [1, 8])
def test_failure_for_longer_than_anybody_waits_is_reported_at_once(
    llm, server, sleeps, failure, match, n
):
    server.otherwise = failure
    with pytest.raises(BackendError, match=match) as caught:
        llm.complete(SUBJECT, n=n)
    assert sleeps.waited == []
    assert len(server.seen) <= 2  # the greedy one, and the others together
    if isinstance(caught.value, BackendRateLimitError) and "3,600" in str(caught.value):
        assert caught.value.retry_after == 3600.0


@pytest.mark.parametrize(
    ("failure", "kind", "match"),
    [
        (error(429), BackendRateLimitError, "got 429 4 times"),
        (error(500), BackendError, "got 500 4 times"),
        (hang_up, BackendError, "cannot be reached"),
    ],
)
def test_failure_that_stays_is_reported_after_the_last_retry(llm, server, failure, kind, match):
    server.otherwise = failure
    with pytest.raises(kind, match=match):
        llm.complete(SUBJECT)
    assert len(server.seen) == 4


@pytest.mark.parametrize("n", [1, 4])
def test_server_that_says_nothing_times_out(server, sleeps, n):
    server.otherwise = hang
    llm = OpenAIApi("m", base_url=server.url, timeout_s=0.1, retries=1, sleep=sleeps)
    with pytest.raises(BackendTimeoutError, match=r"waited 0\.1 s.*config set timeout_s"):
        llm.complete(SUBJECT, n=n)
    llm.close()


def test_server_that_is_not_there_is_named(server, sleeps):
    url = server.url
    server.server_close()
    llm = OpenAIApi("m", base_url=url, retries=1, sleep=sleeps)
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:\d+ cannot be reached"):
        llm.complete(SUBJECT)
    llm.close()
    assert len(sleeps.waited) == 1


# ---- refusals


@pytest.mark.parametrize(
    ("failure", "kind", "match"),
    [
        (error(401), BackendAuthError, "hydra-edge keys set"),
        (error(403), BackendAuthError, "got 403"),
        (error(400, "bad"), BackendError, r"got 400 \(bad\)"),
        (error(418), BackendError, "got 418"),
        (error(400, "x", code="context_length_exceeded"), ContextLengthError, "does not fit"),
        (error(400, "x", type="exceed_context_size_error", code=400), ContextLengthError, "fit"),
        (error(400, "the maximum context length is 9", code=400), ContextLengthError, "is 9"),
        (error(500, "x", code="context_length_exceeded"), ContextLengthError, "does not fit"),
        (error(400, "prompt is too long: 9 tokens > 8 maximum"), ContextLengthError, "9 tokens"),
        (error(400, "Trying to keep the first 9 tokens when"), ContextLengthError, "first 9"),
        (error(400, "The number of tokens to keep from the"), ContextLengthError, "number of"),
        (error(413), ContextLengthError, "Shorten the query"),
        (error(404, "x", code="model_not_found"), UnknownModelError, "no model 'm'"),
        (answer(b"plain", 400), BackendError, "got 400"),
        (answer([1], 400), BackendError, "got 400"),
        (answer({"error": "words"}, 400), BackendError, "words"),
        (answer({"detail": "fast"}, 422), BackendError, "fast"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_refusal_is_a_typed_error_at_once(llm, server, sleeps, failure, kind, match, streaming):
    server.otherwise = failure
    with pytest.raises(kind, match=match):
        llm.complete(SUBJECT, on_token=[].append if streaming else None)
    assert sleeps.waited == []
    assert sum(seen.method == "POST" for seen in server.seen) == 1


def test_unknown_model_lists_those_the_server_has(llm, server):
    def act(handler, seen):
        listed = answer({"data": [{"id": "small"}, {"id": "large"}, 3]})
        (listed if seen.method == "GET" else error(404))(handler, seen)

    server.otherwise = act
    with pytest.raises(UnknownModelError, match="Its models: small, large"):
        llm.complete(SUBJECT)


def test_refused_key_stops_a_pool_early(llm, server):
    server.otherwise = one_by_one
    llm.complete(SUBJECT, n=3)
    server.seen.clear()
    server.otherwise = error(401)
    with pytest.raises(BackendAuthError, match="refused the key"):
        llm.complete(SUBJECT, n=40)
    assert len(server.seen) <= 4


# ---- too few answers


def several_refused(status: int):
    """Refuse to give several answers at once."""

    def act(handler, seen):
        refused = error(status, "not so many")
        (refused if seen.body.get("n", 1) > 1 else one_by_one)(handler, seen)

    return act


@pytest.mark.parametrize(
    ("acts", "came", "why"),
    [
        (several_refused(429), 1, r"too often: got 429 4 times \(not so many\)"),
        (several_refused(500), 5, None),  # made up for, one by one
        (one_by_one, 5, None),
    ],
)
def test_what_kept_answers_from_coming_is_told(llm, server, acts, came, why):
    server.otherwise = acts
    told = []
    assert len(llm.complete(SUBJECT, n=5, on_short=told.append)) == came
    assert len(told) == (why is not None)
    assert all(re.search(why, str(error)) for error in told)


def test_what_is_missing_because_it_was_told_to_stop_is_no_error(llm, server):
    server.otherwise = several_refused(429)
    heard, told = [], []
    llm.complete(
        SUBJECT, n=5, on_candidate=heard.append, on_short=told.append,
        should_stop=lambda: bool(heard),
    )  # fmt: skip
    assert len(heard) == 1
    assert told == []
