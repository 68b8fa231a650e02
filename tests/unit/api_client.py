"""The API backend as its tests ask it: the prompts, the key, and a backend that does not wait."""

from collections.abc import Iterator, Sequence

from llm_server import Server, Sleeps

from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

KEY = "sk-secret-0123456789"
SUBJECT = build_prompt(
    BUILTIN["commit_subject"], "the text", [Record("an earlier text", "An earlier subject")]
)
SECTION = build_prompt(BUILTIN["news_category"], "the text", [])
SECTIONS = BUILTIN["news_category"].labels


def asking(server: Server, sleeps: Sleeps) -> Iterator[OpenAIApi]:
    """Give a backend that asks this server, and close it: ``yield from`` it."""
    api = OpenAIApi("m", base_url=server.url, api_key=KEY, timeout_s=5, sleep=sleeps)
    yield api
    api.close()


def texts(completions: Sequence[Completion]) -> list[str]:
    """Return what the answers say."""
    return [c.text for c in completions]
