"""HYDRA as published beside ours: the sentences of the README, the tables of docs/measured.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from _tables import BASE, explained, grid, interval, marked, results, utilities

from bench.goals import PUBLISHED_BYTES, PUBLISHED_SECONDS

ROWS = ("rag_k4", "hydra_published", "published_reranker", "published_adapter", "adapter_only")
HEADINGS = (
    "task", "users its encoders learned from; steps", "BM25's first 4, greedy",
    "HYDRA as published", "its reranker, greedy", "its adapter, BM25's records",
    "our adapter, the same answers", "**gated**", "ours over it", "our adapter over its",
    "its bytes a user", "ours", "its processor seconds a user", "ours", "its LLM calls a user",
    "ours",
)  # fmt: skip


def against_published() -> str:
    """Return what the comparisons with HYDRA as published come to, in three sentences."""
    stored = results("published-*")
    if not stored:
        return ""
    named = [one for result in stored for one in result["tasks"].items()]
    tasks = [task for _, task in named]
    stars = next((f" {line.strip()}" for result in stored for line in explained(result)), "")
    gains = [task["gain_over_published"] for task in tasks]
    costs = [task["published"] for task in tasks]
    sure = sum(gain["low"] > 0 for gain in gains)
    ours = max(task["fit_llm_calls"] / task["users"] for task in tasks)
    sizes = [cost["ours"] for cost in costs if "ours" in cost]
    size = (
        f" and {max(one['bytes_per_user'] for one in sizes) / 1e3:.1f} kB, "
        f"{max(one['weight_bytes_per_user'] for one in sizes) / 1e3:.1f} of them weights"
        if sizes
        else ""
    )
    return (
        f"Of {len(tasks)} comparisons with HYDRA as published (same LLM, users and number of "
        f"candidates; its encoders learned from {_span(c['trained']['users'] for c in costs)} "
        f"users a task, our base from {_span(learned_from(name) for name, _ in named)}; its "
        f"candidates are drawn for its own records) ours is better in "
        f"{sum(gain['mean'] > 0 for gain in gains)}, with an interval above 0 in {sure}, by "
        f"{_span((gain['mean'] for gain in gains), '.3f')}; choosing among the very same answers, "
        f"by {_span(map(same_answers, tasks), '.3f')}. "
        f"Trained so, it stays below plain BM25 (4 records, one greedy answer) in "
        f"{sum(map(is_below_bm25, tasks))} of {len(tasks)}. "
        f"Its heads took {_span(map(calls, tasks), '.0f')} LLM calls a user and "
        f"{max(cost['bytes_per_user'] for cost in costs) / 1e6:.1f} MB, ours {ours:.0f} calls"
        f"{size}.{stars}\n"
    )


def published(results: list[dict[str, Any]]) -> str:
    """Return one LLM's comparison with HYDRA as published, a result for each task."""
    one = results[0]
    tasks = [task for result in results for task in result["tasks"].values()]
    users = _span(task["published"]["trained"]["users"] for task in tasks)
    title = (
        "Against HYDRA as published (a cross-encoder for each role from the same MiniLM, a "
        "two-layer head for each user and role; `python -m export published` trains it, here on "
        f"{users} users a task, which may be too few for it: in {sum(map(is_below_bm25, tasks))} "
        f"of {len(tasks)} tasks it stays below BM25's first 4 records), LLM **{one['llm']}**. "
        "It chooses among answers to its own records; the two adapters among the very same ones. "
        "Bytes are of weights, ours also with the statistics that a fit needs to go on from; "
        "seconds of the encoder and of the fit, without the LLM, where both sides were timed "
        f"(for each task `{one['command'].replace(next(iter(one['tasks'])), 'TASK')}`):\n"
    )
    rows = [
        _row(marked(name, result), task)
        for result in results
        for name, task in result["tasks"].items()
    ]
    stars = [line for result in results for line in explained(result)]
    return "\n".join(
        [title, *grid(HEADINGS, rows), *stars[:1], *_elsewhere(results), *targets(tasks)]
    )


def _elsewhere(results: Sequence[dict[str, Any]]) -> list[str]:
    """Name the tasks of a processor on which our own figures are not to the digit those above."""
    found = [
        name
        for result in results
        if isinstance(made := result.get("machine"), dict) and "avx512" in (made["isa"] or "")
        for name in result["tasks"]
    ]
    said = "\nOn a processor with AVX-512, where ours is not to the digit as above: "
    return [f"{said}{', '.join(found)}."] if found else []


def _row(name: str, task: dict[str, Any]) -> list[str]:
    worth, cost = utilities(task), task["published"]
    steps = " and ".join(str(role["steps"]) for role in cost["trained"]["roles"].values())
    ours = cost.get("ours")
    return [
        name, f"{cost['trained']['users']}; {steps}", *(f"{worth[row]:.3f}" for row in ROWS),
        f"**{worth['gated']:.3f}**", interval(task["gain_over_published"]),
        f"{same_answers(task):+.3f}", f"{cost['bytes_per_user']:,}",
        f"{ours['weight_bytes_per_user']:,}; {ours['bytes_per_user']:,}" if ours else "",
        *(_seconds(side) if ours else "" for side in (cost, ours)),
        f"{calls(task):.0f}", f"{task['fit_llm_calls'] / task['users']:.0f}",
    ]  # fmt: skip


def targets(tasks: Sequence[dict[str, Any]]) -> list[str]:
    """Say how our bytes and seconds stand to theirs, and to the targets; nothing if not timed."""
    both = [(cost, cost["ours"]) for task in tasks if "ours" in (cost := task["published"])]
    if not both:
        return []
    spent = ("vector_processor_seconds", "head_processor_seconds")
    weights, whole, first, again = (
        [sum(theirs[k] for k in a) / sum(ours[k] for k in b) for theirs, ours in both]
        for a, b in (
            (("bytes_per_user",), ("weight_bytes_per_user",)),
            (("bytes_per_user",), ("bytes_per_user",)),
            (spent, spent),
            (spent[1:], spent[1:]),
        )
    )
    return [
        f"\nTargets: at most 1/{PUBLISHED_BYTES} of its bytes a user: 1/{_span(weights, ',.0f')} "
        f"by weights ({_met(weights, PUBLISHED_BYTES)}), 1/{_span(whole, ',.0f')} with the "
        f"statistics ({_met(whole, PUBLISHED_BYTES)}). At most 1/{PUBLISHED_SECONDS} of its time "
        f"to fit a user: 1/{_span(first, ',.1f')} with the encoder "
        f"({_met(first, PUBLISHED_SECONDS)}), 1/{_span(again, ',.1f')} without it "
        f"({_met(again, PUBLISHED_SECONDS)}). Timed on {len(both)} of {len(tasks)} tasks; without "
        "pools ours is the fit of the reranker alone."
    ]


def calls(task: dict[str, Any]) -> float:
    """Return how many answers of the LLM fitting one of its users took."""
    cost = task["published"]
    return float((cost["record_calls"] + cost["pool_calls"]) / cost["users"])


def same_answers(task: dict[str, Any]) -> float:
    """Return what our adapter's choice is worth over its, of the very same answers."""
    worth = utilities(task)
    return worth["adapter_only"] - worth["published_adapter"]


def is_below_bm25(task: dict[str, Any]) -> bool:
    """Tell whether it is worth less than one greedy answer to BM25's first four records."""
    worth = utilities(task)
    return worth["hydra_published"] < worth["rag_k4"]


def learned_from(task: str) -> int:
    """Return how many people's records or answers the shipped base has learned a task from."""
    parts = (BASE["quality"][part].get(task, {}) for part in ("adapter", "classifiers"))
    return max(part.get("users", 0) for part in parts)


def _seconds(cost: dict[str, Any]) -> str:
    return f"{cost['vector_processor_seconds']:.2f} + {cost['head_processor_seconds']:.2f}"


def _met(ratios: Sequence[float], target: int) -> str:
    return "met" if min(ratios) >= target else "**missed**"


def _span(values: Iterable[float], form: str = "") -> str:
    """Write the lowest and the highest of some figures; one if they read the same."""
    found = list(values)
    ends = dict.fromkeys(format(value, form) for value in (min(found), max(found)))
    return " to ".join(ends)
