"""The real server in a process of its own, called by the SDK's real client over stdio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from hydra_edge import Record
from hydra_edge.config import find_paths
from hydra_edge.importers import ImportLog, read_jsonl
from hydra_edge.store import Store

SAMPLE = Path(__file__).parents[2] / "examples" / "papers" / "author-b.jsonl"
QUERY = "We present a neural parser that learns from few annotated sentences of a new language."
SECRET = "A parser nobody may hear of"
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize",
         "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                    "clientInfo": {"name": "test", "version": "0"}}}  # fmt: skip


@pytest.fixture(autouse=True)
def history(home: Path) -> None:
    """Put the sample, and one private record that fits the query best, on this device."""
    paths = find_paths()
    paths.users.mkdir(parents=True, mode=0o700)
    with Store.open(paths.user_file("me")) as store:
        store.add(read_jsonl(SAMPLE, ImportLog()))
        store.add([Record(QUERY, SECRET, "paper_title", "secret", 1.7e9, private=True)])


def server(*options: str) -> StdioServerParameters:
    """How an application starts the server; it passes on none of our environment."""
    env = {"HYDRA_EDGE_HOME": os.environ["HYDRA_EDGE_HOME"], "PATH": os.environ["PATH"]}
    return StdioServerParameters(
        command=sys.executable, args=["-m", "hydra_edge", "mcp", *options], env=env
    )


def started(home: Path) -> subprocess.Popen[str]:
    """Start the server as a program that writes to it itself."""
    return subprocess.Popen(
        [sys.executable, "-m", "hydra_edge", "mcp"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HYDRA_EDGE_HOME": str(home)},
    )  # fmt: skip


def session(talk: Callable[[Client], Awaitable[Any]], *options: str) -> Any:
    async def run() -> Any:
        async with Client(server(*options)) as client:
            return await talk(client)

    return asyncio.run(run())


def test_client_lists_the_tools_searches_and_personalizes_without_private_records() -> None:
    async def talk(client: Client) -> Any:
        tools = (await client.list_tools()).tools
        found = await client.call_tool("search_history", {"query": "SemEval", "limit": 3})
        made = await client.call_tool("personalize", {"query": QUERY})
        wrong = await client.call_tool("personalize", {"query": " "})
        return tools, found, made, wrong

    tools, found, made, wrong = session(talk)

    assert {tool.name for tool in tools} == {
        "search_history", "personalize", "generate", "record_choice", "explain",
    }  # fmt: skip
    assert len(found.structured_content["records"]) == 3
    assert all("SemEval" in r["input"] + r["output"] for r in found.structured_content["records"])
    assert len(made.structured_content["records"]) == 4
    assert QUERY in made.structured_content["prompt"]
    assert wrong.is_error
    assert "The query is empty" in wrong.content[0].text
    assert SECRET not in json.dumps([r.model_dump(mode="json") for r in (found, made)])


def test_client_sees_private_records_only_where_the_person_said_so() -> None:
    async def talk(client: Client) -> Any:
        return await client.call_tool("personalize", {"query": QUERY})

    made = session(talk, "--allow-private").structured_content

    assert made["records"][0]["output"] == SECRET
    assert SECRET in made["prompt"]


def test_server_stdout_is_the_protocols_alone_and_its_end_is_quiet(home: Path) -> None:
    messages = [
        HELLO,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
         "params": {"name": "search_history", "arguments": {"query": "SemEval"}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call",
         "params": {"name": "search_history", "arguments": {"query": "SemEval \ud83d"}}},
    ]  # fmt: skip
    with started(home) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        for message in messages:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            if "id" in message:
                lines.append(process.stdout.readline())
        rest, complaints = process.communicate()

    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3]
    whole, halved = (json.loads(line)["result"]["structuredContent"] for line in lines[1:])
    assert halved["records"] == whole["records"] != []  # half an emoji is answered like any text
    assert rest == ""
    assert complaints == ""
    assert process.returncode == 0


def test_server_ends_quietly_where_its_application_is_gone_with_a_call_open(home: Path) -> None:
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "search_history", "arguments": {"query": "SemEval"}}}  # fmt: skip
    with started(home) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(HELLO) + "\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        for message in ({"jsonrpc": "2.0", "method": "notifications/initialized"}, call):
            process.stdin.write(json.dumps(message) + "\n")
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@pytest.mark.skipif(os.name != "posix", reason="no signal can be sent to one process elsewhere")
def test_server_interrupted_ends_at_once_though_stdin_stays_open(home: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else a child may be deaf
    try:
        with started(home) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps(HELLO) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == 1
            try:
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 130
            finally:
                process.kill()
            assert process.stderr.read() == ""
    finally:
        signal.signal(signal.SIGINT, before)


def test_server_user_nobody_knows_is_one_line_and_exit_1(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hydra_edge", "mcp", "--user", "nobody"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, "HYDRA_EDGE_HOME": str(home)},
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.model
def test_client_generates_chooses_and_is_told_why() -> None:
    async def talk(client: Client) -> Any:
        told: list[float] = []

        async def progress(done: float, _total: float | None, _message: str | None) -> None:
            told.append(done)

        made = await client.call_tool(
            "generate", {"query": QUERY, "candidates": 3}, progress_callback=progress
        )
        why = await client.call_tool("explain", {})
        chosen = await client.call_tool("record_choice", {"pick": len(candidates_of(made))})
        return made, why, chosen, told

    made, why, chosen, told = session(talk, "-m", "smollm2")

    assert not made.is_error, made.content
    candidates = candidates_of(made)
    assert made.structured_content["text"] in {c["text"] for c in candidates}
    assert SECRET not in json.dumps(why.model_dump(mode="json"))
    assert why.structured_content["candidates"][0]["reasons"]
    assert chosen.structured_content["text"] == candidates[-1]["text"]
    assert chosen.structured_content["head_version"] == 1
    assert told == [1, 2, 3]


def candidates_of(result: Any) -> list[dict[str, Any]]:
    """Return what a generation offers to choose from."""
    return list(result.structured_content["candidates"])
