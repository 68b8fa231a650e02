"""Fitting users' heads and answering their queries in every way, user by user.

Owns the order of things: all users of a task are fitted first, so that one can borrow
another's heads; a query joins the history only after it was answered. A user whom the LLM
fails is reported with the reason, never left out silently: without them it is no measurement
of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np

from bench.case import Case, Subject
from bench.datasets import TaskData, growth_sizes, growth_users
from bench.guard import Watched, check_history, target_in_input
from bench.rows import ROWS, Answer, Row
from bench.stats import PerUser, bootstrap
from export.data import UserHistory, has_twin, sample_users
from export.label import SAMPLING
from hydra_edge.bundle import Bundle
from hydra_edge.buying import Budget
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.fitting import fit_task
from hydra_edge.llm import LLM
from hydra_edge.store import Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Double1d, JsonDict, Progress, Record

GROWTH = "growth: "  # before why a user is not in the curve of growth alone
GATED = tuple(row for row in ROWS if row.name == "gated")


@dataclass(frozen=True, eq=False)
class Bench:
    """What every user is measured with."""

    bundle: Bundle
    encoder: TextEncoder
    llm: LLM
    queries: int
    fit_pools: int
    seed: int


@dataclass(frozen=True, eq=False)
class QueryResult:
    """One query's truth and what every row answered, the oracle's already resolved.

    ``task`` is what utilities are of: a rating's span is that of all users, not of one's answers.
    """

    text: str
    truth: str
    task: TaskSpec
    answers: dict[str, Answer]
    utilities: dict[str, float]
    target_in_input: bool
    target_in_history: bool


@dataclass(frozen=True, eq=False)
class UserResult:
    """One user's queries in order; ``switch`` is the gate's choice for reranker/adapter."""

    user: str
    switch: str
    fit_calls: int
    queries: tuple[QueryResult, ...]
    fixed: dict[str, Completion]

    def utilities(self, row: str) -> Double1d | None:
        """Return a row's utility by query, shape ``(n_queries,)``; None if it did not answer."""
        if any(row not in q.utilities for q in self.queries):
            return None
        return np.array([q.utilities[row] for q in self.queries])


@dataclass(eq=False)
class TaskRun:
    """What measuring one task gave: results, and who failed with the reason.

    ``missing`` are those of them whom the LLM may answer another time: it broke down, or a replay
    does not have its answers. Not so those whose prompts it has no room for. Without any result
    ``why`` says what failed the first. ``not_grown`` says of the sizes that a curve of growth was
    wanted for and does not have why not.
    """

    data: TaskData
    results: list[UserResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    growth: list[JsonDict] = field(default_factory=list)
    not_grown: str = ""

    @property
    def why(self) -> str:
        """Why nobody was measured; empty if somebody was."""
        if self.results:
            return ""
        return (
            f"Nobody of {self.data.name} could be measured; the first of {len(self.failed)} users "
            f"failed with: {next(iter(self.failed.values()))}"
        )

    def fail(self, user: str, err: BackendError, stage: str = "") -> None:
        """Note whom the LLM failed; what first failed a user stays."""
        self.failed.setdefault(user, f"{stage}{err}")
        if not isinstance(err, ContextLengthError):
            self.missing.add(user)


def fit_user(
    bench: Bench, data: TaskData, user: UserHistory, records: Sequence[Record] | None = None
) -> Subject:
    """Fit a user's heads on the records before their first query, or on ``records`` of those.

    Raises
    ------
    BackendError
        If the LLM failed even once: heads of half the pools would be another measurement.
    """
    edge = len(user.records) - bench.queries
    known = user.records[:edge] if records is None else tuple(records)
    check_history(known, user, edge)
    store = Store.in_memory()
    store.add(known)
    engine = Engine(store, bench.bundle, bench.encoder, data.custom)
    llm = Watched(bench.llm, {record.id for record in user.records[edge:]}, as_device=True)
    budget = Budget(calls=bench.fit_pools * SAMPLING.n, seconds=None)
    try:
        report = fit_task(engine, user.task, llm=llm, sampling=SAMPLING, budget=budget)
        if llm.failure is not None:
            raise llm.failure
    except BaseException:
        store.close()
        raise
    return Subject(
        user, engine, data.spec, bench.llm, edge, bench.seed,
        heads={"reranker": store.head(user.task, "reranker"),
               "adapter": store.head(user.task, "adapter")},
        switch="/".join(role.switch for role in report.roles),
        fit_calls=report.llm_calls,
    )  # fmt: skip


def answer_query(subject: Subject, position: int, rows: Sequence[Row]) -> QueryResult:
    """Answer one query in every way, and only then look at the truth."""
    case = Case(subject, position)
    given = {row.name: row(case) for row in rows}
    record = subject.user.records[position]
    truth = record.output
    # The span that the user's own answers so far make would be another one for every user.
    of_all = subject.declared.kind == "rating" and subject.declared.labels
    task = subject.declared if of_all else case.task
    answers = {
        name: answer.resolved(truth, task) for name, answer in given.items() if answer is not None
    }
    return QueryResult(
        record.input,
        truth,
        task,
        answers,
        {name: answer.utility(truth, task) for name, answer in answers.items()},
        target_in_input(record, subject.declared),
        has_twin(subject.user, position),
    )


def answer_user(
    subject: Subject, rows: Sequence[Row] = ROWS, *, growing: bool = True
) -> UserResult:
    """Answer all queries of a user, oldest first.

    Parameters
    ----------
    growing
        Whether an answered query joins the history of the next.
    """
    queries = []
    for position in range(subject.edge, len(subject.user.records)):
        queries.append(answer_query(subject, position, rows))
        if growing:
            subject.engine.store.add([subject.user.records[position]])
    fixed = {row.name: row.fixed(subject) for row in rows if row.fixed is not None}
    return UserResult(subject.user.user, subject.switch, subject.fit_calls, tuple(queries), fixed)


def lend_heads(subjects: Sequence[Subject]) -> None:
    """Give every user the next one's heads to borrow; a user alone has nobody's."""
    if len(subjects) < 2:
        return
    for subject, donor in zip(subjects, [*subjects[1:], subjects[0]], strict=True):
        subject.donor = donor


def run_task(bench: Bench, data: TaskData, report: Progress, rows: Sequence[Row] = ROWS) -> TaskRun:
    """Measure the users of one task.

    Raises
    ------
    BenchError
        If there is a leak.
    """
    run = TaskRun(data)
    subjects: list[Subject] = []
    with ExitStack() as opened:
        for done, user in enumerate(data.users, start=1):
            try:
                subject = fit_user(bench, data, user)
                opened.callback(subject.engine.store.close)
                subjects.append(subject)
            except BackendError as err:
                run.fail(user.user, err)
            report("fit", done, len(data.users))
        lend_heads(subjects)
        for done, subject in enumerate(subjects, start=1):
            try:
                run.results.append(answer_user(subject, rows))
            except BackendError as err:
                run.fail(subject.user.user, err)
            report("answer", done, len(subjects))
    return run


def grow(bench: Bench, run: TaskRun, sizes: Sequence[int], report: Progress) -> None:
    """Measure the gated answer against the number of records before the queries.

    All sizes are measured on the same users, drawn anew from everyone with enough records for the
    largest, as many as were drawn for the rows; sizes for which too few have enough are left out,
    and the run says so.
    """
    edges = [len(user.records) - bench.queries for user in run.data.able]
    able = growth_sizes(edges, sizes, len(run.data.users))
    if left := sorted(set(sizes).difference(able)):
        run.not_grown = (
            f"{', '.join(map(str, left))}: a curve of growth takes "
            f"{growth_users(len(run.data.users))} people with as many records before their queries"
        )
    if not able:
        return
    users = sample_users(
        run.data.able, len(run.data.users), least=able[-1] + bench.queries, seed=bench.seed
    )  # fmt: skip
    rows: dict[int, list[UserResult]] = {size: [] for size in able}
    for done, user in enumerate(users, start=1):
        edge = len(user.records) - bench.queries
        try:
            of_user = []
            for size in able:
                subject = fit_user(bench, run.data, user, user.records[edge - size : edge])
                with closing(subject.engine.store):
                    of_user.append(answer_user(subject, GATED, growing=False))
        except BackendError as err:
            run.fail(user.user, err, GROWTH)
        else:
            for size, result in zip(able, of_user, strict=True):
                rows[size].append(result)
        report("growth", done, len(users))
    for size, results in rows.items():
        if results:
            values: PerUser = [u for r in results if (u := r.utilities("gated")) is not None]
            interval = bootstrap(np.array([v.mean() for v in values]), seed=bench.seed)
            run.growth.append(
                {"records": size, "users": len(values), "utility": interval.mean,
                 "low": max(0.0, interval.low), "high": min(1.0, interval.high)}
            )  # fmt: skip
