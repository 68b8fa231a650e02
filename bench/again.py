"""Whether the LLM answers today what it answered when the kept answers were drawn, token by token.

    python -m bench.again --data film_rating.dev.jsonl.gz --llm smollm2

Every speed-up of the decoding has to leave candidates and choices as they were. Each query is
put to the kept answers and to the model itself, with the same prompt, seeds and base; the same
adapter chooses from both pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.case import Case, Sampled
from bench.command import Base, Cache, Figures, Model, Seed, Tasks, Users, new_app, start
from bench.kept import cases, draw, open_bench, write
from hydra_edge.adapter import choose, pool_utilities
from hydra_edge.config import Config
from hydra_edge.llm import LLM
from hydra_edge.llm.models import open_llm
from hydra_edge.paths import find_paths
from hydra_edge.types import Completion, JsonDict

KEPT = Path(__file__).parent / "answers"

app = new_app()


@dataclass(frozen=True, slots=True)
class Pair:
    """One query answered twice: how many answers, how many are the same, and the choices.

    ``before`` and ``now`` are the utilities of the two choices.
    """

    answers: int
    same_answers: int
    same_choice: bool
    before: float
    now: float


def same(before: Sequence[Completion], now: Sequence[Completion]) -> int:
    """Count the answers that have the same text and as many tokens, place by place."""
    return sum((a.text, a.tokens) == (b.text, b.tokens) for a, b in zip(before, now, strict=False))


def _chosen(case: Case, sampled: Sampled) -> tuple[str, float]:
    """Return what the gated adapter chooses, and what it is worth to the user.

    Of blank answers alone there is nothing to choose.
    """
    pool = sampled.pool
    if not pool.candidates:
        return "", 0.0
    text = choose(case.head("adapter"), pool, case.history).text
    truth = case.subject.user.records[case.position].output
    at = [candidate.text for candidate in pool.candidates].index(text)
    return text, float(pool_utilities(pool, truth, case.task)[at])


def compare(case: Case, live: LLM) -> Pair:
    """Answer a query of kept answers again, by the model itself."""
    again = Case(replace(case.subject, llm=live), case.position)
    before, now = case.sampled("gated"), again.sampled("gated")
    (text, worth), (text_now, worth_now) = _chosen(case, before), _chosen(again, now)
    return Pair(
        max(len(before.completions), len(now.completions)),
        same(before.completions, now.completions),
        text == text_now,
        worth,
        worth_now,
    )


def summed_up(pairs: Sequence[Pair]) -> JsonDict:
    """Return shares of answers, pools and choices that are the same, and both utilities."""
    return {
        "pools": len(pairs),
        "answers": sum(p.answers for p in pairs),
        "same_answers": sum(p.same_answers for p in pairs) / sum(p.answers for p in pairs),
        "same_pools": float(np.mean([p.same_answers == p.answers for p in pairs])),
        "same_choice": float(np.mean([p.same_choice for p in pairs])),
        "utility_kept": float(np.mean([p.before for p in pairs])),
        "utility_again": float(np.mean([p.now for p in pairs])),
    }


@app.command()
def main(
    context: typer.Context,
    data: Annotated[list[Path], typer.Option(help="Files of users whose answers are kept.")],
    task: Tasks = None,
    users: Users = 20,
    queries: Annotated[
        int, typer.Option(min=1, help="A user's last records, as in the run that is kept.")
    ] = 5,
    of_user: Annotated[int, typer.Option(min=1, help="The first of these are asked again.")] = 1,
    llm: Model = "smollm2",
    seed: Seed = 0,
    cache: Cache = KEPT,
    bundle: Base = None,
    threads: Annotated[int, typer.Option(help="For the LLM; 0 lets it decide.")] = 0,
    json_path: Figures = None,
) -> None:
    """Ask the LLM again what it was asked before, and compare answers and choices."""
    bench = open_bench(data, llm, cache, replay=True, bundle=bundle, queries=queries, seed=seed)
    live = open_llm(llm, Config(threads=threads), find_paths())
    console, tasks = Console(), {}
    table = Table(
        "task", "pools", "answers", "same answers", "same pools", "same choice",
        "utility, kept", "utility, again", title=f"{escape(live.name)}, asked again",
    )  # fmt: skip
    for drawn in draw(bench, data, users, task):
        pairs = [
            compare(case, live)
            for case in cases(bench, drawn)
            if case.position < case.subject.edge + of_user
        ]
        found = tasks[drawn.name] = summed_up(pairs)
        shares = [f"{found[k]:.1%}" for k in ("same_answers", "same_pools", "same_choice")]
        worth = [f"{found[k]:.4f}" for k in ("utility_kept", "utility_again")]
        table.add_row(
            escape(drawn.name), str(found["pools"]), str(found["answers"]), *shares, *worth
        )
    live.close()
    console.print(table)
    figures: JsonDict = {
        "llm": live.name, "seed": seed, "users": users,
        "queries": queries, "of_user": of_user, "tasks": tasks,
    }  # fmt: skip
    write(figures, "again", bench, context, json_path, console)


if __name__ == "__main__":
    start(app)
