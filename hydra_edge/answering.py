"""Answering one query: what leaves for the LLM, and which of its answers comes back.

Owns the egress policy (design 6): a remote LLM never sees a private record, nor any record
at all when asked in private; the reranker and the adapter still work on the device.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from hydra_edge.active import idle_notes
from hydra_edge.adapter import choose, merge
from hydra_edge.candidates import sample_pool
from hydra_edge.engine import Engine
from hydra_edge.errors import (
    BackendError,
    CancelledError,
    ConfigError,
    RecordNotFoundError,
    StoreError,
)
from hydra_edge.history import History
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt, Unfolding
from hydra_edge.stopping import Votes
from hydra_edge.store import Revision, Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.turns import StopSignal
from hydra_edge.types import Completion, Float1d, Generation, Progress, Ranking, Usage


@dataclass(frozen=True, eq=False)
class Question:
    """A query with the history it meets; ``vector`` has shape ``(dim,)``."""

    engine: Engine
    history: History
    query: str
    vector: Float1d

    @classmethod
    def of(
        cls, engine: Engine, task: TaskSpec, query: str, *, progress: Progress | None = None
    ) -> Question:
        """Read the history, encoding what is not cached yet, and encode the query.

        Raises
        ------
        ConfigError
            If the query is empty.
        """
        if not query.strip():
            raise ConfigError("The query is empty. Give a text to answer, or pipe one in.")
        history = engine.history(task, progress=progress)
        return cls(engine, history, query, engine.encode_query(query))

    def hiding_private(self) -> Question:
        """Return the question as one may see it who may see no private record.

        Nor is an answer of a closed set a candidate that is known from private records only.
        """
        visible = [record for record in self.history.records if not record.private]
        task = self.engine.shown_task(self.history.task, visible)
        return replace(self, history=replace(self.history, task=task))

    def rank(self, k: int, *, private: bool = True) -> Ranking:
        """Choose the ``k`` records to show, best first."""
        task = self.history.task
        head = self.engine.active(task, "reranker")
        records = self.engine.rank(
            head, self.query, self.vector, self.history, k=k, private=private
        )
        return Ranking(self.query, task.name, records, head.info)


@dataclass(frozen=True, eq=False)
class Outgoing:
    """What would be sent for a question, and why; nothing is sent by making it."""

    question: Question
    prompt: Prompt
    ranking: Ranking
    notes: tuple[str, ...] = ()


def outgoing(
    question: Question,
    k: int,
    system: str,
    *,
    remote: bool,
    private: bool,
    hide_private: bool = False,
) -> Outgoing:
    """Choose the records and build the prompt, under the egress policy.

    ``hide_private``: whoever asks may see no private record, wherever the LLM is.
    """
    if hide_private:
        question = question.hiding_private()
    engine, task = question.engine, question.history.task
    ranking = question.rank(k, private=not (remote or hide_private))
    if remote:
        visible = [r for r in question.history.records if not (private or r.private)]
        task = engine.shown_task(task, visible)
    if private and remote:
        ranking = replace(ranking, records=())
    shown = [r.record for r in ranking.records]
    prompt = engine.prompt(task, question.query, shown, system)
    notes = _left_out(question.query, prompt.query)
    if private and remote:
        notes += ("private: no history was put into the prompt; your head still chooses",)
    return Outgoing(question, prompt, ranking, notes)


def _left_out(query: str, sent: str) -> tuple[str, ...]:
    """Say how much of a query is in its prompt, if that is not all."""
    words, whole = sent.split(), query.split()
    if words == whole:
        return ()
    if words == whole[: len(words)]:
        kept = f"{len(words):,} of {len(whole):,} words"
    else:  # the cut is within one: its script writes no blanks, or it is no word
        kept = f"{len(sent):,} of {len(' '.join(whole)):,} characters"
    return (f"only the first {kept} of the query are in the prompt",)


class Pieces:
    """Tells an answer piece by piece: put together, they are its text, byte for byte.

    Parameters
    ----------
    tell
        Called with each piece.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._on_piece = tell
        self._unfolding = Unfolding()
        self._told = ""
        self._held = ""  # white space that is told only if more text follows

    def __call__(self, piece: str) -> None:
        """Take a piece as the LLM wrote it."""
        text = self._held + self._unfolding.feed(piece)
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


class Withdrawn:
    """True once a record in a prompt was forgotten, or made private where the LLM is remote."""

    def __init__(self, out: Outgoing, *, remote: bool) -> None:
        self._store = out.question.engine.store
        self._ids = out.prompt.record_ids
        self._hidden = frozenset(r.record.id for r in out.ranking.records if r.record.private)
        self._remote = remote
        self._seen: Revision | None = None
        self._fault = ""

    def __call__(self) -> bool:
        """Tell so of one that can be read; what cannot is told of when the answer is decided."""
        with suppress(StoreError):
            self._look()
        return bool(self._fault)

    def _look(self) -> None:
        """Look again only where records have changed since."""
        revision = self._store.revision()
        if not self._fault and revision != self._seen:
            self._fault = next(filter(None, map(self._fault_of, self._ids)), "")
            self._seen = revision

    def _fault_of(self, record_id: str) -> str:
        try:
            record = self._store.get(record_id)
        except RecordNotFoundError:
            return f"record {record_id!r}, which was forgotten meanwhile"
        if record.private and self._remote and record_id not in self._hidden:
            return f"record {record_id!r}, which was made private meanwhile"
        return ""

    def check(self) -> None:
        """Keep nothing of an answer that was shown what may not be shown any more.

        Raises
        ------
        CancelledError
            If there is such a record.
        """
        self._look()
        if self._fault:
            raise CancelledError(
                f"The answer was thrown away: got one that was shown {self._fault}; expected "
                "records still there, and to be seen. Ask again."
            )


@dataclass(frozen=True, eq=False)
class Asked:
    """What an LLM answered: the prompt that fitted, and up to ``n`` completions of it.

    ``id`` is the generation's, given when the LLM began to be asked.
    """

    id: str
    out: Outgoing
    model: str
    prompt: Prompt
    completions: list[Completion]
    n: int
    started: float  # on the monotonic clock
    withdrawn: Withdrawn
    stopped: bool = False
    settled: bool = False  # the answers that are missing could not have mattered


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
    *,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int = 0,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_candidate: Callable[[Completion], None] | None = None,
    on_start: Callable[[str], None] | None = None,
    votes: Votes | None = None,
) -> Asked:
    """Sample up to ``n`` candidates: all that takes long.

    Records that do not fit the LLM's context are left out, the weakest first. With ``votes``,
    no more are asked for once they are settled. A prompt that waits for the LLM is not sent, and
    an answer is broken off, once a record in it was forgotten or hidden from such an LLM.
    """

    def heard(completion: Completion) -> None:
        if votes is not None:
            votes.hear(completion)
        if on_candidate is not None:
            on_candidate(completion)

    withdrawn = Withdrawn(out, remote=llm.is_remote)
    enough = StopSignal(should_stop, withdrawn, None if votes is None else votes.settled)
    listening = votes is not None or on_candidate is not None
    started = time.monotonic()
    generation_id = secrets.token_hex(6)
    if on_start is not None:
        on_start(generation_id)
    prompt, completions = sample_pool(
        llm, out.prompt, n=n, zero_shot=out.question.engine.zero_shot_draws(out.prompt, n),
        temperature=temperature, max_tokens=max_tokens, seed=seed,
        on_token=on_token, should_stop=enough, on_candidate=heard if listening else None,
        on_cut=None if votes is None else votes.cut,
    )  # fmt: skip
    short = len(completions) < n
    settled = short and votes is not None and votes.settled()
    stopped = short and not settled and should_stop is not None and should_stop()
    return Asked(
        generation_id, out, llm.name, prompt, completions, n, started, withdrawn, stopped, settled
    )


def answer(
    out: Outgoing,
    llm: LLM,
    *,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int = 0,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_candidate: Callable[[Completion], None] | None = None,
    votes: Votes | None = None,
) -> Generation:
    """Sample ``n`` candidates and choose the one that fits the user: ``ask``, then ``decide``."""
    asked = ask(
        out, llm, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed,
        on_token=on_token, should_stop=should_stop, on_candidate=on_candidate, votes=votes,
    )  # fmt: skip
    return decide(asked)


def decide(asked: Asked) -> Generation:
    """Choose the candidate that fits the user.

    A result short of records or candidates is still a result; the notes say so.

    Raises
    ------
    BackendError
        If the LLM gave not one answer with text in it.
    CancelledError
        If it was told to stop before it had one, or a record it was shown was forgotten, or made
        private while a remote LLM answered.
    """
    asked.withdrawn.check()
    out, completions, n = asked.out, asked.completions, asked.n
    question, task = out.question, out.question.history.task
    notes = list(out.notes)
    kept = out.ranking.records[: len(asked.prompt.shots)]
    if len(kept) < len(out.ranking.records):
        notes.append(
            f"the context was too small: the {len(out.ranking.records) - len(kept)} weakest of "
            f"{len(out.ranking.records)} records were left out"
        )
    if asked.settled:
        notes.append(
            f"{len(completions)} of {n} candidates sufficed: no answer of the others could "
            "have changed this one"
        )
    elif len(completions) < n:
        why = "it was stopped: " if asked.stopped else ""
        notes.append(f"{why}{len(completions)} of {n} candidates arrived")
    engine = question.engine
    head = engine.active(task, "adapter")
    notes += idle_notes(out.ranking.head, head.info)
    shown = [r.record for r in kept]
    candidates = merge(completions, task)
    usable = bool(completions) and bool(candidates)
    if not usable and asked.stopped:
        raise CancelledError(
            f"The answer was stopped: got none of {n} candidates finished; expected at least "
            "one. Ask again, and let it run longer."
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
    if not any(candidate.count for candidate in candidates):
        instead = "your records chose alone"
        if head.info.switch == "baseline":  # which knows of nothing but the LLM's answers
            instead = "this one is a guess; ask again, or take another LLM"
        notes.append(
            f"none of the LLM's answers ({completions[0].text!r:.40} ...) is one of the "
            f"{len(candidates)} of {task.name}: {instead}"
        )
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
        head=head.info,
        reranker=out.ranking.head,
        usage=Usage(
            llm_calls=1 + bool(engine.zero_shot_draws(out.prompt, n)),
            prompt_tokens=sum(c.prompt_tokens for c in completions),
            completion_tokens=sum(c.tokens for c in completions),
            requested=n,
            received=len(completions),
            latency_ms=(time.monotonic() - asked.started) * 1000.0,
        ),
        abstained=choice.abstained,
        notes=tuple(notes),
    )


def logged(store: Store, generation: Generation, model: str) -> Generation:
    """Remember an answer, for a choice; one that cannot be (a full disk) is still an answer."""
    try:
        store.log_generation(generation, model)
    except StoreError as err:
        note = f"the answer is not remembered, so that it cannot be chosen from: {err}"
        return replace(generation, notes=(*generation.notes, note))
    return generation
