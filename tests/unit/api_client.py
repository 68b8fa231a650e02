"""The API backend as its tests ask it: the prompts, the key, a server, and no time to wait."""

from collections.abc import Iterator, Sequence

import pytest
from llm_server import Server, Sleeps

from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

KEY = "sk-secret-0123456789"
SUBJECT = build_prompt(
    BUILTIN["commit_subject"], "the text", [Record("an earlier text", "An earlier subject")]
)
REPLY = build_prompt(BUILTIN["email_reply"], "Does Tuesday work?", [])
SECTION = build_prompt(BUILTIN["news_category"], "the text", [])
SECTIONS = BUILTIN["news_category"].labels


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
def llm(server: Server, sleeps: Sleeps) -> Iterator[OpenAIApi]:
    """Give a backend that asks this server."""
    api = OpenAIApi("m", base_url=server.url, api_key=KEY, timeout_s=5, sleep=sleeps)
    yield api
    api.close()


def texts(completions: Sequence[Completion]) -> list[str]:
    """Return what the answers say."""
    return [c.text for c in completions]
