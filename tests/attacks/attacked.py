"""A person with a secret among their records, as the server of attacks has them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
from serving import EchoLLM, history

from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

SECRET = "a secret of mine"


def keeper(hash_encoder) -> Iterator[Personalizer]:
    """Give one who has two tasks and one private record, and close them: ``yield from`` it."""
    records = [
        *history(),
        *history(6, "note_title"),
        Record("a text about parsers of mine", SECRET, "paper_title", "p1", 99.0, private=True),
    ]
    with Personalizer.from_records(records, llm=EchoLLM(), encoder=hash_encoder) as me:
        yield me


def code(response: httpx2.Response) -> str:
    """Return the code of an error, which is in the shape of all."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]
