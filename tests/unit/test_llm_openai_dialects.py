"""Servers that refuse a parameter or a role: they are asked again without, and so from then on."""

import json

import api_client
import pytest
from api_client import SECTION, SECTIONS, SUBJECT, texts
from llm_server import answer, completion, delta, error, sampler, stream

from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm.openai_api import OpenAIApi

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


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
NO_SEED = {
    "detail": [EXTRA | {"input": 0}]
}  # what Mistral puts into its message, as it is or as text
SOLD = {"error": {"message": "Unknown parameter: 'seed'.", "code": "unknown_parameter"}}
GOOGLE = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'


@pytest.mark.parametrize(
    "refusal",
    [
        answer({"detail": [EXTRA]}, 422),
        answer({"object": "error", "message": NO_SEED, "code": None}, 422),
        answer({"object": "error", "message": json.dumps(NO_SEED), "code": "1000"}, 422),
        answer({"object": "Error", "message": [EXTRA], "code": 3001}, 422),
        error(400, json.dumps(NO_SEED)),
        error(400, "Provider returned error", code=400, metadata={"raw": json.dumps(SOLD)}),
        error(400, "Provider returned error", metadata={"raw": "Unknown parameter: 'seed'"}),
        answer({"error": "Model m does not support parameter seed."}, 400),
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


def test_usage_of_a_stream_that_is_refused_is_not_asked_for_any_more(llm, server):
    place = ["body", "stream_options", "include_usage"]
    refusal = answer({"message": {"detail": [EXTRA | {"loc": place}]}}, 422)

    def act(handler, seen):
        known = "stream_options" not in seen.body
        (stream(delta("fine", "stop")) if known else refusal)(handler, seen)

    server.otherwise = act
    for _ in range(2):
        assert texts(llm.complete(SUBJECT, on_token=[].append)) == ["fine"]
    assert len(server.seen) == 3


def test_refusal_does_not_repeat_what_was_sent(llm, server):
    missing = {"type": "missing", "loc": ["body", "x"], "msg": "Field required", "input": "secret"}
    for body in ({"detail": [missing]}, {"message": {"detail": [missing]}}):
        server.otherwise = answer(body, 422)
        with pytest.raises(BackendError, match=r"got 422 \(body\.x: Field required\)"):
            llm.complete(SUBJECT)


def at_least_16(handler, seen):
    few = seen.body["max_tokens"] < 16
    refusal = error(400, "Invalid 'max_output_tokens': Expected a value >= 16, but got 8 instead.")
    (refusal if few else sampler_of_sections)(handler, seen)


def sampler_of_sections(handler, seen):
    answer(completion(*["Travel"] * seen.body.get("n", 1)))(handler, seen)


def test_answers_of_a_closed_set_are_asked_for_with_the_room_every_server_grants(llm, server):
    server.otherwise = at_least_16
    assert texts(llm.complete(SECTION, n=3, max_tokens=8, choices=SECTIONS)) == ["TRAVEL"] * 3
    sent = next(seen for seen in server.seen if "n" not in seen.body)
    assert sent.raw.decode() == llm.render(SECTION, max_tokens=8)
    server.otherwise = answer(completion("fine"))
    llm.complete(SUBJECT, max_tokens=8)  # free text ends where it was told to
    assert server.seen[-1].body["max_tokens"] == 8


def test_reasoning_effort_is_sent_as_it_is_where_it_is_known(server):
    llm = OpenAIApi("m", base_url=server.url, reasoning_effort="low")
    assert '"reasoning_effort": "low"' in llm.render(SUBJECT)
    llm.complete(SUBJECT, n=3)
    llm.complete(SUBJECT, on_token=[].append)
    assert {seen.body["reasoning_effort"] for seen in server.seen} == {"low"}

    def act(handler, seen):
        known = "reasoning_effort" not in seen.body
        refusal = answer({"error": "Model m does not support parameter reasoningEffort."}, 400)
        (answer(completion("fine")) if known else refusal)(handler, seen)

    server.otherwise = act
    assert texts(llm.complete(SUBJECT)) == ["fine"]
    assert "reasoning_effort" not in llm.render(SUBJECT)
    llm.close()


VALUE = "Unsupported value: 'reasoning_effort' does not support 'lots' with this model."


@pytest.mark.parametrize(
    ("refusal", "match"),
    [
        (error(400, "reasoning_effort: Input should be 'low' or 'high'"), "Input should be 'low'"),
        (
            error(400, VALUE, code="unsupported_value", param="reasoning_effort"),
            "not support 'lots",
        ),
        (
            error(400, "Invalid reasoning_effort 'lots': not supported by this model. Use low."),
            "Use low",
        ),
    ],
)
def test_reasoning_effort_that_cannot_be_is_told(server, refusal, match):
    llm = OpenAIApi("m", base_url=server.url, reasoning_effort="lots")
    server.otherwise = refusal
    with pytest.raises(BackendError, match=match):
        llm.complete(SUBJECT)
    assert len(server.seen) == 1
    llm.close()


@pytest.mark.parametrize(
    "said",
    [
        "`temperature` is deprecated for this model.",
        "invalid temperature: only 1 is allowed for this model",
    ],
)
@pytest.mark.parametrize(("streaming", "n"), [(False, 1), (True, 1), (False, 8)])
def test_model_that_takes_no_temperature_is_asked_without(llm, server, said, streaming, n):
    def act(handler, seen):
        wanted = seen.body.get("n", 1)
        fine = answer(completion(*[f"answer {i}" for i in range(wanted)]))
        (error(400, said) if "temperature" in seen.body else fine)(handler, seen)

    server.otherwise = act
    out = llm.complete(SUBJECT, n=n, on_token=[].append if streaming else None)
    assert len(out) == n
    assert "temperature" not in server.seen[-1].body


def test_stop_refused_for_what_it_holds_is_left_out_and_answers_still_end_there(llm, server):
    said = "stop_sequences: each stop sequence must contain non-whitespace"

    def act(handler, seen):
        known = "stop" not in seen.body
        (answer(completion(f"{SECTIONS[0]}\ntwo")) if known else error(400, said))(handler, seen)

    server.otherwise = act
    for _ in range(2):
        assert texts(llm.complete(SECTION, choices=SECTIONS)) == [SECTIONS[0]]
    assert ["stop" in seen.body for seen in server.seen] == [True, False, False]


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


# ---- the system role


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


def test_fault_that_quotes_the_request_is_none_of_the_system_role(llm, server):
    said = "upstream connect error. Received Messages=[{'role': 'system', 'content': 'x'}]"
    server.script.extend([error(500, said)] * 2)
    server.otherwise = sampler
    assert len(llm.complete(SUBJECT)) == 1
    for seen in server.seen:
        assert seen.body["messages"][0]["role"] == "system"
