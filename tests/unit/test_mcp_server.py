"""The tools of the MCP server: how they are described, misused, cancelled, and what they say."""

import asyncio
import json
import threading

import mcp_host
import pytest
from mcp import Client
from mcp_host import RECORDS, answers, call, one, refused

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.errors import CancelledError
from hydra_edge.mcp.desk import Desk
from hydra_edge.mcp.server import build_server
from hydra_edge.types import Completion

llm, person = mcp_host.llm, mcp_host.person


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


def test_personalize_says_where_a_query_was_cut(person):
    made = one(Desk(person), "personalize", query="parser " * 1_300, task="commit_subject")
    assert made["notes"] == ["only the first 120 of 1,300 words of the query are in the prompt"]


def test_generate_progress_is_told_for_each_candidate(person):
    told = []

    async def progress(done, total, _message):
        told.append((done, total))

    call(Desk(person), ("generate", {"query": "q"}), progress_callback=progress)

    assert told == [(1, 3), (2, 3), (3, 3)]


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


# ---- what goes wrong


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


def test_explain_before_any_answer_is_a_tool_error(person):
    assert "Call generate first" in refused(Desk(person), ("explain", {}))


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


def test_generate_remote_llm_is_refused_offline(hash_encoder, scripted):
    llm = scripted(answers, is_remote=True)
    config = Config(offline=True)
    with Personalizer.from_records(RECORDS, llm=llm, encoder=hash_encoder, config=config) as person:
        assert "forbids every remote call" in refused(Desk(person), ("generate", {"query": "q"}))
    assert not llm.prompts


# ---- calls that are cancelled


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


@pytest.mark.parametrize("tool", ["generate", "personalize"])
def test_call_that_is_cancelled_while_a_history_is_embedded_ends(hash_encoder, scripted, tool):
    records = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]
    with Personalizer.from_records(records, llm=scripted(None), encoder=hash_encoder) as person:
        desk = Desk(person)
        given = {"candidates": 2} if tool == "generate" else {"records": 2}
        with pytest.raises(CancelledError, match="stage 'embed'"):
            getattr(desk, tool)("a query", task="notes", should_stop=lambda: True, **given)
        assert 0 < person.engine.encoder.embedded < 2 * len(records)


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
