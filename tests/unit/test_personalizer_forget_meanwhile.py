"""What is forgotten, or made private, while other threads ask an LLM or fit."""

from __future__ import annotations

import threading

import pytest
import threaded
from filled_store import cached_vectors
from serving import LONG_S, EchoLLM, GatedLLM, history
from threaded import TASK, begun, result

from hydra_edge.errors import CancelledError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record, text_hash

make, threads = threaded.make, threaded.threads


def trace_of(person: Personalizer, record: Record) -> set[str]:
    """Say where a forgotten record has left something."""
    hashes = [text_hash(record.input), text_hash(record.output)]
    left = {"vector"} if cached_vectors(person.store, hashes, person.bundle.base_id) else set()
    if any(record.id in (p.query_id, *p.record_ids) for p in person.store.pools()):
        left.add("pool")
    return left


def test_answer_shown_a_record_forgotten_meanwhile_is_thrown_away(make, threads):
    llm = GatedLLM()
    person = make(llm)
    writing = threads.submit(person.generate, "about speech", task=TASK, n=2, k=4)
    begun(llm)
    gone = person.rank("about speech", task=TASK, k=1).records[0].record
    result(threads.submit(person.forget, [gone.id]))
    llm.gate.set()
    with pytest.raises(CancelledError, match="forgotten meanwhile"):
        result(writing)
    assert person.store.last_generation() is None
    assert trace_of(person, gone) == set()


@pytest.mark.parametrize("remote", [False, True])
def test_prompt_waiting_for_its_turn_is_not_sent_once_a_record_in_it_is_withdrawn(
    make, threads, remote
):
    class Noting(GatedLLM):
        is_remote = remote

        def complete(self, prompt, **options):
            sent.append(prompt)
            return super().complete(prompt, **options)

    sent, llm, in_line = [], Noting(), threading.Event()
    person = make(llm)
    ahead = threads.submit(person.generate, "about vision", task=TASK, n=1, k=0)
    begun(llm)
    waiting = threads.submit(
        person.generate, "about speech", task=TASK, n=1, k=4, on_start=lambda _: in_line.set()
    )
    assert in_line.wait(LONG_S)
    gone = person.rank("about speech", task=TASK, k=1).records[0].record
    if remote:
        person.store.set_private([gone.id], True)
    else:
        person.forget([gone.id])
    llm.gate.set()
    result(ahead)
    with pytest.raises(CancelledError, match="private meanwhile" if remote else "forgotten mean"):
        result(waiting)
    assert [prompt.query for prompt in sent] == ["about vision"]


def test_forget_ends_a_fit_under_way_and_leaves_no_trace(make, threads):
    class Remembering(GatedLLM):
        def complete(self, prompt, *, n=1, should_stop=None, **options):
            self.asked.append(prompt)
            return super().complete(prompt, n=n, should_stop=should_stop, **options)

    llm = Remembering()
    person = make(llm)
    fitting = threads.submit(person.fit_head, TASK, calls=1000)
    begun(llm)
    (gone,) = [r for r in person.store.records() if r.input == llm.asked[0].query]
    receipt = result(threads.submit(person.forget, [gone.id]))
    assert receipt.records == 1
    assert any(n.startswith("it was stopped") for n in result(fitting).notes)
    assert llm.stopped.acquire(timeout=LONG_S)
    assert trace_of(person, gone) == set()
    assert person.store.head(TASK, "reranker").n_queries == len(history()) - 3


@pytest.mark.parametrize(
    ("step", "erase"),
    [
        ("forget", lambda p: p.forget("r1")),
        ("clear_log", lambda p: p.clear_log(choices=True)),
    ],
)
def test_what_erases_goes_before_a_fit_that_waits(make, threads, monkeypatch, step, erase):
    """That fit begins afterwards, and asks of what is left."""
    llm = GatedLLM()
    person = make(llm)
    erasing, asked = getattr(person.store, step), []

    def looking(*args: object, **options: object) -> object:
        done = erasing(*args, **options)
        asked.append(llm.started.acquire(blocking=False))
        return done

    monkeypatch.setattr(person.store, step, looking)
    first = threads.submit(person.fit_head, TASK, calls=1000)
    begun(llm)
    second = threads.submit(person.fit_head, TASK, calls=16)
    result(threads.submit(erase, person))
    assert asked == [False], "the fit that waits has asked already"
    assert any(n.startswith("it was stopped") for n in result(first).notes)
    llm.gate.set()
    assert result(second).pools_made == 1


def test_forget_by_a_callback_of_a_fit_ends_that_fit(make):
    llm = EchoLLM()
    person, told = make(llm), []

    def forgetting(stage: str, done: int, total: int) -> None:
        if not told and stage == "candidates":
            told.append(person.forget("r1").records)

    report = person.fit_head(TASK, calls=1000, progress=forgetting)
    assert told == [1]
    assert report.pools_made == 1


def test_fit_by_a_callback_of_forget_waits_for_nobody(make, threads):
    person, fitted = make(EchoLLM()), []
    forgetting = threads.submit(
        person.forget, "r1", on_erased=lambda _: fitted.append(person.fit_head(TASK, use_llm=False))
    )
    assert result(forgetting).records == 1
    assert fitted[0].records == len(history()) - 1
