"""The personalizer on an event loop: the same methods, never blocking, streamed and opened."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import aclosing
from contextvars import ContextVar

import pytest
from loop_runner import TASK, acquired, gated, opening, run
from serving import LONG_S, EchoLLM, GatedLLM, history

from hydra_edge import AsyncPersonalizer, Personalizer
from hydra_edge.config import Config
from hydra_edge.errors import ClosedError, ConfigError, UnknownUserError
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Generation, Record


@pytest.fixture
def opened(hash_encoder):
    return opening(hash_encoder)


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
    slowly, begun, gate = gated(hash_encoder.encode)

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
            stages = list(dict.fromkeys(stage for stage, _, _ in told))
            assert stages[-3:] == ["pseudo-queries", "candidates", "pools"]
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


@pytest.mark.parametrize("name", ["open", "from_records"])
def test_opening_takes_what_the_personalizer_takes(name):
    ours, theirs = getattr(AsyncPersonalizer, name), getattr(Personalizer, name)
    assert inspect.signature(ours) == inspect.signature(theirs)


def test_opening_tells_its_progress_on_the_loop(hash_encoder):
    records = history(600)
    told, same = [], []

    async def work():
        opening = AsyncPersonalizer.from_records(
            records, encoder=hash_encoder, config=Config(),
            progress=lambda *stage: told.append((threading.get_ident(), stage)),
        )  # fmt: skip
        assert told == []
        async with opening:
            return threading.get_ident()

    loops = run(work())
    with Personalizer.from_records(records, progress=lambda *stage: same.append((loops, stage))):
        assert told == same != []


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


# ---- streaming


class SpellingLLM(EchoLLM):
    """Tells its one answer word by word, and waits for the word to stop where it is to."""

    def __init__(self, *, for_ever=False):
        super().__init__()
        self.for_ever = for_ever
        self.tick = threading.Event()
        self.stopped = threading.Semaphore(0)

    def complete(self, prompt, *, n=1, on_token=None, should_stop=None, **options):
        (answer, *others) = self.answers(prompt, n)
        if on_token is not None:
            for piece in answer.text.partition(" "):
                on_token(piece)
        while self.for_ever:
            self.tick.wait(0.002)  # a decode step
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


# ---- opening


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


class SpentLLM(EchoLLM):
    """An LLM whose answers come from an iterator that has none left."""

    def answers(self, prompt: Prompt, n: int) -> list[Completion]:
        return [next(iter(()))]


def test_stop_iteration_of_an_application_ends_the_await(opened):
    async def work():
        async with opened(SpentLLM()) as p:
            await asyncio.wait_for(p.generate("about parsers"), LONG_S)

    with pytest.raises(RuntimeError, match="StopIteration"):
        run(work())


def test_entering_again_what_could_not_be_opened_says_it_is_closed():
    person = AsyncPersonalizer.open("nobody")

    async def enter():
        async with person:
            pass

    with pytest.raises(UnknownUserError):
        run(enter())
    with pytest.raises(ClosedError, match="closed"):
        run(enter())
