"""Candidate pools for a user's own records: paid for once, kept for every later fit.

Owns what to ask the LLM about a history, within a budget. A pool is found again by the record
it was made for, whatever the reranker shows today: what was paid for is never paid for twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from hydra_edge.active import ActiveHead
from hydra_edge.candidates import sample_pool
from hydra_edge.config import Config, check_bounds
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.evidence import kept_of_choices, saw_only_earlier
from hydra_edge.history import History
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Int1d, Progress, Record, text_hash

# The latest queries whose plain answers are bought too, for the report's first two rows.
COMPARED = 10
# An LLM that fails this often in a row is not asked again in this fit.
MAX_FAILURES = 3
# What progress is told in: answers if they are limited, else time.
ANSWERS, SECONDS = "candidates", "time for the LLM, s"
NO_TURN = nullcontext()  # for one thread alone


class _Stopped(Exception):
    """Told to stop in the middle of a pool, or nothing may be made of these records any more."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How candidates are drawn: ``n`` of them, the first greedy, ``shown`` records in a prompt."""

    n: int
    shown: int
    temperature: float

    @classmethod
    def of(
        cls,
        config: Config,
        n: int | None = None,
        shown: int | None = None,
        temperature: float | None = None,
    ) -> Sampling:
        """Return how to sample: what a call asks for, else as configured.

        Raises
        ------
        ConfigError
            If a number is none a setting can have.
        """
        n = config.candidates if n is None else n
        shown = config.records if shown is None else shown
        temperature = config.temperature if temperature is None else temperature
        check_bounds("candidates", n, "this call")
        check_bounds("records", shown, "this call")
        check_bounds("temperature", temperature, "this call")
        return cls(int(n), int(shown), float(temperature))  # numpy's numbers become Python's


@dataclass(frozen=True, slots=True)
class Budget:
    """What a fit may spend: answers asked of the LLM, and seconds; None is no limit."""

    calls: int | None
    seconds: float | None

    def allows(self, calls: int, seconds: float) -> bool:
        """Say whether ``calls`` answers may be paid, begun after so many seconds."""
        within = self.calls is None or calls <= self.calls
        return within and (self.seconds is None or seconds < self.seconds)

    def too_small_for(self, price: int) -> tuple[str, ...]:
        """Return a note if one record takes more answers than are allowed in all."""
        if self.calls is None or price <= self.calls:
            return ()
        return (f"one record takes {price} answers, more than the {self.calls} allowed",)


@dataclass(frozen=True, eq=False)
class PoolRun:
    """What collecting pools cost; ``calls`` counts answers asked for, those that never came too.

    ``seconds`` is what the LLM took, and nothing beside it.
    """

    calls: int = 0
    made: int = 0
    reused: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to be answered for a report: ``purpose`` is pool, zero or rag."""

    purpose: str
    prompt: Prompt
    n: int


def pool_key(request: Request, llm: LLM, sampling: Sampling, zero_shot: int) -> str:
    """Name a request's answers: same prompt, model and sampling, same key."""
    parts = [request.purpose, llm.name, str(request.n), f"{sampling.temperature:g}"]
    if zero_shot:
        parts.append(str(zero_shot))
    return text_hash("\x1f".join((*parts, request.prompt.key())))


def _order(history: History, informative: Int1d, have: set[str], *, private: bool) -> list[int]:
    """Order pseudo-queries: the latest first, those the reranker learned from before others.

    None repeats an earlier record, which would be shown to the LLM with the answer, and none has
    an answer that the task has not.
    """
    known = set(informative.tolist())
    usable = [
        i
        for i in reversed(history.queries.tolist())
        if i > 1
        and history.records[i].id not in have
        and (private or not history.records[i].private)
    ]
    # In blocks, so that recency still rules over the whole.
    block = 32
    blocks = [usable[start : start + block] for start in range(0, len(usable), block)]
    return [i for part in blocks for i in sorted(part, key=lambda i: (i not in known, -i))]


def requests_for(
    engine: Engine,
    head: ActiveHead,
    history: History,
    position: int,
    sampling: Sampling,
    *,
    private: bool,
    compared: bool,
) -> list[Request]:
    """Build what is asked about one pseudo-query, which sees only earlier records."""
    record, past = history.records[position], history.before(position)
    vector = history.inputs[position]

    def shown(active: ActiveHead) -> list[Record]:
        ranked = engine.rank(active, record.input, vector, past, k=sampling.shown, private=private)
        return [r.record for r in ranked]

    task = history.task
    if not private:
        task = engine.shown_task(task, (r for r in history.records if not r.private))
    records = shown(head)
    requests = [Request("pool", engine.prompt(task, record.input, records), sampling.n)]
    if compared:
        baseline = replace(head, weight=engine.baseline("reranker"))
        plain = engine.prompt(task, record.input, shown(baseline))
        requests.append(Request("zero", engine.prompt(task, record.input, []), 1))
        requests.append(Request("rag", plain, 1))
    return requests


def planned(
    engine: Engine,
    llm: LLM,
    head: ActiveHead,
    history: History,
    informative: Int1d,
    sampling: Sampling,
) -> Iterator[tuple[Record, list[Request]]]:
    """Yield the pseudo-queries to ask about, in order of worth, with their prompts.

    A remote LLM is asked about no private record, and shown none.
    """
    private = not llm.is_remote
    stored = engine.store.pools(history.task.name, model=llm.name)
    have = {p.query_id for p in stored if p.purpose == "pool" and saw_only_earlier(p, history)}
    have |= kept_of_choices(engine, history)
    compared = len({pool.query_id for pool in stored if pool.purpose == "rag"})
    for i in _order(history, informative, have, private=private):
        requests = requests_for(
            engine, head, history, i, sampling, private=private, compared=compared < COMPARED
        )
        compared += 1
        yield history.records[i], requests


def preview(
    engine: Engine,
    llm: LLM,
    head: ActiveHead,
    history: History,
    informative: Int1d,
    sampling: Sampling,
    calls: int,
) -> list[str]:
    """Return byte for byte what ``collect`` would send for ``calls`` answers; send nothing."""
    prompts: list[str] = []
    spent = 0
    for _, requests in planned(engine, llm, head, history, informative, sampling):
        spent += sum(request.n for request in requests)
        if spent > calls:
            break
        for request in requests:
            prompts.append(llm.render(request.prompt))
            if engine.zero_shot_draws(request.prompt, request.n):
                prompts.append(llm.render(request.prompt.without_shots()))
    return prompts


def collect(
    engine: Engine,
    llm: LLM,
    head: ActiveHead,
    history: History,
    informative: Int1d,
    sampling: Sampling,
    budget: Budget,
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    turn: AbstractContextManager[object] = NO_TURN,
) -> PoolRun:
    """Buy pools for the user's own records until the budget ends; each is stored at once.

    The LLM never sees a record's own answer, nor a later record; a remote LLM never sees a
    private one. Once another program has forgotten or rewritten records, nothing more is asked
    about them as they were, and the answer under way is not kept.

    Parameters
    ----------
    should_stop
        Asked as often as the LLM asks; a pool it cuts short is not kept.
    turn
        Held while the engine works, but not while the LLM does.
    """
    reused = len(engine.store.pools(history.task.name, model=llm.name, purpose="pool"))
    if budget.calls is not None and budget.calls <= 0:
        return PoolRun(reused=reused)
    as_read = engine.store.revision().rewrites
    buyer = _Buyer(engine, llm, history, sampling, should_stop, as_read)
    # To a remote LLM a record costs its whole price, whatever comes of it, as in ``preview``:
    # answers that were there already, or never asked for, buy none that nobody was shown.
    paid = made = failures = skipped = 0
    stopped, failed = False, ""
    notes: list[str] = []
    started = time.monotonic()
    plan = planned(engine, llm, head, history, informative, sampling)
    while failures < MAX_FAILURES:
        with turn:
            step = None if buyer.outdated() else next(plan, None)
        if step is None:
            break
        record, requests = step
        price, before = sum(request.n for request in requests), buyer.calls
        if not budget.allows(paid + price, time.monotonic() - started):
            notes += budget.too_small_for(price)
            break
        try:
            for request in requests:
                buyer.buy(record, request)
            made += 1
            failures = 0
        except ContextLengthError:
            skipped += 1  # this record's; the next one may have room
        except _Stopped:
            stopped = True
            break
        except BackendError as err:
            failures, failed = failures + 1, str(err)
        paid += price if llm.is_remote else buyer.calls - before
        if progress is not None:
            progress(*_progress(buyer.calls, time.monotonic() - started, budget))
    if stopped or buyer.outdated():
        why = "records were changed meanwhile" if buyer.outdated() else "it was stopped"
        notes.append(f"{why}: {made} pool{'s' * (made != 1)} made; fit again to go on")
    if failures:
        often = f" {failures} times in a row" if failures > 1 else ""
        notes.append(f"The LLM failed{often}; stopped asking: {failed}")
    if skipped:
        are = "record is" if skipped == 1 else "records are"
        notes.append(f"{skipped} {are} longer than {llm.name} has room for")
    return PoolRun(buyer.calls, made, reused, tuple(notes), buyer.seconds)


def _progress(calls: int, spent: float, budget: Budget) -> tuple[str, int, int]:
    if budget.calls is not None:
        return ANSWERS, calls, budget.calls
    total = math.ceil(budget.seconds or 0.0)
    return SECONDS, min(int(spent), total), total


@dataclass(slots=True, eq=False)
class _Buyer:
    """Asks an LLM for the answers of one history, and stores each as it comes.

    ``as_read`` is after how many rewrites the history was read. ``calls`` counts the answers
    asked for up to now, those that never came too; ``seconds`` is what the LLM took for them.
    """

    engine: Engine
    llm: LLM
    history: History
    sampling: Sampling
    should_stop: Callable[[], bool] | None
    as_read: int
    calls: int = 0
    seconds: float = 0.0

    def outdated(self) -> bool:
        """Whether another program has forgotten or rewritten records meanwhile."""
        return self.engine.store.revision().rewrites != self.as_read

    def buy(self, record: Record, request: Request) -> None:
        """Get what is asked about a record: from the store, or from the LLM.

        Raises
        ------
        _Stopped
            If it was told to stop, or the records are not any more as they were read.
        """
        if self._stopped():
            raise _Stopped
        key, answered = self._known(request)
        if answered is not None:
            # Asked just this before, for this record or for another one with the same input.
            key = text_hash(f"{key}\x1f{record.id}")
            self._keep(key, record, request, request.prompt, answered)
            return
        # The same prompt may just have been sampled: its greedy answer then costs nothing more.
        _, twin = self._known(replace(request, purpose="pool", n=self.sampling.n))
        prompt, completions = request.prompt, list(twin or ())[: request.n]
        if not completions:
            prompt, completions = self._ask(request)
        if not self._keep(key, record, request, prompt, completions):
            raise _Stopped

    def _ask(self, request: Request) -> tuple[Prompt, list[Completion]]:
        llm = self.llm
        self.calls += request.n  # now: what was sent counts, whatever comes of it
        started = time.monotonic()
        try:
            prompt, completions = sample_pool(
                llm, request.prompt, n=request.n,
                zero_shot=self.engine.zero_shot_draws(request.prompt, request.n),
                temperature=self.sampling.temperature, max_tokens=self.history.task.max_tokens,
                should_stop=self.should_stop,
            )  # fmt: skip
        except ContextLengthError:
            if not llm.is_remote:  # it never began: only a remote LLM was sent what does not fit
                self.calls -= request.n
            raise
        finally:
            self.seconds += time.monotonic() - started
        if len(completions) < request.n and self._stopped():
            raise _Stopped
        return prompt, completions

    def _stopped(self) -> bool:
        return self.should_stop is not None and self.should_stop()

    def _known(self, request: Request) -> tuple[str, tuple[Completion, ...] | None]:
        """Return the key of a request's answers, and these if they are stored."""
        draws = self.engine.zero_shot_draws(request.prompt, request.n)
        key = pool_key(request, self.llm, self.sampling, draws)
        return key, self.engine.store.pool(key)

    def _keep(
        self,
        key: str,
        record: Record,
        request: Request,
        prompt: Prompt,
        completions: Sequence[Completion],
    ) -> bool:
        """Store answers to a prompt; False if the records are not as they were read."""
        return self.engine.store.put_pool(
            key, task=self.history.task.name, model=self.llm.name, purpose=request.purpose,
            query_id=record.id, record_ids=prompt.record_ids, completions=completions,
            rewrites=self.as_read,
        )  # fmt: skip
