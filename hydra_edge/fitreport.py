"""What a fit says: the rows of its report, why nothing was fitted, and remarks on a history."""

from __future__ import annotations

from reprlib import repr as short  # short, and escapes what a terminal would act on

import numpy as np

from hydra_edge.active import outdated
from hydra_edge.engine import Engine
from hydra_edge.evaluate import Verdict
from hydra_edge.evidence import AdapterEvidence, PoolData
from hydra_edge.heads import Groups
from hydra_edge.history import History
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import ReportRow, Role, RoleReport

ROWS = ("unpersonalized", "prompt-only RAG", "shared head", "my head")
# With a larger share of answers that a closed set has not, they are no slips.
_SLIPS = 0.05
_NAMED = 5  # labels that a remark names, at most
_LOOKED_AT = 100  # latest inputs that are looked at for words the base knows


def role_report(
    role: Role, verdict: Verdict, rows: tuple[ReportRow, ...], version: int | None
) -> RoleReport:
    """Report on a head that was fitted; ``version`` is None while it is not stored."""
    return RoleReport(
        role=role,
        switch=verdict.switch,
        reason=verdict.reason,
        rows=rows,
        shared_over_baseline=verdict.shared_over_baseline,
        personal_over_shared=verdict.personal_over_shared,
        n_queries=len(verdict.baseline),
        prior_scale=verdict.head.prior_scale,
        version=version,
    )


def not_fitted(engine: Engine, task: TaskSpec, role: Role, why: str) -> RoleReport:
    """Report that no head was fitted, ``why``, and what serves instead."""
    rows = tuple(ReportRow(name, None, 0, why) for name in ROWS)
    kept = engine.store.head(task.name, role)
    if kept is not None and not kept.stale:  # one imported, or taught by what is there no more
        idle = outdated(kept, engine.bundle, task.kind)
        why += f"; your head v{kept.version} {f'{idle} and does not serve' if idle else 'stays'}"
    switch = engine.active(task, role).info.switch
    return RoleReport(role, switch, why, rows, None, None, 0, 1.0, None)


def reranker_rows(groups: Groups, verdict: Verdict) -> tuple[ReportRow, ...]:
    """Report on records chosen, by proxy utility: how well their outputs foretell the user's.

    Each row chooses among the same records of a pseudo-query, near ones for the most part, so
    that the first row is more than records drawn from the whole history would be worth.
    """
    sizes = np.diff(groups.offsets)  # none is 0, and there is a query
    means = np.add.reduceat(groups.utilities, groups.offsets[:-1]) / sizes
    held = means[verdict.held_out]
    n = len(held)
    note = "best of the records compared; agreement with what I wrote; no LLM asked"
    return (
        ReportRow(ROWS[0], float(held.mean()), n, "any of the records compared"),
        ReportRow(ROWS[1], verdict.mean("baseline"), n, "BM25's best records"),
        ReportRow(ROWS[2], verdict.mean("shared"), n, note),
        ReportRow(ROWS[3], verdict.mean("personal"), n, note),
    )


def adapter_rows(data: PoolData, verdict: Verdict) -> tuple[ReportRow, ...]:
    """Report on answers, on the pseudo-queries that were answered in every way."""
    n = len(data.items)
    both = np.isfinite(data.zero) & np.isfinite(data.rag)
    held = np.zeros(n, dtype=bool)
    held[n // 2 :] = True
    use = both & held if (both & held).any() else both
    if not n:  # choices alone: what was taken says nothing of what else there was
        note = "learned from your choices alone, not from answers to your own records"
        return tuple(ReportRow(name, None, 0, note) for name in ROWS)
    if not use.any():
        note = "not compared with plain answers yet"
        mine = (
            ReportRow(ROWS[2], float(verdict.shared[:n][held].mean()), int(held.sum())),
            ReportRow(ROWS[3], float(verdict.personal[:n][held].mean()), int(held.sum())),
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


def changed_habit(evidence: AdapterEvidence) -> str:
    """Say that a head learns from the latest evidence only, because what came before differs."""
    kept = evidence.groups.n_groups
    return (
        f"learned from the latest {kept} of {kept + evidence.outdated} queries, as the earlier "
        "ones say otherwise"
    )


def foreign_answers(history: History) -> tuple[str, ...]:
    """Say that many answers are none of a closed task's, as 4/5 is no rating; nothing of slips."""
    count, task = len(history.outsiders), history.task
    if count <= _SLIPS * len(history):
        return ()
    given = [history.records[i] for i in history.outsiders.tolist()]
    one = next((f", such as {short(r.output)}" for r in given if not r.private), "")
    labels = ", ".join(task.labels[:_NAMED]) + (", ..." if len(task.labels) > _NAMED else "")
    return (
        f"{count} of {len(history)} answers are none of {task.name}'s{one}; they teach nothing. "
        f"Give them as one of {labels}, or name another task.",
    )


def unread_inputs(engine: Engine, history: History) -> tuple[str, ...]:
    """Say that the base knows few words of most inputs: such texts look the same to it."""
    latest = [record.input for record in history.records[-_LOOKED_AT:]]
    unread = engine.encoder.unread(latest)
    if 2 * unread <= len(latest):
        return ()
    return (
        f"the base knows few or no words of {unread} of the latest {len(latest)} inputs: it was "
        "not trained on their script; records are compared by the words they share",
    )
