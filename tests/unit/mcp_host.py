"""An application that calls the MCP server's tools, by the SDK's own client in one process."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.mcp.desk import Desk
from hydra_edge.mcp.server import build_server
from hydra_edge.prompt import Prompt

RECORDS = [
    Record("the parser reads past the end", "Fix empty files", "commit_subject", "r1", 1.7e9),
    Record("the cache is dropped at start", "Drop the cache", "commit_subject", "r2", 1.71e9),
    Record("the parser leaks a secret name", "Hide mallory", "commit_subject", "p1", 1.72e9, True),
]


def answers(_prompt: Prompt, n: int) -> list[str]:
    """Answer with so many different subjects."""
    return [f"Fix parser {i}" for i in range(n)]


@pytest.fixture
def llm(scripted):
    return scripted(answers)


@pytest.fixture
def person(hash_encoder, llm) -> Iterator[Personalizer]:
    """Give one who has these records."""
    with Personalizer.from_records(
        RECORDS, llm=llm, encoder=hash_encoder, config=Config(candidates=3)
    ) as person:
        yield person


def call(desk: Desk, *calls: tuple[str, dict[str, Any]], **options: Any) -> list[Any]:
    """Call tools one after another in one session; return their results."""

    async def run() -> list[Any]:
        async with Client(build_server(desk)) as client:
            return [await client.call_tool(name, given, **options) for name, given in calls]

    return asyncio.run(run())


def one(desk: Desk, name: str, **given: Any) -> dict[str, Any]:
    """Call one tool that must succeed; return its structured result."""
    (result,) = call(desk, (name, given))
    assert not result.is_error, result.content
    return result.structured_content


def refused(desk: Desk, *calls: tuple[str, dict[str, Any]]) -> str:
    """Call tools of which the last must fail; return its message."""
    *_, result = call(desk, *calls)
    assert result.is_error
    return result.content[0].text
