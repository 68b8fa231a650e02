"""Tasks on an event loop that are cancelled, told to stop, or closed under way."""

from __future__ import annotations

import asyncio
import threading

import pytest
from loop_runner import TASK, acquired, gated, opening, run, some_records
from serving import LONG_S, EchoLLM, GatedLLM, history

from hydra_edge import AsyncPersonalizer, Personalizer
from hydra_edge.aio import _THREADS
from hydra_edge.config import Config
from hydra_edge.errors import CancelledError, ClosedError, StoreError
from hydra_edge.store.adding import BATCH
from hydra_edge.types import Record


@pytest.fixture
def opened(hash_encoder):
    return opening(hash_encoder)


# ---- cancelling


async def cancel_under_way(p: AsyncPersonalizer, llm: GatedLLM) -> None:
    """Cancel an answer that the LLM has begun to write; the LLM is told to stop."""
    writing = asyncio.create_task(p.generate("about speech", n=2))
    await acquired(llm.started)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await acquired(llm.stopped)


def test_cancelled_task_tells_the_llm_to_stop_and_frees_it(opened):
    llm = GatedLLM()

    async def work():
        async with opened(llm) as p:
            await cancel_under_way(p, llm)
            llm.gate.set()
            return await p.generate("about vision", n=2)

    assert run(work()).query == "about vision"


def test_cancelled_task_keeps_nothing_of_what_was_finished(opened):
    llm = GatedLLM(first=1)

    async def work():
        async with opened(llm) as p:
            await cancel_under_way(p, llm)
            await asyncio.get_running_loop().run_in_executor(p._answers, lambda: None)  # it ended
            return p.personalizer.store.last_generation()

    assert run(work()) is None


def test_task_cancelled_while_it_waits_never_asks_the_llm(opened):
    class Remembering(GatedLLM):
        def complete(self, prompt, *, n=1, should_stop=None, **options):
            queries.append(prompt.query)
            return super().complete(prompt, n=n, should_stop=should_stop, **options)

    queries, llm = [], Remembering()

    async def work():
        async with opened(llm) as p:
            first = asyncio.create_task(p.generate("about speech", n=2))
            await acquired(llm.started)
            second = asyncio.create_task(p.generate("about vision", n=2))
            third = asyncio.create_task(p.generate("about search", n=2))
            await asyncio.sleep(0)  # both are in the queue now
            second.cancel()
            for _ in range(5):  # the loop must have told it, before another thread may begin it
                await asyncio.sleep(0)
            llm.gate.set()
            await asyncio.gather(first, second, third, return_exceptions=True)
            assert second.cancelled()

    run(work())
    assert queries == ["about speech", "about search"]


def test_cancelled_fit_stops_asking(opened):
    llm = GatedLLM()

    async def work():
        async with opened(llm) as p:
            fitting = asyncio.create_task(p.fit_head(TASK, calls=1000))
            await acquired(llm.started)
            fitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fitting
            await acquired(llm.stopped)
            # Waits for the fit to have ended, which had made no pool yet.
            return await p.fit_head(TASK, use_llm=False)

    assert run(work()).pools_reused == 0


def test_fit_cancelled_while_it_waits_never_starts(opened, monkeypatch):
    llm, started, fit_head = GatedLLM(), [], Personalizer.fit_head

    def noted(self, task=None, *, calls=None, **options):
        started.append(calls)
        return fit_head(self, task, calls=calls, **options)

    monkeypatch.setattr(Personalizer, "fit_head", noted)

    async def work():
        async with opened(llm) as p:
            fits = [asyncio.create_task(p.fit_head(TASK, calls=16 + i)) for i in range(3)]
            await acquired(llm.started)
            fits[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await fits[1]
            llm.gate.set()
            await asyncio.gather(fits[0], fits[2])

    run(work())
    assert started == [16, 18]


def test_cancelled_add_stops_and_keeps_whole_batches(opened):
    begun, gate = threading.Semaphore(0), threading.Event()

    def wait(i):
        if i == BATCH + 1:
            begun.release()
            assert gate.wait(LONG_S)

    async def work():
        async with opened(EchoLLM()) as p:
            adding = asyncio.create_task(p.add(some_records(4 * BATCH, wait)))
            await acquired(begun)
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding
            gate.set()
            added = await p.add(Record("another", "Parser: another", TASK))  # once that has ended
            return added.added, p.personalizer.store.count()

    assert run(work()) == (1, len(history()) + BATCH + 1)


@pytest.mark.parametrize(
    "ask", [lambda p: p.rank("q"), lambda p: p.render_prompts("q"), lambda p: p.fit_prompts()]
)
def test_cancelled_task_stops_the_embedding_of_a_history(hash_encoder, monkeypatch, ask):
    records = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]
    slowly, begun, gate = gated(hash_encoder.encode)

    async def work():
        async with AsyncPersonalizer.from_records(
            records, llm=EchoLLM(), encoder=hash_encoder, config=Config()
        ) as p:
            monkeypatch.setattr(hash_encoder, "encode", slowly)
            asking = asyncio.create_task(ask(p))
            await acquired(begun)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            gate.set()
            await asyncio.to_thread(p._others.shutdown)  # it ended
            return p.personalizer.engine.encoder.embedded

    embedded = run(work())
    assert 0 < embedded < 2 * len(records), "no more than the portion it was at"


def with_a_note(encoder) -> AsyncPersonalizer:
    return AsyncPersonalizer.from_records(
        [Record("a text", "a note", "notes")], llm=EchoLLM(), encoder=encoder, config=Config()
    )


def test_cancelled_choice_stops_the_embedding_and_is_kept(hash_encoder, monkeypatch):
    long = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]
    slowly, begun, gate = gated(hash_encoder.encode)

    async def work():
        async with with_a_note(hash_encoder) as p:
            made = await p.generate("about speech", n=2)
            await p.add(long)
            monkeypatch.setattr(hash_encoder, "encode", slowly)
            choosing = asyncio.create_task(p.choose(generation_id=made.id, pick=2))
            await acquired(begun)
            choosing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await choosing
            gate.set()
            await asyncio.to_thread(p._others.shutdown)  # it ended
            store = p.personalizer.store
            return store.heads(), [choice.picked for choice in store.choices()]

    assert run(work()) == ([], [1])


@pytest.mark.parametrize("way", ["choose", "choose_as"])
def test_cancelled_choice_that_waits_for_a_thread_is_kept(hash_encoder, monkeypatch, way):
    given = [] if way == "choose" else [lambda _: None]
    slowly, begun, gate = gated(hash_encoder.encode)

    async def work():
        async with with_a_note(hash_encoder) as p:
            made = await p.generate("about speech", n=2)
            monkeypatch.setattr(hash_encoder, "encode", slowly)
            ranking = [asyncio.create_task(p.rank(f"query {i}")) for i in range(_THREADS)]
            await acquired(begun)
            choose = getattr(p, way)
            choosing = asyncio.create_task(choose(*given, generation_id=made.id, pick=2))
            await asyncio.sleep(0)  # it has asked for a thread
            choosing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await choosing
            assert not p.personalizer.store.choices()
            gate.set()
            await asyncio.gather(*ranking)
            await asyncio.to_thread(p._others.shutdown)  # it ended
            return [choice.picked for choice in p.personalizer.store.choices()]

    assert run(work()) == [1]


def test_should_stop_of_the_caller_still_counts(opened):
    llm = GatedLLM(first=1)

    async def work():
        async with opened(llm) as p:
            generation = await p.generate("about speech", n=3, should_stop=enough.is_set)
            with pytest.raises(CancelledError):
                await p.generate("about speech", n=3, should_stop=lambda: True)
            return generation

    enough = threading.Event()
    asker = threading.Thread(target=lambda: (llm.started.acquire(timeout=LONG_S), enough.set()))
    asker.start()
    assert run(work()).usage.received == 1
    asker.join()


# ---- closing


def test_close_ends_answers_under_way_and_threads(opened):
    llm = GatedLLM()
    before = threading.active_count()

    async def work():
        p = await opened(llm).__aenter__()
        writing = [asyncio.create_task(p.generate("about speech", n=2)) for _ in range(3)]
        await acquired(llm.started)
        await p.close()
        ended = await asyncio.gather(*writing, return_exceptions=True)
        with pytest.raises(ClosedError, match=r"close\(\)"):
            await p.rank("about speech")
        await p.close()
        return ended

    assert [type(error) for error in run(work())] == [ClosedError] * 3
    assert llm.stopped.acquire(timeout=LONG_S)
    assert threading.active_count() == before


def test_close_ends_fits_under_way_and_in_line(opened):
    llm = GatedLLM()
    before = threading.active_count()

    async def work():
        p = await opened(llm).__aenter__()
        fits = [asyncio.create_task(p.fit_head(TASK, calls=16)) for _ in range(3)]
        await acquired(llm.started)
        await p.close()
        return await asyncio.gather(*fits, return_exceptions=True)

    _, *in_line = run(work())  # the one under way ends with what it has
    assert [type(error) for error in in_line] == [ClosedError] * 2
    assert llm.stopped.acquire(timeout=LONG_S)
    assert not llm.started.acquire(blocking=False)
    assert threading.active_count() == before


@pytest.mark.parametrize("at", [BATCH + 1, 2 * BATCH - 1], ids=["midway", "at the end"])
def test_close_ends_an_add_under_way(opened, monkeypatch, at):
    begun, gate = threading.Semaphore(0), threading.Event()

    def wait(i):
        if i == at:
            begun.release()
            assert gate.wait(LONG_S)

    async def work():
        p = await opened(EchoLLM()).__aenter__()
        store = p.personalizer.store
        close = store.close
        monkeypatch.setattr(store, "close", lambda: (close(), gate.set()))
        adding = asyncio.create_task(p.add(some_records(2 * BATCH - 1, wait)))
        await acquired(begun)
        await p.close()
        with pytest.raises(ClosedError, match="before all records were stored"):
            await adding

    run(work())


def test_add_that_fails_says_why_as_long_as_it_is_open(opened, monkeypatch):
    def fail(*_, **__):
        raise StoreError("The disk is full.")

    async def work():
        async with opened(EchoLLM()) as p:
            monkeypatch.setattr(p.personalizer.store, "add", fail)
            with pytest.raises(StoreError, match="disk is full"):
                await p.add(Record("a", "b", TASK))

    run(work())
