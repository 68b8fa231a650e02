"""Learning from what the user chose: the one-step update, and taking it back."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from hydra_edge import headreport
from hydra_edge.active import outdated
from hydra_edge.choosing import Taken
from hydra_edge.engine import Engine
from hydra_edge.errors import CancelledError, StoreError
from hydra_edge.evidence import (
    ChoiceItem,
    choice_item,
    moments_of,
    still_answers,
    whole_pools,
)
from hydra_edge.heads import ConditionalLogit
from hydra_edge.population import prior_for, unfitted_switch
from hydra_edge.store import Store, StoredChoice
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import ChoiceResult, HeadState, Progress

# Why a head serves that has learned from a choice since it was judged.
UPDATED = "updated by a choice; fit-head judges it again"
# What has come of a choice whose learning was stopped.
LEFT_OF_CHOICE = "The choice is kept, and so are vectors made. The next fit learns from it."
_TRIES = 5  # to learn from a choice while other programs rewrite records


class StepLostError(Exception):
    """A step is to be taken back that others followed: only a fit can."""


def judged_on(store: Store, task: str, llm: str = "") -> str | None:
    """Return the LLM whose pools a fit that asks none goes by: one LLM's, never another's beside.

    That of the head in force, else ``llm`` if there is one, else the one asked last.
    """
    model = headreport.model_of(store.head(task, "adapter")) or llm
    if model:
        return model
    pools = whole_pools(store, task, None)
    return pools[-1].model if pools else None


def learned(choice: StoredChoice, head: HeadState | None, seconds: float = 0.0) -> ChoiceResult:
    """Say what came of a choice: the head in use, and how long its step took if it took one."""
    return ChoiceResult(
        generation_id=choice.generation_id,
        task=choice.task,
        text=choice.text,
        head_version=None if head is None else head.version,
        record_id=choice.record_id,
        update_ms=seconds * 1000.0,
    )


def learn_choice(engine: Engine, taken: Taken, *, progress: Progress | None = None) -> ChoiceResult:
    """Take one Newton step on the adapter's head for a choice, and store the result.

    To choose again takes the step before back; to say the same again changes nothing. The gate's
    last word stands until the next fit, which sees the choice among its evidence. Where there is
    no step to take nothing is encoded; ``progress`` is told where the history is.

    Returns
    -------
    ChoiceResult
        With the head in use; with none where the choice can teach nothing, or another program
        has fitted that head with another base since this one began.

    Raises
    ------
    CancelledError
        If the choice was forgotten meanwhile, with a record it was made from.
    StepLostError
        If others followed the step to take back: only a fit can.
    StoreError
        If other programs rewrite records without end.
    """
    store, choice = engine.store, taken.choice
    for _ in range(_TRIES):
        as_read = store.revision().rewrites
        if store.choice(choice.generation_id) != choice:
            raise CancelledError(
                "Nothing was learned from the choice: got one that was forgotten meanwhile, or "
                "made anew; expected it still there. Ask again."
            )
        task = engine.task(choice.task)
        if still_answers(choice, task) is None:
            return learned(choice, None)
        state = store.head(choice.task, "adapter")
        if engine.is_behind(state):  # a step from it would put it out of service
            return learned(choice, None)
        if _knows(state, taken):
            return learned(choice, state)
        tau = prior_for(engine.bundle, task, "adapter").tau
        history = engine.history(task, progress=progress)
        started = time.monotonic()  # of the step: what an import left to encode takes minutes
        (moment,) = moments_of(engine.store, history, [choice])
        item = choice_item(engine, history, choice, tau, moment)
        with store.together():  # another program may learn from a choice of its own
            if store.revision().rewrites != as_read:
                continue
            state = store.head(choice.task, "adapter")
            if engine.is_behind(state):
                return learned(choice, None)
            if item is None or _knows(state, taken):
                return learned(choice, state)
            state = _stepped(engine, choice, item, _without_step(store, state, taken))
            return learned(choice, store.save_head(state), time.monotonic() - started)
    raise StoreError(
        f"Nothing was learned from the choice: got records of {store.path} that other programs "
        "rewrite all the time; expected a pause."
    )


def _knows(state: HeadState | None, taken: Taken) -> bool:
    """Tell whether a head has learned from a choice, or may have: it takes no step then."""
    if state is None or state.stale:
        return False
    before = taken.before
    again = before is not None and taken.is_same and _stored_since(state, before)
    return again or _fitted_on(state, taken.choice)


def _fitted_on(state: HeadState, choice: StoredChoice) -> bool:
    """Tell whether a head was fitted since a choice was made, and on it."""
    up_to = headreport.choices_up_to(state.report)
    if up_to is not None:
        return bool(up_to >= choice.seq)
    # Fitted by an earlier release. What is still to come was told by a clock that was ahead.
    until = headreport.choices_until(state.report)
    return bool(choice.time <= until <= time.time())


def _stored_since(state: HeadState, choice: StoredChoice) -> bool:
    """Tell whether a head was stored since a choice was made: it may have learned from it."""
    seen = headreport.seen_by(state.report)
    return state.created >= choice.time if seen is None else seen[0] >= choice.seq


def _without_step(store: Store, state: HeadState | None, taken: Taken) -> HeadState | None:
    """Return a head as it was before it learned what was chosen of an answer first, if it did.

    None if there was none. One that never learned it (another version was made current since)
    stays, and so does one that was brought from elsewhere: a fit here would lose what it knows,
    so that it has learned from both.

    Raises
    ------
    StepLostError
        If another step was the last, or the head before it is not kept any more.
    """
    choice, before = taken.choice, taken.before
    if state is None or state.stale or before is None or taken.is_same:
        return state
    step = headreport.step_of(state.report)
    if step is not None and step[0] == choice.generation_id:
        origin = step[1]
        if origin is None:
            return None
        for head in store.heads(choice.task):
            if (head.role, head.version) == ("adapter", origin):
                return head
    if not _stored_since(state, before) or headreport.is_imported(state.report):
        return state
    raise StepLostError


def _newest_usable(engine: Engine, task: TaskSpec) -> HeadState | None:
    """Return the newest version kept of a task's adapter that can serve; None if none can."""
    kept = (head for head in engine.store.heads(task.name) if head.role == "adapter")
    usable = [head for head in kept if not outdated(head, engine.bundle, task.kind)]
    return max(usable, key=lambda head: head.version, default=None)


def _stepped(
    engine: Engine, choice: StoredChoice, item: ChoiceItem, state: HeadState | None
) -> HeadState:
    """Return a head one step on from ``state``, not stored yet.

    Where that cannot serve (it is another base's, say) the newest version begins that can, and
    where there is none the population's.
    """
    task = engine.task(choice.task)
    if state is not None and outdated(state, engine.bundle, task.kind):
        state = _newest_usable(engine, task)
    prior = prior_for(engine.bundle, task, "adapter")
    names = engine.features["adapter"].names
    if state is None:
        state = HeadState(
            task=task.name,
            role="adapter",
            base_id=engine.bundle.base_id,
            features=names,
            weight=prior.mean.astype(np.float32),
            precision=prior.precision.astype(np.float32),
            switch=unfitted_switch(engine.bundle, task, "adapter"),
            n_queries=0,
            prior_scale=1.0,
            report={headreport.KIND: task.kind},
        )
    head = ConditionalLogit.from_state(state.weight, state.precision, prior)
    updated = head.update(item.features.astype(np.float64), item.target)
    note = {
        headreport.REASON: UPDATED,
        headreport.CHOICE: choice.generation_id,
        headreport.ORIGIN: state.version or None,  # None: there was none yet
    }
    return replace(
        state,
        weight=updated.weight_.astype(np.float32),
        precision=updated.precision_.astype(np.float32),
        n_queries=state.n_queries + 1,
        report=state.report | note,
    )
