"""What leaves for an LLM: nothing private, nothing offline, and what was shown byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from llm_server import Server
from title_writer import Make, history, people, titles

from hydra_edge.errors import ContextLengthError, EgressDeniedError
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


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


def test_generate_private_records_left_out_are_told_to_the_owner(person: Make, scripted) -> None:
    llm = scripted(titles, is_remote=True)
    p = person([replace(r, private=True) for r in history(5)], llm=llm)
    said = "private: no remote LLM is shown 5 of 5 records of paper_title; `hydra-edge history"
    (note,) = p.generate("about speech").notes
    assert note.startswith(said)
    assert llm.prompts[-1].shots == ()
    seen: list[str] = []
    p.render_prompts("about speech", on_note=seen.append)
    assert seen == [note]
    assert not any(said in note for note in p.generate("about speech", private=True).notes)
    assert not p.generate("about speech", k=0).notes, "who wants none misses none"


def test_generate_private_records_are_told_to_nobody_who_may_not_see_them(
    person: Make, scripted
) -> None:
    p = person(history(private_every=2), llm=scripted(titles, is_remote=True))
    assert "20 of 40 records" in " ".join(p.generate("about speech").notes)
    assert not p.generate("about speech", hide_private=True).notes


@pytest.mark.parametrize(("every", "remote"), [(0, True), (2, False), (3, True)])
def test_generate_nothing_is_told_where_few_or_no_records_are_kept_back(
    person: Make, scripted, every: int, remote: bool
) -> None:
    p = person(history(private_every=every), llm=scripted(titles, is_remote=remote))
    assert not p.generate("about speech").notes


def test_generate_private_shows_a_local_llm_the_history(person: Make, scripted) -> None:
    llm = scripted(titles)
    generation = person(llm=llm).generate("about speech", private=True)
    assert len(llm.prompts[-1].shots) == len(generation.records) == 4
    assert not any("no history" in note for note in generation.notes)


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


@pytest.mark.parametrize("remote", [False, True])
def test_render_prompts_private_show_a_remote_llm_alone_no_history(
    person: Make, scripted, remote: bool
) -> None:
    llm = scripted(titles, is_remote=remote)
    p = person(llm=llm)
    rendered, *_ = p.render_prompts("about speech", private=True)
    p.generate("about speech", private=True)
    assert rendered == llm.render(llm.prompts[0])
    assert ("study" in rendered) is not remote


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


@pytest.mark.parametrize("room", [3, 0])
def test_render_prompts_leave_out_what_a_local_llm_has_no_room_for_and_say_so(
    person: Make, scripted, room: int
) -> None:
    class Small(scripted(titles).__class__):
        def render(self, prompt: Prompt, **options: object) -> str:
            if len(prompt.shots) > room and options.get("max_tokens"):
                raise ContextLengthError("no room")
            return super().render(prompt)

        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            self.render(prompt, **{"max_tokens": options["max_tokens"]})
            return super().complete(prompt, **options)

    llm = Small(titles)
    p = person(llm=llm)
    notes: list[str] = []
    rendered = p.render_prompts("a text about speech", on_note=notes.append)
    made = p.generate("a text about speech")
    assert [prompt.completion_text() for prompt in llm.prompts] == rendered
    assert len(rendered) == made.usage.llm_calls
    assert tuple(notes) == made.notes
    assert f"the {4 - room} weakest of 4 records were left out" in notes[0]
    llm.prompts.clear()
    shown = p.fit_prompts(calls=10)
    p.fit_head(calls=10)
    assert [prompt.completion_text() for prompt in llm.prompts] == shown[: len(llm.prompts)]
