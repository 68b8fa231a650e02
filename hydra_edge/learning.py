"""Learning from what the user chose: the choice, the record kept of it, the one-step update."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hydra_edge.active import outdated, prior_for, unfitted_switch
from hydra_edge.engine import Engine
from hydra_edge.errors import CancelledError, ConfigError, RecordNotFoundError, StoreError
from hydra_edge.evidence import ChoiceItem, choice_item, still_answers
from hydra_edge.heads import ConditionalLogit
from hydra_edge.records import checked
from hydra_edge.store import SEEN, LoggedGeneration, Store, StoredChoice, answer_id, seen_by
from hydra_edge.tasks import answer_key
from hydra_edge.types import ChoiceResult, HeadState, Kind, Progress, Record

# Why a head serves that has learned from a choice since it was judged.
UPDATED = "updated by a choice; fit-head judges it again"
# In a head's report: that it was brought from elsewhere.
IMPORTED = "imported"
# In a head's report: the number of the last of the choices it was fitted on.
CHOICES_UP_TO = "choices_up_to"
# In an adapter head's report: the LLM whose pools it was fitted on; absent where all of them were.
MODEL = "model"
# Earlier releases told when that one was made.
CHOICES_UNTIL = "choices_until"
# What a head's report says of this device's choices: see ``_stepped``.
OF_CHOICES = frozenset({CHOICES_UP_TO, CHOICES_UNTIL, SEEN, "choice", "origin"})

# What has come of a choice whose learning was stopped.
LEFT_OF_CHOICE = "The choice is kept, and so are vectors made. The next fit learns from it."
_TRIES = 5  # to learn from a choice while other programs rewrite records


class StepLostError(Exception):
    """A step is to be taken back that others followed: only a fit can."""


def model_of(head: HeadState | None) -> str | None:
    """Return the LLM whose pools an adapter's head was fitted on, to fit it again on the same.

    None, for pools of all LLMs: no LLM was named, or an earlier release fitted it. What an
    imported head says is of another device's pools.
    """
    if head is None or head.report.get(IMPORTED):
        return None
    model = head.report.get(MODEL)
    return model if isinstance(model, str) else None


@dataclass(frozen=True, eq=False)
class Answered:
    """A logged generation and what the user made of it.

    ``picked`` is the place of the candidate taken as it was, None where the text is edited.
    """

    generation: LoggedGeneration
    picked: int | None
    text: str


def find_answer(
    store: Store, generation_id: str | None, pick: int | None, text: str | None
) -> Answered:
    """Find what a choice is about.

    Parameters
    ----------
    generation_id
        Which answer; the last one if None.
    pick, text
        Exactly one of: the candidate's number from 1, the answer as the user edited it.

    Raises
    ------
    ConfigError
        If there is no such answer or candidate, the last answer is not remembered, or not
        exactly one of the two is given.
    """
    if (pick is None) == (text is None) or (text is not None and not text.strip()):
        raise ConfigError("Give either the number of a candidate or an edited text.")
    found = find_generation(store, generation_id)
    if pick is not None and not 1 <= pick <= len(found.candidates):
        named = "" if generation_id is None else f" --id {found.id}"
        raise ConfigError(
            f"No candidate {pick}; expected 1 to {len(found.candidates)}. "
            f"`hydra-edge choose{named}` lists them."
        )
    chosen = found.candidates[pick - 1].text if pick is not None else (text or "")
    same = [i for i, c in enumerate(found.candidates) if c.text.strip() == chosen.strip()]
    return Answered(found, same[0] if same else None, chosen)


def find_generation(store: Store, generation_id: str | None) -> LoggedGeneration:
    """Find an answer that can be chosen from: the last one if no id is given.

    Raises
    ------
    ConfigError
        If there is none, or the last one is not remembered.
    """
    found = store.last_generation() if generation_id is None else store.generation(generation_id)
    if found is None and generation_id is not None:
        raise ConfigError(
            f"There is no answer {generation_id!r:.80} to choose from. One is remembered unless "
            "the setting `log` is off, and until a record it was shown is forgotten. Give the id "
            "of one, or none for the last."
        )
    if found is None:
        raise ConfigError(
            "There is no answer to choose from. Generate one first; answers are remembered "
            "unless the setting `log` is off."
        )
    if generation_id is None and store.last_is_missing():
        raise ConfigError(
            "The last answer is not remembered: the setting `log` was off, it could not be "
            "stored, or a record it was shown was forgotten. Give the id of an earlier one, or "
            "generate again with `log` on."
        )
    return found


def _same_answer(answered: Answered, kind: Kind) -> Answered:
    """Take an answer of a closed set for the candidate it is, however it is written."""
    if answered.picked is not None or kind == "text":
        return answered
    key = answer_key(answered.text, kind)
    same = [answer_key(c.text, kind) == key for c in answered.generation.candidates]
    return replace(answered, picked=same.index(True) if True in same else None)


def from_private(
    engine: Engine, task: str, text: str, record_ids: Sequence[str], *, is_guess: bool = False
) -> bool:
    """Tell whether an answer may repeat what is private.

    A record that was shown for it is, or is gone; or it is one of a closed set that is known
    from private records only. A guess is not compared with these, so that it cannot be seen from
    what becomes of it whether it hit: it was written where no private record may be seen.
    """
    try:
        if any(engine.store.get(record_id).private for record_id in record_ids):
            return True
    except RecordNotFoundError:
        return True
    return not is_guess and engine.any_private_label(task, [text])


def _kept_under(store: Store, answered: Answered, source: str) -> str:
    """Return the id to keep a choice under: what another source kept otherwise is left to it."""
    name = answer_id(answered.generation.id)
    try:
        kept = store.get(name)
    except RecordNotFoundError:
        return name
    return name if kept.source == source or kept.output == answered.text else f"{name}-{source}"


def _keep_as_record(engine: Engine, answered: Answered, source: str, *, hide_private: bool) -> str:
    """Make the query and the user's answer a record of the history; return its id.

    It is private if it may repeat what is.
    """
    generation = answered.generation
    is_guess = hide_private and answered.picked is None
    record = checked(
        Record(
            generation.query, answered.text, generation.task,
            _kept_under(engine.store, answered, source), time.time(),
            from_private(
                engine, generation.task, answered.text, generation.record_ids, is_guess=is_guess
            ),
            source,
        )
    )  # fmt: skip
    engine.store.add([record])
    return record.id


def _kept_record(
    engine: Engine,
    answered: Answered,
    before: StoredChoice | None,
    source: str,
    *,
    keep: bool,
    hide_private: bool,
) -> str | None:
    """Keep an answer as a record, or see to the one that was kept of an earlier choice.

    That one is never left behind saying what was not chosen in the end: it follows the choice,
    unless another source kept it. Its id stays the choice's, which teaches what it could.

    Parameters
    ----------
    before
        What was chosen of this answer before.
    keep
        Whether the answer becomes a record if there is none yet.
    hide_private
        Whether it was written where no private record may be seen.

    Returns
    -------
    str or None
        The record's id; None if there is none.
    """
    earlier = None if before is None else before.record_id
    if not keep and (earlier is None or engine.store.get(earlier).source != source):
        return earlier
    return _keep_as_record(engine, answered, source, hide_private=hide_private)


@dataclass(frozen=True, eq=False)
class Taken:
    """A choice as it is stored, and what was chosen of the same answer before, if anything."""

    choice: StoredChoice
    before: StoredChoice | None

    @property
    def is_same(self) -> bool:
        """Whether what was chosen before is the same."""
        before, choice = self.before, self.choice
        return before is not None and (before.picked, before.text) == (choice.picked, choice.text)


def record_choice(
    store: Store, answered: Answered, before: StoredChoice | None, record_id: str | None
) -> Taken:
    """Store a choice for good, so that every later fit learns from it too.

    To say the same again is no other choice: it was made when it was first said.
    """
    generation = answered.generation
    again = before is not None and (before.picked, before.text) == (answered.picked, answered.text)
    choice = store.put_choice(
        generation.id, generation.task, generation.query, generation.candidates,
        generation.record_ids, answered.picked, answered.text, record_id,
        moment=before.time if before is not None and again else None,
    )  # fmt: skip
    return Taken(choice, before)


def take(
    engine: Engine,
    generation_id: str | None,
    pick: int | None,
    text: str | None,
    source: str,
    *,
    keep: bool,
    hide_private: bool = False,
) -> Taken:
    """Store what the user took of an answer, and the record kept of it: both, or nothing.

    No other program can forget the answer, or what it was shown, in between. Parameters and
    errors are those of ``find_answer``; ``keep`` is whether the answer becomes a record,
    ``hide_private`` whether it was taken where no private record may be seen.
    """
    store = engine.store
    with store.together():
        answered = find_answer(store, generation_id, pick, text)
        answered = _same_answer(answered, engine.task(answered.generation.task).kind)
        before = store.choice(answered.generation.id)
        kept = _kept_record(engine, answered, before, source, keep=keep, hide_private=hide_private)
        return record_choice(store, answered, before, kept)


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
        With the head in use; with none where the choice can teach nothing.

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
        if _knows(state, taken):
            return learned(choice, state)
        tau = prior_for(engine.bundle, task, "adapter").tau
        history = engine.history(task, progress=progress)
        started = time.monotonic()  # of the step: what an import left to encode takes minutes
        item = choice_item(engine, history, choice, tau)
        with store.together():  # another program may learn from a choice of its own
            if store.revision().rewrites != as_read:
                continue
            state = store.head(choice.task, "adapter")
            if item is None or _knows(state, taken):
                return learned(choice, state)
            state = _stepped(engine, choice, item, _without_step(store, state, taken))
            return learned(choice, store.save_head(state), time.monotonic() - started)
    raise StoreError(
        f"Nothing was learned from the choice: got records of {store.path} that other programs "
        "rewrite all the time; expected a pause. The choice is kept; the next fit learns from it."
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
    up_to = state.report.get(CHOICES_UP_TO)
    if up_to is not None:
        return bool(up_to >= choice.seq)
    # Fitted by an earlier release. What is still to come was told by a clock that was ahead.
    until = state.report.get(CHOICES_UNTIL, -math.inf)
    return bool(choice.time <= until <= time.time())


def _stored_since(state: HeadState, choice: StoredChoice) -> bool:
    """Tell whether a head was stored since a choice was made: it may have learned from it."""
    seen = seen_by(state.report)
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
    if state.report.get("choice") == choice.generation_id:
        origin = state.report.get("origin")
        if origin is None:
            return None
        for head in store.heads(choice.task):
            if (head.role, head.version) == ("adapter", origin):
                return head
    if not _stored_since(state, before) or state.report.get(IMPORTED):
        return state
    raise StepLostError


def _stepped(
    engine: Engine, choice: StoredChoice, item: ChoiceItem, state: HeadState | None
) -> HeadState:
    """Return a head one step on from ``state``, not stored yet.

    None, or a head that cannot serve any more, begins with the population's.
    """
    task = engine.task(choice.task)
    prior = prior_for(engine.bundle, task, "adapter")
    names = engine.features["adapter"].names
    if state is None or outdated(state, engine.bundle, task.kind):
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
            report={"kind": task.kind},
        )
    head = ConditionalLogit.from_state(state.weight, state.precision, prior)
    updated = head.update(item.features.astype(np.float64), item.target)
    note = {
        "reason": UPDATED,
        "choice": choice.generation_id,
        "origin": state.version or None,  # None: there was none yet
    }
    return replace(
        state,
        weight=updated.weight_.astype(np.float32),
        precision=updated.precision_.astype(np.float32),
        n_queries=state.n_queries + 1,
        report=state.report | note,
    )
