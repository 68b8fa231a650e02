"""Answering one query: what leaves for the LLM, and which of its answers comes back.

Owns the egress policy (design 6): a remote LLM never sees a private record, nor any record
at all when asked in private; the reranker and the adapter still work on the device.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hydra_edge.adapter import choose, merge
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, ConfigError
from hydra_edge.history import History
from hydra_edge.llm import LLM
from hydra_edge.pools import sample_pool
from hydra_edge.prompt import Prompt
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Generation, Ranking, Usage


@dataclass(frozen=True, eq=False)
class Question:
    """A query with the history it meets; ``vector`` has shape ``(dim,)``."""

    engine: Engine
    history: History
    query: str
    vector: Float1d

    @classmethod
    def of(cls, engine: Engine, task: TaskSpec, query: str) -> Question:
        """Read the history and encode the query.

        Raises
        ------
        ConfigError
            If the query is empty.
        """
        if not query.strip():
            raise ConfigError("The query is empty. Give a text to answer, or pipe one in.")
        return cls(engine, engine.history(task), query, engine.encode_query(query))

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


def outgoing(question: Question, k: int, system: str, *, remote: bool, private: bool) -> Outgoing:
    """Choose the records and build the prompt, under the egress policy."""
    engine, task = question.engine, question.history.task
    ranking = question.rank(k, private=not remote)
    notes: tuple[str, ...] = ()
    if remote:
        visible = [r for r in question.history.records if not (private or r.private)]
        task = engine.shown_task(task, visible)
    if private and remote:
        ranking = replace(ranking, records=())
        notes = ("private: no history was put into the prompt; your head still chooses",)
    shown = [r.record for r in ranking.records]
    prompt = engine.prompt(task, question.query, shown, system)
    return Outgoing(question, prompt, ranking, notes)


def answer(
    out: Outgoing,
    llm: LLM,
    *,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int = 0,
    on_token: Callable[[str], None] | None = None,
) -> Generation:
    """Sample ``n`` candidates and choose the one that fits the user.

    Records that do not fit the LLM's context are left out, the weakest first, and a result
    short of candidates is still a result; the notes say so.

    Raises
    ------
    BackendError
        If the LLM gave not one answer with text in it.
    """
    started = time.monotonic()
    question, task = out.question, out.question.history.task
    zero_shot = question.engine.zero_shot_draws(out.prompt, n)
    asked, completions = sample_pool(
        llm, out.prompt, n=n, zero_shot=zero_shot, temperature=temperature,
        max_tokens=max_tokens, seed=seed, on_token=on_token,
    )  # fmt: skip
    notes = list(out.notes)
    kept = out.ranking.records[: len(asked.shots)]
    if len(kept) < len(out.ranking.records):
        notes.append(
            f"the context was too small: the {len(out.ranking.records) - len(kept)} weakest of "
            f"{len(out.ranking.records)} records were left out"
        )
    if len(completions) < n:
        notes.append(f"{len(completions)} of {n} candidates arrived")
    engine = question.engine
    head = engine.active(task, "adapter")
    shown = [r.record for r in kept]
    candidates = merge(completions, task)
    if not candidates:
        raise BackendError(
            f"{llm.name} gave no usable answer: got {len(completions)} completions without text; "
            "expected at least one with. Ask again, or raise max_tokens."
        )
    pool = engine.pool(
        question.query, question.vector, candidates, shown, question.history,
        engine.lexical(question.history),
    )  # fmt: skip
    choice = choose(head, pool, question.history)
    return Generation(
        id=secrets.token_hex(6),
        query=question.query,
        task=task.name,
        text=choice.text,
        candidates=choice.candidates,
        records=kept,
        head=head.info,
        reranker=out.ranking.head,
        usage=Usage(
            llm_calls=1 + bool(zero_shot),
            completion_tokens=sum(c.tokens for c in completions),
            requested=n,
            received=len(completions),
            latency_ms=(time.monotonic() - started) * 1000.0,
        ),
        abstained=choice.abstained,
        notes=tuple(notes),
    )
