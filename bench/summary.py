"""A task's figures, put together from its users' results: what the JSON holds and tables show.

Owns the names of the keys. Figures that do not exist (a ratio to zero, a row nobody could
answer) are None, never a number in their place.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np

from bench.metrics import metrics_of
from bench.rows import ROWS, Row
from bench.run import QueryResult, TaskRun, UserResult
from bench.stats import (
    Interval,
    PerUser,
    finite,
    headroom,
    helped_and_harmed,
    means,
    paired,
    relative,
)
from hydra_edge.spelling import number
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import JsonDict

# Rows that a run must be asked for have a place in every result, so that readers find it there.
ON_REQUEST = ("hydra_published",)
NOT_MEASURED: JsonDict = {"utility": None, "metrics": {}, "llm_calls": 0, "tokens": 0}


def _per_user(results: Sequence[UserResult], row: str) -> PerUser | None:
    """Return a row's utilities by user; None unless every user's every query has one."""
    values = [result.utilities(row) for result in results]
    return None if any(v is None for v in values) else [v for v in values if v is not None]


def overall_spec(results: Sequence[UserResult]) -> TaskSpec:
    """Return the task with the closed set of all queries together."""
    specs = [query.task for result in results for query in result.queries]
    labels = {label for spec in specs for label in spec.labels}
    if specs[0].kind == "rating":
        return replace(specs[0], labels=tuple(sorted(labels, key=lambda x: number(x) or 0.0)))
    return replace(specs[0], labels=tuple(sorted(labels)))


def _row(
    results: Sequence[UserResult], row: Row, values: PerUser | None, task: TaskSpec
) -> JsonDict:
    """Return one row's figures; metrics are over all queries of all users.

    ``llm_calls`` are answers asked for, eight of a pool; ``tokens`` those written, not those read:
    what a prompt takes is not kept with its answers.
    """
    answered = [
        (query.answers[row.name], query.truth)
        for result in results
        for query in result.queries
        if row.name in query.answers
    ]
    texts = [(t, truth, w) for a, truth in answered
             for t, w in zip(a.texts, a.weights, strict=True)]  # fmt: skip
    asked = [r.fixed[row.name] for r in results if row.name in r.fixed]
    calls = sum(a.calls for a, _ in answered) + len(asked)
    tokens = sum(a.tokens for a, _ in answered) + sum(c.tokens for c in asked)
    metrics: dict[str, float] = {}
    if values is not None:
        said, true, weights = zip(*texts, strict=True)
        metrics = metrics_of(said, true, weights, task)
    return {
        "utility": None if values is None else float(means(values).mean()),
        "metrics": metrics,
        "llm_calls": calls,
        "tokens": round(tokens),
    }


def _rows(
    results: Sequence[UserResult],
    rows: Sequence[Row],
    utilities: dict[str, PerUser],
    task: TaskSpec,
) -> JsonDict:
    made = {row.name: _row(results, row, utilities.get(row.name), task) for row in rows}
    return made | {name: NOT_MEASURED for name in ON_REQUEST if name not in made}


def _best(utilities: dict[str, PerUser], rows: Sequence[Row]) -> str:
    names = [row.name for row in rows if row.name in utilities]
    return max(names, key=lambda name: float(means(utilities[name]).mean()))


def _difference(utilities: dict[str, PerUser], a: str, b: str, seed: int) -> JsonDict:
    if a not in utilities or b not in utilities:
        return {"mean": None, "low": None, "high": None}
    return {**paired(utilities[a], utilities[b], seed=seed).as_dict()}


def seen_or_not(results: Sequence[UserResult], seen: Set[str]) -> JsonDict:
    """Give every row's utility on queries whose very text is among ``seen``, and on the others.

    Other people may have answered the same text: a film is tagged by many. What a base knows of
    a text it was trained on, it need not know of another.
    """
    queries = [query for result in results for query in result.queries]
    parts = {
        "seen": [query for query in queries if query.text in seen],
        "unseen": [query for query in queries if query.text not in seen],
    }
    names = dict.fromkeys(name for query in queries for name in query.utilities)
    return {
        "queries": {part: len(of_part) for part, of_part in parts.items()},
        "rows": {
            name: {part: _mean(of_part, name) for part, of_part in parts.items()} for name in names
        },
    }


def _mean(queries: Sequence[QueryResult], row: str) -> float | None:
    if not queries or any(row not in query.utilities for query in queries):
        return None
    return float(np.mean([query.utilities[row] for query in queries]))


def summarise(
    run: TaskRun,
    seed: int,
    rows: Sequence[Row] = ROWS,
    seen: Set[str] | None = None,
    known: Set[str] | None = None,
) -> JsonDict:
    """Put a task's figures together; intervals are over users, 90 %.

    ``seen`` are inputs the base was trained on, ``known`` people whose records of this task were
    among them; None if nobody says which.

    All are of the ``users`` who were measured. Where a replay lacked answers of some, or the LLM
    broke down on them, it is not ``complete``: with these the figures would be others, and they
    enter no mean. Where nobody was measured there is a ``reason``, and no figure but counts of
    people.
    """
    results = run.results
    people: JsonDict = {
        "complete": bool(results) and not run.missing,
        "note": run.data.note,
        "users": len(results),
        "users_available": len(run.data.able) + run.data.unread,
        "users_too_short": run.data.too_short,
        "users_failed": run.failed,
        "users_missing": sorted(run.missing),
    }
    if not results:
        return people | {"kind": run.data.spec.kind, "reason": run.why}
    spec = overall_spec(results)
    utilities = {
        row.name: values for row in rows if (values := _per_user(results, row.name)) is not None
    }
    gated = utilities["gated"]
    best = _best(utilities, [row for row in rows if row.baseline == "paper"])
    best_any = _best(utilities, [row for row in rows if row.baseline])
    gain = relative(gated, utilities[best], spec, seed=seed)
    gain_any = relative(gated, utilities[best_any], spec, seed=seed)
    shares = helped_and_harmed(gated, utilities[best])
    mean = {name: float(means(values).mean()) for name, values in utilities.items()}
    switches = [result.switch for result in results]
    return people | {
        "kind": spec.kind,
        "queries": sum(len(result.queries) for result in results),
        "targets_in_input": sum(q.target_in_input for r in results for q in r.queries),
        "targets_in_history": sum(q.target_in_history for r in results for q in r.queries),
        "seen_in_training": None if seen is None else seen_or_not(results, seen),
        "users_seen": None if known is None else sum(r.user in known for r in results),
        "best_prompt_only": best,
        "relative_gain": finite(gain.mean),
        "gain_interval": _bounds(gain),
        "gain": paired(gated, utilities[best], seed=seed).as_dict(),
        "best_any": best_any,
        "relative_gain_any": finite(gain_any.mean),
        "gain_interval_any": _bounds(gain_any),
        "gain_over_consensus": _difference(utilities, "gated", "consensus", seed),
        "gain_over_published": _difference(utilities, "gated", "hydra_published", seed),
        "users_helped": shares.helped,
        "users_harmed": shares.harmed,
        "headroom": headroom(mean["gated"], mean["reranker_only"], mean["oracle"]),
        "personal_minus_shared": _difference(utilities, "personal", "shared", seed),
        "personal_minus_shuffled": _difference(utilities, "personal", "shuffled", seed),
        "switches": {s: switches.count(s) for s in sorted(set(switches))},
        "fit_llm_calls": sum(result.fit_calls for result in results),
        "growth": run.growth,
        "growth_left_out": run.not_grown,
        "rows": _rows(results, rows, utilities, spec),
    }


def _bounds(interval: Interval) -> list[float | None]:
    return [finite(interval.low), finite(interval.high)]


def is_complete(task: JsonDict) -> bool:
    """Tell whether a task has all of its users; results from before that was noted have."""
    return bool(task.get("complete", True))


def why_no_mean(tasks: dict[str, JsonDict], key: str, best: str) -> str:
    """Say why there is no mean of a ratio over tasks; nothing if there is one.

    ``best`` is the key of the row that it is a ratio to.
    """
    if not tasks:
        return "no task was measured"
    if odd := [name for name, task in tasks.items() if not is_complete(task)]:
        return f"{', '.join(odd)} lacks people who were drawn"
    if odd := [f"{name}'s {task[best]}" for name, task in tasks.items() if task[key] is None]:
        return f"there is no ratio to what is worth nothing, or has no error: {', '.join(odd)}"
    return ""


def mean_of(tasks: dict[str, JsonDict], key: str, best: str) -> float | None:
    """Return the mean of a ratio over tasks; None where ``why_no_mean`` has a reason."""
    if why_no_mean(tasks, key, best):
        return None
    return float(np.mean([task[key] for task in tasks.values()]))
