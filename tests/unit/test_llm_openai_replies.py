"""What is read out of an API's replies: the answer without thoughts, and what was spent."""

import json

import api_client
import pytest
from api_client import SECTION, SECTIONS, SUBJECT, texts
from llm_server import answer, choice, completion, cut, delta, error, event, stream

from hydra_edge.errors import BackendError

server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


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


@pytest.mark.parametrize(
    ("ended", "finish"),
    [
        ({"finish_reason": "abort"}, "cut"),
        ({"finish_reason": "insufficient_system_resource"}, "cut"),
        ({"finish_reason": "stop", "error": {"code": 502}}, "cut"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_reason": "eos"}, "stop"),
    ],
)
def test_answer_that_an_api_broke_off_is_not_called_whole(llm, server, ended, finish):
    server.otherwise = answer({"choices": [choice("Dear Ann, the parser fails wh") | ended]})
    assert [c.finish for c in llm.complete(SUBJECT)] == [finish]


def without_n(said):
    """Refuse several answers at once, as many do, and answer one with ``said``."""

    def act(handler, seen):
        one = seen.body.get("n", 1) == 1
        (answer(said) if one else error(400, "Only one completion choice is allowed"))(
            handler, seen
        )

    return act


HIDDEN = {"completion_tokens": 24, "completion_tokens_details": {"reasoning_tokens": 24}}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (completion(""), "wrote nothing"),
        (completion("<think>hm"), "thinks aloud"),
        (
            {"choices": [choice("", "length")], "usage": HIDDEN},
            "thinks aloud.*max_tokens in the task's file",
        ),
        (completion("") | {"usage": HIDDEN}, "thinks aloud.*more room would not help"),
    ],
)
def test_refusal_that_was_worked_around_is_not_the_reason_of_an_empty_pool(
    llm, server, said, match
):
    server.otherwise = without_n(said)
    for _ in range(2):
        with pytest.raises(BackendError, match=match):
            llm.complete(SUBJECT, n=8)


def test_thoughts_that_left_no_room_are_told_as_thoughts(llm, server):
    server.otherwise = error(
        400, "Could not finish the message because max_tokens or model output limit was reached."
    )
    with pytest.raises(BackendError, match="thinks aloud"):
        llm.complete(SUBJECT)
    bill = json.dumps({"choices": [], "usage": HIDDEN})
    server.otherwise = stream(delta("", "length"), f"data: {bill}\n\n")
    with pytest.raises(BackendError, match="thinks aloud"):
        llm.complete(SUBJECT, on_token=[].append)


# ---- what was spent


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
