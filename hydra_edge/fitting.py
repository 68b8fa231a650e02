"""Fitting a user's two heads for one task on the device, and reporting whether they help."""

from __future__ import annotations

import itertools
import time

import numpy as np

from hydra_edge.active import ActiveHead, prior_for
from hydra_edge.engine import Engine
from hydra_edge.evaluate import Verdict, judge
from hydra_edge.heads import Groups
from hydra_edge.history import History
from hydra_edge.learning import choice_item, spread_target
from hydra_edge.llm import LLM
from hydra_edge.pools import Budget, PoolData, PoolRun, Sampling, collect, pool_data
from hydra_edge.reranker import proxy_data
from hydra_edge.types import (
    FitReport,
    HeadState,
    Int1d,
    Progress,
    ReportRow,
    Role,
    RoleReport,
)

ROWS = ("unpersonalized", "prompt-only RAG", "shared head", "my head")


def _save(
    engine: Engine, history: History, role: Role, verdict: Verdict, rows: tuple[ReportRow, ...]
) -> int:
    table = [{"name": r.name, "utility": r.utility, "n": r.n, "note": r.note} for r in rows]
    state = engine.store.save_head(
        HeadState(
            task=history.task.name,
            role=role,
            base_id=engine.bundle.base_id,
            features=engine.features[role].names,
            weight=verdict.head.weight_.astype(np.float32),
            precision=verdict.head.precision_.astype(np.float32),
            switch=verdict.switch,
            n_queries=len(verdict.baseline),
            prior_scale=verdict.scale,
            report=verdict.report() | {"rows": table},
        )
    )
    return state.version


def _role_report(
    role: Role, verdict: Verdict, rows: tuple[ReportRow, ...], version: int | None
) -> RoleReport:
    return RoleReport(
        role=role,
        switch=verdict.switch,
        reason=verdict.reason,
        rows=rows,
        shared_over_baseline=verdict.shared_over_baseline,
        personal_over_shared=verdict.personal_over_shared,
        n_queries=len(verdict.baseline),
        prior_scale=verdict.scale,
        version=version,
    )


def _nothing(role: Role, why: str) -> RoleReport:
    rows = tuple(ReportRow(name, None, 0, why) for name in ROWS)
    return RoleReport(role, "shared", why, rows, None, None, 0, 1.0, None)


def _reranker_rows(groups: Groups, verdict: Verdict) -> tuple[ReportRow, ...]:
    """Report on records chosen, by proxy utility: how well their outputs foretell the user's."""
    sizes = np.diff(groups.offsets)
    means = np.add.reduceat(groups.utilities, groups.offsets[:-1]) / np.maximum(sizes, 1)
    held = means[verdict.held_out]
    n = len(held)
    note = "agreement of the records shown with what I wrote; no LLM asked"
    return (
        ReportRow(ROWS[0], float(held.mean()) if n else None, n, "records taken at random"),
        ReportRow(ROWS[1], verdict.mean("baseline"), n, "BM25's best records"),
        ReportRow(ROWS[2], verdict.mean("shared"), n, note),
        ReportRow(ROWS[3], verdict.mean("personal"), n, note),
    )


def fit_reranker(
    engine: Engine, history: History, *, shown: int, progress: Progress | None = None
) -> tuple[RoleReport, Int1d]:
    """Fit, judge and store the reranker's head from proxy utilities (design 5.4).

    Returns
    -------
    tuple of RoleReport and Int1d
        The report, and the positions in the history the head could learn from.
    """
    role: Role = "reranker"
    if len(history) < 3:
        return _nothing(role, "fewer than three records"), np.zeros(0, dtype=np.int64)
    data = proxy_data(
        engine.features[role], history, engine.lexical(history),
        helped=engine.store.helped_counts(history.task.name), progress=progress,
    )  # fmt: skip
    prior = prior_for(engine.bundle, history.task, role)
    verdict = judge(data.groups, prior, engine.baseline(role), top=shown)
    rows = _reranker_rows(data.groups, verdict)
    version = _save(engine, history, role, verdict, rows)
    spread = [
        bool(np.ptp(data.groups.utilities[a:b]) > 0.0) if b > a else False
        for a, b in itertools.pairwise(data.groups.offsets)
    ]
    return _role_report(role, verdict, rows, version), data.position[np.array(spread, dtype=bool)]


def _adapter_rows(data: PoolData, verdict: Verdict) -> tuple[ReportRow, ...]:
    """Report on answers, on the pseudo-queries that were answered in every way."""
    n = len(data.items)
    both = np.isfinite(data.zero) & np.isfinite(data.rag)
    held = np.zeros(n, dtype=bool)
    held[n // 2 :] = True
    use = both & held if (both & held).any() else both
    if not use.any():
        note = "not compared with plain answers yet"
        mine = (
            ReportRow(ROWS[2], verdict.mean("shared"), n - n // 2),
            ReportRow(ROWS[3], verdict.mean("personal"), n - n // 2),
        )
        return (ReportRow(ROWS[0], None, 0, note), ReportRow(ROWS[1], None, 0, note), *mine)
    means = (
        float(data.zero[use].mean()),
        float(data.rag[use].mean()),
        float(verdict.shared[:n][use].mean()),
        float(verdict.personal[:n][use].mean()),
    )
    count = int(use.sum())
    return tuple(ReportRow(name, mean, count) for name, mean in zip(ROWS, means, strict=True))


def fit_adapter(engine: Engine, history: History, model: str | None) -> RoleReport:
    """Fit, judge and store the adapter's head from stored pools and the user's choices."""
    role: Role = "adapter"
    data = pool_data(engine, history, model)
    prior = prior_for(engine.bundle, history.task, role)
    choices = [
        choice_item(engine, history, choice, prior.tau)
        for choice in engine.store.choices(history.task.name)
    ]
    if not data.items and not choices:
        return _nothing(role, "no candidates yet: they need an LLM, or choices of yours")
    groups = Groups.stack(
        [*data.items, *((item.features, item.utilities) for item in choices)],
        dim=len(engine.features[role].names),
        targets=[
            *(spread_target(utilities, prior.tau) for _, utilities in data.items),
            *(item.target for item in choices),
        ],
    )
    verdict = judge(groups, prior, engine.baseline(role), top=1)
    rows = _adapter_rows(data, verdict)
    return _role_report(role, verdict, rows, _save(engine, history, role, verdict, rows))


def fit_task(
    engine: Engine,
    task_name: str,
    *,
    llm: LLM | None,
    sampling: Sampling,
    budget: Budget,
    progress: Progress | None = None,
) -> FitReport:
    """Fit both heads of one task (design 1, 5.4, 5.5).

    Parameters
    ----------
    llm
        None: the reranker is fitted from proxies, the adapter from stored pools and choices.
    sampling, budget
        How candidates are drawn, and what may be spent on them now.
    """
    started = time.monotonic()
    embedded, reused = engine.encoder.embedded, engine.encoder.reused
    task = engine.task(task_name)
    history = engine.history(task, progress=progress)
    reranker, informative = fit_reranker(engine, history, shown=sampling.shown, progress=progress)
    run = PoolRun(reused=len(engine.store.pools(task.name, purpose="pool")))
    if llm is not None:
        head: ActiveHead = engine.active(task, "reranker")
        run = collect(engine, llm, head, history, informative, sampling, budget, progress=progress)
    adapter = fit_adapter(engine, history, None if llm is None else llm.name)
    return FitReport(
        task=task.name,
        kind=task.kind,
        records=len(history),
        roles=(reranker, adapter),
        texts_embedded=engine.encoder.embedded - embedded,
        vectors_reused=engine.encoder.reused - reused,
        llm_calls=run.calls,
        pools_made=run.made,
        pools_reused=run.reused,
        seconds=time.monotonic() - started,
        notes=run.notes,
    )
