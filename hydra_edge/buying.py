"""Buying candidate pools for a user's own records: paid for once, kept for every later fit.

Owns what may be spent on them, and what is told of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from hydra_edge import evidence
from hydra_edge.candidates import Callbacks, Draw, sample_pool
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.evidence import whole_pools
from hydra_edge.pools import Purchase, Request, whole_key
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Progress, Record

# An LLM that fails this often in a row is not asked again in this fit.
MAX_FAILURES = 3
# What progress is told in: answers if they are limited, else time.
ANSWERS, SECONDS = "candidates", "time for the LLM, s"
NO_TURN = nullcontext()  # for one thread alone


class _Stopped(Exception):
    """Told to stop in the middle of a pool, or nothing may be made of these records any more."""


class _CutShort(BackendError):
    """Something failed, and too few answers came for a pool."""


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


def _fewest(n: int) -> int:
    """Return how many of ``n`` answers are a pool if something kept the others from coming."""
    return min(n, max(2, (n + 1) // 2))


def collect(
    purchase: Purchase,
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
        Asked as often as the LLM asks; a pool it cuts short is not kept. Nor is one that lacks
        half of its answers because something failed: a later fit asks again.
    turn
        Held while the engine works, but not while the LLM does.
    """
    llm, store = purchase.llm, purchase.engine.store
    reused = len(whole_pools(store, purchase.history.task.name, llm.name))
    if budget.calls is not None and budget.calls <= 0:
        return PoolRun(reused=reused)
    buyer = _Buyer(purchase, should_stop, as_read=store.revision().rewrites)
    # To a remote LLM a record costs its whole price, whatever comes of it, as in ``preview``:
    # answers that were there already, or never asked for, buy none that nobody was shown.
    paid, tally, beyond = 0, _Tally(), False
    notes: list[str] = []
    started = time.monotonic()
    plan = purchase.plan()
    while tally.in_a_row < MAX_FAILURES and not tally.stopped:
        with turn:
            step = None if buyer.outdated() else next(plan, None)
            if step is None:
                beyond = not buyer.outdated() and purchase.left().beyond
                break
        record, requests = step
        price, before = sum(request.n for request in requests), buyer.calls
        if not budget.allows(paid + price, time.monotonic() - started):
            notes += budget.too_small_for(price)
            break
        with tally.noting():
            for request in requests:
                buyer.buy(record, request)
        paid += price if llm.is_remote else buyer.calls - before
        if progress is not None and not tally.stopped:
            progress(*_progress(buyer.calls, time.monotonic() - started, budget))
    notes += tally.notes(llm.name, outdated=buyer.outdated())
    if beyond and not tally.lost:
        notes.append(
            "no more records are asked about: a fit looks at the answers to the latest "
            f"{evidence.POOLS} alone"
        )
    return PoolRun(buyer.calls, tally.made, reused, tuple(notes), buyer.seconds)


@dataclass(slots=True, eq=False)
class _Tally:
    """What has come of the records asked about up to now.

    ``lost`` are those without a pool because something failed, ``in_a_row`` the last of them and
    ``short`` those of which answers came, but too few; ``skipped`` had no room.
    """

    made: int = 0
    skipped: int = 0
    lost: int = 0
    in_a_row: int = 0
    short: int = 0
    stopped: bool = False
    failed: str = ""
    cut_short: str = ""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what comes of one record."""
        try:
            yield
            self.made += 1
            self.in_a_row = 0
        except ContextLengthError:
            self.skipped += 1  # this record's; the next one may have room
        except _Stopped:
            self.stopped = True
        except BackendError as err:
            self.lost, self.in_a_row, self.failed = self.lost + 1, self.in_a_row + 1, str(err)
            if isinstance(err, _CutShort):
                self.short, self.cut_short = self.short + 1, self.failed

    def notes(self, llm: str, *, outdated: bool) -> list[str]:
        """Say what a user cannot see in the numbers alone."""
        told: list[str] = []
        if self.stopped or outdated:
            why = "records were changed meanwhile" if outdated else "it was stopped"
            pools = f"{self.made} pool{'s' * (self.made != 1)}"
            told.append(f"{why}: {pools} made; fit again to go on")
        if self.short:
            records = "1 record" if self.short == 1 else f"{self.short} records"
            why = "" if self.in_a_row and self.failed == self.cut_short else f": {self.cut_short}"
            told.append(f"{records} got too few answers to keep; a later fit asks again{why}")
        if self.in_a_row:
            often = f" {self.in_a_row} times in a row" if self.in_a_row > 1 else ""
            told.append(f"The LLM failed{often}; stopped asking: {self.failed}")
        if self.skipped:
            are = "record is" if self.skipped == 1 else "records are"
            told.append(f"{self.skipped} {are} longer than {llm} has room for")
        return told


def _progress(calls: int, spent: float, budget: Budget) -> tuple[str, int, int]:
    if budget.calls is not None:
        return ANSWERS, calls, budget.calls
    total = math.ceil(budget.seconds or 0.0)
    return SECONDS, min(int(spent), total), total


@dataclass(slots=True, eq=False)
class _Buyer:
    """Asks an LLM for answers, and stores each as it comes.

    ``as_read`` is after how many rewrites the history was read. ``calls`` counts the answers
    asked for up to now, those that never came too; ``seconds`` is what the LLM took for them.
    """

    purchase: Purchase
    should_stop: Callable[[], bool] | None
    as_read: int
    calls: int = 0
    seconds: float = 0.0

    def outdated(self) -> bool:
        """Whether another program has forgotten or rewritten records meanwhile."""
        return self.purchase.engine.store.revision().rewrites != self.as_read

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
            key = whole_key((key, record.id))
            self._keep(key, record, request, request.prompt, answered)
            return
        # The same prompt may just have been sampled: its greedy answer then costs nothing more.
        _, twin = self._known(replace(request, purpose="pool", n=self.purchase.sampling.n))
        greedy = [completion for completion in twin or () if completion.greedy]
        prompt, completions = request.prompt, greedy[: request.n]
        if not completions:
            prompt, completions = self._ask(request)
        if not self._keep(key, record, request, prompt, completions):
            raise _Stopped

    def _ask(self, request: Request) -> tuple[Prompt, list[Completion]]:
        purchase, llm = self.purchase, self.purchase.llm
        self.calls += request.n  # now: what was sent counts, whatever comes of it
        started = time.monotonic()
        errors: list[Exception] = []
        task = purchase.history.task
        draw = Draw(request.n, purchase.sampling.temperature, purchase.longest(request))
        try:
            prompt, completions = sample_pool(
                llm, request.prompt, draw, purchase.zero_shot(request),
                Callbacks(should_stop=self.should_stop, on_short=errors.append),
            )  # fmt: skip
        except ContextLengthError:
            if not llm.is_remote:  # it never began: only a remote LLM was sent what does not fit
                self.calls -= request.n
            raise
        finally:
            self.seconds += time.monotonic() - started
        if len(completions) < request.n and self._stopped():
            raise _Stopped
        # How an answer that broke off would have gone on, nobody knows: it teaches nothing.
        kept = [c for c in completions if c.finish != "cut" or task.kind != "text"]
        if broken := len(completions) - len(kept):
            errors.append(BackendError(f"{llm.name} broke off {broken} before their end"))
        if errors and len(kept) < _fewest(request.n):
            raise _CutShort(f"got {len(kept)} of {request.n} answers: {errors[0]}")
        return prompt, kept

    def _stopped(self) -> bool:
        return self.should_stop is not None and self.should_stop()

    def _known(self, request: Request) -> tuple[str, tuple[Completion, ...] | None]:
        """Return the key of a request's answers, and these if they are stored."""
        key = self.purchase.key(request)
        return key, self.purchase.engine.store.pool(key)

    def _keep(
        self,
        key: str,
        record: Record,
        request: Request,
        prompt: Prompt,
        completions: Sequence[Completion],
    ) -> bool:
        """Store answers to a prompt; False if the records are not as they were read."""
        purchase = self.purchase
        return purchase.engine.store.put_pool(
            key, task=purchase.history.task.name, model=purchase.llm.name,
            purpose=request.purpose, query_id=record.id, record_ids=prompt.record_ids,
            completions=completions, rewrites=self.as_read,
        )  # fmt: skip
