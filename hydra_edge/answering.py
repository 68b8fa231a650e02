"""Answering one query: asking the LLM what may leave for it, and choosing among its answers.

The reranker and the adapter work on the device whatever the LLM is shown.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hydra_edge.active import ActiveHead, idle_notes
from hydra_edge.adapter import choose, merge
from hydra_edge.candidates import Callbacks, Draw, longest_answer, sample_pool
from hydra_edge.egress import Outgoing, Withdrawn
from hydra_edge.errors import BackendError, CancelledError, ConfigError, StoreError
from hydra_edge.headreport import taught_by
from hydra_edge.llm import LLM
from hydra_edge.llm.names import REMOTE
from hydra_edge.llm.request import read_in_part
from hydra_edge.prompt import Prompt
from hydra_edge.settling import Votes
from hydra_edge.store import Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.turns import StopSignal
from hydra_edge.types import Candidate, Completion, Generation, HeadInfo, Usage

NOT_WHOLE = "the answer is not whole: "  # how what is to be said of one begins
BROKEN_OFF = f"{NOT_WHOLE}the LLM's reply broke off before its end"


class Pieces:
    """Tells an answer piece by piece: put together, they are its text, byte for byte.

    Parameters
    ----------
    tell
        Called with each piece.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._on_piece = tell
        self._told = ""
        self._held = ""  # white space that is told only if more text follows

    def __call__(self, piece: str) -> None:
        """Take a piece."""
        text = self._held + piece
        if not self._told:
            text = text.lstrip()
        ready = text.rstrip()
        self._held = text[len(ready) :]
        self._tell(ready)

    def finish(self, text: str) -> None:
        """Tell the rest of an answer that is now whole.

        Raises
        ------
        BackendError
            If what was told is not how it begins.
        """
        if not text.startswith(self._told):
            raise BackendError(
                f"The LLM streamed another answer than it returned: got {len(self._told)} "
                "characters that its text does not begin with; expected the same text. Ask "
                "without on_token, or have its complete() call on_token with what it returns."
            )
        self._tell(text[len(self._told) :])

    def _tell(self, ready: str) -> None:
        if ready:
            self._told += ready
            self._on_piece(ready)


@dataclass(frozen=True, eq=False)
class Asked:
    """What an LLM answered: the prompt that fitted, and what was drawn for it, or less.

    ``id`` is the generation's, given when the LLM began to be asked; ``failed`` says that
    something kept answers from coming.
    """

    id: str
    out: Outgoing
    model: str
    prompt: Prompt
    completions: list[Completion]
    draw: Draw
    started: float  # on the monotonic clock
    withdrawn: Withdrawn
    failed: bool = False
    stopped: bool = False
    settled: bool = False  # the answers that are missing could not have mattered


def room_for_answer(out: Outgoing, llm: LLM, *, no_history: bool) -> int:
    """Return how many tokens an answer may take where nobody asks for a number."""
    question = out.question
    return longest_answer(
        question.engine, llm, out.prompt, question.history.records, no_history=no_history
    )


def votes_on(out: Outgoing, n: int) -> Votes | None:
    """Follow the answers of a closed set; None where an answer more can always matter."""
    question, engine = out.question, out.question.engine
    task = question.history.task
    if task.kind == "text" or not task.labels or n < 2 or engine.zero_shot_draws(out.prompt, n):
        return None
    pool = engine.pool(
        question.query, question.vector, merge((), task), [r.record for r in out.ranking.records],
        question.history, engine.lexical(question.history),
    )  # fmt: skip
    return Votes(engine.active(task, "adapter"), pool, question.history, n)


def ask(
    out: Outgoing,
    llm: LLM,
    draw: Draw,
    callbacks: Callbacks,
    *,
    on_start: Callable[[str], None] | None,
    votes: Votes | None,
) -> Asked:
    """Sample candidates: all that takes long.

    Records that do not fit the LLM's context are left out, the weakest first, then what of the
    query does not. A prompt that waits for the LLM is not sent, and an answer is broken off, once
    a record in it was forgotten or may not be shown any more.

    Parameters
    ----------
    callbacks
        Its ``on_token`` is told nothing of a closed set, whose answer is chosen first.
    on_start
        Told the generation's id as the LLM begins to be asked.
    votes
        No more answers are asked for once these are settled.
    """

    def heard(completion: Completion) -> None:
        if votes is not None:
            votes.hear(completion)
        if callbacks.on_candidate is not None:
            callbacks.on_candidate(completion)

    engine, task = out.question.engine, out.question.history.task
    withdrawn = Withdrawn(out, remote=llm.is_remote)
    should_stop, listening = callbacks.should_stop, callbacks.on_candidate is not None
    errors: list[Exception] = []
    followed = replace(
        callbacks,
        on_short=errors.append,
        should_stop=StopSignal(should_stop, withdrawn, None if votes is None else votes.settled),
        on_token=callbacks.on_token if task.kind == "text" else None,
        on_candidate=heard if listening or votes is not None else None,
        on_cut=None if votes is None else votes.cut,
    )
    started = time.monotonic()
    generation_id = secrets.token_hex(6)
    if on_start is not None:
        on_start(generation_id)
    zero_shot = engine.zero_shot_draws(out.prompt, draw.n)
    prompt, completions = sample_pool(llm, out.prompt, draw, zero_shot, followed)
    short = len(completions) < draw.n
    settled = short and votes is not None and votes.settled()
    stopped = short and not settled and should_stop is not None and should_stop()
    return Asked(
        generation_id, out, llm.name, prompt, completions, draw, started, withdrawn,
        bool(errors), stopped, settled,
    )  # fmt: skip


def decide(asked: Asked) -> Generation:
    """Choose the candidate that fits the user.

    A result short of records or candidates is still a result; the notes say so.

    Raises
    ------
    BackendError
        If the LLM gave not one answer with text in it.
    CancelledError
        If it was told to stop before it had one, or a record it was shown was forgotten, or made
        private where none may be shown.
    ConfigError
        If the task is of a closed set that is empty.
    """
    asked.withdrawn.check()
    out, completions = asked.out, asked.completions
    question, engine = out.question, out.question.engine
    task = question.history.task
    head = engine.active(task, "adapter")
    candidates = merge(completions, task)
    _check_usable(asked, candidates, task)
    kept = out.ranking.records[: len(asked.prompt.shots)]
    shown = [r.record for r in kept]
    pool = engine.pool(
        question.query, question.vector, candidates, shown, question.history,
        engine.lexical(question.history),
    )  # fmt: skip
    choice = choose(head, pool, question.history)
    return Generation(
        id=asked.id,
        query=question.query,
        task=task.name,
        text=choice.text,
        candidates=choice.candidates,
        records=kept,
        head=_told(head, asked.model),
        reranker=out.ranking.head,
        usage=Usage(
            llm_calls=1 + bool(engine.zero_shot_draws(asked.prompt, asked.draw.n)),
            prompt_tokens=sum(c.prompt_tokens for c in completions),
            completion_tokens=sum(c.tokens for c in completions),
            requested=asked.draw.n,
            received=len(completions),
            latency_ms=(time.monotonic() - asked.started) * 1000.0,
        ),
        abstained=choice.abstained,
        notes=(
            *out.notes_on(asked.prompt),
            *_shortfalls(asked, candidates),
            *_unfinished(choice.candidates[choice.chosen], asked.draw),
            *idle_notes(out.ranking.head, head.info),
            *_unheard(completions, candidates, head.info),
        ),
    )


def _told(head: ActiveHead, model: str) -> HeadInfo:
    """Say which weights chose, and why; not which LLM taught them: apps are told this, too."""
    if taught_by(head.state) in (None, model):
        return head.info
    why = filter(None, (head.info.reason, "fitted on another LLM's answers"))
    return replace(head.info, reason="; ".join(why))


def _check_usable(asked: Asked, candidates: Sequence[Candidate], task: TaskSpec) -> None:
    """Refuse to choose where the LLM gave nothing to choose from; see ``decide``."""
    completions = asked.completions
    usable = bool(completions) and bool(candidates)
    if not usable and asked.stopped:
        raise CancelledError(
            f"The answer was stopped: got none of {asked.draw.n} candidates finished; expected at "
            "least one. Ask again, and let it run longer."
        )
    if completions and not candidates and task.kind != "text":
        raise ConfigError(
            f"The task {task.name} has no answers to choose from: got a {task.kind} task without "
            "labels, and no record; expected labels in its task file, or records. Add either."
        )
    if not usable:
        raise BackendError(
            f"{asked.model} gave no usable answer: got {len(completions)} completions without "
            "text; expected at least one with. Ask again, or raise max_tokens."
        )


def _shortfalls(asked: Asked, candidates: Sequence[Candidate]) -> Iterator[str]:
    """Say what there was less of than was asked for: of the prompt, and of candidates."""
    if read := read_in_part(asked.model, asked.prompt, asked.completions):
        yield (
            f"the LLM read {read:,} tokens, which cannot be the whole prompt: its context is too "
            "small (of Ollama: num_ctx)"
        )
    came, n, task = len(asked.completions), asked.draw.n, asked.prompt.task
    if asked.settled:
        yield (
            f"{came} of {n} candidates sufficed: no answer of the others could have changed this "
            "one"
        )
        return
    is_closed = task.kind != "text"
    unread = came - sum(c.count for c in candidates) if is_closed else 0
    # What an API sent that is no answer of a closed set is not among the completions.
    drops = is_closed and asked.model.startswith(REMOTE)
    if drops and not asked.failed and not asked.stopped:
        unread, came = unread + n - came, n
    if came < n:
        why = "it was stopped: " if asked.stopped else ""
        yield f"{why}{came} of {n} candidates arrived"
    if 0 < unread < n:
        names = "names" if unread == 1 else "name"
        yield f"{unread} of {n} answers {names} none of the {len(candidates)} of {task.name}"


def _unfinished(candidate: Candidate, draw: Draw) -> Iterator[str]:
    """Say where the answer is not whole, and why."""
    if candidate.finish == "length":
        yield (
            f"the answer is not whole: it ends at its {draw.max_tokens} tokens; more come with "
            "max_tokens (--max-tokens)"
        )
    elif candidate.finish == "cut":
        yield BROKEN_OFF


def _unheard(
    completions: Sequence[Completion], candidates: Sequence[Candidate], head: HeadInfo
) -> Iterator[str]:
    """Say where not one of the LLM's answers is of the closed set."""
    if any(candidate.count for candidate in candidates):
        return
    instead = "your records chose alone"
    if head.switch == "baseline":  # which knows of nothing but the LLM's answers
        instead = "this one is a guess; ask again, or take another LLM"
    yield (
        f"none of the LLM's answers ({completions[0].text!r:.40} ...) is one of the "
        f"{len(candidates)} of {head.task}: {instead}"
    )


class AnswerLog:
    """Remembers answers for a choice; no earlier one is taken for one that is not remembered.

    Where even that cannot be written (a full disk) it is made up for before the next choice.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unmarked: str | None = None  # the newest entry, where the last answer has none

    def put(self, generation: Generation, model: str, withdrawn: Withdrawn) -> Generation:
        """Remember an answer; one that cannot be is still an answer.

        Raises
        ------
        CancelledError
            If it was shown what may not be shown any more.
        """
        try:
            with self._store.together():  # what others forget from here on finds the entry
                withdrawn.check()
                task = _named_now(self._store, generation)
                self._store.log_generation(replace(generation, task=task), model)
        except StoreError as err:
            note = f"the answer is not remembered, so that it cannot be chosen from: {err}"
            return self.leave_out(_noting(generation, note), withdrawn)
        return generation

    def leave_out(self, generation: Generation, withdrawn: Withdrawn) -> Generation:
        """See to it that no earlier answer is taken for this one, which is not remembered.

        Raises
        ------
        CancelledError
            If it was shown what may not be shown any more.
        """
        try:
            self._store.mark_unlogged()
        except StoreError as err:
            note = f"choosing without an id could take an earlier answer for this one: {err}"
            generation = _noting(generation, note)
            newest = self._store.last_generation()
            self._unmarked = None if newest is None else newest.id
        withdrawn.check()
        return generation

    def expire(self, generation: Generation, days: int) -> Generation:
        """Erase answers older than so many days (0: none is too old); note where that cannot be."""
        if not days:
            return generation
        try:
            self._store.expire_log(days)
        except StoreError as err:
            return _noting(generation, f"answers older than log_days = {days} remain: {err}")
        return generation

    def make_up(self) -> None:
        """Mark now what could not be marked; an entry put since is the last answer's again."""
        if self._unmarked is None:
            return
        with self._store.together():
            newest = self._store.last_generation()
            if newest is not None and newest.id == self._unmarked:
                self._store.mark_unlogged()
        self._unmarked = None


def _named_now(store: Store, generation: Generation) -> str:
    """Return what an answer's task is called, which was renamed if its records are another's now.

    The answer could not be chosen from under the old name, nor be found under the new one.
    """
    found = (store.find(shown.record.id) for shown in generation.records)
    names = {record.task for record in found if record is not None}
    if len(names) != 1 or generation.task in names or store.count(generation.task):
        return generation.task
    return names.pop()


def _noting(generation: Generation, note: str) -> Generation:
    return replace(generation, notes=(*generation.notes, note))
