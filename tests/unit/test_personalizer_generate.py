"""Answering through the facade: records shown, candidates, a choice, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from title_writer import Make, history, people, titles

from hydra_edge.errors import BackendError, ConfigError, ContextLengthError
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_generate_chooses_among_merged_candidates(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech", n=8)
    texts = [c.text for c in generation.candidates]
    assert len(texts) == len(set(texts)) == 5
    assert sum(c.count for c in generation.candidates) == 8
    assert sum(c.greedy for c in generation.candidates) == 1
    assert generation.text == generation.candidates[0].text
    assert generation.usage.received == 8
    for c in generation.candidates:
        assert sum(c.contributions.values()) == pytest.approx(c.score, abs=1e-4)


def test_generate_tells_its_id_before_the_llm_is_asked(person: Make, scripted) -> None:
    told: list[str] = []

    def answer(prompt: Prompt, n: int) -> list[str]:
        assert len(told) == 1
        return titles(prompt, n)

    p = person(llm=scripted(answer))
    ids = [p.generate("about speech", on_start=told.append).id, *told]
    assert len(set(ids)) == 1
    with pytest.raises(ConfigError, match="The query is empty"):
        p.generate(" ", on_start=told.append)
    assert len(told) == 1
    assert p.generate("about speech").id not in ids


def test_generate_counts_the_prompts_that_were_read(person: Make, scripted) -> None:
    class Billing(scripted):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            made = super().complete(prompt, **options)
            return [replace(made[0], prompt_tokens=len(prompt.query.split())), *made[1:]]

    usage = person(llm=Billing(titles)).generate("a text about speech").usage
    assert (usage.prompt_tokens, usage.llm_calls) == (4, 1)


def test_generate_empty_history_uses_the_shared_head(person: Make) -> None:
    generation = person([]).generate("about speech", task="paper_title")
    assert generation.records == ()
    assert generation.head.switch == "shared"
    assert generation.text


def test_generate_shows_the_records_it_names(person: Make, scripted) -> None:
    llm = scripted(titles)
    generation = person(llm=llm).generate("a text about speech", k=3)
    assert [s.record_id for s in llm.prompts[-1].shots] == [
        r.record.id for r in reversed(generation.records)
    ]


def test_generate_label_task_always_answers_with_a_member(person: Make, scripted) -> None:
    records = [
        Record(f"film {i}", ["action", "comedy"][i % 2], "movie_tag", id=f"m{i}", time=i)
        for i in range(20)
    ]
    llm = scripted(lambda _prompt, n: ["not a tag at all"] * (n - 1) + ["Comedy"])
    generation = person(records, llm=llm).generate("film 3", task="movie_tag")
    assert len(generation.candidates) == 15
    assert generation.text in {c.text for c in generation.candidates}
    votes = {c.text: c.count for c in generation.candidates}
    assert votes["comedy"] == 1
    assert sum(votes.values()) == 1


def test_generate_tells_the_llm_which_answers_a_closed_set_has(person: Make) -> None:
    class Asked(Given):
        def complete(self, prompt: Prompt, **options: object) -> object:
            told.append((prompt.task.kind, options["choices"], prompt.task.labels))
            return self.made

    told: list[tuple[str, object, tuple[str, ...]]] = []
    p = person(llm=Asked([Completion("4", greedy=True)]))
    for task in ("film_rating", "movie_tag", "paper_title"):
        p.generate("a text", task=task)
    for kind, choices, labels in told:
        assert choices == (None if kind == "text" else labels)
    assert {kind for kind, _, _ in told} == {"rating", "label", "text"}
    assert all(labels for kind, _, labels in told if kind != "text")


def test_generate_context_overflow_drops_the_weakest_records_and_says_so(
    person: Make, scripted
) -> None:
    class Narrow(scripted(titles).__class__):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            if len(prompt.shots) > 1:
                raise ContextLengthError("too long")
            return super().complete(prompt, **options)

    generation = person(llm=Narrow(titles)).generate("a text about speech")
    assert len(generation.records) == 1
    assert "3 weakest of 4 records were left out" in " ".join(generation.notes)
    best = person().rank("a text about speech").records[0].record.id
    assert generation.records[0].record.id == best


def test_generate_says_how_much_of_a_long_query_the_llm_was_shown(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    assert not p.generate(" ".join(["speech"] * 120)).notes
    notes = p.generate(" ".join(["speech"] * 1_301)).notes
    assert notes == ("only the first 120 of 1,301 words of the query are in the prompt",)
    assert len(llm.prompts[-1].query.split()) == 120


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("语" * 20_000, "120 of 20,000 characters"),
        ("读\n " + "语" * 20_000, "121 of 20,002 characters"),
        (f"{'x' * 2_399}   {'y' * 2_400} z", "2 of 3 words"),
        (" ".join(["z" * 99] * 200), "48 of 200 words"),
    ],
)
def test_generate_says_how_much_of_a_query_of_long_words_the_llm_was_shown(
    person: Make, scripted, query: str, kept: str
) -> None:
    llm = scripted(titles)
    notes = person(llm=llm).generate(query).notes
    assert notes == (f"only the first {kept} of the query are in the prompt",)
    assert llm.prompts[-1].query.strip() != query


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (" ".join(f"word{i}" for i in range(2_000)), "206 of 2,000 words"),
        ("語 " + "ö" * 20_000, "1,250 of 20,002 characters"),
        ("语" * 20_000, "1,500 of 20,000 characters"),
        (f"one {'x' * 20_000}", "1,250 of 20,004 characters"),
    ],
)
@pytest.mark.parametrize("records", [0, 4])
def test_generate_shortens_a_query_the_context_has_no_room_for_and_says_so(
    person: Make, scripted, query: str, kept: str, records: int
) -> None:
    class Narrow(scripted):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            if len(prompt.body) > 2_000:
                raise ContextLengthError("too long")
            return list(super().complete(prompt, **options))

    llm = Narrow(titles)
    given = [replace(r, task="chat") for r in history(records)]
    notes = person(given, llm=llm).generate(query, task="chat").notes
    assert notes[0] == f"only the first {kept} of the query are in the prompt"
    assert sum("of the query" in note for note in notes) == 1
    # The candidates drawn without records, too, are asked for with what was found to have room.
    assert {prompt.query for prompt in llm.prompts} == {llm.prompts[0].query}
    assert " ".join(query.split()).startswith(llm.prompts[0].query)


def test_generate_a_short_query_without_room_is_refused(person: Make, scripted) -> None:
    asked: list[str] = []

    class Full(scripted):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            asked.append(prompt.query)
            raise ContextLengthError("too long")

    with pytest.raises(ContextLengthError, match="too long"):
        person([], llm=Full(titles)).generate("a word " * 100, task="chat")
    assert [len(query.split()) for query in asked] == [200, 99, 49]


def test_generate_says_nothing_of_a_query_folded_into_one_line(person: Make, scripted) -> None:
    assert not person(llm=scripted(titles)).generate("  speech\n\n on\ttelephones ").notes


def test_generate_partial_pool_is_a_result(person: Make, scripted) -> None:
    generation = person(llm=scripted(lambda _p, _n: ["one", "two", "three"])).generate("speech")
    assert generation.usage.received == 3
    assert "3 of 8 candidates arrived" in generation.notes


@pytest.mark.parametrize("answers", [[], ["", "  "]])
def test_generate_without_one_usable_answer_is_a_clear_error(
    person: Make, scripted, answers: list[str]
) -> None:
    with pytest.raises(BackendError, match="no usable answer"):
        person(llm=scripted(lambda _p, _n: answers)).generate("speech")


class Given:
    """An application's LLM that returns what it is given."""

    name, is_remote = "given", False

    def __init__(self, made: object) -> None:
        self.made = made

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.completion_text()

    def complete(self, prompt: Prompt, **options: object) -> object:
        return self.made

    def close(self) -> None: ...


def test_generate_takes_an_llm_that_counts_in_numpy(person: Make) -> None:
    numbers = {"tokens": np.int64(3), "prompt_tokens": np.int32(7), "logprob": np.float32(-1.5)}
    made = [Completion(f"title {i}", greedy=np.bool_(i == 0), **numbers) for i in range(8)]
    heard: list[Completion] = []
    p = person(llm=Given(made))
    generation = p.generate("speech", on_candidate=heard.append)
    assert (generation.usage.completion_tokens, generation.usage.prompt_tokens) == (24, 56)
    assert {type(c.logprob) for c in generation.candidates} == {float}
    assert {(type(c.tokens), type(c.greedy)) for c in heard} == {(int, bool)}
    logged = p.store.generation(generation.id)
    assert logged is not None
    assert logged.text == generation.text


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf])
def test_generate_log_probability_that_is_not_finite_is_none(person: Make, logprob: float) -> None:
    made = [Completion("one", greedy=True, logprob=-1.5), Completion("two", logprob=logprob)]
    p = person(llm=Given(made))
    generation = p.generate("speech", n=2)
    assert {c.text: c.logprob for c in generation.candidates} == {"one": -1.5, "two": None}
    assert all(math.isfinite(c.score) for c in generation.candidates)
    assert p.choose(generation_id=generation.id, pick=2).head_version == 1


@pytest.mark.parametrize(
    "made",
    [
        None,
        3,
        "title",
        [None],
        ["title"],
        [Completion(None)],
        [Completion("title", tokens=None)],
        [Completion("title", logprob="low")],
    ],
)
@pytest.mark.parametrize("listens", [False, True])
def test_generate_llm_that_returns_no_completions_is_told_in_words(
    person: Make, made: object, listens: bool
) -> None:
    p = person(llm=Given(made))
    with pytest.raises(BackendError, match=r"no hydra_edge.types.Completion: got .*; expected"):
        p.generate("speech", on_candidate=(lambda _: None) if listens else None)


def _ratings(n: int) -> list[Record]:
    return [Record(f"film {i}", str(1 + i % 5), "film_rating", f"f{i}", float(i)) for i in range(n)]


def _with_switch(p: Personalizer, switch: str) -> None:
    p.fit_head("film_rating", use_llm=False)
    p.generate("film 1", task="film_rating")
    p.choose(pick=1, keep=False)
    state = p.store.head("film_rating", "adapter")
    assert state is not None
    p.store.save_head(replace(state, switch=switch))


def test_generate_without_the_first_answer_takes_the_most_drawn_where_no_head_serves(
    person: Make, scripted
) -> None:
    answers = ["I would say 5 stars", "2", *["5"] * 6]
    p = person(_ratings(20), llm=scripted(lambda _p, n: answers[:n]))
    _with_switch(p, "baseline")
    assert p.generate("film 7", task="film_rating").text == "5"


@pytest.mark.parametrize("switch", ["baseline", "shared"])
def test_generate_none_of_a_closed_set_is_said(person: Make, scripted, switch: str) -> None:
    answers = ["4"] * 8
    p = person(_ratings(20), llm=scripted(lambda _p, n: answers[:n]))
    _with_switch(p, switch)
    answers[:] = ["four stars"] * 8
    (note,) = p.generate("film 7", task="film_rating").notes
    assert "none of the LLM's answers ('four stars' ...) is one of the 5 of film_rating" in note
    assert ("is a guess" in note) == (switch == "baseline")
