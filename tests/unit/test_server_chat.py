"""Chat requests understood or refused, and answers in the form OpenAI's clients read."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.answering import BROKEN_OFF, NOT_WHOLE
from hydra_edge.server.chat import ChatAnswer, first_stop, limit_to_context, read_chat
from hydra_edge.server.events import ChatEvents, Until
from hydra_edge.server.fields import Fields
from hydra_edge.server.refusal import Refusal
from hydra_edge.types import (
    Candidate,
    Generation,
    HeadInfo,
    RankedRecord,
    Record,
    Usage,
)

HEAD = HeadInfo("paper_title", "adapter", "shared", None, "b" * 64)


def asked(**more):
    body = {"model": "hydra-edge", "messages": [{"role": "user", "content": "a query"}]} | more
    return read_chat(Fields.parse(json.dumps(body).encode()))


def generation(*texts, text=None, count=1):
    return Generation(
        id="0123456789ab", query="a query", task="paper_title", text=text or texts[0],
        candidates=tuple(Candidate(t, count, score=1.0 - i) for i, t in enumerate(texts)),
        records=(RankedRecord(Record("in", "out", id="r1"), 0.5, {"bm25": 0.5}),),
        head=HEAD, reranker=HEAD,
        usage=Usage(1, 90, 40, 8, 8, 12.0), notes=("a note",),
    )  # fmt: skip


def answer(request, made, **ends):
    """``ends`` are how candidates ended, by text."""
    candidates = tuple(replace(c, finish=ends.get(c.text, "stop")) for c in made.candidates)
    return ChatAnswer(request, replace(made, candidates=candidates))


def test_chat_last_user_message_is_the_query_and_own_system_text_is_kept():
    request = asked(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "an earlier query"},
            {"role": "assistant", "content": None},
            {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
            {"role": "user", "content": [{"type": "text", "text": "the"}, {"text": "query"}]},
        ]
    )

    assert request.query == "the\nquery"
    assert request.system == "Be brief.\nIn French."
    assert request.notes == (
        "2 other messages were left out: only the last user message is answered",
    )


def test_chat_plain_request_takes_every_setting_from_the_person():
    request = asked()

    assert request.task is None
    assert (request.choices, request.candidates, request.records) == (1, None, None)
    assert (request.temperature, request.max_tokens, request.seed) == (None, None, 0)
    assert (request.stop, request.stream, request.notes) == ((), False, ())


def test_chat_parameters_are_read():
    request = asked(
        model="hydra-edge/paper_title", n=3, temperature=0, max_tokens=7, max_completion_tokens=9,
        seed=-1, stop="x", stream=True, stream_options={"include_usage": True}, user="u",
        hydra_edge={"candidates": 4, "records": 0, "private": True, "explain": True},
    )  # fmt: skip

    assert request.task == "paper_title"
    assert (request.choices, request.candidates, request.records) == (3, 4, 0)
    assert (request.temperature, request.max_tokens, request.seed) == (0.0, 9, 2**31 - 1)
    assert (request.stop, request.stream, request.include_usage) == (("x",), True, True)
    assert request.private
    assert request.explain


def test_chat_turn_that_is_left_out_may_hold_anything():
    image = [{"type": "image_url", "image_url": {"url": "data:"}}]
    request = asked(
        messages=[
            {"role": "user", "content": image},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "tool", "content": 3},
            {"role": "user", "content": "the query"},
        ]
    )
    assert request.query == "the query"
    assert request.notes[0].startswith("3 other messages were left out")
    for role in ("system", "developer"):
        with pytest.raises(Refusal) as refused:
            asked(messages=[{"role": role, "content": image}, {"role": "user", "content": "q"}])
        assert refused.value.param == "messages[0].content"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_chat_limit_beyond_the_most_is_lowered_and_said_to_be(name):
    request = asked(**{name: 128_000})
    assert request.max_tokens == 8192
    assert request.notes == (f"{name} was lowered from 128000 to 8192, the most there is",)
    assert asked(**{name: 8192}).notes == ()


@pytest.mark.parametrize(
    ("limit", "context", "expected"),
    [(24, 2048, 24), (1024, 2048, 1024), (1025, 2048, 1024), (8192, 2048, 1024), (8192, None, 8192),
     (9, 1, 1)],
)  # fmt: skip
def test_chat_limit_leaves_half_of_the_context_to_the_prompt(limit, context, expected):
    lowered, notes = limit_to_context(limit, context)
    assert lowered == expected
    told = f"the longest answer was lowered from {limit} to {expected} tokens: half of the LLM's"
    assert [note.startswith(told) for note in notes] == ([True] if lowered < limit else [])


def test_chat_field_that_cannot_change_the_answer_is_taken_without_a_word():
    quiet = {"prompt_cache_key": "k", "prompt_cache_options": {}, "prompt_cache_retention": "24h"}
    assert asked(**quiet).notes == ()
    notes = asked(web_search_options={"x": 1}, moderation={"x": 1}).notes
    assert [note.split()[0] for note in notes] == ["moderation", "web_search_options"]


def test_chat_null_counts_as_left_out():
    assert asked(n=None, stop=None, temperature=None, tools=None, hydra_edge=None) == asked()


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"stop": {}}, "stop"),
        ({"stop": 0}, "stop"),
        ({"stop": False}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"hydra_edge": {"candidates": 99}}, "hydra_edge.candidates"),
        ({"hydra_edge": {"candidate": 3}}, "hydra_edge.candidate"),
        ({"model": 3}, "model"),
    ],
)
def test_chat_field_that_cannot_be_used_is_named(more, param):
    with pytest.raises(Refusal) as refused:
        asked(**more)
    assert refused.value.http_status == 400
    assert refused.value.param == param


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"modalities": ["audio"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    ],
)
def test_chat_wish_that_changes_the_answers_form_is_refused(more):
    with pytest.raises(Refusal, match="expected") as refused:
        asked(**more)
    assert refused.value.code == "unsupported_value"


def test_chat_unknown_parameter_is_refused_as_openai_does():
    with pytest.raises(Refusal, match="Unknown parameter 'top_k'") as refused:
        asked(top_k=4)
    assert refused.value.code == "unknown_parameter"


def test_chat_neutral_wish_is_honoured_and_another_is_said_to_be_ignored():
    assert (
        asked(top_p=1, frequency_penalty=0, tools=[], response_format={"type": "text"}).notes == ()
    )
    notes = asked(top_p=0.5, tools=[{"type": "function"}], tool_choice="auto").notes
    assert notes == (
        "tools is not supported and was ignored",
        "top_p is not supported and was ignored",
    )


@pytest.mark.parametrize("name", ["gpt-4o", "hydra-edge/", "hydra-edgex", ""])
def test_chat_model_that_is_not_ours_is_not_found(name):
    with pytest.raises(Refusal, match="No model") as refused:
        asked(model=name)
    assert (refused.value.http_status, refused.value.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"n": NaN}', b"{} {}"]
)
def test_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(Refusal) as refused:
        Fields.parse(body)
    assert (refused.value.http_status, refused.value.code) == (400, "invalid_json")


def test_answer_carries_the_generation_id_and_why():
    whole = answer(asked(), generation("one", "two")).whole()

    assert whole["id"] == "chatcmpl-0123456789ab"
    assert [c["message"]["content"] for c in whole["choices"]] == ["one"]
    assert whole["usage"] == {"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 130}
    ours = whole["hydra_edge"]
    assert ours["generation_id"] == "0123456789ab"
    assert [(c["pick"], c["text"], c["score"]) for c in ours["candidates"]] == [
        (1, "one", 1.0), (2, "two", 0.0),
    ]  # fmt: skip
    assert ours["records"] == [{"id": "r1", "score": 0.5}]
    assert ours["notes"] == ["a note"]


def test_answer_explained_carries_contributions():
    ours = answer(asked(hydra_edge={"explain": True}), generation("one")).whole()["hydra_edge"]

    assert ours["records"][0]["contributions"] == {"bm25": 0.5}
    assert "contributions" in ours["candidates"][0]


def test_answer_choices_are_the_best_first_and_none_twice():
    whole = answer(asked(n=3), generation("one", "two")).whole()

    assert [c["message"]["content"] for c in whole["choices"]] == ["one", "two"]
    assert [c["index"] for c in whole["choices"]] == [0, 1]
    assert "2 of 3 choices: no more answers differ" in whole["hydra_edge"]["notes"]


def test_answer_choices_that_did_not_arrive_are_not_said_to_be_alike():
    made = generation("one")
    short = replace(made, usage=replace(made.usage, requested=4, received=1))

    assert answer(asked(n=2), short).ours["notes"] == ["a note", "1 of 2 choices"]


def test_answer_choices_that_differ_only_behind_a_stop_are_one():
    request = asked(n=3, stop=" ")
    made = answer(request, generation("one two", "one three", "four", "one"))

    assert made.choices == [("one", "stop"), ("four", "stop")]
    assert "2 of 3 choices: no more answers differ" in made.ours["notes"]


@pytest.mark.parametrize("end", ["cut", "length"])
@pytest.mark.parametrize("told", [True, False])  # by the answer's own notes
@pytest.mark.parametrize("stop", [[], [" off"]])
def test_answer_that_is_not_whole_says_so_unless_the_client_has_it_end_before(stop, told, end):
    note = f"{NOT_WHOLE}it ends at its 48 tokens" if end == "length" else BROKEN_OFF
    one = generation("broke off")
    one = replace(one, notes=(note, "a note")) if told else one
    made = answer(asked(stop=stop), one, **{"broke off": end})

    said = not stop and (told or end == "cut")
    assert sorted(made.ours["notes"]) == ["a note", note][: 1 + said]
    assert made.choices == [("broke", "stop") if stop else ("broke off", "length")]


def test_answer_that_the_client_has_end_leaves_others_that_broke_off_told_of():
    made = replace(generation("one END", "two"), notes=(BROKEN_OFF,))
    ends = {"one END": "cut", "two": "cut"}

    assert answer(asked(stop="END"), made, **ends).ours["notes"] == []
    assert answer(asked(stop="END", n=2), made, **ends).ours["notes"] == [BROKEN_OFF]


def test_answer_abstained_puts_the_answer_that_stands_first():
    whole = answer(asked(n=2), generation("one", "two", "three", text="two")).whole()

    assert [c["message"]["content"] for c in whole["choices"]] == ["two", "one"]
    told = [(c["pick"], c["text"], c["chosen"]) for c in whole["hydra_edge"]["candidates"]]
    assert told == [(1, "one", False), (2, "two", True), (3, "three", False)]


def test_answer_says_how_each_choice_ended():
    request = asked(n=3, stop=["END", "stop"])
    made = generation("cut off", "whole", "a text END and stop")
    whole = answer(request, made, **{"cut off": "length"}).whole()

    assert [(c["message"]["content"], c["finish_reason"]) for c in whole["choices"]] == [
        ("cut off", "length"), ("whole", "stop"), ("a text ", "stop"),
    ]  # fmt: skip


def test_events_hold_the_same_as_the_whole():
    request = asked(n=2, stream=True, stream_options={"include_usage": True})
    made = answer(request, generation("one\u2028\n\ntwo", "three"))
    form = ChatEvents(request, "0123456789ab", HEAD.base_id)
    lines = [form.begin(), *form.end(made)]

    assert lines[-1] == "data: [DONE]\n\n"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert all(line.count("\n") == 2 for line in lines)
    assert {e["id"] for e in events} == {"chatcmpl-0123456789ab"}
    assert {e["system_fingerprint"] for e in events} == {made.whole()["system_fingerprint"]}
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    texts = {0: "", 1: ""}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "one\u2028\n\ntwo", 1: "three"}
    assert events[-1]["usage"]["completion_tokens"] == 40
    assert events[-1]["choices"] == []
    assert events[-2]["hydra_edge"] == made.whole()["hydra_edge"]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


@settings(max_examples=400)
@given(
    st.lists(st.text(alphabet="ab", max_size=4), max_size=8),
    st.lists(st.text(alphabet="ab", min_size=2, max_size=4), max_size=4),
)
def test_pieces_up_to_a_stop_are_the_text_up_to_it(pieces, stops):
    text = "".join(pieces)
    whole = text[: first_stop(text, stops)]
    until = Until(tuple(stops))
    told = [until.feed(piece) for piece in pieces]

    given = "".join(told)
    assert whole.startswith(given)
    held = text[len(given) :]
    assert not held or any(held.startswith(s[: len(held)]) for s in stops)


@given(st.lists(st.text(alphabet="aé\n ", max_size=4), max_size=6), st.sampled_from(["a", "é\na"]))
def test_events_of_pieces_put_together_are_the_whole_answer(pieces, stop):
    request = asked(stop=stop, stream=True)
    text = "".join(pieces)
    made = answer(request, generation(text))
    form = ChatEvents(request, "0123456789ab", HEAD.base_id)
    lines = [form.begin(), *filter(None, map(form.piece, pieces)), *form.end(made)]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    streamed = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
    choice = made.whole()["choices"][0]
    assert streamed == choice["message"]["content"] == text.partition(stop)[0]
    assert events[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]


def test_answer_with_a_lone_surrogate_and_an_infinite_score_is_still_json():
    from hydra_edge.server.views import Json

    made = generation("a \ud800 b")
    body = Json(answer(asked(), made).whole() | {"x": float("-inf")}).body

    assert json.loads(body)["choices"][0]["message"]["content"] == "a \ud800 b"
    assert json.loads(body)["x"] is None
