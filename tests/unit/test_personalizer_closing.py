"""The end of a personalizer, of its program and of a fork, while other threads are at work."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import threaded
from serving import LONG_S, EchoLLM, GatedLLM, history
from threaded import LONG_NOTES, TASK, CountingLLM, SteppingLLM, begun, result

from hydra_edge import resources
from hydra_edge.errors import CancelledError, ClosedError, ConfigError
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.store.adding import BATCH
from hydra_edge.types import Record

make, threads = threaded.make, threaded.threads


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
