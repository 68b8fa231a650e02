"""A person with a secret among their records, and the server that is attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2
import pytest
from serving import EchoLLM, Served, history, serving

from hydra_edge.personalizer import Personalizer
from hydra_edge.server.tokens import add_app
from hydra_edge.types import Record

SECRET = "a secret of mine"


@pytest.fixture
def person(hash_encoder) -> Iterator[Personalizer]:
    """Give one who has two tasks and one private record."""
    records = [
        *history(),
        *history(6, "note_title"),
        Record("a text about parsers of mine", SECRET, "paper_title", "p1", 99.0, private=True),
    ]
    with Personalizer.from_records(records, llm=EchoLLM(), encoder=hash_encoder) as me:
        yield me


@pytest.fixture
def served(person: Personalizer) -> Iterator[Served]:
    with serving(person) as it:
        yield it


@pytest.fixture
def app_token(served: Served) -> Callable[..., str]:
    """Let an app in; give its token."""

    def make(name="editor", user="memory", **options):
        return add_app(served.files, name, user=user, **options)

    return make


def code(response: httpx2.Response) -> str:
    """Return the code of an error, which is in the shape of all."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]
