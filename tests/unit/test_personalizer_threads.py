"""One personalizer for many threads: nothing lost or crossed, and nobody waits for an LLM."""

from __future__ import annotations

import threading

import pytest
import threaded
from serving import LONG_S, EchoLLM, GatedLLM, history
from threaded import TASK, THREADS, CountingLLM, begun, result

from hydra_edge.errors import ConfigError
from hydra_edge.types import Completion, Record

ROUNDS = 4

make, threads = threaded.make, threaded.threads


def test_eight_threads_on_one_file_lose_and_cross_nothing(make, threads):
    person = make(CountingLLM())
    start = threading.Barrier(THREADS)

    def work(me: int) -> None:
        start.wait(LONG_S)
        for turn in range(ROUNDS):
            word = f"nonce{me}x{turn}"
            added = person.add([Record(f"text {word}", f"title {word}", TASK, id=word)])
            assert added.added == 1
            ranked = person.rank(f"text {word}", k=50)
            assert ranked.query == f"text {word}"
            assert word in {r.record.id for r in ranked.records}
            generation = person.generate(f"about {word}", task=TASK, n=3)
            assert generation.query == f"about {word}"
            assert all(c.text.endswith(f"to {word}") for c in generation.candidates)
            choice = person.choose(generation_id=generation.id, pick=1)
            assert choice.text == generation.text

    for future in [threads.submit(work, i) for i in range(THREADS)]:
        result(future)
    turns = THREADS * ROUNDS
    assert person.store.count() == len(history()) + 2 * turns
    choices = person.store.choices(TASK)
    assert len(choices) == turns
    assert all(c.text.endswith(c.query.replace("about", " to")) for c in choices)
    head = person.store.head(TASK, "adapter")
    assert head.n_queries == turns, "every choice moved the head by its own step"
    assert head.version == turns


def test_engine_first_needed_by_many_threads_is_made_once(make, threads):
    person = make(EchoLLM())
    start = threading.Barrier(THREADS)

    def engine(_: int) -> object:
        start.wait(LONG_S)
        return person.engine

    assert len({id(engine) for engine in threads.map(engine, range(THREADS), timeout=LONG_S)}) == 1


def test_other_threads_rank_add_and_choose_while_the_llm_writes(make, threads):
    llm = GatedLLM()
    person = make(llm)
    llm.gate.set()
    earlier = person.generate("about speech", task=TASK, n=2)
    llm.gate.clear()
    begun(llm)
    writing = threads.submit(person.generate, "about vision", task=TASK, n=2)
    begun(llm)
    try:
        assert result(threads.submit(person.rank, "about speech")).records
        assert result(threads.submit(person.add, [Record("a", "b", TASK)])).added == 1
        result(threads.submit(person.choose, generation_id=earlier.id, pick=1))
        assert not writing.done()
    finally:
        llm.gate.set()
    assert result(writing).query == "about vision"


def test_other_threads_rank_and_choose_while_a_fit_asks_the_llm(make, threads):
    llm = GatedLLM()
    person = make(llm)
    fitting = threads.submit(person.fit_head, TASK, calls=40)
    begun(llm)
    try:
        assert result(threads.submit(person.rank, "about speech")).records
        assert not fitting.done()
    finally:
        llm.gate.set()
    report = result(fitting)
    assert report.pools_made > 0


def test_choice_made_during_a_fit_is_part_of_the_fitted_head(make, threads):
    llm = GatedLLM()
    person = make(llm)
    llm.gate.set()
    generation = person.generate("about speech", task=TASK, n=3)
    llm.gate.clear()
    begun(llm)
    fitting = threads.submit(person.fit_head, TASK, calls=16)
    begun(llm)
    result(threads.submit(person.choose, generation_id=generation.id, pick=2))
    llm.gate.set()
    report = result(fitting)
    head = person.store.head(TASK, "adapter")
    assert head.version == 2, "the choice's own step, then the fit"
    assert head.n_queries == report.pools_made + 1


def test_callback_that_asks_for_another_answer_is_refused(make):
    person = make(EchoLLM())
    refused: list[ConfigError] = []

    def ask_again(_: Completion) -> None:
        with pytest.raises(ConfigError, match="callback of its own answer") as caught:
            person.generate("about vision", task=TASK, n=1)
        refused.append(caught.value)

    assert person.generate("about speech", task=TASK, n=2, on_candidate=ask_again).text
    assert len(refused) == 2
