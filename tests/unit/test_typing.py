"""What a type checker of a program that uses the package says: nothing, or what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

RIGHT = """
import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, assert_type

import hydra_edge
from hydra_edge import AsyncPersonalizer, HydraError, Personalizer, Record
from hydra_edge.config import Config, Paths, find_paths, load_config
from hydra_edge.errors import CancelledError, ContextLengthError
from hydra_edge.llm import LLM, ModelInfo, available_models, open_llm
from hydra_edge.prompt import Prompt
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import (
    AddResult, ChoiceResult, Completion, FitReport, ForgetReceipt, Generation, HeadState, Ranking,
)


class Mine:
    name = "mine"
    is_remote = False

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.completion_text()

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        temperature: float = 0.8,
        max_tokens: int = 48,
        choices: Sequence[str] | None = None,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        if prompt.messages() == []:
            raise ContextLengthError("too long")
        return [Completion("x", greedy=True, tokens=4)]

    def close(self) -> None:
        pass


def told(stage: str, done: int, total: int) -> None:
    print(stage, done, total)


def begun(generation_id: str) -> None:
    print(generation_id)


def finished(completion: Completion) -> None:
    print(completion.text)


def erased(receipt: ForgetReceipt) -> None:
    print(receipt.records)


def enough() -> bool:
    return False


def piece(text: str) -> None:
    print(text)


def blocking(records: list[Record], llm: LLM) -> None:
    with Personalizer.open("me") as p:
        assert_type(p, Personalizer)
    with Personalizer.open(user="me", create=True, llm=Mine()) as p:
        assert_type(p.add(Record("a", "b", task="t", id="i", time=1)), AddResult)
        assert_type(p.add(records, progress=told), AddResult)
        assert_type(p.fit_head("t", calls=1, budget_s=1.0, progress=told), FitReport)
        assert_type(p.fit_head(use_llm=False, should_stop=enough), FitReport)
        assert_type(p.rank("q", task="t", k=2, progress=told, should_stop=enough), Ranking)
        answer = p.generate("q", task="t", n=4, k=2, on_candidate=finished, on_start=begun)
        assert_type(answer, Generation)
        p.generate("q", n=1, on_token=piece, should_stop=enough, cancelled=enough)
        assert_type(p.choose(generation_id=answer.id, pick=1), ChoiceResult)
        assert_type(p.choose(generation_id=answer.id, text="x", keep=False), ChoiceResult)
        assert_type(p.choose(pick=1, progress=told, should_stop=enough), ChoiceResult)
        assert_type(p.forget(["a"], on_erased=erased, progress=told), ForgetReceipt)
        assert_type(p.forget("a"), ForgetReceipt)
        assert_type(p.forget(source="s"), ForgetReceipt)
        assert_type(p.clear_log(choices=True, before=1.7e9), int)
        assert_type(p.render_prompts("q", n=1, stream=True), list[str])
        assert_type(p.fit_prompts("t", calls=1), list[str])
        assert_type(p.import_head(p.export_head("t", "reranker")), HeadState)
        assert_type(p.task("t"), TaskSpec)
        assert_type(p.store.rollback_head("t", "adapter"), HeadState | None)
        with p.working():
            assert_type(p.store.count(), int)
    try:
        Personalizer.from_records(records, llm=llm).close()
    except CancelledError:
        pass
    except HydraError as err:
        assert_type(err.code, str)
        assert_type(err.http_status, int)


async def waiting(records: list[Record], llm: LLM) -> None:
    async with AsyncPersonalizer.open("me", create=True, llm=llm) as p:
        assert_type(p, AsyncPersonalizer)
    async with AsyncPersonalizer(Personalizer.from_records(records)) as p:
        assert_type(p.personalizer, Personalizer)
    async with AsyncPersonalizer.from_records(records, llm=Mine()) as p:
        ranking, answer = await asyncio.gather(p.rank("q", k=2), p.generate("q", n=4))
        assert_type(ranking, Ranking)
        assert_type(answer, Generation)
        assert_type(await p.add(records, progress=told), AddResult)
        slow = asyncio.create_task(p.fit_head(calls=10))
        assert_type(await slow, FitReport)
        reading: Coroutine[Any, Any, Ranking] = p.rank("q")
        await reading
        assert_type(await p.choose(pick=1), ChoiceResult)
        assert_type(await p.forget(["a"], on_erased=erased), ForgetReceipt)
        assert_type(await p.clear_log(before=1.7e9), int)
        assert_type(await p.render_prompts("q"), list[str])
        assert_type(await p.fit_prompts("t", calls=1), list[str])
        assert_type(await p.import_head(await p.export_head("t", "reranker")), HeadState)
        assert_type(await p.task(), TaskSpec)
        async for text in p.stream("q", n=1, task="t"):
            assert_type(text, str | Generation)
        async with contextlib.aclosing(p.stream("q")) as stream:
            async for text in stream:
                assert_type(text, str | Generation)


assert_type(hydra_edge.__version__, str)
models: Callable[..., list[ModelInfo]] = available_models
opened: Callable[..., LLM] = open_llm
"""
# Lines, each with what is to be said of it.
WRONG = {
    "from hydra_edge import Personaliser": 'no attribute "Personaliser"',
    "from hydra_edge import Generation": 'no attribute "Generation"',
    "from hydra_edge.llm import OpenAiApi": 'no attribute "OpenAiApi"',
    "import hydra_edge; hydra_edge.CancelledError": 'no attribute "CancelledError"',
    "import hydra_edge.llm; hydra_edge.llm.models_there": 'no attribute "models_there"',
    "from hydra_edge import Personalizer; Personalizer.opens": 'no attribute "opens"',
    "from hydra_edge import AsyncPersonalizer; AsyncPersonalizer.ranks": 'no attribute "ranks"',
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Check both programs as their author would; give what is said of each line of each."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "right.py").write_text(RIGHT, encoding="utf-8")
    (folder / "wrong.py").write_text("\n".join(WRONG) + "\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-pretty",
            "--cache-dir=cache", "right.py", "wrong.py",
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.stderr
    told = re.findall(r"^(\w+)\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return [(program, int(line), text) for program, line, text in told], done.stdout


def test_program_with_every_documented_call_is_well_typed(said):
    told, _ = said
    lines = RIGHT.splitlines()
    assert [(text, lines[at - 1]) for program, at, text in told if program == "right"] == []


@pytest.mark.parametrize("line", WRONG)
def test_name_that_does_not_exist_is_reported(said, line):
    told, output = said
    at = [*WRONG].index(line) + 1
    assert any(WRONG[line] in text for *where, text in told if where == ["wrong", at]), output
