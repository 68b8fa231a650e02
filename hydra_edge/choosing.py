"""What the user took of an answer: finding it, storing the choice, keeping a record of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hydra_edge.closedset import answer_key
from hydra_edge.engine import Engine
from hydra_edge.errors import ConfigError
from hydra_edge.records import CHOICES, checked
from hydra_edge.store import LoggedGeneration, Store, StoredChoice, Withdrawn, answer_id
from hydra_edge.types import Kind, Record, Usage


@dataclass(frozen=True, eq=False)
class Answered:
    """A logged generation and what the user made of it.

    ``picked`` is the place of the candidate taken as it was, None where the text is edited.
    """

    generation: LoggedGeneration
    picked: int | None
    text: str


def _find_answer(
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


def _from_private(
    engine: Engine, task: str, text: str, record_ids: Sequence[str], *, is_guess: bool = False
) -> bool:
    """Tell whether an answer may repeat what is private.

    A record that was shown for it is, or is gone; or it is one of a closed set that is known
    from private records only. A guess is not compared with these, so that it cannot be seen from
    what becomes of it whether it hit: it was written where no private record may be seen.
    """
    shown = map(engine.store.find, record_ids)
    if any(record is None or record.private for record in shown):
        return True
    return not is_guess and engine.any_private_label(task, [text])


def _kept_under(store: Store, answered: Answered, source: str) -> str:
    """Return the id to keep a choice under: what another source kept otherwise is left to it."""
    name = answer_id(answered.generation.id)
    kept = store.find(name)
    is_free = kept is None or kept.source == source or kept.output == answered.text
    return name if is_free else f"{name}-{source}"


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
            _from_private(
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


def _record_choice(
    store: Store, answered: Answered, before: StoredChoice | None, record_id: str | None
) -> Taken:
    """Store a choice for good, so that every later fit learns from it too.

    To say the same again is no other choice: it was made when it was first said.
    """
    generation = answered.generation
    again = before is not None and (before.picked, before.text) == (answered.picked, answered.text)
    choice = StoredChoice(
        generation.id, generation.task, generation.query, generation.candidates,
        generation.record_ids, answered.picked, answered.text, record_id,
        before.time if before is not None and again else time.time(),
    )  # fmt: skip
    return Taken(store.put_choice(choice), before)


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
    errors are those of ``_find_answer``; ``keep`` is whether the answer becomes a record,
    ``hide_private`` whether it was taken where no private record may be seen.
    """
    with engine.store.together():
        answered = _answered(engine, generation_id, pick, text)
        return _take(engine, answered, source, keep=keep, hide_private=hide_private)


def _answered(
    engine: Engine, generation_id: str | None, pick: int | None, text: str | None
) -> Answered:
    answered = _find_answer(engine.store, generation_id, pick, text)
    return _same_answer(answered, engine.task(answered.generation.task).kind)


def _take(
    engine: Engine, answered: Answered, source: str, *, keep: bool, hide_private: bool
) -> Taken:
    before = engine.store.choice(answered.generation.id)
    kept = _kept_record(engine, answered, before, source, keep=keep, hide_private=hide_private)
    return _record_choice(engine.store, answered, before, kept)


def take_as(
    engine: Engine,
    generation_id: str,
    pick: int | None,
    text: str | None,
    record_of: Callable[[LoggedGeneration], Record | None],
) -> Taken:
    """Store what the user took of an answer as ``take`` does, but keep a record made elsewhere.

    ``record_of`` makes it of the answer, None if none is to be kept, while no other program can
    write. With both ``pick`` and ``text`` the candidate was taken, and is spelled so elsewhere.
    """
    store = engine.store
    with store.together():
        answered = _answered(engine, generation_id, pick, text if pick is None else None)
        if text:
            answered = replace(answered, text=text)
        before = store.choice(generation_id)
        kept = _kept_record(engine, answered, before, CHOICES, keep=False, hide_private=False)
        record = record_of(answered.generation)
        if record is not None:
            record = checked(record)
            store.add([record])
            stored = store.find_same(record)  # its id may have been taken
            kept = None if stored is None else stored.id
        return _record_choice(store, answered, before, kept)


def take_elsewhere(
    engine: Engine,
    prompt_id: str,
    task: str,
    query: str,
    record_ids: Sequence[str],
    text: str,
    source: str,
    *,
    hide_private: bool,
) -> Taken:
    """Store what the user took of another LLM's answer to a prompt of ours, and a record of it.

    It may repeat the records the prompt showed: to forget or hide those reaches it. There are no
    candidates a head could learn from.

    Raises
    ------
    ConfigError
        If ``prompt_id`` is the id of an answer of ours: what was chosen of that would be lost.
    """
    asked = LoggedGeneration(
        prompt_id, task, query, text, "", (), tuple(record_ids), Usage(), time.time()
    )
    with engine.store.together():
        before = engine.store.choice(prompt_id)
        if engine.store.generation(prompt_id) or (before is not None and before.candidates):
            raise ConfigError(
                f"The answer was not kept: got prompt_id {prompt_id!r:.80}, which is the id of an "
                "answer given here; expected another. Use `choose` for that one."
            )
        answered = Answered(asked, None, text)
        return _take(engine, answered, source, keep=True, hide_private=hide_private)


def withdraw(store: Store, generation_id: str | None) -> Withdrawn:
    """Take a choice back: the last one made if no id of an answer is given.

    Raises
    ------
    ConfigError
        If there is none.
    """
    withdrawn = store.withdraw_choice(generation_id)
    if withdrawn is not None:
        return withdrawn
    if generation_id is None:
        raise ConfigError("There is no choice to take back: got none; expected one made earlier.")
    raise ConfigError(
        f"There is no choice to take back: nothing is chosen of an answer {generation_id!r:.80}. "
        "Give the id of the answer it was made of, or none for the last choice."
    )
