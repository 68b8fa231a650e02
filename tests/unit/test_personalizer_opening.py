"""An LLM that takes its time to open: nobody else waits for it, and every end is an end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import threaded
from serving import LONG_S, EchoLLM, history, serving
from threaded import TASK, THREADS, result

from hydra_edge import resources
from hydra_edge.errors import CancelledError, ClosedError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

make, threads = threaded.make, threaded.threads

ASKING: list[Callable[[Personalizer], object]] = [
    lambda p: p.generate("about speech", task=TASK, n=2),
    lambda p: p.render_prompts("about speech", task=TASK),
    lambda p: p.fit_prompts(TASK, calls=4),
    lambda p: p.fit_head(TASK, calls=4),
]
OTHERS: list[Callable[[Personalizer], object]] = [
    lambda p: p.bundle,
    lambda p: p.rank("about speech", task=TASK),
    lambda p: p.add(Record("a text", "a title", TASK, "new")),
    lambda p: p.task(),
]


@dataclass
class SlowOpening:
    """An LLM that is opened once the gate is."""

    llm: EchoLLM = field(default_factory=EchoLLM)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)

    def __call__(self, *_: object) -> EchoLLM:
        self.begun.release()
        assert self.gate.wait(LONG_S)
        return self.llm

    def has_begun(self) -> bool:
        return self.begun.acquire(timeout=LONG_S)


@pytest.fixture
def opening(make, monkeypatch) -> Iterator[SlowOpening]:
    """Open LLMs slowly; before personalizers are closed, the gate is opened at the latest."""
    slow = SlowOpening()
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", slow)
    yield slow
    slow.gate.set()


@pytest.mark.parametrize("ask", ASKING)
def test_others_wait_for_no_llm_that_is_opened(make, threads, opening, ask):
    person = make()
    asking = threads.submit(ask, person)
    assert opening.has_begun()
    for other in OTHERS:
        result(threads.submit(other, person))
    assert not asking.done()
    opening.gate.set()
    result(asking)


def test_fit_without_an_llm_waits_for_none_that_is_opened(make, threads, opening):
    person = make()
    asking = threads.submit(person.generate, "about speech", task=TASK, n=2)
    assert opening.has_begun()
    assert result(threads.submit(person.fit_head, TASK, use_llm=False)).records == len(history())
    opening.gate.set()
    result(asking)


def test_llm_first_needed_by_many_threads_is_opened_once(make, threads, opening):
    person = make()
    asking = [threads.submit(lambda: person.llm) for _ in range(THREADS)]
    assert opening.has_begun()
    opening.gate.set()
    assert len({id(result(one)) for one in asking}) == 1
    assert not opening.begun.acquire(blocking=False)


@pytest.mark.parametrize("ask", ASKING)
def test_close_while_the_llm_is_opened_ends_and_closes_it(make, threads, opening, ask):
    person = make()
    asking = threads.submit(ask, person)
    assert opening.has_begun()
    closing = threads.submit(person.close)
    assert person._resources.closing.wait(LONG_S)
    opening.gate.set()
    result(closing)
    with pytest.raises(ClosedError):
        result(asking)
    assert (opening.llm.closed, opening.llm.asked) == (1, [])


def test_close_after_an_llm_that_could_not_be_opened_ends(make, threads, opening, monkeypatch):
    person = make()
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        result(threads.submit(lambda: person.llm))
    result(threads.submit(person.close))


def test_end_of_the_program_waits_for_an_llm_that_is_opened(make, threads, opening):
    person = make()
    asking = threads.submit(ASKING[0], person)
    assert opening.has_begun()
    leaving = threads.submit(resources._leave_llms)
    assert person._resources.leaving.wait(LONG_S)
    opening.gate.set()
    result(leaving)
    with pytest.raises(CancelledError):
        result(asking)
    assert opening.llm.asked == []


def test_end_of_the_program_waits_for_no_llm_that_never_opens(make, threads, opening, monkeypatch):
    monkeypatch.setattr(resources, "_LEAVE_S", 0.01)
    person = make()
    asking = threads.submit(ASKING[0], person)
    assert opening.has_begun()
    result(threads.submit(resources._leave_llms))
    assert not asking.done()


def test_program_ends_while_a_thread_of_its_opens_an_llm():
    code = """
import threading
from hydra_edge import Personalizer, Record, resources
from hydra_edge.llm import models

begun, gate = threading.Event(), threading.Event()

def never(*_):
    begun.set()
    gate.wait()

models.open_llm, resources._LEAVE_S = never, 0.05
p = Personalizer.from_records([Record("a text", "a title")])
threading.Thread(target=lambda: p.llm, daemon=True).start()
begun.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=LONG_S
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_page_that_has_the_llm_opened_holds_up_no_ranking(hash_encoder, threads, opening):
    with (
        Personalizer.from_records(history(), encoder=hash_encoder) as me,
        serving(me) as served,
        served.client() as client,
        served.client() as page,
    ):
        named = threads.submit(page.post, "/api/llm", json={})
        assert opening.has_begun()
        for path, body in (("/v1/rank", {"query": "about speech"}), ("/api/summary", {})):
            answer = result(threads.submit(client.post, path, json=body))
            assert answer.status_code == 200, answer.text
        assert not named.done()
        opening.gate.set()
        assert result(named).json() == {"name": "echo", "is_remote": False}
