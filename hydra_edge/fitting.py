"""Fitting a user's two heads for one task on the device, and reporting whether they help."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from hydra_edge import headreport
from hydra_edge.active import ActiveHead
from hydra_edge.buying import NO_TURN, Budget, PoolRun, collect
from hydra_edge.candidates import Sampling
from hydra_edge.choosing import Taken
from hydra_edge.engine import Engine
from hydra_edge.errors import CancelledError, ConfigError, StoreError
from hydra_edge.evaluate import Verdict, judge
from hydra_edge.evidence import adapter_evidence, reranker_evidence, whole_pools
from hydra_edge.fitreport import (
    adapter_rows,
    changed_habit,
    foreign_answers,
    not_fitted,
    reranker_rows,
    role_report,
    unread_inputs,
)
from hydra_edge.history import History
from hydra_edge.learning import UPDATED, StepLostError, learn_choice, learned
from hydra_edge.llm import LLM
from hydra_edge.pools import Purchase
from hydra_edge.population import gains_for, prior_for
from hydra_edge.turns import stoppable
from hydra_edge.types import (
    ChoiceResult,
    FitReport,
    HeadState,
    Int1d,
    Progress,
    ReportRow,
    Role,
    RoleReport,
)
from hydra_edge.vectors import CachedEncoder

# With fewer records of a task there is no earlier one to show for a later one, and to judge by.
FEWEST_RECORDS = 3
# How often a fit begins anew because another program has forgotten records it was reading.
MAX_ATTEMPTS = 3
# Seconds a fit may spend on a local LLM when nothing else is said.
LOCAL_BUDGET_S = 60.0
T = TypeVar("T")


def _unsaved(
    engine: Engine, history: History, role: Role, verdict: Verdict, rows: tuple[ReportRow, ...]
) -> HeadState:
    table = [{"name": r.name, "utility": r.utility, "n": r.n, "note": r.note} for r in rows]
    return HeadState(
        task=history.task.name,
        role=role,
        base_id=engine.bundle.base_id,
        features=engine.features[role].names,
        weight=verdict.head.weight_.astype(np.float32),
        precision=verdict.head.precision_.astype(np.float32),
        switch=verdict.switch,
        n_queries=len(verdict.baseline),
        prior_scale=verdict.head.prior_scale,
        report=verdict.report() | {headreport.ROWS: table, headreport.KIND: history.task.kind},
    )


@dataclass(frozen=True, eq=False)
class FittedReranker:
    """A reranker's head, not stored yet, and its report.

    ``state`` is None where there was nothing to fit on. ``informative`` holds the positions in
    the history the head could learn from.
    """

    state: HeadState | None
    report: RoleReport
    informative: Int1d

    def active(self, engine: Engine, history: History) -> ActiveHead:
        """Return the weights that will be in force once this head is stored."""
        return ActiveHead.of(engine.bundle, history.task, engine.features["reranker"], self.state)


def fit_reranker(
    engine: Engine, history: History, *, shown: int, progress: Progress | None = None
) -> FittedReranker:
    """Fit and judge the reranker's head from proxy utilities; store nothing."""
    role: Role = "reranker"
    if len(history) < FEWEST_RECORDS:
        why = not_fitted(engine, history.task, role, "fewer than three records")
        return FittedReranker(None, why, np.zeros(0, dtype=np.int64))
    data = reranker_evidence(engine, history, shown=shown, progress=progress)
    if not data.groups.n_groups:
        which = " with answers of the task" if len(history.outsiders) else ""
        why = not_fitted(engine, history.task, role, f"fewer than three different records{which}")
        return FittedReranker(None, why, np.zeros(0, dtype=np.int64))
    prior = prior_for(engine.bundle, history.task, role)
    gains = gains_for(engine.bundle, history.task, role)
    # With no record shown at all, a head is judged by the one it would have shown.
    verdict = judge(data.groups, prior, engine.baseline(role), top=max(1, shown), gains=gains)
    rows = reranker_rows(data.groups, verdict)
    return FittedReranker(
        _unsaved(engine, history, role, verdict, rows),
        role_report(role, verdict, rows, None),
        data.position[data.groups.teaches()],
    )


def _stored_reranker(
    engine: Engine, shown: int, progress: Progress | None, history: History, as_read: int
) -> FittedReranker:
    """Fit the reranker's head and store it; its report then says which version it is.

    ``as_read`` is after how many rewrites the history was read; see ``Store.save_head``.
    """
    fitted = fit_reranker(engine, history, shown=shown, progress=progress)
    if fitted.state is None:
        return fitted
    saved = engine.store.save_head(fitted.state, rewrites=as_read)
    return replace(fitted, report=replace(fitted.report, version=saved.version))


def fit_adapter(
    engine: Engine,
    history: History,
    model: str | None,
    *,
    as_read: int,
    progress: Progress | None = None,
) -> RoleReport:
    """Fit, judge and store the adapter's head from stored pools and the user's choices.

    ``as_read`` is after how many rewrites the history was read; see ``Store.save_head``.
    """
    role: Role = "adapter"
    store, task = engine.store, history.task
    prior, gains = prior_for(engine.bundle, task, role), gains_for(engine.bundle, task, role)
    attempts = 0
    while True:
        attempts += 1
        choices = store.choices(task.name)
        evidence = adapter_evidence(engine, history, model, progress=progress)
        groups = evidence.groups
        if not groups.n_groups:
            why = "no candidates yet: they need an LLM, or choices of yours"
            return not_fitted(engine, task, role, why)
        verdict = judge(groups, prior, engine.baseline(role), top=1, gains=gains, abstaining=True)
        if evidence.outdated:
            verdict = replace(verdict, reason=f"{verdict.reason}; {changed_habit(evidence)}")
        rows = adapter_rows(evidence, verdict)
        head = _unsaved(engine, history, role, verdict, rows)
        if model is not None:
            of_model = {
                headreport.MODEL: model,
                headreport.POOLS_OF_MODEL: len(evidence.pools.items),
            }
            head = replace(head, report=head.report | of_model)
        if choices:
            up_to = max(choice.seq for choice in choices)
            head = replace(head, report=head.report | {headreport.CHOICES_UP_TO: up_to})
        with store.together():  # a choice made meanwhile would be lost in the head it replaces
            if attempts == MAX_ATTEMPTS or store.choices(task.name) == choices:
                version = store.save_head(head, rewrites=as_read).version
                return role_report(role, verdict, rows, version)


def learn(engine: Engine, taken: Taken, *, progress: Progress | None = None) -> ChoiceResult:
    """Let the adapter's head learn from a choice, once for each answer; see ``learn_choice``.

    Where the earlier step cannot be taken back the head is fitted anew. The gate's last word
    stands: it is asked again by the next fit.
    """
    try:
        return learn_choice(engine, taken, progress=progress)
    except StepLostError:
        pass
    started = time.monotonic()  # the history is encoded by now
    name = taken.choice.task
    served = engine.store.head(name, "adapter")

    def again(history: History, now: int) -> RoleReport:
        return fit_adapter(
            engine, history, headreport.model_of(served), as_read=now, progress=progress
        )

    as_read, _, _ = _as_it_is(engine, name, again, progress)
    fitted = engine.store.head(name, "adapter")
    if served is None or fitted is None or fitted.stale:  # forgotten: the choice with it
        raise CancelledError(
            f"Nothing was learned from the choice: got no head for {name} any more; expected the "
            "one it was to be taken back from. Fit again."
        )
    report = fitted.report | {headreport.REASON: UPDATED}
    head = replace(fitted, switch=served.switch, report=report)
    saved = engine.store.save_head(head, rewrites=as_read)
    return learned(taken.choice, saved, time.monotonic() - started)


def fit_prompts(
    engine: Engine,
    task_name: str,
    *,
    llm: LLM,
    sampling: Sampling,
    calls: int,
    progress: Progress | None = None,
) -> list[str]:
    """Return byte for byte what ``fit_task`` would send for so many answers; send nothing."""
    history = engine.history(engine.task(task_name), progress=progress)
    fitted = fit_reranker(engine, history, shown=sampling.shown, progress=progress)
    head = fitted.active(engine, history)
    return Purchase(engine, llm, head, history, fitted.informative, sampling).preview(calls)


def check_budget(budget: Budget, llm: LLM) -> None:
    """Refuse a time alone for a remote LLM: nobody can be shown first what that would send.

    Raises
    ------
    ConfigError
        If there is a time, and no number of answers.
    """
    if llm.is_remote and budget.seconds and budget.calls is None:
        raise ConfigError(
            f"{llm.name} is remote and was asked nothing: got a time alone; expected how many "
            "answers it may be asked for, too. Add --calls N (in Python: calls=N); --dry-run "
            "prints what that sends."
        )


def _allowed(budget: Budget, llm: LLM) -> tuple[Budget, tuple[str, ...]]:
    """Say what may be spent where nothing was said: sending history away takes a word."""
    check_budget(budget, llm)
    if budget.calls is not None or budget.seconds is not None:
        return budget, ()
    if not llm.is_remote:
        return Budget(None, LOCAL_BUDGET_S), ()
    note = f"{llm.name} is remote and was asked nothing; give --calls N to let it see records"
    return Budget(0, None), (f"{note} that are not private",)


def _as_it_is(
    engine: Engine,
    task_name: str,
    fit: Callable[[History, int], T],
    progress: Progress | None,
    known: tuple[int, History] | None = None,
) -> tuple[int, History, T]:
    """Fit on the history as it is, from the start if another program takes records meanwhile.

    ``fit`` is told after how many rewrites the history was read; ``known`` is what was read
    before, and after how many.
    """
    attempts = 0
    while True:
        attempts += 1
        as_read = engine.store.revision().rewrites
        try:
            with engine.encoder.fitting(as_read):
                if known is not None and known[0] == as_read:
                    history = known[1]
                else:
                    history = engine.history(engine.task(task_name), progress=progress)
                return as_read, history, fit(history, as_read)
        except StoreError:
            if attempts == MAX_ATTEMPTS or engine.store.revision().rewrites == as_read:
                raise


@dataclass(slots=True, eq=False)
class _Texts:
    """How many texts a fit has embedded, and of how many it found the vectors made."""

    embedded: int = 0
    reused: int = 0

    @contextmanager
    def counted(self, encoder: CachedEncoder) -> Iterator[None]:
        """Count what is embedded meanwhile, and no answer's texts before or after."""
        embedded, reused = encoder.embedded, encoder.reused
        yield
        self.embedded += encoder.embedded - embedded
        self.reused += encoder.reused - reused


def fit_task(
    engine: Engine,
    task_name: str,
    *,
    llm: LLM | None,
    sampling: Sampling,
    budget: Budget,
    model: str | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    turn: AbstractContextManager[object] = NO_TURN,
) -> FitReport:
    """Fit both heads of one task.

    Parameters
    ----------
    llm
        None: the reranker is fitted from proxies, the adapter from stored pools and choices.
    sampling, budget
        How candidates are drawn, and what may be spent on them now.
    model
        Where no LLM is given: whose stored pools the adapter is fitted on; None for those of any.
    should_stop
        Asked between steps. While candidates are bought, True ends the buying: the adapter is
        fitted on what there is. Before, nothing has been learned yet, and nothing will be.
    turn
        Held while the engine works, but not while the LLM does.

    Raises
    ------
    CancelledError
        If it was told to stop before a head was fitted.
    ConfigError
        If a time alone is what may be spent on a remote LLM, or another program has fitted with
        another base since this one began.
    """
    started = time.monotonic()
    engine.check_current()
    notes: tuple[str, ...] = ()
    if llm is not None:
        budget, notes = _allowed(budget, llm)
        model = llm.name
    texts = _Texts()
    watched = stoppable(progress, should_stop, "The fit")
    with turn, texts.counted(engine.encoder):
        first = partial(_stored_reranker, engine, sampling.shown, watched)
        as_read, history, fitted = _as_it_is(engine, task_name, first, watched)
        task, head = history.task, fitted.active(engine, history)
    if llm is None:
        run = PoolRun(reused=len(whole_pools(engine.store, task.name, model)))
    else:
        purchase = Purchase(engine, llm, head, history, fitted.informative, sampling)
        run = collect(purchase, budget, progress=progress, should_stop=should_stop, turn=turn)
    with turn, texts.counted(engine.encoder):
        engine.check_current()  # the LLM took its time

        def second(history: History, now: int) -> tuple[RoleReport, RoleReport]:
            reranker = fitted
            if now != as_read:  # some of what the first head learned from is gone
                reranker = _stored_reranker(engine, sampling.shown, progress, history, now)
            return reranker.report, fit_adapter(
                engine, history, model, as_read=now, progress=progress
            )

        _, history, roles = _as_it_is(engine, task_name, second, progress, known=(as_read, history))
        remarks = (*foreign_answers(history), *unread_inputs(engine, history))
        engine.store.drop_stale_heads(task.name)
        engine.store.drop_other_vectors(engine.encoder.base_id)  # of a base that was used before
    return FitReport(
        task=task.name,
        kind=task.kind,
        records=len(history),
        roles=roles,
        texts_embedded=texts.embedded,
        vectors_reused=texts.reused,
        llm_calls=run.calls,
        pools_made=run.made,
        pools_reused=run.reused,
        seconds=time.monotonic() - started,
        notes=(*notes, *run.notes, *remarks),
        llm_seconds=run.seconds,
    )
