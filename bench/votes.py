"""How many answers of a closed set are needed until the rest cannot change the choice.

    python -m bench.votes --data film_rating.dev.jsonl.gz --llm gemma3 --replay

Pools are kept answers in the order drawn, given without log-probabilities, as a server gives
them. Answers that are begun when it is settled are paid for too: "four together" is what a
server costs that is asked for single answers, four at a time. That the choice is the full pool's
is checked on every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.command import start
from bench.datasets import TaskData
from bench.guard import BenchError
from bench.kept import app_of, cases
from bench.run import Bench
from export.label import SAMPLING
from hydra_edge.active import ActiveHead
from hydra_edge.adapter import choose, merge
from hydra_edge.features import Pool
from hydra_edge.history import History
from hydra_edge.settling import is_settled
from hydra_edge.types import Completion, JsonDict

TOGETHER = 4  # requests for single answers on their way at once


@dataclass(frozen=True, slots=True)
class Count:
    """One query: answers drawn, needed, and whether the choice of those is that of all."""

    drawn: int
    needed: int
    same: bool


def count(
    head: ActiveHead, pool: Pool, history: History, completions: Sequence[Completion]
) -> Count:
    """Hear one answer after the other until the choice is settled."""
    n = len(completions)
    needed = next(
        (k for k in range(1, n) if is_settled(head, pool, history, completions[:k], n)), n
    )
    texts = {
        choose(head, replace(pool, candidates=merge(part, history.task)), history).text
        for part in (completions[:needed], completions)
    }
    return Count(n, needed, len(texts) == 1)


def summed_up(counts: Sequence[Count]) -> JsonDict:
    """Return shares of the full pools' answers, and how many pools one answer settles."""
    drawn = sum(c.drawn for c in counts)
    together = sum(min(c.drawn, c.needed + TOGETHER - 1) for c in counts)
    return {
        "pools": len(counts),
        "settled_by_one": float(np.mean([c.needed == 1 for c in counts])),
        "saved_one_by_one": 1 - sum(c.needed for c in counts) / drawn,
        "saved_four_together": 1 - together / drawn,
        "same_choice": float(np.mean([c.same for c in counts])),
    }


def check_closed(tasks: Sequence[TaskData]) -> None:
    """Refuse free text.

    Raises
    ------
    BenchError
        If a task is without a closed set.
    """
    if texts := [data.name for data in tasks if data.spec.kind == "text"]:
        raise BenchError(
            f"{texts[0]} is of kind text; expected label or rating tasks. Leave it out with "
            "--task; free text is measured by python -m bench.stopping."
        )


def counts_of(bench: Bench, data: TaskData) -> list[Count]:
    """Count the answers that a task's queries need."""
    counts = []
    for case in cases(bench, data):
        sampled = case.sampled("gated")
        as_served = [replace(c, logprob=None) for c in sampled.completions]
        counts.append(count(case.head("adapter"), sampled.pool, case.history, as_served))
    return counts


def measure(bench: Bench, tasks: Sequence[TaskData], console: Console) -> JsonDict:
    """Count the answers of closed sets until the rest cannot matter."""
    check_closed(tasks)
    figures = {}
    table = Table(
        "task", "pools", "settled by one", "saved, one by one", "saved, four together",
        "same choice", title=f"{escape(bench.llm.name)}: answers of {SAMPLING.n}",
    )  # fmt: skip
    for data in tasks:
        counts = counts_of(bench, data)
        found = figures[data.name] = summed_up(counts)
        shares = [f"{v:.1%}" for k, v in found.items() if k != "pools"]
        table.add_row(escape(data.name), str(len(counts)), *shares)
    console.print(table)
    return {"candidates": SAMPLING.n, "tasks": figures}


app = app_of("votes", measure, "label or rating")

if __name__ == "__main__":
    start(app)
