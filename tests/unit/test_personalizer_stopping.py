"""What is stopped midway: an answer that is written or waited for, a fit, texts embedded."""

from __future__ import annotations

import threading

import pytest
import threaded
from serving import EchoLLM, GatedLLM, history
from threaded import LONG_NOTES, TASK, SteppingLLM, begun, result

from hydra_edge.errors import CancelledError

make, threads = threaded.make, threaded.threads


def test_generate_stopped_midway_answers_with_what_is_finished(make):
    person, seen = make(SteppingLLM()), []
    generation = person.generate(
        "about speech", task=TASK, n=8, on_candidate=seen.append, should_stop=lambda: len(seen) == 3
    )
    assert [c.text for c in seen] == [f"answer {i} to speech" for i in range(3)]
    assert generation.text in {c.text for c in seen}
    assert (generation.usage.requested, generation.usage.received) == (8, 3)
    assert "it was stopped: 3 of 8 candidates arrived" in generation.notes


def test_generate_stopped_before_the_first_candidate_is_cancelled(make):
    person = make(SteppingLLM())
    asked = iter([False, True])  # true once is true for good
    with pytest.raises(CancelledError, match="none of 8 candidates"):
        person.generate("about speech", task=TASK, n=8, should_stop=lambda: next(asked))
    assert person.store.last_generation() is None


def test_generate_stopped_while_embedding_asks_nobody_and_keeps_vectors(make):
    llm = EchoLLM()
    person, told = make(llm, LONG_NOTES), []
    with pytest.raises(CancelledError, match="stage 'embed'"):
        person.generate(
            "about speech", task="notes", progress=lambda *at: told.append(at),
            should_stop=lambda: bool(told),
        )  # fmt: skip
    assert llm.asked == []
    (at,) = told
    assert at[0] == "embed"
    assert 0 < at[1] < at[2]
    assert person.store.vector_count(person.bundle.base_id) == at[1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda p, **told: p.rank("about speech", task="notes", **told),
        lambda p, **told: p.render_prompts("about speech", task="notes", **told),
        lambda p, **told: p.fit_prompts("notes", **told),
    ],
)
def test_what_asks_no_llm_is_stopped_while_embedding_and_keeps_vectors(make, ask):
    person, told = make(EchoLLM(), LONG_NOTES), []
    with pytest.raises(CancelledError, match="stage 'embed'"):
        ask(person, progress=lambda *at: told.append(at), should_stop=lambda: bool(told))
    (at,) = told
    assert 0 < at[1] < at[2]
    assert person.store.vector_count(person.bundle.base_id) == at[1]


def test_answer_that_waits_for_the_llm_is_stopped_while_it_waits(make, threads):
    llm, enough = GatedLLM(), threading.Event()
    person = make(llm)
    threads.submit(person.generate, "about speech", task=TASK, n=2)
    begun(llm)
    waiting = threads.submit(
        person.generate, "about sound", task=TASK, n=2, should_stop=enough.is_set
    )
    enough.set()
    with pytest.raises(CancelledError, match="none of 2 candidates"):
        result(waiting)
    assert not llm.gate.is_set(), "the other answer is still being written"


def test_llm_that_knows_neither_word_is_asked_without_and_told_after(make):
    class Plain(EchoLLM):
        def complete(self, prompt, *, n, temperature, max_tokens, choices, seed, on_token):
            self.asked.append(prompt)
            return self.answers(prompt, n)

    llm, seen = Plain(), []
    person = make(llm)
    generation = person.generate(
        "about speech", task=TASK, n=4, on_candidate=seen.append, should_stop=lambda: bool(seen)
    )
    assert len(seen) == len(generation.candidates) == 4
    with pytest.raises(CancelledError):
        person.generate("about speech", task=TASK, n=4, should_stop=lambda: True)
    assert len(llm.asked) == 1


def test_fit_stopped_while_buying_fits_on_whole_pools_only(make):
    llm = SteppingLLM()
    person = make(llm)
    report = person.fit_head(TASK, calls=1000, should_stop=lambda: len(llm.asked) == 6)
    stored = person.store.pools(TASK)
    assert report.pools_made > 0
    assert any(note.startswith("it was stopped") for note in report.notes)
    assert all(len(p.completions) == (8 if p.purpose == "pool" else 1) for p in stored)
    assert sum(p.purpose == "pool" for p in stored) >= report.pools_made
    assert person.store.head(TASK, "reranker") is not None
    again = person.fit_head(TASK, calls=1000)
    assert again.pools_made + again.pools_reused == len(history()) - 2


def test_fit_stopped_while_embedding_changes_no_head_and_keeps_vectors(make):
    person, told = make(EchoLLM()), []
    with pytest.raises(CancelledError, match="stage 'embed'"):
        person.fit_head(TASK, progress=lambda *at: told.append(at), should_stop=lambda: bool(told))
    assert told[0][0] == "embed"
    assert person.store.heads() == []
    assert person.store.vector_count(person.bundle.base_id) == told[0][1]
