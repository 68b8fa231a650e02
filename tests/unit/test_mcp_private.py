"""Private records over MCP: what an application learns of them, of their tasks and labels."""

import json

import mcp_host
import pytest
from mcp_host import RECORDS, answers, call, one, refused

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.mcp.desk import Desk

COLOURS = [  # one of which is private
    Record(f"text {i}", "mallory" if i == 3 else ("red", "blue")[i % 2], "colour", f"c{i}",
           float(i), private=i == 3)
    for i in range(12)
]  # fmt: skip
llm, person = mcp_host.llm, mcp_host.person


def test_search_finds_by_words_and_leaves_private_records_out(person):
    found = one(Desk(person), "search_history", query="parser")["records"]

    assert [record["id"] for record in found] == ["r1"]
    assert found[0]["output"] == "Fix empty files"
    assert found[0]["date"] == "2023-11-14"


def test_search_private_records_are_shown_when_allowed(person):
    found = one(Desk(person, allow_private=True), "search_history", query="parser")["records"]

    assert {record["id"] for record in found} == {"r1", "p1"}


def test_search_where_all_is_private_looks_once(person, monkeypatch):
    person.store.set_private([record.id for record in person.store.records()], True)
    asked = []
    search = person.store.search
    monkeypatch.setattr(
        person.store, "search", lambda *a, **kw: asked.append(kw) or search(*a, **kw)
    )
    assert not Desk(person).search("about", task=None, limit=2).records
    assert len(asked) == 1


def test_search_many_private_records_do_not_use_up_the_limit(person):
    person.add(
        Record(f"parser parser {i}", "parser parser", "t", f"x{i}", 1.8e9, private=True)
        for i in range(30)
    )

    found = one(Desk(person), "search_history", query="parser", limit=1)["records"]

    assert [record["id"] for record in found] == ["r1"]


def test_private_records_reach_no_tool_even_with_a_local_llm(person, llm):
    desk = Desk(person)
    results = call(
        desk,
        ("personalize", {"query": "the parser leaks a secret name", "records": 9}),
        ("generate", {"query": "the parser leaks a secret name"}),
        ("explain", {}),
        ("search_history", {"query": "mallory"}),
    )

    assert not any(result.is_error for result in results)
    said = json.dumps([result.model_dump(mode="json") for result in results])
    assert "mallory" not in said
    assert "mallory" not in llm.prompts[0].completion_text()


def test_private_records_are_used_when_allowed(person, llm):
    desk = Desk(person, allow_private=True)

    assert "mallory" in one(desk, "personalize", query="a secret name", records=9)["prompt"]
    one(desk, "generate", query="a secret name")
    assert "mallory" in llm.prompts[0].completion_text()


def test_what_the_host_made_of_private_records_is_kept_private(person):
    for allow_private in (False, True):
        desk = Desk(person, allow_private=allow_private)
        prompt = one(desk, "personalize", query="the parser leaks a secret name", records=9)
        chosen = one(
            desk, "record_choice", generation_id=prompt["generation_id"], text="Guard the name"
        )
        assert person.store.get(chosen["record_id"]).private is allow_private


# ---- their tasks


@pytest.fixture
def diary(person):
    """A person most of whose records are private, and of one task."""
    person.add(Record(f"text {i}", f"answer {i}", "diary", f"d{i}", private=True) for i in range(9))
    assert person.task().name == "diary"
    return person


@pytest.mark.parametrize("tool", ["personalize", "generate"])
def test_task_nobody_names_is_the_most_used_that_the_host_may_know(diary, tool):
    assert one(Desk(diary), tool, query="the parser fails")["task"] == "commit_subject"
    for desk in (Desk(diary, allow_private=True), Desk(diary, task="Diary")):
        assert one(desk, tool, query="the parser fails")["task"] == "diary"


def test_task_nobody_names_is_that_of_the_setting_where_there_is_one(hash_encoder, llm):
    config = Config(candidates=3, task="email_reply")
    with Personalizer.from_records(RECORDS, llm=llm, encoder=hash_encoder, config=config) as person:
        assert one(Desk(person), "personalize", query="q")["task"] == "email_reply"


def test_task_nobody_names_is_the_plain_one_where_all_is_private(person):
    person.store.set_private(["r1", "r2"], True)
    assert one(Desk(person), "personalize", query="q")["task"] == "general"


def test_search_task_of_private_records_is_refused_as_an_unknown_one_is(diary):
    private = refused(Desk(diary), ("search_history", {"query": "text", "task": "diary"}))
    unknown = refused(Desk(diary), ("search_history", {"query": "text", "task": "no such"}))

    assert private == unknown
    assert "diary" not in private
    assert "commit_subject" not in private
    host = Desk(diary, allow_private=True)
    assert one(host, "search_history", query="text", task="Diary")["records"]
    assert "commit_subject" in refused(host, ("search_history", {"query": "q", "task": "no such"}))


def test_search_task_that_may_be_named_is_searched_also_where_it_has_nothing(diary):
    for desk, task in ((Desk(diary, task="diary"), "diary"), (Desk(diary), "email_reply")):
        assert one(desk, "search_history", query="text", task=task) == {"records": []}
    (found, *_) = one(Desk(diary), "search_history", query="parser", task="Commit-Subject")[
        "records"
    ]
    assert found["task"] == "commit_subject"


@pytest.mark.parametrize("tool", ["personalize", "generate"])
def test_task_of_private_records_is_refused_as_an_unknown_one_is(diary, tool):
    private = refused(Desk(diary), (tool, {"query": "q", "task": "diary"}))
    unknown = refused(Desk(diary), (tool, {"query": "q", "task": "no such"}))
    gone = refused(Desk(diary, task="no such"), (tool, {"query": "q"}))

    assert private == unknown == gone
    assert "diary" not in private
    assert "commit_subject" not in private
    host = Desk(diary, allow_private=True)
    assert one(host, tool, query="q", task="diary")["task"] == "diary"


# ---- their labels, and what moves with them


def test_private_label_is_no_candidate(hash_encoder, scripted):
    llm = scripted(lambda _prompt, n: ["red"] * n)
    with Personalizer.from_records(COLOURS, llm=llm, encoder=hash_encoder) as person:
        assert "mallory" in person.task("colour").labels
        made = one(Desk(person), "generate", query="text 3", task="colour")

    assert {c["text"] for c in made["candidates"]} == {"red", "blue"}


@pytest.mark.parametrize("asked", ["generate", "personalize"])
def test_host_guessing_a_label_cannot_tell_whether_private_records_have_it(
    hash_encoder, scripted, asked
):
    records = [
        Record(f"text {i}", ("red", "blue")[i % 2], "colour", f"c{i}", float(i)) for i in range(12)
    ]
    secret = Record("text 12", "mallory", "colour", "c12", 12.0, private=True)
    llm, told = scripted(lambda _prompt, n: ["red"] * n), []
    for held in ([], [secret]):
        with Personalizer.from_records([*records, *held], llm=llm, encoder=hash_encoder) as person:
            desk = Desk(person)
            made = one(desk, asked, query="text 99", task="colour")
            one(desk, "record_choice", generation_id=made["generation_id"], text="mallory")
            found = one(desk, "search_history", query="text 99", task="colour", limit=32)["records"]
            told.append([record["output"] for record in found])

    assert told[0] == told[1]
    assert "mallory" in told[0]


@pytest.mark.parametrize(
    "answers", [["red", "blue"], ["1", "2"], ["Fix it", "Drop the cache"]], ids=str
)
def test_private_record_moves_no_answer_and_no_score(hash_encoder, scripted, answers):
    def said(*held):
        records = [
            Record(f"text {i} of mine", answers[i % 2] if len(answers[0]) < 6 else f"Say {i}",
                   "colour", f"c{i}", 100.0 + i)
            for i in range(12)
        ]  # fmt: skip
        llm = scripted(lambda _prompt, n: (answers * n)[:n])
        with Personalizer.from_records([*records, *held], llm=llm, encoder=hash_encoder) as person:
            query = {"query": "a secret query", "task": "colour"}
            shown, made, why = (
                result.structured_content
                for result in call(
                    Desk(person), ("personalize", query), ("generate", query), ("explain", {})
                )
            )
        for result in (shown, made, why):
            del result["generation_id"]
        del made["latency_ms"]
        return shown, made, why

    without = said()
    for answer in answers:
        secret = Record("a secret query", answer, "colour", "s", 50.0, private=True)
        assert said(secret) == without


# ---- where the application may see them


def test_generate_remote_llm_gets_no_private_record_even_when_the_host_may(hash_encoder, scripted):
    llm = scripted(answers, is_remote=True)
    with Personalizer.from_records(RECORDS, llm=llm, encoder=hash_encoder) as person:
        desk = Desk(person, allow_private=True)
        one(desk, "generate", query="the parser leaks a secret name")
        prompt = one(desk, "personalize", query="the parser leaks a secret name", records=9)

    assert "Fix empty files" in llm.prompts[0].completion_text()
    assert "mallory" not in llm.prompts[0].completion_text()
    assert "mallory" in prompt["prompt"]


def test_generate_remote_llm_gets_no_private_label_even_when_the_host_may(hash_encoder, scripted):
    llm = scripted(lambda _prompt, n: ["red"] * n, is_remote=True)
    with Personalizer.from_records(COLOURS, llm=llm, encoder=hash_encoder) as person:
        one(Desk(person, allow_private=True), "generate", query="text 3", task="colour")

    assert "red" in llm.prompts[0].completion_text()
    assert "mallory" not in llm.prompts[0].completion_text()
