"""What an LLM is asked with: what is drawn, and only those callbacks that there are."""

from __future__ import annotations

from typing import Any

import pytest

from hydra_edge.candidates import (
    Callbacks,
    Draw,
    complete_within_context,
    fit_to_context,
    sample_pool,
)
from hydra_edge.errors import ContextLengthError
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

PROMPT = build_prompt(BUILTIN["paper_title"], "a query", [Record("a text", "a title", id="r")])
DRAW = Draw(3, 0.7, 16, seed=5)
DRAWN = {"n": 3, "temperature": 0.7, "max_tokens": 16, "seed": 5, "choices": None}


class Asked:
    """An application's LLM that notes what it is asked with."""

    name = "asked"
    is_remote = False

    def __init__(self) -> None:
        self.with_records: list[bool] = []
        self.options: list[dict[str, Any]] = []

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.key()

    def complete(self, prompt: Prompt, *, n: int, **options: Any) -> list[Completion]:
        self.with_records.append(bool(prompt.shots))
        self.options.append({"n": n, **options})
        return [Completion(f"answer {i}", greedy=i == 0) for i in range(n)]

    def close(self) -> None:
        return None


def test_llm_that_knows_no_callback_is_given_none() -> None:
    llm = Asked()
    complete_within_context(llm, PROMPT, DRAW)
    assert llm.options == [{**DRAWN, "on_token": None}]


def test_llm_is_given_the_callbacks_that_there_are() -> None:
    llm = Asked()

    def stop() -> bool:
        return False

    pieces: list[str] = []
    short: list[Exception] = []
    callbacks = Callbacks(should_stop=stop, on_token=pieces.append, on_short=short.append)
    complete_within_context(llm, PROMPT, DRAW, callbacks)
    known = {"on_token": pieces.append, "should_stop": stop, "on_short": short.append}
    assert llm.options == [DRAWN | known]


def test_pool_drawn_in_two_parts_is_streamed_in_the_first_alone() -> None:
    llm = Asked()
    pieces: list[str] = []
    _, given = sample_pool(llm, PROMPT, DRAW, 2, Callbacks(on_token=pieces.append))
    first, second = llm.options
    assert llm.with_records == [True, False]
    assert first == DRAWN | {"n": 1, "on_token": pieces.append}
    assert second == DRAWN | {"n": 2, "on_token": None}
    assert [c.zero_shot for c in given] == [False, True, True]


class Small(Asked):
    """One with room for so many records, which counts the answers to a seed."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        if len(prompt.shots) > self.room:
            raise ContextLengthError("no room")
        return prompt.completion_text()

    def complete(self, prompt: Prompt, *, n: int, **options: Any) -> list[Completion]:
        self.render(prompt)
        super().complete(prompt, n=n, **options)
        seed = options["seed"]
        return [Completion(f"answer {seed + i}", greedy=i == 0) for i in range(n)]


def test_pool_is_drawn_at_once_where_no_record_has_room() -> None:
    llm = Small(0)
    asked, given = sample_pool(llm, PROMPT, DRAW, 2)
    assert (asked.shots, llm.with_records) == ((), [False])
    assert [(c.text, c.greedy, c.zero_shot) for c in given] == [
        ("answer 5", True, False), ("answer 6", False, False), ("answer 7", False, False),
    ]  # fmt: skip


def test_fit_to_context_leaves_out_what_the_llm_would() -> None:
    records = [Record(f"text {i}", f"title {i}", id=str(i)) for i in range(4)]
    prompt = build_prompt(BUILTIN["paper_title"], "a query", records)
    llm = Small(2)
    fitted, shown = fit_to_context(prompt, llm.render)
    assert fitted == complete_within_context(llm, prompt, DRAW)[0]
    assert shown == fitted.completion_text()
    with pytest.raises(ContextLengthError, match="no room"):
        fit_to_context(prompt, Small(-1).render)


@pytest.mark.parametrize("shown", [0, 1])
@pytest.mark.parametrize("streaming", [False, True])
def test_lines_of_the_query_come_back_without_our_indentation(shown: int, streaming: bool) -> None:
    query = "Dear Anna,\nthanks for teh letter.\n\nYours"
    records = [Record("a mail", "One line", id="r")] * shown
    prompt = build_prompt(BUILTIN["email_reply"], query, records)

    class Echo(Asked):
        def complete(self, prompt: Prompt, *, n: int, **options: Any) -> list[Completion]:
            begin, end = f"{prompt.task.input_label}: ", f"\n{prompt.task.output_label}:"
            said = prompt.completion_text().rpartition(begin)[2].removesuffix(end)
            if options["on_token"]:
                options["on_token"](said)
            return [Completion(said)]

    told: list[str] = []
    callbacks = Callbacks(on_token=told.append if streaming else None)
    _, (out,) = complete_within_context(Echo(), prompt, Draw(1, 0.0, 16), callbacks)
    assert out.text == query
    assert query.startswith("".join(told))
