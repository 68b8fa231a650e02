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
from hydra_edge.reasons import EARLIER, LEFT_OUT
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Bool1d, Double1d, ReportRow, Role, RoleReport

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


def adapter_rows(evidence: AdapterEvidence, verdict: Verdict) -> tuple[ReportRow, ...]:
    """Report on answers, on the pseudo-queries that were answered in every way.

    They are those of the half that the head is judged on; earlier ones where that has none, and
    those that were left out where there are no others.
    """
    data, place = evidence.pools, evidence.of_pool
    if len(place):
        held = place >= verdict.held_out.start
        note = "" if held.any() else EARLIER
        return _rows(data, verdict.shared[place], verdict.personal[place], held, note)
    if gone := evidence.left_out.items:
        groups = Groups.stack(gone, dim=evidence.groups.dim)
        everywhere = np.ones(len(gone), dtype=bool)
        return _rows(evidence.left_out, *verdict.elsewhere(groups), everywhere, LEFT_OUT)
    # Choices alone: what was taken says nothing of what else there was.
    note = "learned from your choices alone, not from answers to your own records"
    return tuple(ReportRow(name, None, 0, note) for name in ROWS)


def _rows(
    data: PoolData, shared: Double1d, personal: Double1d, held: Bool1d, note: str
) -> tuple[ReportRow, ...]:
    """Report on pools, all but ``data`` of shape ``(n_pools,)``; on those held out, if any are."""
    both = np.isfinite(data.zero) & np.isfinite(data.rag)
    compared = both.any()
    of = both if compared else np.ones(len(both), dtype=bool)
    use = of & held if (of & held).any() else of
    count = int(use.sum())
    plain = (
        [ReportRow(name, float(u[use].mean()), count, note)
         for name, u in zip(ROWS, (data.zero, data.rag), strict=False)]
        if compared
        else [ReportRow(name, None, 0, "not compared with plain answers yet") for name in ROWS[:2]]
    )  # fmt: skip
    mine = (
        ReportRow(name, float(u[use].mean()), count, note)
        for name, u in zip(ROWS[2:], (shared, personal), strict=True)
    )
    return (*plain, *mine)


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
