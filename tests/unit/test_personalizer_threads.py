"""One personalizer for many threads: nothing lost or crossed, nobody waits for an LLM, all ends."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filled_store import cached_vectors
from serving import LONG_S, EchoLLM, GatedLLM, history

from hydra_edge import resources
from hydra_edge.config import Config, find_paths
from hydra_edge.errors import CancelledError, ClosedError, ConfigError
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.store.adding import BATCH
from hydra_edge.types import Completion, Record, text_hash

THREADS = 8
ROUNDS = 4
TASK = "paper_title"
LONG_NOTES = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]


class CountingLLM(EchoLLM):
    """An application's LLM of the simplest shape, which breaks if two threads ask it at once."""

    inside = 0

    def complete(self, prompt: Prompt, *, n: int = 1, **options: object) -> list[Completion]:
        self.inside += 1
        threading.Event().wait(0.002)  # time enough for another thread to come in, if it could
        alone = self.inside == 1
        self.inside -= 1
        if not alone:
            raise AssertionError("two threads asked at once")
        return self.answers(prompt, n)


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


# ---- nothing lost, nothing crossed


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


# ---- stopping


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


# ---- forgetting beside other work


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


@pytest.mark.parametrize("erase", [lambda p: p.forget("r1"), lambda p: p.clear_log(choices=True)])
def test_what_erases_goes_before_a_fit_that_waits(make, threads, erase):
    """That fit begins afterwards, and asks of what is left."""
    llm = GatedLLM()
    person = make(llm)
    first = threads.submit(person.fit_head, TASK, calls=1000)
    begun(llm)
    second = threads.submit(person.fit_head, TASK, calls=16)
    assert not second.done()
    threading.Event().wait(0.05)  # time enough for it to be the first in line
    asked = threads.submit(lambda: (erase(person), llm.started.acquire(blocking=False))[1])
    assert not result(asked), "the fit that waits has asked already"
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


# ---- closing


def test_close_stops_an_answer_under_way_and_those_that_wait(make, threads):
    llm = GatedLLM(first=1)
    person = make(llm)
    writing = [threads.submit(person.generate, "about speech", task=TASK, n=4) for _ in range(3)]
    begun(llm)
    result(threads.submit(person.close))
    for future in writing:
        with pytest.raises(ClosedError, match="closed"):
            result(future)
    assert llm.closed == 0, "the application's LLM is its own to close"


def test_close_ends_the_embedding_of_a_history(make, threads, hash_encoder, monkeypatch):
    person, encode = make(EchoLLM(), LONG_NOTES), hash_encoder.encode

    def closing(texts: list[str], **options: object) -> object:
        threads.submit(person.close)
        assert person._resources.closing.wait(LONG_S)
        return encode(texts, **options)

    monkeypatch.setattr(hash_encoder, "encode", closing)
    with pytest.raises(ClosedError, match="closed"):
        person.rank("about speech", task="notes")
    assert 0 < len(hash_encoder.encoded) < 2 * len(LONG_NOTES)


def test_close_ends_an_add_under_way(make, threads):
    person, begun_adding, gate = make(EchoLLM()), threading.Event(), threading.Event()

    def waiting() -> Iterator[Record]:
        for i in range(2 * BATCH):
            if i == BATCH:
                begun_adding.set()
                assert gate.wait(LONG_S)
            yield Record(f"text {i}", f"title {i}", TASK, f"new{i}")

    adding = threads.submit(person.add, waiting())
    assert begun_adding.wait(LONG_S)
    result(threads.submit(person.close))
    gate.set()
    with pytest.raises(ClosedError, match="before all records were stored"):
        result(adding)
    with Store.open(person.store.path, create=False) as store:
        assert store.count() == len(history()) + BATCH


def test_close_while_a_fit_buys_lets_it_fit_on_what_is_paid_for(make, threads):
    llm = GatedLLM(first=8)
    person = make(llm)
    fitting = threads.submit(person.fit_head, TASK, calls=1000)
    begun(llm)
    closing = threads.submit(person.close)
    assert person._resources.closing.wait(LONG_S)
    report = result(fitting)
    result(closing)
    assert any(note.startswith("it was stopped") for note in report.notes)
    assert report.roles[0].version == 1


def test_close_waits_for_prompts_that_are_rendered(make, threads, monkeypatch):
    class Rendering(EchoLLM):
        """Tokenizes as it renders: what that needs may not go meanwhile."""

        def render(self, prompt: Prompt, **options: object) -> str:
            rendering.set()
            assert person._resources.closing.wait(LONG_S)
            assert not self.closed
            return super().render(prompt)

        def close(self) -> None:
            super().close()
            order.append("closed")

    rendering, order = threading.Event(), []
    llm = Rendering()
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: llm)
    person = make()
    prompts = threads.submit(person.render_prompts, "about speech", task=TASK)
    prompts.add_done_callback(lambda _: order.append("rendered"))
    assert rendering.wait(LONG_S)
    closed = threads.submit(person.close)
    assert result(prompts)
    result(closed)
    assert order == ["rendered", "closed"]


def test_close_waits_for_a_fit_to_end_and_closes_an_llm_opened_here(make, threads, monkeypatch):
    llm = GatedLLM()
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: llm)
    person = make()
    fitting = threads.submit(person.fit_head, TASK, calls=1000)
    begun(llm)
    result(threads.submit(person.close))
    assert result(fitting).pools_made == 0
    assert llm.closed == 1


def test_end_of_the_interpreter_waits_until_an_llm_opened_here_is_left(make, threads, monkeypatch):
    registered: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", lambda f: f in registered and registered.remove(f))
    llm = GatedLLM()
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: llm)
    people = [make(), make()]
    writing = threads.submit(people[0].generate, "about speech", task=TASK, n=4)
    begun(llm)
    assert people[1].llm.name
    [leave] = registered
    result(threads.submit(leave))

    assert llm.stopped.acquire(blocking=False), "it was left before the handler came back"
    with pytest.raises(CancelledError):
        result(writing)
    assert not llm.closed
    for person in people:  # for exit handlers of the program's own
        assert person.add(Record("a text", "a title", TASK, "last")).added == 1
        assert person.rank("about speech", task=TASK).records
        with pytest.raises(ClosedError, match="the program ends"):
            person.generate("about speech", task=TASK)


def test_end_of_the_interpreter_does_not_wait_for_ever(make, threads, monkeypatch):
    llm = CountingLLM()
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: llm)
    monkeypatch.setattr(resources, "_LEAVE_S", 0.01)
    person = make()
    with person.llm.turn():
        result(threads.submit(resources._leave_llms))
        assert person._resources.is_over()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_end_of_a_forked_child_waits_for_no_llm_of_its_parent(make, monkeypatch):
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: EchoLLM())
    person = make()
    with person.llm.turn():
        assert person._resources in resources._with_llm
        if (child := os.fork()) == 0:
            os._exit(len(resources._with_llm))
        assert os.waitpid(child, 0)[1] == 0


def test_personalizers_of_one_base_share_its_encoder(hash_encoder):
    made = [Personalizer.from_records(history()) for _ in range(2)]
    own = Personalizer.from_records(history(), encoder=hash_encoder)
    one, two, given = (person.engine.encoder for person in (*made, own))
    assert one is not two, "each counts for itself"
    assert one.encoder is two.encoder
    assert given.encoder is hash_encoder
    for person in (*made, own):
        person.close()
    with Personalizer.from_records(history()) as later:
        assert later.engine.encoder.encoder is one.encoder
        assert later.rank("about speech", task=TASK).records


@pytest.mark.parametrize(
    "use",
    [
        lambda p: p.add([]),
        lambda p: p.choose(pick=1),
        lambda p: p.export_head(TASK, "reranker"),
        lambda p: p.fit_head(TASK),
        lambda p: p.fit_prompts(TASK),
        lambda p: p.forget(["a"]),
        lambda p: p.generate("q"),
        lambda p: p.llm,
        lambda p: p.rank("q"),
        lambda p: p.render_prompts("q"),
        lambda p: p.task(),
    ],
)
def test_use_after_close_says_so(make, use):
    person = make(EchoLLM(), [])
    person.close()
    person.close()
    with pytest.raises(ClosedError, match=r"close\(\)"):
        use(person)


def test_close_called_by_a_callback_is_refused_and_works_afterwards(make):
    person = make(SteppingLLM())
    with pytest.raises(ConfigError, match="callback of its own answer"):
        person.generate("about speech", task=TASK, on_candidate=lambda _: person.close())
    person.close()
    with pytest.raises(ClosedError):
        person.rank("q")
