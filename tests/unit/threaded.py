"""Personalizers that many threads use, those threads, and LLMs that tell how they are asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import LONG_S, EchoLLM, GatedLLM, history

from hydra_edge.config import Config, find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.types import Completion, Record

THREADS = 8
TASK = "paper_title"
LONG_NOTES = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]


class CountingLLM(EchoLLM):
    """An application's LLM of the simplest shape, which breaks if two threads ask it at once."""

    inside = 0

    def complete(self, prompt: Prompt, *, n: int = 1, **options: object) -> list[Completion]:
        self.inside += 1
        for _ in range(20):  # another thread's turn to come in, if it could
            time.sleep(0)
        alone = self.inside == 1
        self.inside -= 1
        if not alone:
            raise AssertionError("two threads asked at once")
        return self.answers(prompt, n)


class SteppingLLM(EchoLLM):
    """Finishes one candidate a step, and looks whether to go on before each."""

    def complete(self, prompt, *, n=1, should_stop=None, on_candidate=None, **options):
        self.asked.append(prompt)
        made = []
        for completion in self.answers(prompt, n):
            if should_stop is not None and should_stop():
                break
            made.append(completion)
            if on_candidate is not None:
                on_candidate(completion)
        return made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


@pytest.fixture
def make(tmp_path: Path, hash_encoder, threads) -> Iterator[Callable[..., Personalizer]]:
    """Make personalizers on files; closed before the threads end, so that none waits for ever."""
    made: list[Personalizer] = []
    gates: list[threading.Event] = []

    def one(llm=None, records=None):
        if isinstance(llm, GatedLLM):
            gates.append(llm.gate)
        store = Store.open(tmp_path / f"{len(made)}.db")
        store.add(history() if records is None else records)
        person = Personalizer(
            store, user="me", config=Config(), paths=find_paths(), llm=llm, encoder=hash_encoder
        )  # fmt: skip
        made.append(person)
        return person

    yield one
    for gate in gates:  # where a test failed, its LLM may wait still
        gate.set()
    for person in made:
        person.close()


def result(future):
    """Return what a thread came to; a test that would wait for ever fails instead."""
    return future.result(LONG_S)


def begun(llm: GatedLLM) -> None:
    assert llm.started.acquire(timeout=LONG_S)
