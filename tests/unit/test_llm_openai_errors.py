"""An API that fails or refuses: what is tried again, and which error is raised."""

import json
import re

import api_client
import pytest
from api_client import SUBJECT, texts
from llm_server import answer, completion, error, event, hang, hang_up, one_by_one, reported

from hydra_edge.candidates import Draw, complete_within_context
from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    ContextLengthError,
    UnknownModelError,
)
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record

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


# ---- prompts that do not fit


RAW = {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": 400}}
TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096."


@pytest.mark.parametrize(
    "failure",
    [
        answer({"message": "The input (9 tokens) is longer than the model's context length"}, 400),
        answer({"message": "Input length (9 tokens) exceeds the maximum allowed length (8)"}, 400),
        answer({"message": "The decoder prompt is longer than the maximum model length of 8"}, 400),
        answer({"error": TGI, "error_type": "validation"}, 422),
        error(422, TGI, http_status_code=422),
        error(422, "Input validation error: `inputs` must have less than 4096 tokens."),
        answer([{"error": {"message": "The input token count (9) exceeds the maximum number of "
                           "tokens allowed (8).", "code": 400}}], 400),
        answer({"error": "This model's maximum prompt length is 8 but the request has 9"}, 400),
        error(400, "Invalid request: Your request exceeded model token limit: 8192"),
        error(400, "<400> InternalError.Algo: Range of input length should be [1, 30720]"),
        answer({"message": "Input is too long for requested model."}, 400),
        answer({"message": "too many tokens: total number of tokens in this prompt cannot exceed "
                "8 - received 9."}, 400),
        error(400, "the input length exceeds the context length"),
        error(400, "Your input exceeds the context window of this model."),
        error(400, "Provider returned error", metadata={"raw": json.dumps(RAW)}),
        error(400, "Provider returned error", metadata={"raw": "prompt is too long"}),
    ],
)  # fmt: skip
def test_prompt_that_does_not_fit_is_asked_with_fewer_records(llm, server, failure):
    records = [Record(f"text {i}", f"Subject {i}", id=str(i)) for i in range(3)]
    prompt = build_prompt(BUILTIN["commit_subject"], "the text", records)

    def act(handler, seen):
        fits = "text 1" not in seen.raw.decode()
        (answer(completion("fine")) if fits else failure)(handler, seen)

    server.otherwise = act
    asked, answers = complete_within_context(llm, prompt, Draw(1, 0.8, 24))
    assert (asked.record_ids, texts(answers)) == (("0",), ["fine"])
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    "failure",
    [
        error(400, "max_tokens is too large: 9. This model supports at most 8 completion tokens"),
        answer({"error": "Input validation error: `max_new_tokens` must be <= 192"}, 422),
        error(429, "Too many tokens: your input is too long for this minute"),
    ],
)
def test_what_shorter_prompts_would_not_help_is_not_taken_for_their_length(llm, server, failure):
    server.otherwise = failure
    with pytest.raises(BackendError) as caught:
        llm.complete(SUBJECT)
    assert not isinstance(caught.value, ContextLengthError)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (json.dumps({"error": {"message": "at most 1 image"}}), r"got 400 \(at most 1 image\)"),
        ("upstream is down", r"got 400 \(Provider returned error: upstream is down\)"),
        ('{"error": "bro', r'got 400 \(Provider returned error: {"error": "bro\)'),
        (None, r"got 400 \(Provider returned error\)"),
    ],
)
def test_error_that_wraps_another_says_what_that_says(llm, server, raw, match):
    server.otherwise = error(400, "Provider returned error", code=400, metadata={"raw": raw})
    with pytest.raises(BackendError, match=match):
        llm.complete(SUBJECT)


def test_status_of_a_wrapped_error_is_the_outer_one(llm, server, sleeps):
    raw = json.dumps({"error": {"message": "slow down", "code": "busy"}})
    server.script.append(answer(reported(code=429, message="no", metadata={"raw": raw})))
    assert texts(llm.complete(SUBJECT)) == ["an answer"]
    assert len(sleeps.waited) == 1


def test_bodies_within_bodies_are_not_opened_for_ever(llm, server):
    said = "at the bottom"
    for _ in range(50):
        said = json.dumps({"error": {"message": said}}) if len(said) < 20_000 else said
    server.otherwise = answer(said.encode(), 400)
    with pytest.raises(BackendError, match="got 400"):
        llm.complete(SUBJECT)


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
