"""The tools of the MCP server, called by the SDK's own client in the same process."""

import asyncio
import json
import threading

import pytest
from mcp import Client

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.errors import CancelledError
from hydra_edge.mcp.desk import Desk
from hydra_edge.mcp.server import build_server
from hydra_edge.reasons import in_words
from hydra_edge.types import Completion

RECORDS = [
    Record("the parser reads past the end", "Fix empty files", "commit_subject", "r1", 1.7e9),
    Record("the cache is dropped at start", "Drop the cache", "commit_subject", "r2", 1.71e9),
    Record("the parser leaks a secret name", "Hide mallory", "commit_subject", "p1", 1.72e9, True),
]


def answers(_prompt, n):
    return [f"Fix parser {i}" for i in range(n)]


@pytest.fixture
def llm(scripted):
    return scripted(answers)


@pytest.fixture
def person(hash_encoder, llm):
    with Personalizer.from_records(
        RECORDS, llm=llm, encoder=hash_encoder, config=Config(candidates=3)
    ) as person:
        yield person


def call(desk, *calls, **options):
    """Call tools one after another in one session; return their results."""

    async def run():
        async with Client(build_server(desk)) as client:
            return [await client.call_tool(name, given, **options) for name, given in calls]

    return asyncio.run(run())


def one(desk, name, **given):
    """Call one tool that must succeed; return its structured result."""
    (result,) = call(desk, (name, given))
    assert not result.is_error, result.content
    return result.structured_content


def refused(desk, *calls):
    """Call tools of which the last must fail; return its message."""
    *_, result = call(desk, *calls)
    assert result.is_error
    return result.content[0].text


def test_tools_all_five_are_described_with_typed_inputs_and_outputs(person):
    async def run():
        async with Client(build_server(Desk(person))) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(run())}

    assert set(tools) == {"search_history", "personalize", "generate", "record_choice", "explain"}
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema["type"] == "object"
        assert all(
            field.get("description") for field in tool.input_schema["properties"].values()
        ), tool.name
    assert tools["search_history"].annotations.read_only_hint
    assert not tools["record_choice"].annotations.read_only_hint
    assert "query" in tools["generate"].input_schema["required"]
    assert "ctx" not in tools["generate"].input_schema["properties"]


def test_tools_argument_nobody_knows_is_refused_and_the_schema_says_so(person):
    async def run():
        async with Client(build_server(Desk(person))) as client:
            tools = (await client.list_tools()).tools
            return tools, [
                await client.call_tool(tool.name, {"query": "q", "nope": 1}) for tool in tools
            ]

    tools, results = asyncio.run(run())

    assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
    for result in results:
        assert result.is_error
        assert "nope\n  Extra inputs are not permitted" in result.content[0].text


def test_tools_null_counts_as_left_out(person):
    results = call(
        Desk(person),
        ("search_history", {"query": "parser", "task": None}),
        ("personalize", {"query": "q", "task": None, "records": None}),
        ("generate", {"query": "q", "task": None, "candidates": None}),
        ("explain", {"generation_id": None}),
        ("record_choice", {"generation_id": None, "pick": 1, "text": None}),
    )

    assert not any(result.is_error for result in results), results


def test_search_finds_by_words_and_leaves_private_records_out(person):
    found = one(Desk(person), "search_history", query="parser")["records"]

    assert [record["id"] for record in found] == ["r1"]
    assert found[0]["output"] == "Fix empty files"
    assert found[0]["date"] == "2023-11-14"


def test_search_private_records_are_shown_when_allowed(person):
    found = one(Desk(person, allow_private=True), "search_history", query="parser")["records"]

    assert {record["id"] for record in found} == {"r1", "p1"}


def test_search_many_private_records_do_not_use_up_the_limit(person):
    person.add(
        Record(f"parser parser {i}", "parser parser", "t", f"x{i}", 1.8e9, private=True)
        for i in range(30)
    )

    found = one(Desk(person), "search_history", query="parser", limit=1)["records"]

    assert [record["id"] for record in found] == ["r1"]


def test_search_long_text_is_cut(person):
    person.add([Record("zebra " + "word " * 5000, "Add zebra", "t", "long")])

    (record,) = one(Desk(person), "search_history", query="zebra")["records"]

    assert len(record["input"]) < 5000


def test_personalize_prompt_shows_the_records_and_the_query(person, llm):
    result = one(Desk(person), "personalize", query="the parser fails", records=2)

    assert result["task"] == "commit_subject"
    assert result["records"][0]["id"] == "r1"
    assert "Fix empty files" in result["prompt"]
    assert "the parser fails" in result["prompt"]
    assert result["records"][0]["reasons"]
    assert result["ranked_by"]
    assert not llm.prompts


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


def test_private_label_is_no_candidate(hash_encoder, scripted):
    records = [
        Record(f"text {i}", "mallory" if i == 3 else ("red", "blue")[i % 2], "colour", f"c{i}",
               float(i), private=i == 3)
        for i in range(12)
    ]  # fmt: skip
    llm = scripted(lambda _prompt, n: ["red"] * n)
    with Personalizer.from_records(records, llm=llm, encoder=hash_encoder) as person:
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
        for one in (shown, made, why):
            del one["generation_id"]
        del made["latency_ms"]
        return shown, made, why

    without = said()
    for answer in answers:
        secret = Record("a secret query", answer, "colour", "s", 50.0, private=True)
        assert said(secret) == without


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


def test_generate_progress_is_told_for_each_candidate(person):
    told = []

    async def progress(done, total, _message):
        told.append((done, total))

    call(Desk(person), ("generate", {"query": "q"}), progress_callback=progress)

    assert told == [(1, 3), (2, 3), (3, 3)]


def test_explain_before_any_answer_is_a_tool_error(person):
    assert "Call generate first" in refused(Desk(person), ("explain", {}))


def test_record_choice_answer_of_another_door_is_refused(person):
    other = person.generate("the parser fails")

    message = refused(
        Desk(person),
        ("generate", {"query": "q"}),
        ("record_choice", {"generation_id": other.id, "pick": 1}),
    )

    assert "expected one of its last" in message
    assert not person.store.choices()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("personalize", {"query": "  "}, "The query is empty"),
        ("personalize", {"query": "q", "task": "no such"}, "This task cannot be used"),
        ("search_history", {"query": "q", "limit": 0}, "greater than or equal to 1"),
        ("generate", {}, "query"),
    ],
)
def test_tool_misused_is_an_error_that_says_why(person, name, given, message):
    assert message in refused(Desk(person), (name, given))


def test_record_choice_neither_pick_nor_text_is_a_tool_error(person):
    message = refused(Desk(person), ("generate", {"query": "q"}), ("record_choice", {}))

    assert "number of a candidate or an edited text" in message


def test_generate_llm_failing_is_a_tool_error(person, llm):
    llm.fail_next = 1

    assert "scripted failure" in refused(Desk(person), ("generate", {"query": "q"}))


def test_generate_fault_of_our_own_repeats_no_text(person, llm):
    def broken(_prompt, _n):
        raise RuntimeError("secret words")

    llm.answer = broken
    message = refused(Desk(person), ("generate", {"query": "q"}))

    assert "RuntimeError" in message
    assert "secret" not in message


class PatientLLM:
    """An LLM that finishes one answer, and works at the next until it is told to stop."""

    name, is_remote = "patient", False

    def __init__(self):
        self.working, self.stopped = threading.Event(), threading.Event()

    def render(self, prompt, *, max_tokens=None, seed=0):
        return prompt.completion_text()

    def complete(self, prompt, *, should_stop=None, on_candidate=None, **_given):
        first = Completion("Fix parser", greedy=True)
        if on_candidate is not None:
            on_candidate(first)
        self.working.set()
        while not should_stop():
            self.stopped.wait(0.002)
        self.stopped.set()
        return [first]

    def close(self):
        pass


@pytest.fixture
def patient(hash_encoder):
    llm = PatientLLM()
    with Personalizer.from_records(RECORDS, llm=llm, encoder=hash_encoder) as person:
        yield person, llm


def test_generate_cancelled_call_stops_the_llm_and_keeps_nothing(patient):
    person, llm = patient

    async def run():
        async with Client(build_server(Desk(person))) as client:
            asked = asyncio.ensure_future(client.call_tool("generate", {"query": "q"}))
            assert await asyncio.to_thread(llm.working.wait, 60)
            tools = (await client.list_tools()).tools  # the protocol is not blocked meanwhile
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert await asyncio.to_thread(llm.stopped.wait, 60)
            after = await client.call_tool("personalize", {"query": "the parser"})
            return tools, after

    tools, after = asyncio.run(run())

    assert len(tools) == 5
    assert not after.is_error
    assert person.store.last_generation() is None


def test_server_ending_stops_what_runs(patient):
    person, llm = patient

    async def run():
        async with Client(build_server(Desk(person))) as client:
            asked = asyncio.ensure_future(client.call_tool("generate", {"query": "q"}))
            assert await asyncio.to_thread(llm.working.wait, 60)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(run())

    assert llm.stopped.is_set()


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


def test_generate_remote_llm_is_refused_offline(hash_encoder, scripted):
    llm = scripted(answers, is_remote=True)
    config = Config(offline=True)
    with Personalizer.from_records(RECORDS, llm=llm, encoder=hash_encoder, config=config) as person:
        assert "forbids every remote call" in refused(Desk(person), ("generate", {"query": "q"}))
    assert not llm.prompts


# ---- private records, where the application may see them


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
    records = [
        Record(f"text {i}", "mallory" if i == 3 else ("red", "blue")[i % 2], "colour", f"c{i}",
               float(i), private=i == 3)
        for i in range(12)
    ]  # fmt: skip
    llm = scripted(lambda _prompt, n: ["red"] * n, is_remote=True)
    with Personalizer.from_records(records, llm=llm, encoder=hash_encoder) as person:
        one(Desk(person, allow_private=True), "generate", query="text 3", task="colour")

    assert "red" in llm.prompts[0].completion_text()
    assert "mallory" not in llm.prompts[0].completion_text()


# ---- texts that JSON cannot carry


@pytest.mark.parametrize(
    "broken",
    [
        Record("the zebra fails", "Fix zebra", "commit_subject", "r\ud800", 1.8e9),
        Record("the zebra \udfff fails", "Fix \ud800 zebra", "commit_subject", "z", 1.8e9),
    ],
    ids=["id", "texts"],
)
def test_tools_record_with_a_lone_surrogate_is_shown_with_a_stand_in(person, broken):
    person.store.add([broken])  # as an earlier release took it
    results = call(
        Desk(person),
        ("search_history", {"query": "zebra"}),
        ("personalize", {"query": "the zebra fails", "records": 9}),
        ("generate", {"query": "the zebra fails"}),
        ("explain", {}),
    )

    assert not any(result.is_error for result in results), results
    found, shown, _, explained = (result.structured_content for result in results)
    assert [record["input"].replace("? ", "") for record in found["records"]] == ["the zebra fails"]
    for records in (found["records"], shown["records"], explained["records"]):
        assert "?" in json.dumps([r["id"] + r["output"] for r in records])
    assert "zebra" in shown["prompt"]


def test_generate_label_with_a_lone_surrogate_can_be_picked(hash_encoder, scripted):
    records = [
        Record(f"text {i}", ("red\ud800", "blue")[i % 2], "colour", f"c{i}", float(i))
        for i in range(12)
    ]
    llm = scripted(lambda _prompt, n: ["red\ud800"] * n)
    with Personalizer.from_records([], llm=llm, encoder=hash_encoder) as person:
        person.store.add(records)  # as an earlier release took them
        made, chosen = call(
            Desk(person),
            ("generate", {"query": "text 4", "task": "colour"}),
            ("record_choice", {"pick": 1}),
        )

    assert not made.is_error, made.content
    assert {c["text"] for c in made.structured_content["candidates"]} == {"red?", "blue"}
    assert not chosen.is_error, chosen.content


def test_generate_asks_no_more_of_a_closed_set_than_the_facade(hash_encoder, scripted):
    class OneByOne(scripted(None).__class__):
        paid = 0

        def complete(self, prompt, *, n=1, should_stop=None, on_candidate=None, **options):
            drawn = []
            while len(drawn) < n and not should_stop():
                drawn.append(Completion("oncology", greedy=not drawn))
                self.paid += 1
                if on_candidate is not None:
                    on_candidate(drawn[-1])
            return drawn

    records = [
        Record(f"ticket {i}", ("law", "oncology")[i % 2], "desk", f"d{i}", float(i))
        for i in range(30)
    ]
    asked = {"query": "ticket 3", "task": "desk"}
    for early_stop in (True, False):
        llms = [OneByOne(None) for _ in range(2)]
        config = Config(candidates=16, early_stop=early_stop)
        facade, host = (
            Personalizer.from_records(records, llm=llm, encoder=hash_encoder, config=config)
            for llm in llms
        )
        with facade, host:
            expected = facade.generate(**asked)
            made = one(Desk(host), "generate", **asked)
        assert llms[0].paid == llms[1].paid
        assert (llms[0].paid < 16) is early_stop
        assert (made["text"], made["notes"]) == (expected.text, list(expected.notes))


@pytest.mark.parametrize("tool", ["generate", "personalize"])
def test_call_that_is_cancelled_while_a_history_is_embedded_ends(hash_encoder, scripted, tool):
    records = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]
    with Personalizer.from_records(records, llm=scripted(None), encoder=hash_encoder) as person:
        desk = Desk(person)
        given = {"candidates": 2} if tool == "generate" else {"records": 2}
        with pytest.raises(CancelledError, match="stage 'embed'"):
            getattr(desk, tool)("a query", task="notes", should_stop=lambda: True, **given)
        assert 0 < person.engine.encoder.embedded < 2 * len(records)


def test_what_the_host_made_of_private_records_is_kept_private(person):
    for allow_private in (False, True):
        desk = Desk(person, allow_private=allow_private)
        prompt = one(desk, "personalize", query="the parser leaks a secret name", records=9)
        chosen = one(
            desk, "record_choice", generation_id=prompt["generation_id"], text="Guard the name"
        )
        assert person.store.get(chosen["record_id"]).private is allow_private


def test_personalize_says_where_a_query_was_cut(person):
    made = one(Desk(person), "personalize", query="parser " * 1_300, task="commit_subject")
    assert made["notes"] == ["only the first 120 of 1,300 words of the query are in the prompt"]
