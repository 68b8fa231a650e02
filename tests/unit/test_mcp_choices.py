"""Which answer over MCP was chosen, and why it was given: `record_choice` and `explain`."""

from dataclasses import replace

import mcp_host
import pytest
from mcp_host import RECORDS, call, one, refused

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.errors import CancelledError
from hydra_edge.mcp.desk import Desk
from hydra_edge.reasons import in_words

llm, person = mcp_host.llm, mcp_host.person


def test_generate_answer_choice_and_explanation_belong_together(person):
    desk = Desk(person)
    made, explained, chosen = (
        result.structured_content
        for result in call(
            desk,
            ("generate", {"query": "the parser fails"}),
            ("explain", {}),
            ("record_choice", {"pick": 2}),
        )
    )

    assert made["text"] in {c["text"] for c in made["candidates"]}
    assert [c["number"] for c in made["candidates"]] == [1, 2, 3]
    assert made["llm"] == "scripted"
    assert explained["generation_id"] == chosen["generation_id"] == made["generation_id"]
    assert explained["query"] == "the parser fails"
    assert explained["records"][0]["id"] == "r1"
    top = explained["candidates"][0]["reasons"][0]
    assert top["meaning"] == in_words(top["feature"], "adapter")
    assert chosen["text"] == made["candidates"][1]["text"]
    assert chosen["head_version"] == 1
    assert person.store.get(chosen["record_id"]).output == chosen["text"]


def test_generate_names_the_users_own_head_but_not_from_how_many_answers_it_comes(person):
    desk = Desk(person)
    call(desk, ("generate", {"query": "the parser fails"}), ("record_choice", {"pick": 2}))
    own = person.store.head("commit_subject", "adapter")
    person.store.save_head(replace(own, switch="personal"))

    made = one(desk, "generate", query="the parser fails")
    assert made["chosen_by"].startswith("the user's own head")
    assert "learned from" not in made["chosen_by"]


def test_record_choice_that_nobody_waits_for_is_kept_and_learns_later(person):
    desk = Desk(person)
    made = desk.generate("the parser fails", task=None, candidates=None)
    person.add(Record(f"a note {i}", f"Title {i}", made.task, f"n{i}") for i in range(9))
    with pytest.raises(CancelledError, match="The choice is kept"):
        desk.record_choice(None, pick=2, text=None, keep=False, should_stop=lambda: True)

    (choice,) = person.store.choices(made.task)
    assert choice.picked is not None
    assert person.store.head(made.task, "adapter") is None


def test_record_choice_edited_text_without_keeping_makes_no_record(person):
    before = person.store.count()
    _, result = call(
        Desk(person),
        ("generate", {"query": "the parser fails"}),
        ("record_choice", {"text": "Guard the parser", "keep": False}),
    )

    assert result.structured_content["text"] == "Guard the parser"
    assert result.structured_content["record_id"] is None
    assert person.store.count() == before


def test_record_choice_own_answer_to_a_personalized_prompt_becomes_a_record(person):
    desk = Desk(person)
    prompt = one(desk, "personalize", query="the lexer fails", task="commit_subject")

    chosen = one(
        desk, "record_choice", generation_id=prompt["generation_id"], text="Repair the lexer"
    )

    kept = person.store.get(chosen["record_id"])
    assert (kept.input, kept.output, kept.task) == (
        "the lexer fails", "Repair the lexer", "commit_subject",
    )  # fmt: skip
    assert chosen["head_version"] is None
    (choice,) = person.store.choices()
    assert (choice.candidates, choice.record_id) == ((), kept.id)
    assert choice.record_ids, "what it was made from is known"
    person.fit_head("commit_subject", use_llm=False)
    assert person.store.head("commit_subject", "adapter") is None, "nothing was offered"
    person.fit_head("commit_subject", calls=1000)
    asked = {pool.query_id for pool in person.store.pools("commit_subject", purpose="pool")}
    assert kept.id in asked, "it teaches as any record does"
    assert person.store.helped_counts("commit_subject") == {}
    assert "Repair the lexer" in one(desk, "personalize", query="the lexer fails")["prompt"]


@pytest.mark.parametrize(
    "given", [{"pick": 1}, {}, {"text": " "}, {"text": "Repair it", "keep": False}]
)
def test_record_choice_prompt_without_a_text_to_keep_is_refused(person, given):
    desk, before = Desk(person), person.store.count()
    prompt = one(desk, "personalize", query="the lexer fails")

    message = refused(desk, ("record_choice", {"generation_id": prompt["generation_id"], **given}))

    assert "has no candidates" in message
    assert person.store.count() == before


@pytest.mark.parametrize("given", [{"text": "Repair the lexer"}, {"pick": 1}])
def test_record_choice_without_an_id_after_a_prompt_is_refused(person, given):
    desk, before = Desk(person), person.store.count()
    made, prompt, refusal = call(
        desk,
        ("generate", {"query": "the parser fails"}),
        ("personalize", {"query": "the lexer fails"}),
        ("record_choice", given),
    )

    assert refusal.is_error
    assert "personalize was called after the last answer" in refusal.content[0].text
    assert person.store.count() == before
    assert not person.store.choices()
    made_id = made.structured_content["generation_id"]
    assert one(desk, "explain")["generation_id"] == made_id, "it changes nothing"
    assert one(desk, "record_choice", generation_id=made_id, pick=1)["generation_id"] == made_id
    again = one(desk, "generate", query="the lexer fails")["generation_id"]
    assert one(desk, "record_choice", pick=1)["generation_id"] == again, "it is clear once more"
    assert prompt.structured_content["generation_id"] not in {made_id, again}


def test_record_choice_without_an_id_after_prompts_only_names_the_way(person):
    message = refused(
        Desk(person), ("personalize", {"query": "q"}), ("record_choice", {"text": "an answer"})
    )

    assert "Give the generation_id of the personalize or generate" in message


def test_record_choice_answer_of_another_door_is_refused(person):
    other = person.generate("the parser fails")

    message = refused(
        Desk(person),
        ("generate", {"query": "q"}),
        ("record_choice", {"generation_id": other.id, "pick": 1}),
    )

    assert "expected one of its last" in message
    assert not person.store.choices()


def test_record_choice_neither_pick_nor_text_is_a_tool_error(person):
    message = refused(Desk(person), ("generate", {"query": "q"}), ("record_choice", {}))

    assert "number of a candidate or an edited text" in message


# ---- what is remembered


def test_generate_only_the_last_answers_are_remembered(person, monkeypatch):
    monkeypatch.setattr("hydra_edge.mcp.desk._REMEMBERED", 1)
    desk = Desk(person)
    first, second = (
        result.structured_content["generation_id"]
        for result in call(desk, ("generate", {"query": "a"}), ("generate", {"query": "b"}))
    )

    assert one(desk, "explain", generation_id=second)["query"] == "b"
    assert "No generation" in refused(desk, ("explain", {"generation_id": first}))


def test_personalize_only_the_last_prompts_are_remembered(person, monkeypatch):
    monkeypatch.setattr("hydra_edge.mcp.desk._REMEMBERED", 1)
    desk = Desk(person)
    first, _ = call(desk, ("personalize", {"query": "a"}), ("personalize", {"query": "b"}))
    given = {"generation_id": first.structured_content["generation_id"], "text": "c"}

    assert "Nothing was generated" in refused(desk, ("record_choice", given))


def test_generate_setting_log_off_leaves_no_trace(hash_encoder, llm):
    config = Config(candidates=2, log=False)
    with Personalizer.from_records(RECORDS, llm=llm, encoder=hash_encoder, config=config) as person:
        desk = Desk(person)
        one(desk, "generate", query="q")

        assert person.store.last_generation() is None
        assert "setting `log` is off" in refused(desk, ("record_choice", {"pick": 1}))
