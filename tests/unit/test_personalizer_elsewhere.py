"""Choices whose record, or whose answer, is made elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from title_writer import Make, history, people, titles

from hydra_edge.errors import CancelledError, ConfigError
from hydra_edge.types import Record

QUERY = "a text about speech"
COMMIT = Record("what it does, and why", "Speak", "paper_title", "c1", 1.7e9, source="git:/repo")


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_choose_as_learns_and_keeps_the_record_it_is_given(person: Make) -> None:
    p = person()
    made = p.generate(QUERY)
    asked = []

    def record_of(answer):
        asked.append(answer)
        return COMMIT

    taken = p.choose_as(record_of, generation_id=made.id, pick=2)

    (answer,) = asked
    assert (answer.id, answer.query, answer.task) == (made.id, QUERY, "paper_title")
    assert (taken.text, taken.head_version) == (made.candidates[1].text, 1)
    assert taken.record_id == "c1"
    assert p.store.get("c1") == COMMIT
    (choice,) = p.store.choices()
    assert (choice.picked, choice.record_id) == (1, "c1")


def test_choose_as_a_candidate_spelled_otherwise_is_a_pick(person: Make) -> None:
    p = person()
    made = p.generate(QUERY)
    taken = p.choose_as(lambda _: None, generation_id=made.id, pick=2, text="as it is written")
    (choice,) = p.store.choices()
    assert (choice.picked, choice.text, taken.record_id) == (1, "as it is written", None)


def test_choose_as_said_twice_is_one_choice_and_one_step(person: Make) -> None:
    p = person()
    made = p.generate(QUERY)
    first = p.choose_as(lambda _: COMMIT, generation_id=made.id, text="Speak")
    (choice,) = p.store.choices()
    again = p.choose_as(lambda _: COMMIT, generation_id=made.id, text="Speak")
    assert again.head_version == first.head_version
    assert p.store.choices() == [choice]
    assert p.store.head("paper_title", "adapter").n_queries == 1


def test_choose_as_an_id_that_is_taken_names_the_record_that_was_kept(person: Make) -> None:
    p = person()
    p.add(replace(COMMIT, output="Somebody else's", source="add"))
    made = p.generate(QUERY)
    taken = p.choose_as(lambda _: COMMIT, generation_id=made.id, pick=2)
    assert taken.record_id != "c1"
    assert p.store.get(taken.record_id).output == "Speak"


@pytest.mark.parametrize("record", [None, COMMIT])
def test_choose_as_leaves_no_record_that_says_what_was_not_chosen(person: Make, record) -> None:
    p = person()
    made = p.generate(QUERY)
    kept = p.choose(generation_id=made.id, pick=1).record_id
    taken = p.choose_as(lambda _: record, generation_id=made.id, text="Speak")
    assert p.store.get(kept).output == "Speak"
    assert taken.record_id == (kept if record is None else "c1")


def test_choose_as_a_record_that_cannot_be_made_stores_nothing(person: Make) -> None:
    p = person()
    made = p.generate(QUERY)
    with pytest.raises(ConfigError, match="its output is ''"):
        p.choose_as(lambda _: replace(COMMIT, output=""), generation_id=made.id, pick=1)
    assert p.store.choices() == []
    assert p.store.count() == len(history())


def test_choose_as_stopped_is_kept_for_the_next_fit(person: Make) -> None:
    p = person()
    made = p.generate(QUERY)
    p.add(Record(f"a note {i}", f"Note {i}", "paper_title", f"n{i}") for i in range(9))
    with pytest.raises(CancelledError, match="The choice is kept"):
        p.choose_as(lambda _: COMMIT, generation_id=made.id, pick=1, should_stop=lambda: True)
    assert [choice.record_id for choice in p.store.choices()] == ["c1"]
    assert p.store.head("paper_title", "adapter") is None


def test_keep_answer_is_a_record_that_is_hidden_with_what_its_prompt_showed(person: Make) -> None:
    p = person()
    out = p.prompt_for(QUERY, k=2)
    kept = p.keep_answer(
        QUERY, "speech: my words", prompt_id="p1", record_ids=out.prompt.record_ids
    )
    assert (kept.task, kept.head_version) == ("paper_title", None)
    record = p.store.get(kept.record_id)
    assert (record.input, record.output) == (QUERY, "speech: my words")
    assert (record.private, record.source) == (False, "choices")
    p.store.set_private([out.prompt.record_ids[0]], True)
    assert p.store.get(kept.record_id).private
    p.forget(out.prompt.record_ids[1])
    assert p.store.choices() == []


def test_keep_answer_said_again_is_no_other_choice(person: Make) -> None:
    p = person()
    out = p.prompt_for(QUERY)
    shown = {"prompt_id": "p1", "record_ids": out.prompt.record_ids}
    p.keep_answer(QUERY, "speech: once", **shown)
    (first,) = p.store.choices()
    p.keep_answer(QUERY, "speech: once", **shown)
    assert p.store.choices() == [first]
    other = p.keep_answer(QUERY, "speech: twice", **shown)
    assert [choice.text for choice in p.store.choices()] == ["speech: twice"]
    assert p.store.get(other.record_id).output == "speech: twice"
    assert p.store.count() == len(history()) + 1


def test_keep_answer_by_the_id_of_an_answer_of_ours_loses_no_choice(person: Make, scripted) -> None:
    p = person(llm=scripted(titles))
    made = p.generate(QUERY)
    p.choose(generation_id=made.id, pick=2)
    before = p.store.choices()
    with pytest.raises(ConfigError, match="Use `choose`"):
        p.keep_answer("q", "speech: other", prompt_id=made.id, record_ids=())
    p.clear_log()
    with pytest.raises(ConfigError, match="Use `choose`"):
        p.keep_answer("q", "speech: other", prompt_id=made.id, record_ids=())
    assert p.store.choices() == before


def test_keep_answer_to_private_records_is_private(person: Make) -> None:
    p = person(history(private_every=1))
    out = p.prompt_for(QUERY)
    kept = p.keep_answer(QUERY, "speech: mine", prompt_id="p", record_ids=out.prompt.record_ids)
    assert p.store.get(kept.record_id).private


def test_prompt_for_is_the_prompt_that_generate_sends(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    out = p.prompt_for(QUERY, k=3)
    assert llm.prompts == []
    assert out.ranking == p.rank(QUERY, k=3)
    p.generate(QUERY, k=3)
    assert llm.prompts[0] == out.prompt


def test_prompt_for_hiding_private_shows_none(person: Make) -> None:
    p = person(history(private_every=3))
    shown = [r.record.private for r in p.prompt_for(QUERY, k=8).ranking.records]
    assert any(shown)
    hidden = p.prompt_for(QUERY, k=8, hide_private=True)
    assert len(hidden.prompt.record_ids) == 8
    assert not any(r.record.private for r in hidden.ranking.records)


def test_prompt_for_stopped_ends_the_embedding(person: Make) -> None:
    with pytest.raises(CancelledError, match="The prompt was stopped"):
        person().prompt_for(QUERY, should_stop=lambda: True)
