"""Answers told piece by piece: put together, the pieces are the text that is returned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from title_writer import Make, people

from hydra_edge.answering import Pieces
from hydra_edge.errors import BackendError, ConfigError
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_generate_streams_only_one_answer(person: Make) -> None:
    with pytest.raises(ConfigError, match="Streaming shows one answer: got n = 8"):
        person().generate("about speech", on_token=print)


class Streaming:
    """An LLM that streams a text in given pieces and returns it as it is."""

    name = "streaming"
    is_remote = False

    def __init__(self, *pieces: str, text: str | None = None) -> None:
        self.pieces = pieces
        self.text = "".join(pieces) if text is None else text

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.completion_text()

    def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
        if on_token := options["on_token"]:
            for piece in self.pieces:
                on_token(piece)
        return [Completion(self.text, greedy=True)]

    def close(self) -> None:
        """Hold nothing."""


def any_text(pieces: list[str]) -> bool:
    return bool("".join(pieces).strip())


@given(st.lists(st.text(alphabet="ab \n\t\u2003", max_size=6), max_size=8).filter(any_text))
def test_pieces_put_together_are_the_answer_that_is_returned(pieces: list[str]) -> None:
    told: list[str] = []
    telling = Pieces(told.append)
    for piece in pieces:
        telling(piece)
    answer = "".join(pieces).strip()
    assert answer.startswith("".join(told))
    telling.finish(answer)
    assert "".join(told) == answer


def test_generate_pieces_put_together_are_the_text(person: Make) -> None:
    told: list[str] = []
    llm = Streaming(" a", "\n", " ", " b ", "\n\n  ", "  c\n")
    shown = Record("in", "one\ntwo", task="general", id="r")
    p = person([shown], llm=llm)
    generation = p.generate("q", task="general", n=1, on_token=told.append)
    assert "".join(told) == generation.text == "a\nb \n\n  c"
    assert generation.text == p.generate("q", task="general", n=1).text


def test_generate_tells_each_piece_at_once(person: Make) -> None:
    told: list[str] = []
    at: list[int] = []

    class Watching(Streaming):
        def complete(self, prompt: Prompt, *, on_token: Callable[[str], None], **_: object):
            for piece in self.pieces:
                on_token(piece)
                at.append(len("".join(told)))
            return [Completion(self.text)]

    person([], llm=Watching(" One ", "two\n", "  three", " four ")).generate(
        "q", task="general", n=1, on_token=told.append
    )
    assert told == ["One", " two", "\n  three", " four"]
    assert at == [3, 7, 15, 20]


def test_generate_tells_the_answer_also_where_the_llm_streams_nothing(person: Make) -> None:
    told: list[str] = []
    p = person([], llm=Streaming(text="an answer"))
    assert p.generate("q", task="general", n=1, on_token=told.append).text == "an answer"
    assert told == ["an answer"]


def test_generate_label_is_told_whole_and_as_it_was_chosen(person: Make) -> None:
    told: list[str] = []
    p = person([], llm=Streaming("PO", "LIT", "ICS", text="politics"))
    generation = p.generate("q", task="news_category", n=1, on_token=told.append)
    assert told == [generation.text]


def test_generate_llm_that_streams_another_text_is_an_error(person: Make) -> None:
    p = person([], llm=Streaming("one thing", text="another"))
    with pytest.raises(BackendError, match="streamed another answer than it returned"):
        p.generate("q", task="general", n=1, on_token=print)


OWN_LAYOUTS = [
    "services:\n  web:\n    image: nginx\nvolumes:\n  data:",
    "class A:\n  x = 1\n\nprint(A.x)",
    "Steps:\n  1. a\n  2. b\nDone.",
]


@pytest.mark.parametrize("shown", [[], ["ls", "4"], ["one\ntwo", "three\nfour"]])
@pytest.mark.parametrize("text", OWN_LAYOUTS)
def test_generate_answer_with_a_layout_of_its_own_stays_as_it_is(
    person: Make, scripted, text: str, shown: list[str]
) -> None:
    records = [Record(f"q {i}", out, task="chat", id=str(i)) for i, out in enumerate(shown)]
    told: list[str] = []
    p = person(records, llm=Streaming(*text))
    assert p.generate("q", task="chat", n=1, on_token=told.append).text == "".join(told) == text
    several = person(records, llm=scripted(lambda _prompt, n: [text] * n))
    assert several.generate("q", task="chat", n=8).text == text


def test_generate_indented_answer_stays_where_no_answer_of_several_lines_is_shown(
    person: Make,
) -> None:
    p = person([Record("q", "ls", task="chat", id="1")], llm=Streaming("def f():\n  return 1"))
    assert p.generate("q", task="chat", n=1).text == "def f():\n  return 1"
