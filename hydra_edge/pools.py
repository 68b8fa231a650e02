"""Candidate pools for a user's own records: paid for once, kept for every later fit.

Owns what to ask the LLM about a history, within a budget, and how a stored answer becomes
material to fit on. A pool is found again by the record it was made for, whatever the
reranker shows today: what was paid for is never paid for twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from hydra_edge.active import ActiveHead
from hydra_edge.adapter import merge, pool_features, pool_utilities
from hydra_edge.candidates import sample_pool
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.history import History
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt
from hydra_edge.store import StoredPool
from hydra_edge.types import Float1d, Float2d, Int1d, Progress, Record, text_hash
from hydra_edge.utility import utility

# The latest queries whose plain answers are bought too, for the report's first two rows.
COMPARED = 10
# An LLM that fails this often in a row is not asked again in this fit.
MAX_FAILURES = 3
NO_TURN = nullcontext()  # for one thread alone


class _Stopped(Exception):
    """Told to stop in the middle of a pool, or nothing may be made of these records any more."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How candidates are drawn: ``n`` of them, the first greedy, ``shown`` records in a prompt."""

    n: int
    shown: int
    temperature: float


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


@dataclass(slots=True)
class _Asked:
    """Answers asked for up to now, those that never came too."""

    calls: int = 0


@dataclass(frozen=True, eq=False)
class PoolRun:
    """What collecting pools cost; ``calls`` counts answers asked for, those that never came too."""

    calls: int = 0
    made: int = 0
    reused: int = 0
    notes: tuple[str, ...] = ()


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

    None repeats an earlier record, which would be shown to the LLM with the answer.
    """
    known = set(informative.tolist())
    usable = [
        i
        for i in reversed(history.firsts.tolist())
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
    head: ActiveHead,
    history: History,
    informative: Int1d,
    sampling: Sampling,
    *,
    model: str,
    private: bool,
) -> Iterator[tuple[Record, list[Request]]]:
    """Yield the pseudo-queries to ask about, in order of worth, with their prompts."""
    stored = engine.store.pools(history.task.name, model=model)
    have = {p.query_id for p in stored if p.purpose == "pool" and _saw_only_earlier(p, history)}
    have |= _chosen(engine, history)
    compared = len({pool.query_id for pool in stored if pool.purpose == "rag"})
    for i in _order(history, informative, have, private=private):
        requests = requests_for(
            engine, head, history, i, sampling, private=private, compared=compared < COMPARED
        )
        compared += 1
        yield history.records[i], requests


def _saw_only_earlier(pool: StoredPool, history: History) -> bool:
    """Say whether a pool's prompt showed no record that is later than its query, as times are now.

    Times can be told after a pool was made: by an import of what had none.
    """
    query = history.place.get(pool.query_id, -1)
    return all(history.place.get(shown, -1) < query for shown in pool.record_ids)


def _chosen(engine: Engine, history: History) -> set[str]:
    """Return the records kept of choices: the choice itself teaches what they could.

    An application's own answer was chosen from nothing, and teaches as any record does.
    """
    choices = engine.store.choices(history.task.name)
    return {c.record_id for c in choices if c.record_id and c.candidates}


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
    plan = planned(
        engine, head, history, informative, sampling, model=llm.name, private=not llm.is_remote
    )
    for _, requests in plan:
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
    asked = _Asked()
    # To a remote LLM a record costs its whole price, whatever comes of it, as in ``preview``:
    # answers that were there already, or never asked for, buy none that nobody was shown.
    paid = made = failures = skipped = 0
    stopped, failed = False, ""
    notes: list[str] = []
    started = time.monotonic()
    as_read = engine.store.revision().rewrites

    def gone() -> bool:
        return engine.store.revision().rewrites != as_read

    plan = planned(
        engine, head, history, informative, sampling, model=llm.name, private=not llm.is_remote
    )
    while failures < MAX_FAILURES:
        with turn:
            step = None if gone() else next(plan, None)
        if step is None:
            break
        record, requests = step
        price, before = sum(request.n for request in requests), asked.calls
        spent = time.monotonic() - started
        if not budget.allows(paid + price, spent):
            notes += budget.too_small_for(price)
            break
        try:
            for request in requests:
                _buy(engine, llm, record, request, sampling, history, should_stop, as_read, asked)
            made += 1
            failures = 0
        except ContextLengthError:
            skipped += 1  # this record's; the next one may have room
        except _Stopped:
            stopped = True
            break
        except BackendError as err:
            failures, failed = failures + 1, str(err)
        paid += price if llm.is_remote else asked.calls - before
        if progress is not None:
            done, total = _progress(asked.calls, spent, budget)
            progress("candidates", done, total)
    if stopped or gone():
        why = "records were changed meanwhile" if gone() else "it was stopped"
        notes.append(f"{why}: {made} pools made; fit again to go on")
    if failures:
        often = f" {failures} times in a row" if failures > 1 else ""
        notes.append(f"The LLM failed{often}; stopped asking: {failed}")
    if skipped:
        notes.append(f"{skipped} records are longer than {llm.name} has room for")
    return PoolRun(asked.calls, made, reused, tuple(notes))


def _progress(calls: int, spent: float, budget: Budget) -> tuple[int, int]:
    if budget.calls is not None:
        return calls, budget.calls
    total = int((budget.seconds or 0.0) * 1000)
    return min(int(spent * 1000), total), total


def _buy(
    engine: Engine,
    llm: LLM,
    record: Record,
    request: Request,
    sampling: Sampling,
    history: History,
    should_stop: Callable[[], bool] | None,
    as_read: int,
    asked: _Asked,
) -> None:
    def stopped() -> bool:
        return should_stop is not None and should_stop()

    if stopped():
        raise _Stopped
    draws = engine.zero_shot_draws(request.prompt, request.n)
    key = pool_key(request, llm, sampling, draws)
    if (answered := engine.store.pool(key)) is not None:
        # Asked just this before, for this record or for another one with the same input.
        key = text_hash(f"{key}\x1f{record.id}")
        engine.store.put_pool(
            key, task=history.task.name, model=llm.name, purpose=request.purpose,
            query_id=record.id, record_ids=request.prompt.record_ids, completions=answered,
            rewrites=as_read,
        )  # fmt: skip
        return
    # The same prompt may just have been sampled: its greedy answer then costs nothing more.
    whole = replace(request, purpose="pool", n=sampling.n)
    twin = engine.store.pool(
        pool_key(whole, llm, sampling, engine.zero_shot_draws(whole.prompt, whole.n))
    )
    prompt, completions = request.prompt, list(twin or ())[: request.n]
    if not completions:
        asked.calls += request.n  # now: what was sent counts, whatever comes of it
        try:
            prompt, completions = sample_pool(
                llm, prompt, n=request.n, zero_shot=draws, temperature=sampling.temperature,
                max_tokens=history.task.max_tokens, should_stop=should_stop,
            )  # fmt: skip
        except ContextLengthError:
            if not llm.is_remote:  # it never began: only a remote LLM was sent what does not fit
                asked.calls -= request.n
            raise
        if len(completions) < request.n and stopped():
            raise _Stopped
    kept = engine.store.put_pool(
        key, task=history.task.name, model=llm.name, purpose=request.purpose,
        query_id=record.id, record_ids=prompt.record_ids, completions=completions,
        rewrites=as_read,
    )  # fmt: skip
    if not kept:
        raise _Stopped


@dataclass(frozen=True, eq=False)
class PoolData:
    """Stored pools as material to fit on, oldest pseudo-query first.

    ``items`` are (scaled features (m, d), utilities (m,)); ``zero`` and ``rag`` hold the
    utility of the plain answers for the pseudo-queries that have them, else nan: ``(n,)``.
    """

    items: list[tuple[Float2d, Float1d]]
    zero: Float1d
    rag: Float1d


def _single(
    pools: Sequence[StoredPool], history: History, truths: dict[str, str]
) -> dict[str, float]:
    """Return the utility of single answers, by query."""
    return {
        pool.query_id: utility(pool.completions[0].text, truths[pool.query_id], history.task)
        for pool in pools
        if pool.query_id in truths and pool.completions and _saw_only_earlier(pool, history)
    }


def pool_data(engine: Engine, history: History, model: str | None) -> PoolData:
    """Turn the stored pools of a task into features and utilities.

    Parameters
    ----------
    model
        Only this LLM's pools; None for those of any. A record counts once, by its latest pool
        that showed earlier records only, and not at all if it was kept of a choice, which teaches
        by itself, or repeats an earlier record: leaving one of two out would not leave its truth
        out.
    """
    store, task = engine.store, history.task
    position = {record.id: i for i, record in enumerate(history.records)}
    truths = {record.id: record.output for record in history.records}
    queries = {history.records[i].id for i in history.firsts.tolist()} - _chosen(engine, history)
    latest = {
        pool.query_id: pool
        for pool in store.pools(task.name, model=model, purpose="pool")
        if pool.query_id in queries and _saw_only_earlier(pool, history)
    }
    pools = sorted(latest.values(), key=lambda pool: position[pool.query_id])
    plain = {
        purpose: _single(store.pools(task.name, model=model, purpose=purpose), history, truths)
        for purpose in ("zero", "rag")
    }
    lexical = engine.lexical(history)
    items: list[tuple[Float2d, Float1d]] = []
    ids: list[str] = []
    for stored in pools:
        i = position[stored.query_id]
        record, past = history.records[i], history.before(i)
        shown = [history.records[position[r]] for r in stored.record_ids if r in position]
        candidates = merge(stored.completions, task)
        if not candidates:
            continue
        pool = engine.pool(
            record.input, history.inputs[i], candidates, shown, past, lexical, keep=True
        )
        phi = pool_features(engine.features["adapter"], pool, past)
        items.append((phi, pool_utilities(pool, record.output, task)))
        ids.append(stored.query_id)
    missing = float("nan")
    return PoolData(
        items,
        np.array([plain["zero"].get(i, missing) for i in ids], dtype=np.float32),
        np.array([plain["rag"].get(i, missing) for i in ids], dtype=np.float32),
    )
