"""One query of one user as every row meets it: what may be shown, asked, and chosen from.

Owns the prompts and pools that rows share, so that all are compared on the same candidates;
each is made when a row first needs it. No row is told the query's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bench.guard import Watched, check_history, check_prompt
from export.data import UserHistory
from export.label import SAMPLING
from hydra_edge.active import ActiveHead
from hydra_edge.adapter import merge
from hydra_edge.candidates import Draw, complete_within_context, sample_pool
from hydra_edge.engine import Engine
from hydra_edge.features import Pool
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt, cut, fold
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, HeadState, Record, Role, Switch, text_hash
from hydra_edge.utility import tokens

# The profile's prompt must leave a model of 270 million parameters room to see what it is about.
PROFILE_RECORDS = 8
PROFILE_WORDS = 16  # of a record's input and of its output
ABOUT_WORDS = 60  # of a profile, in front of a prompt
PROFILE_TASK = TaskSpec(
    "profile",
    max_tokens=48,
    instruction="Describe in one sentence what this person likes and how this person writes.",
    input_label="Written by this person",
    output_label="Description",
)


@dataclass(eq=False)
class Subject:
    """A user whose heads are fitted, with the store their queries will see.

    ``edge`` is the position of the first query; ``heads`` what fitting left behind; ``donor``
    another user of the task, whose heads the shuffled row borrows.
    """

    user: UserHistory
    engine: Engine
    declared: TaskSpec
    llm: LLM
    edge: int
    seed: int
    heads: Mapping[Role, HeadState | None] = field(default_factory=dict)
    switch: str = "shared"
    fit_calls: int = 0
    donor: Subject | None = None

    @cached_property
    def profile(self) -> Completion:
        """What the LLM says of the user from their latest records before the first query."""
        records = self.user.records[: self.edge]
        check_history(records, self.user, self.edge)
        prompt = profile_prompt(self.declared, records)
        draw = Draw(1, SAMPLING.temperature, PROFILE_TASK.max_tokens)
        _, completions = complete_within_context(self.llm, prompt, draw)
        return completions[0]

    @property
    def about(self) -> str:
        """The profile as it is put before a prompt, on one line; empty if the LLM had none."""
        text = cut(fold(self.profile.text, multiline=False), ABOUT_WORDS)
        return f"About me: {text}" if text else ""


def profile_prompt(task: TaskSpec, records: Sequence[Record]) -> Prompt:
    """Build the prompt that asks for a user's profile; records oldest first."""
    lines = []
    for record in records[-PROFILE_RECORDS:]:
        output = cut(fold(record.output, multiline=False), PROFILE_WORDS)
        given = cut(record.input, PROFILE_WORDS)
        lines.append(output if task.kind == "text" else f"{given} -> {output}")
    return Prompt(PROFILE_TASK, "\n- ".join(["", *lines]))


@dataclass(frozen=True, eq=False)
class Sampled:
    """The LLM's answers to one prompt, and the candidates they make."""

    completions: tuple[Completion, ...]
    pool: Pool


class Case:
    """One query.

    Parameters
    ----------
    subject
        The user.
    position
        The query's place among the user's records.

    Raises
    ------
    BenchError
        If the store holds anything that was not there before the query.
    """

    def __init__(self, subject: Subject, position: int) -> None:
        record = subject.user.records[position]
        self.subject = subject
        self.position = position
        self.engine = subject.engine
        self.query = record.input
        self.query_id = record.id
        self.task = self.engine.task(subject.user.task)
        self.history = self.engine.history(self.task)
        check_history(self.history.records, subject.user, position)
        self.vector = self.engine.encode_query(record.input)
        self._pools: dict[tuple[str, ...], Sampled] = {}

    def head(
        self, role: Role, switch: Switch | None = None, *, of: Subject | None = None
    ) -> ActiveHead:
        """Return a head as the gate has it, or as if it had chosen ``switch``.

        ``of`` borrows another user's. Where nothing personal was fitted, shared serves.
        """
        state = (of or self.subject).heads.get(role)
        shared = self.engine.shared(self.task, role)
        if switch == "baseline":
            return replace(shared, weight=self.engine.baseline(role))
        if switch == "shared" or (switch == "personal" and state is None):
            return shared
        if switch == "personal" and state is not None:
            state = replace(state, switch="personal")
        return ActiveHead.of(self.engine.bundle, self.task, self.engine.features[role], state)

    def _ranked(self, head: ActiveHead) -> tuple[Record, ...]:
        ranked = self.engine.rank(head, self.query, self.vector, self.history, k=SAMPLING.shown)
        return tuple(r.record for r in ranked)

    @cached_property
    def by_bm25(self) -> tuple[Record, ...]:
        """Records in the order of our own BM25, that of a device whose reranker is off."""
        return self.by_reranker("baseline")

    @cached_property
    def by_published_bm25(self) -> tuple[Record, ...]:
        """Records in the order of rank-bm25's own scores, of equal ones the latest first.

        That is the paper's retriever. Unlike our own it counts a word as often as the query
        repeats it, and gives words of more than half of the records the weight it gives them.
        """
        from rank_bm25 import BM25Okapi

        records = self.history.records
        corpus = [tokens(record.input) for record in records]
        if not any(corpus):
            return self.by_bm25
        scores = BM25Okapi(corpus).get_scores(tokens(self.query))
        best = np.argsort(scores, kind="stable")[::-1][: SAMPLING.shown]
        return tuple(records[i] for i in best.tolist())

    def by_reranker(
        self, switch: Switch | None = None, *, of: Subject | None = None
    ) -> tuple[Record, ...]:
        """Return the records that a reranker chooses; which one, as in ``head``."""
        return self._ranked(self.head("reranker", switch, of=of))

    @cached_property
    def by_cosine(self) -> tuple[Record, ...]:
        """Records nearest by the base's encoder."""
        order = np.argsort(-self.history.cosines(self.vector), kind="stable")
        return tuple(self.history.records[i] for i in order[: SAMPLING.shown].tolist())

    @cached_property
    def at_random(self) -> tuple[Record, ...]:
        """Records drawn by the seed, the user and the query alone."""
        name = f"{self.subject.seed}\x1f{self.subject.user.user}\x1f{self.query_id}"
        rng = np.random.default_rng(int(text_hash(name)[:16], 16))
        n = len(self.history)
        drawn = rng.choice(n, size=min(SAMPLING.shown, n), replace=False)
        return tuple(self.history.records[i] for i in drawn.tolist())

    def ask(
        self,
        records: Sequence[Record],
        *,
        n: int = 1,
        with_profile: bool = False,
        always_shown: bool = False,
    ) -> tuple[tuple[Record, ...], list[Completion]]:
        """Ask the LLM with records shown, best first.

        Parameters
        ----------
        always_shown
            Whether every answer sees the records; else part of a pool is drawn without, as on a
            device.

        Returns
        -------
        tuple of records and list of Completion
            The records that fitted the context, and the answers.

        Raises
        ------
        BenchError
            If the prompt would tell the target.
        BackendError
            If the LLM fails, be it for a part of the pool.
        """
        about = self.subject.about if with_profile else ""
        prompt = self.engine.prompt(self.task, self.query, records, about)
        zero_shot = 0 if always_shown else self.engine.zero_shot_draws(prompt, n)
        check_prompt(prompt, self.subject.user, self.position, self.subject.declared, about)
        llm = Watched(self.subject.llm)
        draw = Draw(n, SAMPLING.temperature, self.task.max_tokens)
        asked, completions = sample_pool(llm, prompt, draw, zero_shot)
        if llm.failure is not None:
            raise llm.failure
        return tuple(records[: len(asked.shots)]), completions

    def sampled(self, name: str) -> Sampled:
        """Return one of ``POOLS``; records that were shown before are not shown again."""
        records = POOLS[name](self)
        key = tuple(record.id for record in records)
        if key not in self._pools:
            shown, completions = self.ask(records, n=SAMPLING.n)
            candidates = merge(completions, self.task)
            pool = self.engine.pool(
                self.query, self.vector, candidates, shown, self.history,
                self.engine.lexical(self.history),
            )  # fmt: skip
            self._pools[key] = Sampled(tuple(completions), pool)
        return self._pools[key]


POOLS: dict[str, Callable[[Case], tuple[Record, ...]]] = {
    "gated": lambda case: case.by_reranker(),
    "shared": lambda case: case.by_reranker("shared"),
    "personal": lambda case: case.by_reranker("personal"),
    "shuffled": lambda case: case.by_reranker("personal", of=case.subject.donor),
    "bm25": lambda case: case.by_bm25,
}
