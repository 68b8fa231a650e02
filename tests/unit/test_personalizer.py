"""The facade with a fake encoder and a scripted LLM: order of things, egress, learning."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import Server

from hydra_edge.answering import Pieces
from hydra_edge.bundle import Bundle
from hydra_edge.config import Config
from hydra_edge.errors import (
    BackendError,
    BaseMismatchError,
    ConfigError,
    ContextLengthError,
    EgressDeniedError,
    StoreError,
    UnknownModelError,
    UnknownTaskError,
    UnknownUserError,
)
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt, unfold
from hydra_edge.types import Completion, HeadState, Record

TOPICS = ("parser", "speech", "vision", "search")


def history(n: int = 40, *, private_every: int = 0) -> list[Record]:
    """Make records of a user whose titles start with the topic of the text."""
    return [
        Record(
            f"a long text about {TOPICS[i % 4]} number {i} with words",
            f"{TOPICS[i % 4]}: study {i}",
            "paper_title",
            id=f"r{i}",
            time=float(i),
            private=bool(private_every) and i % private_every == 0,
        )
        for i in range(n)
    ]


def titles(prompt: Prompt, n: int) -> list[str]:
    """Answer with a plain title first, then titles in and out of the user's style."""
    topic = next((t for t in TOPICS if t in prompt.query), "nothing")
    wanted = ["A Study", f"{topic}: study 7", f"On {topic}", "Something Else", f"{topic}: study 8"]
    return (wanted * 4)[:n]


@pytest.fixture
def person(hash_encoder, scripted):
    made: list[Personalizer] = []

    def make(records: list[Record] | None = None, llm=None, **config: object) -> Personalizer:
        p = Personalizer.from_records(
            history() if records is None else records,
            llm=llm or scripted(titles),
            encoder=hash_encoder,
            config=replace(Config(), **config),
        )
        made.append(p)
        return p

    yield make
    for p in made:
        p.close()


Make = Callable[..., Personalizer]


def test_rank_scores_are_the_sum_of_their_contributions(person: Make) -> None:
    ranking = person().rank("a text about speech", task="paper_title")
    assert len(ranking.records) == 4
    for ranked in ranking.records:
        assert sum(ranked.contributions.values()) == pytest.approx(ranked.score, abs=1e-4)
    scores = [r.score for r in ranking.records]
    assert scores == sorted(scores, reverse=True)
    assert ranking.head.switch == "shared"
    assert ranking.head.version is None


def test_rank_a_record_that_is_there_twice_is_shown_once(person: Make) -> None:
    mine = history(8)
    p = person([*mine, *(replace(r, id=f"{r.id} renamed", time=50.0) for r in mine)])
    for k in (3, 20):
        found = [r.record for r in p.rank("a text about speech", task="paper_title", k=k).records]
        assert len(found) == min(k, 8)
        assert len({record.input for record in found}) == len(found)


def test_rank_without_a_task_takes_the_most_used_one(person: Make) -> None:
    extra = [Record("x", "y", "commit_subject", id="c")]
    assert person([*history(), *extra]).rank("speech").task == "paper_title"


def test_rank_unknown_task_lists_what_exists(person: Make) -> None:
    with pytest.raises(UnknownTaskError, match="paper_title"):
        person().rank("speech", task="nonsense")
    mine = [Record("a ticket", "network", "my_teams")]
    with pytest.raises(UnknownTaskError, match="my_teams"):
        person(mine).rank("speech", task="my_taems")


def test_rank_empty_history_and_empty_query(person: Make) -> None:
    assert person([]).rank("speech", task="paper_title").records == ()
    with pytest.raises(ConfigError, match="The query is empty"):
        person().rank("  \n ")


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


def test_generate_streams_only_one_answer(person: Make) -> None:
    with pytest.raises(ConfigError, match="Streaming shows one answer: got n = 8"):
        person().generate("about speech", on_token=print)


class Streaming:
    """An LLM that streams a text in given pieces and returns it as it is."""

    name = "streaming"
    is_remote = False

    def __init__(self, *pieces: str, text: str | None = None) -> None:
        self.pieces = pieces
        self.text = "".join(pieces) if text is None else text

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.completion_text()

    def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
        if on_token := options["on_token"]:
            for piece in self.pieces:
                on_token(piece)
        return [Completion(self.text, greedy=True)]

    def close(self) -> None:
        """Hold nothing."""


def any_text(pieces: list[str]) -> bool:
    return bool("".join(pieces).strip())


@given(st.lists(st.text(alphabet="ab \n\t\u2003", max_size=6), max_size=8).filter(any_text))
def test_pieces_put_together_are_the_answer_that_is_returned(pieces: list[str]) -> None:
    told: list[str] = []
    telling = Pieces(told.append)
    for piece in pieces:
        telling(piece)
    answer = unfold("".join(pieces)).strip()
    assert answer.startswith("".join(told))
    telling.finish(answer)
    assert "".join(told) == answer


def test_generate_pieces_put_together_are_the_text(person: Make) -> None:
    told: list[str] = []
    llm = Streaming(" a", "\n", " ", " b ", "\n\n  ", "  c\n")
    p = person([], llm=llm)
    generation = p.generate("q", task="general", n=1, on_token=told.append)
    assert "".join(told) == generation.text == "a\nb \n\n  c"
    assert generation.text == p.generate("q", task="general", n=1).text


def test_generate_tells_each_piece_at_once(person: Make) -> None:
    told: list[str] = []
    at: list[int] = []

    class Watching(Streaming):
        def complete(self, prompt: Prompt, *, on_token: Callable[[str], None], **_: object):
            for piece in self.pieces:
                on_token(piece)
                at.append(len("".join(told)))
            return [Completion(self.text)]

    person([], llm=Watching(" One ", "two\n", "  three", " four ")).generate(
        "q", task="general", n=1, on_token=told.append
    )
    assert told == ["One", " two", "\nthree", " four"]
    assert at == [3, 7, 13, 18]


def test_generate_tells_the_answer_also_where_the_llm_streams_nothing(person: Make) -> None:
    told: list[str] = []
    p = person([], llm=Streaming(text="an answer"))
    assert p.generate("q", task="general", n=1, on_token=told.append).text == "an answer"
    assert told == ["an answer"]


def test_generate_label_is_told_whole_and_as_it_was_chosen(person: Make) -> None:
    told: list[str] = []
    p = person([], llm=Streaming("PO", "LIT", "ICS", text="politics"))
    generation = p.generate("q", task="news_category", n=1, on_token=told.append)
    assert told == [generation.text]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n": 0}, "this call: candidates = 0 cannot be used; expected 1 or more, and 64 at most"),
        ({"n": 65}, "this call: candidates = 65 cannot be used"),
        ({"n": True}, "this call: candidates = True cannot be used"),
        ({"k": "4"}, "this call: records = '4' cannot be used"),
        ({"k": 1.5}, "this call: records = 1.5 cannot be used"),
        ({"k": -1}, "this call: records = -1 cannot be used; expected 0 or more"),
        ({"temperature": -0.1}, "this call: temperature = -0.1 cannot be used"),
        ({"temperature": float("nan")}, "this call: temperature = nan cannot be used"),
    ],
)
def test_generate_refuses_numbers_no_setting_can_have(
    person: Make, asked: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        person().generate("any query", **asked)


def test_generate_llm_that_streams_another_text_is_an_error(person: Make) -> None:
    p = person([], llm=Streaming("one thing", text="another"))
    with pytest.raises(BackendError, match="streamed another answer than it returned"):
        p.generate("q", task="general", n=1, on_token=print)


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


def test_remote_llm_never_sees_a_private_record(person: Make, scripted) -> None:
    llm = scripted(titles, is_remote=True)
    p = person(history(private_every=2), llm=llm)
    p.generate("a text about speech")
    p.fit_head(calls=200)
    shown = {s.record_id for prompt in llm.prompts for s in prompt.shots}
    assert shown
    assert not any(p.store.get(i).private for i in shown)
    queries = {prompt.query for prompt in llm.prompts}
    for record in p.store.records():
        if record.private:
            assert record.input not in queries
    assert any(r.record.private for r in p.rank("a text about speech", k=40).records)


def test_local_llm_may_see_private_records(person: Make, scripted) -> None:
    llm = scripted(titles)
    person([replace(r, private=True) for r in history()], llm=llm).generate("about speech")
    assert len(llm.prompts[-1].shots) == 4


def test_generate_private_shows_a_remote_llm_no_history(person: Make, scripted) -> None:
    llm = scripted(titles, is_remote=True)
    generation = person(llm=llm).generate("about speech", private=True)
    assert llm.prompts[-1].shots == ()
    assert "study" not in llm.prompts[-1].completion_text()
    assert any("no history was put into the prompt" in note for note in generation.notes)


@pytest.mark.parametrize("private", [False, True])
def test_remote_llm_never_sees_an_answer_known_from_private_records_only(
    person: Make, scripted, private: bool
) -> None:
    """A closed set is part of the prompt: the user's own additions to it are history too."""
    labels = ["action", "hidden tag", "open tag", "comedy"]
    records = [
        Record(
            f"film {i}", labels[i % 4], "movie_tag", id=f"m{i}", time=i,
            private=labels[i % 4] == "hidden tag",
        )
        for i in range(40)
    ]  # fmt: skip
    llm = scripted(lambda _prompt, n: ["comedy"] * n, is_remote=True)
    p = person(records, llm=llm)
    generation = p.generate("film 3", task="movie_tag", private=private)
    p.fit_head("movie_tag", calls=60)
    assert llm.prompts
    assert not any("hidden tag" in prompt.completion_text() for prompt in llm.prompts)
    assert ("open tag" in llm.prompts[0].completion_text()) is not private
    assert "hidden tag" in {c.text for c in generation.candidates}, "it may still be the answer"


@pytest.mark.parametrize(
    "slip", ["network, but ask the people on the second floor first", "network\nbut ask first"]
)
def test_a_long_answer_chosen_among_inferred_labels_is_learned_from_and_is_no_label(
    person: Make, scripted, slip: str
) -> None:
    teams = ("access", "hardware", "network")
    records = [
        Record(f"{teams[i % 3]} ticket number {i}", teams[i % 3], "my_teams", f"t{i}", float(i))
        for i in range(30)
    ]
    llm = scripted(lambda _prompt, n: [teams[i % 3] for i in range(n)])
    p = person(records, llm=llm)
    p.fit_head("my_teams", calls=20)
    p.generate("network ticket again", task="my_teams")
    p.choose(text=slip)
    assert slip in {r.output for r in p.store.records(task="my_teams")}
    assert (p.task("my_teams").kind, p.task("my_teams").labels) == ("label", teams)

    p.fit_head("my_teams", calls=40)
    assert {h.report["kind"] for h in p.store.heads("my_teams")} == {"label"}
    made = p.generate("network ticket again", task="my_teams", k=31)  # all there are
    assert slip in {r.record.output for r in made.records}
    assert {c.text for c in made.candidates} == set(teams)
    p.choose(text="network")
    assert p.store.choices("my_teams")[-1].picked is not None
    assert all(prompt.task.labels == teams for prompt in llm.prompts)


def test_private_inferred_closed_set_is_not_told_to_a_remote_llm(person: Make, scripted) -> None:
    records = [Record(f"a {i}", ["mine", "yours"][i % 2], "mood", time=i) for i in range(20)]
    llm = scripted(lambda _prompt, n: ["who knows"] * n, is_remote=True)
    generation = person(records, llm=llm).generate("a 3", task="mood", private=True)
    assert "mine" not in llm.prompts[0].completion_text()
    assert generation.text in {"mine", "yours"}


def test_offline_refuses_a_remote_llm_before_anything_is_sent(person: Make, scripted) -> None:
    llm = scripted(titles, is_remote=True)
    p = person(llm=llm, offline=True)
    with pytest.raises(EgressDeniedError, match="--offline forbids every remote call"):
        p.generate("about speech")
    assert llm.prompts == []


def test_render_prompts_are_what_generate_sends(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    rendered = p.render_prompts("a text about speech", system="Be brief.")
    assert llm.prompts == []
    p.generate("a text about speech", system="Be brief.")
    assert [prompt.completion_text() for prompt in llm.prompts] == rendered


@pytest.mark.parametrize("streams", [False, True])
def test_render_prompts_are_what_an_api_is_sent_streamed_or_not(
    person: Make, streams: bool
) -> None:
    with Server() as server:
        p = person(llm=OpenAIApi("m", base_url=server.url))
        (rendered,) = p.render_prompts("a text about speech", n=1, seed=3, stream=streams)
        assert server.seen == []
        p.generate("a text about speech", n=1, seed=3, on_token=[].append if streams else None)
        assert server.seen[0].raw.decode() == rendered
        assert ("stream" in server.seen[0].body) is streams
        p.llm.close()


def test_render_prompts_stream_of_an_llm_that_does_not_know_it_is_its_prompt(person: Make) -> None:
    p = person()
    assert p.render_prompts("speech", n=1, stream=True) == p.render_prompts("speech", n=1)


def test_fit_head_without_llm_fits_the_reranker_only(person: Make) -> None:
    report = person().fit_head(use_llm=False)
    reranker, adapter = report.roles
    assert reranker.version == 1
    assert [row.name for row in reranker.rows] == [
        "unpersonalized", "prompt-only RAG", "shared head", "my head",
    ]  # fmt: skip
    assert all(row.utility is not None for row in reranker.rows)
    assert adapter.version is None
    assert report.llm_calls == 0


def test_fit_head_spends_no_more_than_its_calls_and_resumes(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    first = p.fit_head(calls=50)
    assert 0 < first.llm_calls <= 50
    second = p.fit_head(calls=50)
    assert second.pools_reused == first.pools_made
    asked = [(prompt.query, prompt.record_ids) for prompt in llm.prompts]
    assert len(asked) == len(set(asked)), "a candidate was paid for twice"
    third = p.fit_head(use_llm=False)
    assert third.roles[1].version is not None
    assert third.roles[1].n_queries == first.pools_made + second.pools_made


def test_fit_head_stopped_in_the_middle_pays_for_nothing_twice(person: Make, scripted) -> None:
    class Stopping(scripted(titles).__class__):
        left = 5

        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().complete(prompt, **options)

    llm = Stopping(titles)
    p = person(llm=llm)
    with pytest.raises(KeyboardInterrupt):
        p.fit_head(calls=500)
    assert len(p.store.pools()) >= 5
    llm.left = 1000
    p.fit_head(calls=100)
    asked = [(prompt.query, prompt.record_ids) for prompt in llm.prompts]
    assert len(asked) > 5
    assert len(asked) == len(set(asked))


def test_fit_head_never_shows_the_answer_nor_a_later_record(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    p.fit_head(calls=300)
    position = {r.id: i for i, r in enumerate(p.store.records())}
    by_query = {r.input: r for r in p.store.records()}
    assert llm.prompts
    for prompt in llm.prompts:
        record = by_query[prompt.query]
        assert record.output not in prompt.completion_text()
        for shot in prompt.shots:
            assert position[shot.record_id] < position[record.id]


def test_fit_head_llm_that_keeps_failing_is_left_alone(person: Make, scripted) -> None:
    llm = scripted(titles)
    llm.fail_next = 100
    report = person(llm=llm).fit_head(calls=500)
    assert "failed 3 times in a row" in " ".join(report.notes)
    assert llm.fail_next == 97


def test_fit_head_remote_llm_is_asked_nothing_unless_told(person: Make, scripted) -> None:
    llm = scripted(titles, is_remote=True)
    report = person(llm=llm).fit_head()
    assert llm.prompts == []
    assert "give --calls N" in " ".join(report.notes)


def test_fit_head_reuses_every_cached_vector(person: Make, hash_encoder) -> None:
    p = person()
    assert p.fit_head(use_llm=False).texts_embedded == 80
    hash_encoder.encoded.clear()
    p.add([Record("a new text", "new: title", "paper_title", id="new", time=99.0)])
    report = p.fit_head(use_llm=False)
    assert sorted(hash_encoder.encoded) == ["a new text", "new: title"]
    assert (report.texts_embedded, report.vectors_reused) == (2, 80)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_everything_works_with_almost_no_records(person: Make, n: int) -> None:
    p = person(history(n))
    report = p.fit_head("paper_title", calls=30)
    assert report.records == n
    assert p.generate("about speech", task="paper_title").text
    assert len(p.rank("about speech", task="paper_title").records) == min(n, 4)


def test_fit_prompts_sends_nothing_and_shows_all(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    prompts = p.fit_prompts(calls=20)
    assert llm.prompts == []
    assert prompts
    assert p.store.heads() == []
    p.fit_head(calls=20)
    sent = {prompt.completion_text() for prompt in llm.prompts}
    assert sent == set(prompts)


def test_choose_takes_one_step_toward_the_pick(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech")
    last = len(generation.candidates)
    picked = generation.candidates[-1].text
    result = p.choose(pick=last)
    assert (result.text, result.head_version) == (picked, 1)
    state = p.store.head("paper_title", "adapter")
    assert state is not None
    p.store.save_head(replace(state, switch="personal"))
    again = p.generate("a text about speech")

    def lead(candidates) -> float:
        scores = {c.text: c.score for c in candidates}
        return scores[picked] - max(s for t, s in scores.items() if t != picked)

    assert lead(again.candidates) > lead(generation.candidates)


def test_choose_keeps_the_answer_as_a_record(person: Make) -> None:
    p = person()
    p.generate("a text about speech")
    assert p.choose(text="other", keep=False).record_id is None
    result = p.choose(text="speech: my own words")
    assert result.record_id is not None
    record = p.store.get(result.record_id)
    assert (record.input, record.output) == ("a text about speech", "speech: my own words")


def test_choose_is_part_of_the_next_fit(person: Make) -> None:
    p = person()
    p.generate("a text about speech")
    p.choose(pick=2)
    report = p.fit_head(use_llm=False)
    assert report.roles[1].n_queries == 1


def test_fit_on_choices_alone_claims_no_utility(person: Make) -> None:
    p = person()
    for i in range(3):
        p.generate(f"a text about speech {i}")
        p.choose(pick=2)
    report = p.fit_head(use_llm=False)
    adapter = next(role for role in report.roles if role.role == "adapter")
    assert [row.utility for row in adapter.rows] == [None] * 4
    assert all("choices alone" in row.note for row in adapter.rows)


def test_choose_needs_something_to_choose_from(person: Make) -> None:
    p = person()
    with pytest.raises(ConfigError, match="Generate one first"):
        p.choose(pick=1)
    p.generate("about speech")
    with pytest.raises(ConfigError, match="No candidate 99; expected 1 to 5"):
        p.choose(pick=99)
    with pytest.raises(ConfigError, match="either the number"):
        p.choose()
    with pytest.raises(ConfigError, match="either the number"):
        p.choose(text="  ")


def test_log_off_remembers_no_answer(person: Make) -> None:
    p = person(log=False)
    p.generate("about speech")
    assert p.store.last_generation() is None


def test_choose_after_an_unlogged_answer_is_refused(person: Make) -> None:
    p = person()
    logged = p.generate("about speech")
    p.config = replace(p.config, log=False)
    for query in ("my printer", "my other printer"):
        p.generate(query)
        with pytest.raises(ConfigError, match="The last answer is not remembered"):
            p.choose(pick=1)
    assert p.store.choices() == []
    assert p.choose(generation_id=logged.id, pick=1).generation_id == logged.id
    p.config = replace(p.config, log=True)
    last = p.generate("about vision")
    assert p.choose(pick=1).generation_id == last.id


@pytest.mark.parametrize("failing", [["log_generation"], ["log_generation", "mark_unlogged"]])
def test_choose_after_an_answer_that_could_not_be_logged_is_refused(
    person: Make, monkeypatch: pytest.MonkeyPatch, failing: list[str]
) -> None:
    def full(*_given: object) -> None:
        raise StoreError("no space is left")

    p = person()
    earlier = p.generate("about speech")
    with monkeypatch.context() as patch:
        for name in failing:
            patch.setattr(p.store, name, full)
        notes = p.generate("my printer").notes
    assert ["no space is left" in note for note in notes].count(True) == len(failing)
    for _ in range(2):
        with pytest.raises(ConfigError, match="The last answer is not remembered"):
            p.choose(pick=1)
    assert p.store.choices() == []
    assert p.choose(generation_id=earlier.id, pick=1).generation_id == earlier.id


def test_choose_takes_what_was_logged_after_an_answer_that_could_not_be(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise StoreError("no space is left")

    p = person()
    p.generate("about speech")
    with monkeypatch.context() as patch:
        patch.setattr(p.store, "log_generation", full)
        patch.setattr(p.store, "mark_unlogged", full)
        p.generate("my printer")
    last = p.generate("about vision")
    assert p.choose(pick=1).generation_id == last.id


def test_choose_after_the_last_answer_was_forgotten_is_refused(person: Make) -> None:
    p = person()
    made = [p.generate(f"a text about {topic}", k=1) for topic in TOPICS[:3]]
    shown = [generation.records[0].record.id for generation in made]
    assert len(set(shown)) == len(made)
    p.forget([shown[0]])
    assert p.choose(pick=2, keep=False).generation_id == made[2].id
    p.forget([shown[2]])
    assert [p.store.generation(generation.id) is None for generation in made] == [True, False, True]
    with pytest.raises(ConfigError, match="The last answer is not remembered"):
        p.choose(pick=2)
    last = p.generate("a text about search", k=1)
    assert p.choose(pick=2).generation_id == last.id


def test_choose_takes_what_another_release_logged_after_an_unlogged_answer(person: Make) -> None:
    p = person()
    p.generate("about speech")
    p.store.mark_unlogged()
    with p.store._db.writing() as connection:  # as releases do that know of no mark
        connection.execute(
            "INSERT INTO log (id, task, query, text, model, candidates, record_ids, usage, time) "
            "SELECT 'new', task, query, text, model, candidates, record_ids, usage, time FROM log"
        )
    assert p.choose(pick=1).generation_id == "new"


def test_forget_fits_again_without_the_record(person: Make) -> None:
    p = person()
    p.fit_head(calls=60)
    receipt = p.forget(["r39"])
    assert receipt.records == 1
    assert "r39" not in {r.record.id for r in p.rank("number 39", k=40).records}
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    assert state.n_queries == 37
    assert [h.version for h in p.store.heads()] == [2, 2], "what the record taught is gone too"


def test_forget_everything_leaves_no_head_in_force(person: Make) -> None:
    p = person()
    p.fit_head(calls=30)
    p.forget([f"r{i}" for i in range(40)])
    assert p.rank("speech", task="paper_title").head.version is None


def test_clear_log_with_choices_fits_the_heads_again_without_them(person: Make) -> None:
    p = person()
    for i in range(3):
        p.generate(f"a text about speech {i}")
        p.choose(pick=2, keep=i == 0)
    p.fit_head(use_llm=False)
    assert p.clear_log() == 3
    p.generate("about speech")
    p.choose(pick=2, keep=False)
    assert p.clear_log(choices=True) == 4  # one answer, and three choices
    assert p.generate("about speech").notes == ()
    adapter = p.store.head("paper_title", "adapter")
    assert adapter is not None
    assert (adapter.stale, adapter.n_queries) == (False, 1)


def test_clear_log_with_choices_leaves_a_head_imported_before_them(person: Make) -> None:
    p, q = person(), person([])
    p.fit_head(use_llm=False)
    q.import_head(p.export_head("paper_title", "reranker"))
    q.generate("about speech", task="paper_title")
    assert q.choose(pick=2, keep=False).head_version == 1
    assert q.clear_log(choices=True) == 2
    assert [(h.role, h.version, h.stale) for h in q.store.heads()] == [("reranker", 1, False)]
    assert q.rank("speech", task="paper_title").head.version == 1


def test_head_of_another_base_does_not_serve(person: Make, bundle: Bundle) -> None:
    p = person()
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    p.store.save_head(replace(state, base_id="f" * 64))
    info = p.rank("speech").head
    assert info.version is None
    assert "another base" in info.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base_id": "f" * 64}, "was fitted with another base"),
        ({"stale": True}, "learned from something that was forgotten"),
        ({"features": ("x",), "weight": np.ones(1, np.float32),
          "precision": np.ones((1, 1), np.float32)}, "was fitted on other features"),
        ({"report": {"kind": "rating"}}, "was fitted to another kind of answers"),
    ],
)  # fmt: skip
def test_generate_own_head_that_does_not_serve_is_told_until_it_is_fitted_again(
    person: Make, change: dict[str, Any], why: str
) -> None:
    p = person()
    assert p.generate("about speech").notes == (), "nobody misses a head that never was"
    p.fit_head(calls=30)
    assert p.generate("about speech").notes == ()
    for state in p.store.heads():
        p.store.save_head(replace(state, **change))
    note = f"your own head {why} and does not serve; run hydra-edge fit-head"
    assert p.generate("about speech").notes == (note,)
    p.fit_head(use_llm=False)
    assert p.generate("about speech").notes == ()


def test_import_head_with_nothing_to_fit_on_stays_until_it_is_taken_back(person: Make) -> None:
    p, q = person(), person(history(1))
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    p.store.save_head(replace(state, switch="personal"))
    q.import_head(p.export_head("paper_title", "reranker"))
    report = q.fit_head("paper_title", use_llm=False).roles[0]
    assert report.switch == q.rank("speech", task="paper_title").head.switch == "personal"
    assert report.reason == "fewer than three records; your head v1 stays"
    assert q.store.rollback_head("paper_title", "reranker") is None
    head = q.rank("speech", task="paper_title").head
    assert (head.switch, head.version) == ("shared", None)


def test_fit_head_that_cannot_replace_one_of_another_base_says_that_it_does_not_serve(
    person: Make,
) -> None:
    p, q = person(), person(history(1))
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    q.store.save_head(replace(state, base_id="f" * 64))
    report = q.fit_head("paper_title", use_llm=False).roles[0]
    assert report.reason == (
        "fewer than three records; your head v1 was fitted with another base and does not serve"
    )


def test_export_and_import_head_round_trip(person: Make) -> None:
    p, q = person(), person()
    p.fit_head(use_llm=False)
    text = p.export_head("paper_title", "reranker")
    assert "study" not in text
    imported: HeadState = q.import_head(text)
    original = p.store.head("paper_title", "reranker")
    assert original is not None
    np.testing.assert_array_equal(imported.weight, original.weight)
    np.testing.assert_array_equal(imported.precision, original.precision)
    with pytest.raises(BaseMismatchError, match="hydra-edge fit-head --task paper_title"):
        q.import_head(text.replace(original.base_id, "0" * 64))
    with pytest.raises(ConfigError, match="No adapter head for paper_title"):
        p.export_head("paper_title", "adapter")


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode("ascii")


def _lopsided(d: int) -> np.ndarray:
    precision = np.eye(d)
    precision[0, 1] = 0.5
    return precision


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {"precision": _packed(_lopsided(d))},
        lambda d: {"precision": _packed(-np.eye(d))},
        lambda d: {"weight": _packed(np.full(d, 3e35))},
        lambda d: {"n_queries": float("inf")},
        lambda d: {"n_queries": 10**30},
        lambda d: {"n_queries": -1},
        lambda d: {"prior_scale": 0.0},
        lambda d: {"task": ""},
        lambda d: {"task": "\x1b[31mevil"},
        lambda d: {"task": "x" * 5000},
        lambda d: {"features": ["a", "b", "c"], "weight": _packed(np.zeros(3)),
                   "precision": _packed(np.eye(3))},
        lambda d: {"features": [], "weight": "", "precision": ""},
    ],
)  # fmt: skip
def test_import_head_refuses_what_no_answer_could_be_given_with(
    person: Make, change: Callable[[int], dict[str, Any]]
) -> None:
    p, q = person(), person()
    p.fit_head(use_llm=False)
    raw = json.loads(p.export_head("paper_title", "reranker"))
    with pytest.raises(ConfigError):
        q.import_head(json.dumps(raw | change(len(raw["features"]))))
    assert q.store.heads() == []
    q.import_head(json.dumps(raw))


def test_export_head_that_learned_from_what_was_forgotten_is_refused(person: Make) -> None:
    p = person()
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    p.store.save_head(replace(state, stale=True))
    with pytest.raises(ConfigError, match="fit-head --task paper_title"):
        p.export_head("paper_title", "reranker")


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
    answers[:] = ["4 stars"] * 8
    (note,) = p.generate("film 7", task="film_rating").notes
    assert "none of the LLM's answers ('4 stars' ...) is one of the 5 of film_rating" in note
    assert ("is a guess" in note) == (switch == "baseline")


def test_open_unknown_user_lists_those_that_exist(home: Path) -> None:
    with Personalizer.open("ann", create=True):
        pass
    with pytest.raises(UnknownUserError, match="ann"):
        Personalizer.open("bob")
    assert not (home / "users" / "bob.db").exists()


def test_close_closes_only_an_llm_of_its_own(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    p.generate("about speech")
    p.close()
    assert llm.closed == 0


def test_unknown_model_lists_what_exists(hash_encoder) -> None:
    p = Personalizer.from_records(
        history(), encoder=hash_encoder, config=replace(Config(), model="gpt-nonsense")
    )
    with pytest.raises(UnknownModelError, match="smollm2"):
        p.generate("about speech")
    p.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": "  "},
        {"output": ""},
        {"output": None},
        {"time": "2024-01-02"},
        {"time": 1e300},
        {"time": float("nan")},
        {"time": True},
        {"task": None},
        {"id": 5},
        {"source": None},
        {"private": None},
        {"id": "two\nlines"},
        {"id": "x" * 201},
        {"task": "a \x1b[31m task"},
    ],
)
def test_add_refuses_what_is_no_record(person: Make, wrong: dict[str, object]) -> None:
    p = person()
    record = replace(Record("a text", "a title", "paper_title", time=5.0), **wrong)
    message = r"A record cannot be added: its .*(; expected|control characters)"
    with pytest.raises(ConfigError, match=message):
        p.add([record])
    assert p.store.count() == 40


def test_add_replaces_what_no_file_can_hold_and_takes_one_record_by_itself(person: Make) -> None:
    p = person([])
    assert p.add(Record("a\x00b", "c\ud800", "note_title", id="r")).added == 1
    assert p.store.get("r") == Record("a\ufffdb", "c\ufffd", "note_title", id="r")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p: p.rank(None), "query"),
        (lambda p: p.rank(b"x"), "query"),
        (lambda p: p.rank("x", k=1.5), "k"),
        (lambda p: p.rank("x", k=-1), "k"),
        (lambda p: p.generate("x", task=3), "task"),
        (lambda p: p.choose(pick="1"), "pick"),
        (lambda p: p.choose(pick=True), "pick"),
        (lambda p: p.choose(text=5), "text"),
        (lambda p: p.fit_head(calls="3"), "calls"),
        (lambda p: p.fit_head(calls=-1), "calls"),
        (lambda p: p.fit_head(budget_s=float("nan")), "budget_s"),
        (lambda p: p.forget([5]), "id"),
        (lambda p: Personalizer.open(5), "user"),
    ],
)
def test_what_is_no_text_or_number_is_refused_in_words(person: Make, call: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is .*; expected (text|a whole|a number)"):
        call(person())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *(
            (lambda p, ask=ask, value=value: getattr(p, ask)("x", max_tokens=value), "max_tokens")
            for ask in ("generate", "render_prompts")
            for value in ("x", 1.5, True, 0)
        ),
        *(
            (lambda p, ask=ask, wrong=wrong: getattr(p, ask)("x", **wrong), next(iter(wrong)))
            for ask in ("generate", "render_prompts")
            for wrong in ({"seed": None}, {"seed": 1.5}, {"system": None}, {"system": 5},
                          {"private": "no"})
        ),
        (lambda p: p.generate("x", hide_private="no"), "hide_private"),
        (lambda p: p.rank("x", hide_private="no"), "hide_private"),
        (lambda p: p.render_prompts("x", stream="no"), "stream"),
        (lambda p: p.choose(generation_id=5, pick=1), "generation_id"),
        (lambda p: p.choose(pick=1, keep="no"), "keep"),
        (lambda p: p.choose(pick=1, source=None), "source"),
        (lambda p: p.forget(source=5), "source"),
        (lambda p: p.forget(None), "ids"),
        (lambda p: p.clear_log(choices="no"), "choices"),
        (lambda p: p.fit_head(use_llm="no"), "use_llm"),
        (lambda p: p.add(None), "records"),
        (lambda p: p.import_head(None), "text"),
    ],
)  # fmt: skip
def test_argument_that_cannot_be_used_is_refused_before_all_else(
    person: Make, hash_encoder, call: Any, name: str
) -> None:
    p = person()
    with pytest.raises(ConfigError, match=rf"^{name} is .*; expected "):
        call(p)
    assert hash_encoder.encoded == []


def test_numbers_of_numpy_are_numbers(person: Make) -> None:
    p = person()
    assert len(p.rank("a text about speech", k=np.int64(2)).records) == 2
    p.generate("about speech", n=np.int64(2), k=np.int32(1), temperature=np.float32(0.5))
    p.generate("about speech", seed=np.int64(-1), max_tokens=np.int32(5), private=np.False_)
    assert p.choose(pick=np.int64(1), keep=False).head_version == 1
    p.fit_head(calls=np.int64(0), budget_s=np.float64(0.0))


def test_add_refuses_a_dict_in_place_of_a_record(person: Make) -> None:
    with pytest.raises(ConfigError, match=r"got .*'input'.*; expected a Record"):
        person().add([{"input": "a text", "output": "a title"}])


@pytest.mark.parametrize("spelling", ["Note-Title", " note title ", "note_title"])
def test_add_finds_a_record_again_however_its_task_is_spelled(person: Make, spelling: str) -> None:
    p = person([Record(f"text number {i}", f"title {i}", spelling) for i in range(5)])
    assert p.store.tasks() == {"note_title": 5}
    for asked in (spelling, "NOTE_TITLE"):
        assert p.rank("text number 3", task=asked).records[0].record.output == "title 3"


def test_add_without_a_task_is_of_the_default_one(person: Make) -> None:
    p = person([Record("a text", "a title", task="")])
    assert p.store.tasks() == {"general": 1}
