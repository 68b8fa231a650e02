"""The API backend against a server that behaves as it is told."""

import json
import threading

import pytest
from llm_server import (
    Server,
    Sleeps,
    answer,
    choice,
    completion,
    cut,
    delta,
    error,
    hang,
    hang_until_left,
    hang_up,
    one_by_one,
    sampler,
    stream,
)

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

KEY = "sk-secret-0123456789"
SUBJECT = build_prompt(
    BUILTIN["commit_subject"], "the text", [Record("an earlier text", "An earlier subject")]
)
SECTION = build_prompt(BUILTIN["news_category"], "the text", [])
SECTIONS = BUILTIN["news_category"].labels


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def sleeps():
    return Sleeps()


@pytest.fixture
def llm(server, sleeps):
    api = OpenAIApi("m", base_url=server.url, api_key=KEY, timeout_s=5, sleep=sleeps)
    yield api
    api.close()


@pytest.fixture
def patient(server):
    """Wait longer than any test: only what ends the wait early lets one pass."""
    api = OpenAIApi("m", base_url=server.url, timeout_s=120, retries=0)
    yield api
    api.close()


def texts(completions):
    return [c.text for c in completions]


# ---- what is sent


def test_render_is_the_first_request_byte_for_byte(llm, server):
    llm.complete(SUBJECT, n=3, max_tokens=24, seed=0)
    first = next(seen for seen in server.seen if seen.body["temperature"] == 0)
    assert first.raw.decode() == llm.render(SUBJECT)
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.body["messages"] == SUBJECT.messages()
    assert first.body["stop"] == ["\n"]


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


# ---- candidates


def test_server_that_serves_n_is_asked_twice(llm, server):
    server.otherwise = sampler
    out = llm.complete(SUBJECT, n=5, seed=10)
    assert texts(out) == ["answer 0", "answer 11", "answer 12", "answer 13", "answer 14"]
    assert [c.greedy for c in out] == [True] + [False] * 4
    assert sorted(seen.body.get("n", 1) for seen in server.seen) == [1, 4]
    assert [c.tokens for c in out] == [3] * 5


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


def test_fault_that_quotes_the_request_is_none_of_the_system_role(llm, server):
    said = "upstream connect error. Received Messages=[{'role': 'system', 'content': 'x'}]"
    server.script.extend([error(500, said)] * 2)
    server.otherwise = sampler
    assert len(llm.complete(SUBJECT)) == 1
    for seen in server.seen:
        assert seen.body["messages"][0]["role"] == "system"


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


def test_parameters_the_model_does_not_take_are_left_out_from_then_on(llm, server):
    def modern(handler, seen):
        for name in ("max_tokens", "temperature"):
            if name in seen.body:
                error(400, name, code="unsupported_parameter", param=name)(handler, seen)
                return
        answer(completion("fine"))(handler, seen)

    server.otherwise = modern
    assert texts(llm.complete(SUBJECT, max_tokens=7)) == ["fine"]
    assert len(server.seen) == 3
    assert server.seen[-1].body["max_completion_tokens"] == 7
    assert texts(llm.complete(SUBJECT, on_token=[].append)) == ["fine"]
    assert len(server.seen) == 4


EXTRA = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}
GOOGLE = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'


@pytest.mark.parametrize(
    "refusal",
    [
        answer({"detail": [EXTRA]}, 422),
        answer([{"error": {"code": 400, "message": GOOGLE}}], 400),
        error(400, "'seed' : this model takes none"),
        error(400, "Unrecognized request argument supplied: seed"),
        error(400, code="unsupported_parameter", param="seed"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_seed_refused_in_any_words_is_left_out_from_then_on(llm, server, refusal, streaming):
    def act(handler, seen):
        (refusal if "seed" in seen.body else answer(completion("fine")))(handler, seen)

    server.otherwise = act
    for _ in range(2):
        assert texts(llm.complete(SUBJECT, on_token=[].append if streaming else None)) == ["fine"]
    assert ["seed" in seen.body for seen in server.seen] == [True, False, False]


def test_stop_refused_for_what_it_holds_is_left_out_and_answers_still_end_there(llm, server):
    said = "stop_sequences: each stop sequence must contain non-whitespace"

    def act(handler, seen):
        known = "stop" not in seen.body
        (answer(completion("one\ntwo")) if known else error(400, said))(handler, seen)

    server.otherwise = act
    for _ in range(2):
        assert texts(llm.complete(SUBJECT)) == ["one"]
    assert ["stop" in seen.body for seen in server.seen] == [True, False, False]


LM_STUDIO = 'Error rendering prompt: "Only user and assistant roles are supported!"'
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "System role not supported"),
        error(400, ALTERNATE, type="BadRequestError", code=400),
        error(500, ALTERNATE, code=500),
        error(400, "'messages[0].role' does not support 'system'", code="unsupported_value"),
        error(400, "Developer instruction is not enabled for models/m", code=400),
        answer({"error": LM_STUDIO}, 400),
        answer({"error": LM_STUDIO}, 500),
        answer({"detail": 'Unexpected role "system"'}, 422),
        answer({"error": LM_STUDIO}),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_system_role_refused_is_folded_into_the_user_turn_from_then_on(
    llm, server, sleeps, refusal, streaming
):
    def act(handler, seen):
        roles = [message["role"] for message in seen.body["messages"]]
        (refusal if "system" in roles else answer(completion("fine")))(handler, seen)

    server.otherwise = act
    for _ in range(2):
        assert texts(llm.complete(SUBJECT, on_token=[].append if streaming else None)) == ["fine"]
    system, user = SUBJECT.messages()
    folded = [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}]
    assert [len(seen.body["messages"]) for seen in server.seen] == [2, 1, 1]
    assert server.seen[-1].body["messages"] == folded
    assert server.seen[-1].raw.decode() == llm.render(SUBJECT, max_tokens=48, stream=streaming)
    assert sleeps.waited == []


def test_system_role_refused_at_several_answers_leaves_them_several(llm, server, sleeps):
    def act(handler, seen):
        two = len(seen.body["messages"]) == 2
        (error(500, LM_STUDIO) if two else sampler)(handler, seen)

    server.otherwise = act
    assert len(llm.complete(SUBJECT, n=8)) == 8
    assert {seen.body.get("n", 1) for seen in server.seen} == {1, 7}
    assert len(server.seen) <= 4
    assert sleeps.waited == []


def test_roles_refused_without_a_system_role_are_an_error_at_once(llm, server, sleeps):
    server.otherwise = error(500, LM_STUDIO)
    with pytest.raises(BackendError, match="Only user and assistant roles"):
        llm.complete(SUBJECT)
    assert len(server.seen) == 2
    assert sleeps.waited == []


def test_several_parameters_refused_at_once_are_left_out_at_once(llm, server):
    extra = [EXTRA, EXTRA | {"loc": ["body", "stop"]}, EXTRA | {"loc": ["body", "max_tokens"]}]

    def act(handler, seen):
        known = "seed" not in seen.body
        (answer(completion("fine")) if known else answer({"detail": extra}, 422))(handler, seen)

    server.otherwise = act
    assert texts(llm.complete(SUBJECT, max_tokens=7)) == ["fine"]
    last = server.seen[-1].body
    assert (len(server.seen), last["max_completion_tokens"]) == (2, 7)
    assert not {"seed", "stop", "max_tokens"} & last.keys()


@pytest.mark.parametrize(
    "failure",
    [
        error(400, "'temperature' must be at most 1"),
        answer({"detail": [{"type": "less_than_equal", "loc": ["body", "max_tokens"]}]}, 422),
        error(400, "'seed': the maximum context length is 9"),
        answer({"detail": [{"type": "missing", "loc": ["body", "x"], "input": {"seed": 0}}]}, 422),
    ],
)
def test_value_refused_is_not_taken_for_a_parameter_nobody_knows(llm, server, failure):
    server.otherwise = failure
    with pytest.raises((BackendError, ContextLengthError)):
        llm.complete(SUBJECT)
    assert len(server.seen) == 1


def test_refusal_in_a_list_of_one_says_why(llm, server):
    server.otherwise = answer([{"error": {"code": 400, "message": "API key not valid"}}], 400)
    with pytest.raises(BackendError, match="API key not valid"):
        llm.complete(SUBJECT)


# ---- errors in place of answers


def reported(**fields):
    return {"error": fields}


def event(said):
    return stream(f"data: {json.dumps(said)}\n\n")


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


# ---- replies


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        (answer(b"not json"), "not whole JSON"),
        (answer(b"[" * 100_000), "not whole JSON"),
        (answer(b"[]"), "JSON list"),
        (answer({}), "no choices"),
        (answer({"choices": []}), "no choices"),
        (answer({"choices": "x"}), "no choices"),
        (answer({"choices": [None]}), "wrote nothing"),
        (answer(completion(None)), "wrote nothing"),
        (answer(completion({"a": 1})), "wrote nothing"),
        (answer(completion(" \n ")), "wrote nothing"),
        (cut(b'{"choices": [{"mess'), "middle of a reply"),
    ],
)
def test_reply_without_an_answer_is_an_error(llm, server, reply, match):
    server.otherwise = reply
    with pytest.raises(BackendError, match=match):
        llm.complete(SUBJECT)
    assert len(server.seen) == 1


def test_reply_with_a_broken_character_is_read_as_a_stream_would_be(llm, server):
    raw = json.dumps(completion("a caf@")).encode().replace(b"@", b"\xe9")
    server.otherwise = answer(raw)
    assert texts(llm.complete(SUBJECT)) == ["a caf\ufffd"]
    server.otherwise = answer(b"\xef\xbb\xbf" + json.dumps(completion("fine")).encode())
    assert texts(llm.complete(SUBJECT)) == ["fine"]


@pytest.mark.parametrize("usage", [None, [], {"completion_tokens": "9"}, {"completion_tokens": -9}])
def test_odd_usage_counts_nothing(llm, server, usage):
    server.otherwise = answer({"choices": [choice("fine")], "usage": usage})
    assert [(c.text, c.tokens) for c in llm.complete(SUBJECT)] == [("fine", 0)]


def billed(*texts, prompt_tokens, tokens=3):
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens * len(texts)}
    return completion(*texts) | {"usage": usage}


def test_prompt_is_counted_once_a_request(llm, server):
    def act(handler, seen):
        n = seen.body.get("n", 1)
        answer(billed(*(f"answer {i}" for i in range(n)), prompt_tokens=40 + n))(handler, seen)

    server.otherwise = act
    told = []
    out = llm.complete(SUBJECT, n=5, on_candidate=told.append)
    assert [c.prompt_tokens for c in out] == [41, 44, 0, 0, 0]
    assert sum(c.prompt_tokens for c in told) == 85


def test_tokens_that_do_not_divide_are_all_counted(llm, server):
    def act(handler, seen):
        greedy = seen.body["temperature"] == 0
        said = completion("a") if greedy else completion(None, "b", "c")
        answer(said | {"usage": {"completion_tokens": 3 if greedy else 11}})(handler, seen)

    server.otherwise = act
    out = llm.complete(SUBJECT, n=4)
    assert [(c.text, c.tokens) for c in out] == [("a", 3), ("b", 8), ("c", 3)]


def test_answer_asked_for_once_is_paid_for_once_however_often_it_counts(llm, server):
    server.otherwise = answer(billed("fine", prompt_tokens=40))
    out = llm.complete(SUBJECT, n=3, temperature=0.0)
    assert [(c.prompt_tokens, c.tokens) for c in out] == [(40, 3), (0, 0), (0, 0)]


def test_prompt_read_for_answers_that_are_dropped_is_counted(llm, server):
    def act(handler, seen):
        greedy = seen.body["temperature"] == 0
        said = ["who knows"] if greedy else ["a cow", "Travel", "tech"]
        answer(billed(*said, prompt_tokens=30 if greedy else 31))(handler, seen)

    server.otherwise = act
    out = llm.complete(SECTION, n=4, choices=SECTIONS)
    assert [(c.text, c.prompt_tokens) for c in out] == [("TRAVEL", 61), ("TECH", 0)]


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": "9"}, {"prompt_tokens": -9}])
def test_odd_usage_counts_no_prompt(llm, server, usage):
    server.otherwise = answer({"choices": [choice("fine")], "usage": usage})
    assert [c.prompt_tokens for c in llm.complete(SUBJECT)] == [0]


# ---- models that think aloud

THOUGHT = "<think>\nFirst, the parser.\n</think>\n\n"


@pytest.mark.parametrize("streaming", [False, True])
def test_thoughts_before_an_answer_are_no_part_of_it(llm, server, streaming):
    told = []
    parts = [THOUGHT[:4], THOUGHT[4:30], THOUGHT[30:] + "A sub", "ject"]
    whole, pieces = answer(completion(f"{THOUGHT}A subject")), stream(*map(delta, parts))
    server.otherwise = pieces if streaming else whole
    (out,) = llm.complete(SUBJECT, on_token=told.append if streaming else None)
    assert out.text == "A subject"
    assert "".join(told) == ("A subject" if streaming else "")


@pytest.mark.parametrize("text", ["<think>", "\n<think>\nFirst, the par", "<think>\n\n"])
@pytest.mark.parametrize("prompt", [SUBJECT, SECTION])
@pytest.mark.parametrize("streaming", [False, True])
def test_thoughts_without_an_answer_are_an_error_that_says_so(llm, server, text, prompt, streaming):
    streaming = streaming and prompt is SUBJECT  # a closed set is not streamed
    server.otherwise = stream(delta(text, "stop")) if streaming else answer(completion(text, text))
    with pytest.raises(BackendError, match=r"thinks aloud.*[Tt]urn .* off, or use another model"):
        llm.complete(
            prompt, n=1 if streaming else 3, on_token=[].append if streaming else None,
            choices=prompt.task.labels or None,
        )  # fmt: skip


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}


def parts_of(*contents, streaming):
    """Send contents one after the other, or their parts in one message."""
    if streaming:
        return stream(*map(delta, contents), "data: [DONE]\n\n")
    return answer(completion([part for content in contents for part in content]))


@pytest.mark.parametrize("streaming", [False, True])
def test_content_in_parts_is_their_text(llm, server, streaming):
    told = []
    contents = [
        [THINKING],
        [{"type": "text", "text": "Fix"}, "odd", {"type": "text", "text": 3}, {"type": []}],
    ]
    contents += [[{"type": "image_url", "text": "no"}, {"type": "text", "text": " it"}]]
    server.otherwise = parts_of(*contents, streaming=streaming)
    (out,) = llm.complete(SUBJECT, on_token=told.append if streaming else None)
    assert out.text == "Fix it"
    assert "".join(told) == ("Fix it" if streaming else "")


@pytest.mark.parametrize(
    "message",
    [
        {"content": [THINKING]},
        {"content": "", "reasoning_content": "Let me think"},
        {"content": None, "reasoning": "Let me think"},
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_thoughts_apart_from_an_answer_that_is_missing_are_an_error_that_says_so(
    llm, server, message, streaming
):
    field = "delta" if streaming else "message"
    said = {"choices": [{field: message, "finish_reason": "length"}]}
    server.otherwise = event(said) if streaming else answer(said)
    with pytest.raises(BackendError, match=r"thinks aloud.*Turn .* off, or use another model"):
        llm.complete(SUBJECT, on_token=[].append if streaming else None)


def test_thoughts_apart_from_an_answer_are_no_part_of_it(llm, server):
    message = {"content": "A subject", "reasoning_content": "Let me think"}
    server.otherwise = answer({"choices": [{"message": message}]})
    assert texts(llm.complete(SUBJECT)) == ["A subject"]


def test_thought_of_a_try_that_failed_is_no_part_of_the_next(llm, server):
    told = []
    overloaded = f"data: {json.dumps({'error': {'code': 502, 'message': 'overloaded'}})}\n\n"
    server.script.append(stream(delta("<think>aaa</think>"), overloaded))
    server.otherwise = stream(delta("<think>hm</think>Done"), "data: [DONE]\n\n")
    (out,) = llm.complete(SUBJECT, on_token=told.append)
    assert (out.text, told) == ("Done", ["Done"])


def test_one_answer_without_thoughts_is_enough(llm, server):
    def act(handler, seen):
        greedy = seen.body["temperature"] == 0
        said = ["<think>"] if greedy else ["<think>\nHm", "A subject"]
        answer(completion(*said, tokens=4))(handler, seen)

    server.otherwise = act
    out = llm.complete(SUBJECT, n=3)
    assert [(c.text, c.greedy, c.tokens) for c in out] == [("A subject", False, 4)]


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


# ---- streams


def test_stream_tells_every_piece_and_returns_their_sum(llm, server):
    told = []
    parts = [": hello\n\n", *map(delta, [" A", " sub", "ject "]), "data:\n\n"]
    parts += ["event: ping\ndata: \n\n", delta(None, "stop")]
    server.otherwise = stream(*parts, "data: [DONE]\n\n")
    out = llm.complete(SUBJECT, on_token=told.append)
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


# ---- listening and stopping


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
    out = llm.complete(SUBJECT, on_token=told.append, should_stop=lambda: len(told) >= 3)
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

    assert patient.complete(SUBJECT, on_token=told.append, should_stop=later) == []
    assert told == ["A subject"]
    assert server.left.wait(30)


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


# ---- addresses


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
