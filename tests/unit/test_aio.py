"""The personalizer on an event loop: never blocks it, can be cancelled, tells the loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import aclosing
from contextvars import ContextVar

import pytest
from serving import LONG_S, EchoLLM, GatedLLM, history

from hydra_edge import AsyncPersonalizer, Personalizer
from hydra_edge.config import Config
from hydra_edge.errors import (
    CancelledError,
    ClosedError,
    ConfigError,
    StoreError,
    UnknownUserError,
)
from hydra_edge.store.adding import BATCH
from hydra_edge.types import Completion, Generation, Record

TASK = "paper_title"


@pytest.fixture
def opened(hash_encoder):
    """Open one in memory with this LLM."""

    def one(llm):
        return AsyncPersonalizer.from_records(
            history(), llm=llm, encoder=hash_encoder, config=Config()
        )

    return one


def run(work):
    """Run a coroutine; a test that would wait for ever fails instead."""
    return asyncio.run(asyncio.wait_for(work, LONG_S))


async def acquired(semaphore):
    assert await asyncio.to_thread(semaphore.acquire, timeout=LONG_S)


# ---- the same methods, never blocking


def test_every_method_is_a_coroutine_with_the_same_parameters():
    own = {"open", "from_records", "close", "working"}
    methods = {
        name: method
        for name, method in inspect.getmembers(Personalizer, inspect.isfunction)
        if not name.startswith("_") and name not in own
    }
    assert {"add", "choose", "fit_head", "forget", "generate", "rank"} <= set(methods)
    for name, method in methods.items():
        ours = getattr(AsyncPersonalizer, name)
        assert inspect.iscoroutinefunction(ours), name
        assert inspect.signature(ours) == inspect.signature(method)
        assert inspect.getdoc(ours) == inspect.getdoc(method)


def test_whole_round_gives_what_the_personalizer_gives(opened, hash_encoder):
    async def work():
        async with opened(EchoLLM()) as p:
            added = await p.add([Record("more", "Parser: more", TASK, id="m")])
            report = await p.fit_head(TASK, calls=16)
            ranking = await p.rank("about parsers")
            generation = await p.generate("about parsers", n=3)
            choice = await p.choose(generation_id=generation.id, pick=1)
            forgotten = await p.forget(["m"])
            return added, report, ranking, generation, choice, forgotten

    added, report, ranking, generation, choice, forgotten = run(work())
    with Personalizer.from_records(history(), encoder=hash_encoder, config=Config()) as p:
        p.add([Record("more", "Parser: more", TASK, id="m")])
        p.fit_head(TASK, use_llm=False)
        same = p.rank("about parsers")
    assert [r.record.id for r in ranking.records] == [r.record.id for r in same.records]
    assert (added.added, report.pools_made, forgotten.records) == (1, 1, 1)
    assert choice.text == generation.text
    assert generation.text.endswith("to parsers")


def test_loop_goes_on_and_others_are_served_while_the_llm_writes(opened):
    llm = GatedLLM()

    async def work():
        async with opened(llm) as p:
            writing = asyncio.create_task(p.generate("about speech", n=2))
            await acquired(llm.started)
            ticks = 0
            for _ in range(1000):
                await asyncio.sleep(0)
                ticks += not writing.done()
            ranking = await p.rank("about parsers")
            still = not writing.done()
            llm.gate.set()
            return ticks, ranking, still, await writing

    ticks, ranking, still, generation = run(work())
    assert ticks == 1000
    assert ranking.records
    assert still
    assert generation.query == "about speech"


def test_add_waits_for_no_fit_nor_for_those_that_wait_for_one(opened, hash_encoder, monkeypatch):
    encode, begun, gate = hash_encoder.encode, threading.Semaphore(0), threading.Event()

    def slowly(texts, **options):
        begun.release()
        assert gate.wait(LONG_S)
        return encode(texts, **options)

    async def work():
        async with opened(EchoLLM()) as p:
            monkeypatch.setattr(hash_encoder, "encode", slowly)
            try:
                fitting = asyncio.create_task(p.fit_head(TASK, calls=0))
                await acquired(begun)
                ranking = [asyncio.create_task(p.rank("about parsers")) for _ in range(6)]
                await asyncio.sleep(0)  # they are in line now
                added = await asyncio.wait_for(p.add(Record("more", "Parser: more", TASK)), 5.0)
            finally:
                gate.set()
            await asyncio.gather(fitting, *ranking)
            return added

    assert run(work()).added == 1


def test_many_fits_that_wait_leave_ranking_and_forgetting_to_others(opened):
    llm = GatedLLM()

    async def work():
        async with opened(llm) as p:
            fits = [asyncio.create_task(p.fit_head(TASK, calls=16)) for _ in range(5)]
            await acquired(llm.started)
            ranking = await p.rank("about parsers")
            assert not any(fit.done() for fit in fits)
            forgotten = await p.forget("r3")
            await acquired(llm.stopped)
            await acquired(llm.started)  # the next fit has its turn only then
            assert sum(fit.done() for fit in fits) <= 1, "the one that was under way"
            llm.gate.set()
            return ranking, forgotten, await asyncio.gather(*fits)

    ranking, forgotten, reports = run(work())
    assert ranking.records
    assert forgotten.records == 1
    assert [report.records for report in reports[1:]] == [len(history()) - 1] * 4


def test_many_answers_at_once_are_not_crossed(opened):
    async def work():
        async with opened(EchoLLM()) as p:
            words = [f"nonce{i}" for i in range(30)]
            made = await asyncio.gather(*(p.generate(f"about {w}", n=2) for w in words))
            return list(zip(words, made, strict=True))

    for word, generation in run(work()):
        assert generation.query == f"about {word}"
        assert all(c.text.endswith(f"to {word}") for c in generation.candidates)


def test_callbacks_are_called_on_the_loop_in_order_before_the_result(opened):
    told, threads = [], set()

    def note(*what):
        told.append(what)
        threads.add(threading.get_ident())

    async def work():
        async with opened(EchoLLM()) as p:
            await p.generate("about speech", n=3, on_candidate=note)
            assert [c.text for (c,) in told] == [f"answer {i} to speech" for i in range(3)]
            told.clear()
            await p.fit_head(TASK, calls=16, progress=note)
            stages = [stage for stage, _, _ in told]
            assert "pseudo-queries" in stages
            assert stages[-1] == "candidates"
            return threading.get_ident()

    assert run(work()) == threads.pop()
    assert not threads


def test_llm_and_callbacks_see_the_context_variables_of_the_caller(opened):
    request, seen = ContextVar("request", default="none"), []

    class Logging(EchoLLM):
        def complete(self, prompt, **options):
            seen.append(("llm", prompt.query, request.get()))
            return super().complete(prompt, **options)

    async def ask(p, query):
        request.set(query)
        await p.generate(query, n=1, on_candidate=lambda _: seen.append((query, request.get())))
        await p.fit_head(TASK, calls=0, progress=lambda *_: seen.append((query, request.get())))

    async def work():
        async with opened(Logging()) as p:
            await asyncio.gather(ask(p, "about speech"), ask(p, "about vision"))
        assert request.get() == "none"

    run(work())
    assert {("llm", q, q) for q in ("about speech", "about vision")} <= set(seen)
    assert {(q, q) for q in ("about speech", "about vision")} <= set(seen)
    assert all(mine == var for *_, mine, var in seen)


def test_opening_sees_the_context_variables_of_the_caller(hash_encoder):
    request, seen = ContextVar("request"), []

    def opening():
        seen.append(request.get())
        return Personalizer.from_records(history(), encoder=hash_encoder, config=Config())

    async def work():
        request.set("mine")
        async with AsyncPersonalizer(opening):
            pass

    run(work())
    assert seen == ["mine"]


# ---- cancelling


def test_cancelled_task_tells_the_llm_to_stop_and_frees_it(opened):
    llm = GatedLLM()

    async def work():
        async with opened(llm) as p:
            writing = asyncio.create_task(p.generate("about speech", n=2))
            await acquired(llm.started)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            await acquired(llm.stopped)
            llm.gate.set()
            return await p.generate("about vision", n=2)

    assert run(work()).query == "about vision"


def test_cancelled_task_keeps_nothing_of_what_was_finished(opened):
    llm = GatedLLM(first=1)

    async def work():
        async with opened(llm) as p:
            writing = asyncio.create_task(p.generate("about speech", n=2))
            await acquired(llm.started)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            await acquired(llm.stopped)
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


def some_records(n, before):
    """Give records, and call ``before`` with the number of each, and with ``n`` at the end."""
    for i in range(n):
        before(i)
        yield Record(f"more {i}", f"Parser: more {i}", TASK, id=f"m{i}")
    before(n)


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


def test_records_that_are_none_are_refused_as_the_personalizer_does(opened):
    async def work():
        async with opened(EchoLLM()) as p:
            for wrong in (7, "text", [7]):
                with pytest.raises(ConfigError) as ours:
                    await p.add(wrong)
                with pytest.raises(ConfigError) as theirs:
                    p.personalizer.add(wrong)
                assert str(ours.value) == str(theirs.value)

    run(work())


@pytest.mark.parametrize(
    "ask", [lambda p: p.rank("q"), lambda p: p.render_prompts("q"), lambda p: p.fit_prompts()]
)
def test_cancelled_task_stops_the_embedding_of_a_history(hash_encoder, monkeypatch, ask):
    records = [Record(f"{i} " + "word " * 1000, f"note {i}", "notes") for i in range(40)]
    encode, begun, gate = hash_encoder.encode, threading.Semaphore(0), threading.Event()

    def slowly(texts, **options):
        begun.release()
        assert gate.wait(LONG_S)
        return encode(texts, **options)

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


# ---- streaming


class SpellingLLM(EchoLLM):
    """Tells its one answer word by word, and waits for the word to stop where it is to."""

    def __init__(self, *, for_ever=False):
        super().__init__()
        self.for_ever = for_ever
        self.stopped = threading.Semaphore(0)

    def complete(self, prompt, *, n=1, on_token=None, should_stop=None, **options):
        (answer, *others) = self.answers(prompt, n)
        if on_token is not None:
            for piece in answer.text.partition(" "):
                on_token(piece)
        while self.for_ever:
            threading.Event().wait(0.002)
            if should_stop():
                self.stopped.release()
                return []
        return [answer, *others]


async def collected(stream):
    return [piece async for piece in stream]


def test_stream_of_one_candidate_tells_the_llms_pieces_then_the_generation(opened):
    async def work():
        async with opened(SpellingLLM()) as p:
            return await collected(p.stream("about speech", n=1, task=TASK))

    *pieces, generation = run(work())
    assert pieces == ["answer", " 0 to speech"]  # no white space that may be the last
    assert isinstance(generation, Generation)
    assert generation.text == "".join(pieces)


def test_stream_of_several_candidates_tells_the_winner_once_it_is_chosen(opened):
    seen = []

    async def work():
        async with opened(SpellingLLM()) as p:
            return await collected(p.stream("about speech", n=3, on_candidate=seen.append))

    text, generation = run(work())
    assert text == generation.text
    assert len(seen) == len(generation.candidates) == 3
    assert isinstance(seen[0], Completion)


def test_stream_left_early_stops_the_llm(opened):
    llm = SpellingLLM(for_ever=True)

    async def work():
        async with opened(llm) as p:
            async with aclosing(p.stream("about speech", n=1)) as stream:
                async for piece in stream:
                    assert piece == "answer"
                    break
            await acquired(llm.stopped)

    run(work())


def test_stream_that_fails_raises_what_generate_raises(opened):
    async def work():
        async with opened(EchoLLM()) as p:
            with pytest.raises(ConfigError, match="The query is empty"):
                await collected(p.stream("  "))

    run(work())


# ---- opening and closing


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


def test_use_before_entering_says_so(opened):
    with pytest.raises(ConfigError, match="async with"):
        run(opened(EchoLLM()).rank("q"))


def test_open_creates_a_user_and_refuses_an_unknown_one(home):
    async def work():
        async with AsyncPersonalizer.open("ann", create=True) as p:
            await p.add([Record("a", "b", TASK)])
        with pytest.raises(UnknownUserError, match="ann"):
            async with AsyncPersonalizer.open("bob"):
                pass

    run(work())
    assert [path.name for path in (home / "users").glob("*.db")] == ["ann.db"]


def test_personalizer_of_ones_own_is_used_and_closed(hash_encoder):
    person = Personalizer.from_records(history(), encoder=hash_encoder, config=Config())

    async def work():
        async with AsyncPersonalizer(person) as p:
            assert p.personalizer is person
            await p.rank("about parsers")

    run(work())
    with pytest.raises(ClosedError):
        person.rank("about parsers")
