"""HYDRA as published as a row of the table (``export.published`` has the method itself).

    Published.open(folder, files, Allowance(), seed).rows

Owns fitting a user's two heads on the records before their first query, answering with them,
and what that cost, beside what our own heads cost for the same records. Refuses encoders trained
on the files to be measured. torch is imported when the first user is fitted.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from bench.case import Case, Sampled, Subject
from bench.guard import BenchError, Watched, check_history, refuse_seen
from bench.rows import Answer, Row
from export.data import UserHistory
from export.label import SAMPLING
from export.published.card import Card, read_cards
from export.published.head import Head, PairEncoder, best_first
from export.published.labels import (
    LISTED,
    Allowance,
    Labelled,
    affordable,
    draw,
    label_pools,
    label_records,
    record_text,
    shortlist,
    task_before,
)
from hydra_edge.adapter import merge
from hydra_edge.buying import Budget
from hydra_edge.engine import Engine
from hydra_edge.fitting import fit_task
from hydra_edge.store import Store
from hydra_edge.types import Completion, Float2d, Int1d, JsonDict, Record, Role, text_hash

Encoders = Mapping[Role, PairEncoder]


class FitHead(Protocol):
    """Fits a head; ``export.published.train.fit_head``."""

    def __call__(self, vectors: Float2d, labels: Int1d, *, seed: int) -> Head:
        """Fit on ``vectors`` (n, h) and ``labels`` (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Cost:
    """What one user's two heads cost; ``*_calls`` and ``tokens`` are answers of the LLM.

    ``vector_s`` is spent in the frozen encoder, ``head_s`` in fitting, neither in the LLM; what
    ends in ``_cpu_s`` is processor time of the same.
    """

    record_calls: int
    pool_calls: int
    tokens: int
    pairs: int
    vector_s: float
    head_s: float
    vector_cpu_s: float
    head_cpu_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OurCost:
    """What our own fit of the same records took, without an LLM; times as in ``Cost``.

    ``weight_bytes`` are those of both heads, which serve; ``size_bytes`` are with the statistics
    that a fit needs to go on from. Both are of a head that was fitted, whether or not this was.
    """

    vector_cpu_s: float
    head_cpu_s: float
    weight_bytes: int
    size_bytes: int


@dataclass(frozen=True, eq=False)
class Fitted:
    """One user's heads, and their task's encoders."""

    encoders: Encoders
    heads: Mapping[Role, Head]
    cost: Cost


def our_cost(subject: Subject) -> OurCost:
    """Fit a user's heads as a device does, twice: the second fit finds the vectors made."""
    of_user, task = subject.engine, subject.user.task
    with closing(Store.in_memory()) as store:
        store.add(subject.user.records[: subject.edge])
        engine = Engine(store, of_user.bundle, of_user.encoder.encoder, dict(of_user.custom_tasks))
        spent = []
        for _ in range(2):
            begin = time.process_time()
            fit_task(engine, task, llm=None, sampling=SAMPLING, budget=Budget(0, None))
            spent.append(time.process_time() - begin)
    lengths = [len(features.names) for features in engine.features.values()]
    number = np.dtype(np.float32).itemsize
    return OurCost(
        max(0.0, spent[0] - spent[1]), spent[1], number * sum(lengths),
        number * sum(n + n * n for n in lengths),
    )  # fmt: skip


def check_not_trained_on(cards: Sequence[Card], files: Sequence[Path]) -> None:
    """Refuse files that the encoders were trained on.

    Raises
    ------
    BenchError
        If there is one.
    """
    for card in cards:
        seen = {mark: name for name, mark in card.trained_on.items()}
        refuse_seen(files, seen, f"the published encoders of {card.task}")


class Published:
    """The published method over all users of a run.

    Parameters
    ----------
    encoders
        Gives a task's encoders by its name; asked once for each user fitted.
    fit
        Fits a head.
    allowance
        What labelling a new user may ask of the LLM.
    seed
        Draws pseudo-queries and the heads' random start.
    trained
        How each task's encoders were trained, to be told with the figures.
    """

    def __init__(
        self,
        encoders: Callable[[str], Encoders],
        fit: FitHead,
        allowance: Allowance,
        seed: int,
        trained: Mapping[str, JsonDict] = MappingProxyType({}),
    ) -> None:
        self.encoders = encoders
        self.fit = fit
        self.allowance = allowance
        self.seed = seed
        self.trained = trained
        self._fitted: WeakKeyDictionary[Subject, Fitted] = WeakKeyDictionary()
        self._costs: dict[str, list[tuple[Cost, OurCost]]] = {}
        self._asked: WeakKeyDictionary[Case, tuple[Completion, ...]] = WeakKeyDictionary()

    @classmethod
    def open(
        cls, folder: Path, files: Sequence[Path], allowance: Allowance, seed: int
    ) -> Published:
        """Take the encoders of a folder made by ``python -m export published``.

        Raises
        ------
        BundleError
            If the folder holds none.
        BenchError
            If they were trained on one of ``files``.
        """
        cards = read_cards(folder)
        check_not_trained_on(list(cards.values()), files)
        places = {card.task: place for place, card in cards.items()}
        loaded: dict[str, Encoders] = {}

        def encoders(task: str) -> Encoders:
            if task not in loaded:
                from export.published.build import load_encoders

                loaded.clear()  # one task at a time: two encoders are 180 MB
                loaded[task] = load_encoders(places[task])
            return loaded[task]

        trained = {
            card.task: {"users": card.users, "roles": card.roles, "files": card.files}
            for card in cards.values()
        }
        return cls(encoders, _fit_head, allowance, seed, trained)

    def check(self, tasks: Sequence[str]) -> None:
        """Refuse to measure what would fail once a task's users are fitted.

        Raises
        ------
        BenchError
            If there are no encoders of a task, or torch is missing.
        """
        if without := [task for task in tasks if task not in self.trained]:
            raise BenchError(
                f"There are no published encoders of {', '.join(without)}; there are those of "
                f"{', '.join(sorted(self.trained))}. Train them (python -m export published), or "
                "leave the task out with --task."
            )
        if importlib.util.find_spec("torch") is None:
            raise BenchError(
                "HYDRA as published cannot be measured: found no torch; expected an environment "
                "with the export extra (make test-export makes one). Run this by its Python."
            )

    @property
    def rows(self) -> tuple[Row, ...]:
        """The method, and each half of it beside the row of ours it compares with.

        ``published_reranker`` is to ``reranker_only``, and ``published_adapter`` to
        ``adapter_only``: the latter two choose from the very same candidates.
        """
        return (
            Row("hydra_published", self.answer),
            Row("published_reranker", self.answer_greedily),
            Row("published_adapter", self.choose_from, ("bm25",)),
        )

    def fitted(self, subject: Subject) -> Fitted:
        """Return a user's heads, fitting them at the first call.

        Raises
        ------
        BenchError, LeakError
            If anything but the records before the first query would be used.
        BackendError
            If the LLM does not answer; in a replay, if it was not asked before.
        """
        if subject not in self._fitted:
            fitted = self._fit(subject)
            self._fitted[subject] = fitted
            both = fitted.cost, our_cost(subject)
            self._costs.setdefault(subject.user.task, []).append(both)
        return self._fitted[subject]

    def _fit(self, subject: Subject) -> Fitted:
        user, edge = subject.user, subject.edge
        # Labelling is given the past alone, and still told where it ends: both must hold.
        past = UserHistory(user.user, user.task, user.records[:edge])
        check_history(past.records, user, edge)
        encoders = self.encoders(user.task)
        llm = Watched(subject.llm, {record.id for record in user.records[edge:]})
        task = task_before(past, edge, {subject.declared.name: subject.declared})
        queries = draw(past, edge, self.allowance.queries, seed=self.seed)
        tried = affordable(queries, self.allowance.record_calls)
        sampled = queries[: self.allowance.pools]
        labelled: dict[Role, Labelled] = {
            "reranker": label_records(llm, task, past, edge, tried),
            "adapter": label_pools(llm, task, past, edge, sampled),
        }
        heads: dict[Role, Head] = {}
        vector_s = head_s = vector_cpu_s = head_cpu_s = 0.0
        for role, of_role in labelled.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            vectors = encoders[role].encode([(p.first, p.second) for p in of_role.pairs])
            middle, middle_cpu = time.perf_counter(), time.process_time()
            labels = np.array([pair.label for pair in of_role.pairs], dtype=np.int64)
            heads[role] = self.fit(vectors, labels, seed=self._seed_of(subject, role))
            vector_s += middle - begin
            head_s += time.perf_counter() - middle
            vector_cpu_s += middle_cpu - begin_cpu
            head_cpu_s += time.process_time() - middle_cpu
        cost = Cost(
            labelled["reranker"].calls, labelled["adapter"].calls,
            sum(of_role.tokens for of_role in labelled.values()),
            sum(len(of_role.pairs) for of_role in labelled.values()),
            vector_s, head_s, vector_cpu_s, head_cpu_s,
            sum(head.size_bytes for head in heads.values()),
        )  # fmt: skip
        return Fitted(encoders, heads, cost)

    def _seed_of(self, subject: Subject, role: Role) -> int:
        name = f"{self.seed}\x1f{subject.user.task}\x1f{subject.user.user}\x1f{role}"
        return int(text_hash(name)[:8], 16)

    def shown(self, case: Case) -> tuple[Record, ...]:
        """Return the records shown, best first: of BM25's 10, those with the highest p(1).

        That BM25 is ours, by which its encoders were trained; the baselines' is rank-bm25's own.
        """
        records = case.history.records
        lexical = case.engine.lexical(case.history)
        listed = [records[i] for i in shortlist(lexical, case.query, len(records), LISTED)]
        pairs = [(case.query, record_text(record)) for record in listed]
        order = self._order(case, "reranker", pairs)[: SAMPLING.shown]
        return tuple(listed[i] for i in order)

    def chosen(self, case: Case, completions: Sequence[Completion]) -> str:
        """Return the sampled answer with the highest p(1); empty if all are blank."""
        drawn = [c.text for c in merge(completions, case.task) if c.count]
        order = self._order(case, "adapter", [(case.query, text) for text in drawn])
        return drawn[order[0]] if drawn else ""

    def _order(self, case: Case, role: Role, pairs: Sequence[tuple[str, str]]) -> list[int]:
        fitted = self.fitted(case.subject)
        vectors = fitted.encoders[role].encode(pairs)
        order: list[int] = best_first(fitted.heads[role].probability(vectors)).tolist()
        return order

    def _sampled(self, case: Case) -> tuple[Completion, ...]:
        """Return the answers to the records shown, asked once for all rows.

        None is drawn without records, as is none of those its adapter's head was fitted on.
        """
        if case not in self._asked:
            _, completions = case.ask(self.shown(case), n=SAMPLING.n, always_shown=True)
            self._asked[case] = tuple(completions)
        return self._asked[case]

    def answer(self, case: Case) -> Answer:
        """Answer by both heads."""
        completions = self._sampled(case)
        return Answer.of(self.chosen(case, completions), completions)

    def answer_greedily(self, case: Case) -> Answer:
        """Take the LLM's first answer to the records the reranker's head chose: one call."""
        completions = self._sampled(case)
        return Answer.of(completions[0].text, completions[:1])

    def choose_from(self, case: Case, sampled: Sampled) -> Answer:
        """Choose by the adapter's head from what was sampled with BM25's best."""
        return Answer.of(self.chosen(case, sampled.completions), sampled.completions)

    def costs(self, task: str) -> JsonDict:
        """Return what fitting a task's users cost: totals of answers, means of the rest.

        ``trained`` is how the task's encoders were made, with the sha256 of their files; ``ours``
        what our own fits of the same users took beside.
        """
        both = self._costs.get(task, [])
        if not both:
            return {"users": 0}
        costs, ours = zip(*both, strict=True)
        return {
            "users": len(costs),
            "trained": self.trained.get(task),
            "bytes_per_user": max(cost.size_bytes for cost in costs),
            "record_calls": sum(cost.record_calls for cost in costs),
            "pool_calls": sum(cost.pool_calls for cost in costs),
            "tokens": sum(cost.tokens for cost in costs),
            "pairs_per_user": float(np.mean([cost.pairs for cost in costs])),
            "vector_seconds": round(float(np.mean([cost.vector_s for cost in costs])), 3),
            "head_seconds": round(float(np.mean([cost.head_s for cost in costs])), 3),
            **_processor_seconds(costs),
            "ours": {
                "weight_bytes_per_user": max(cost.weight_bytes for cost in ours),
                "bytes_per_user": max(cost.size_bytes for cost in ours),
                **_processor_seconds(ours),
            },
        }


def _processor_seconds(costs: Sequence[Cost] | Sequence[OurCost]) -> JsonDict:
    """Return the mean seconds a user, in the encoder and in fitting, however busy the machine."""
    return {
        "vector_processor_seconds": round(float(np.mean([c.vector_cpu_s for c in costs])), 3),
        "head_processor_seconds": round(float(np.mean([c.head_cpu_s for c in costs])), 3),
    }


def _fit_head(vectors: Float2d, labels: Int1d, *, seed: int) -> Head:
    from export.published.train import fit_head

    return fit_head(vectors, labels, seed=seed)
