"""Utility of hydra-edge on users its base has never seen, against prompt-only answers.

    python -m bench.quality --data commit_subject.dev.jsonl.gz --users 21 --queries 7

A query is one of a user's last records; its history is what came before. The heads are fitted
on records before the user's first query, with an LLM asked about a few of them. All rows come
from one run and one cache of answers; with ``--replay`` no LLM is needed.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.cache import CachedLLM
from export.data import UserHistory, read_users, sample_users
from hydra_edge import __version__
from hydra_edge.active import ActiveHead, prior_for
from hydra_edge.adapter import choose, merge, pool_utilities
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.config import Config, find_paths
from hydra_edge.encoder import Encoder
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError
from hydra_edge.features import Pool
from hydra_edge.fitting import fit_task
from hydra_edge.history import History
from hydra_edge.llm import LLM
from hydra_edge.llm.models import open_llm
from hydra_edge.pools import Budget, Sampling, complete_within_context
from hydra_edge.store import Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Record, Switch
from hydra_edge.utility import agreement_matrix, relative_gain, utility

ROWS = (
    "zero_shot", "rag_k4", "dense_k4", "random_of_b", "consensus", "reranker_only",
    "shared", "personal", "gated", "oracle",
)  # fmt: skip
SAMPLING = Sampling(n=8, shown=4, temperature=0.8)
RESULTS = Path(__file__).parent / "results"


@dataclass
class UserResult:
    """Utilities of one user's queries by row, and what the gate switched on."""

    user: str
    rows: dict[str, list[float]] = field(default_factory=lambda: {row: [] for row in ROWS})
    switch: str = "shared"


def forced(head: ActiveHead, switch: Switch, engine: Engine, task: TaskSpec) -> ActiveHead:
    """Return a head as if the gate had chosen ``switch`` (the personal one must be stored)."""
    if switch == "shared":
        mean = prior_for(engine.bundle, task, head.features.role).mean
        return replace(head, weight=mean.astype(np.float32), posterior=None)
    if switch == "baseline":
        return replace(head, weight=engine.baseline(head.features.role), posterior=None)
    state = engine.store.head(task.name, head.features.role)
    if state is None:
        return forced(head, "shared", engine, task)
    return ActiveHead.of(engine.bundle, task, head.features, replace(state, switch="personal"))


def answer(llm: LLM, engine: Engine, query: str, shown: Sequence[Record], task: TaskSpec, n: int):  # noqa: ANN201 - a pair, private to this file
    """Ask the LLM, through the cache."""
    prompt = engine.prompt(task, query, shown)
    _, completions = complete_within_context(
        llm, prompt, n=n, temperature=SAMPLING.temperature, max_tokens=task.max_tokens
    )
    return completions


def consensus_choice(pool: Pool, task: TaskSpec) -> int:
    """Return the sampled candidate that agrees most with the others."""
    counts = np.array([c.count for c in pool.candidates], dtype=np.float64)
    scores = agreement_matrix([c.text for c in pool.candidates], task) @ counts
    return int(np.argmax(np.where(counts > 0, scores, -1.0)))


def run_query(
    engine: Engine, llm: LLM, history: History, record: Record, result: UserResult
) -> None:
    """Answer one query in every way and note each one's utility."""
    task = history.task
    vector = engine.encode_query(record.input)
    reranker = engine.active(task, "reranker")
    adapter = engine.active(task, "adapter")

    def ranked(head: ActiveHead) -> list[Record]:
        chosen = engine.rank(head, record.input, vector, history, k=SAMPLING.shown)
        return [r.record for r in chosen]

    dense = np.argsort(-(history.inputs @ vector), kind="stable")[: SAMPLING.shown]
    shown = {
        "zero_shot": [],
        "rag_k4": ranked(forced(reranker, "baseline", engine, task)),
        "dense_k4": [history.records[i] for i in dense.tolist()],
    }
    for row, records in shown.items():
        got = answer(llm, engine, record.input, records, task, 1)
        result.rows[row].append(utility(got[0].text, record.output, task))
    records = ranked(reranker)
    completions = answer(llm, engine, record.input, records, task, SAMPLING.n)
    pool = engine.pool(record.input, vector, merge(completions, task), records)
    utilities = pool_utilities(pool, record.output, task)
    counts = np.array([c.count for c in pool.candidates], dtype=np.float64)
    sampled = counts > 0
    rows = result.rows
    rows["reranker_only"].append(utility(completions[0].text, record.output, task))
    rows["random_of_b"].append(float(utilities @ counts / counts.sum()))
    rows["consensus"].append(float(utilities[consensus_choice(pool, task)]))
    rows["oracle"].append(float(utilities[sampled].max()))
    for row, head in (
        ("shared", forced(adapter, "shared", engine, task)),
        ("personal", forced(adapter, "personal", engine, task)),
        ("gated", adapter),
    ):
        rows[row].append(utility(choose(head, pool, history).text, record.output, task))


def run_user(
    user: UserHistory,
    bundle: Bundle,
    encoder: Encoder,
    llm: LLM,
    *,
    queries: int,
    fit_pools: int,
) -> UserResult:
    """Fit one user's heads on the records before the first query, then answer the queries."""
    edge = len(user.records) - queries
    result = UserResult(user.user)
    store = Store.in_memory()
    store.add(user.records[:edge])
    engine = Engine(store, bundle, encoder)
    budget = Budget(calls=fit_pools * SAMPLING.n, seconds=None)
    report = fit_task(engine, user.task, llm=llm, sampling=SAMPLING, budget=budget)
    result.switch = "/".join(role.switch for role in report.roles)
    for i in range(edge, len(user.records)):
        task = engine.task(user.task)
        history = engine.history(task)
        if any(record.id == user.records[i].id for record in history.records):
            raise AssertionError("a query found itself in its history")
        run_query(engine, llm, history, user.records[i], result)
        store.add([user.records[i]])  # the next query may see it
    store.close()
    return result


def bootstrap(
    results: Sequence[UserResult], row: str, base: str, *, seed: int, draws: int = 4000
) -> tuple[float, float, float]:
    """Return the paired mean difference and its 90 % interval, resampling users."""
    means = np.array([np.mean(r.rows[row]) - np.mean(r.rows[base]) for r in results])
    rng = np.random.default_rng(seed)
    drawn = means[rng.integers(0, len(means), (draws, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.05, 0.95])
    return float(means.mean()), float(low), float(high)


def summarise(results: Sequence[UserResult], task: TaskSpec, seed: int) -> dict:  # type: ignore[type-arg]
    """Put a task's figures together."""
    mean = {row: float(np.mean([np.mean(r.rows[row]) for r in results])) for row in ROWS}
    best = max(("zero_shot", "rag_k4"), key=lambda row: mean[row])
    best_any = max(("zero_shot", "rag_k4", "dense_k4"), key=lambda row: mean[row])
    difference, low, high = bootstrap(results, "gated", best, seed=seed)
    p_mean, p_low, p_high = bootstrap(results, "personal", "shared", seed=seed)
    room = mean["oracle"] - mean["reranker_only"]
    return {
        "users": len(results),
        "queries": sum(len(r.rows["gated"]) for r in results),
        "best_prompt_only": best,
        "relative_gain": relative_gain(mean["gated"], mean[best], task),
        "best_any": best_any,
        "relative_gain_any": relative_gain(mean["gated"], mean[best_any], task),
        "gain": {"mean": difference, "low": low, "high": high},
        "personal_minus_shared": {"mean": p_mean, "low": p_low, "high": p_high},
        "headroom": (mean["gated"] - mean["reranker_only"]) / room if room > 0 else 0.0,
        "switches": {s: sum(r.switch == s for r in results) for s in {r.switch for r in results}},
        "rows": {row: {"utility": mean[row]} for row in ROWS},
    }


def show(name: str, summary: dict, console: Console) -> None:  # type: ignore[type-arg]
    """Print one task's table."""
    table = Table(title=f"{name}: {summary['users']} users, {summary['queries']} queries")
    table.add_column("row")
    table.add_column("utility", justify="right")
    for row, values in summary["rows"].items():
        table.add_row(row, f"{values['utility']:.4f}")
    console.print(table)
    gain = summary["gain"]
    console.print(
        f"gated over {summary['best_prompt_only']}: {gain['mean']:+.4f} "
        f"[{gain['low']:+.4f}, {gain['high']:+.4f}], relative {summary['relative_gain']:+.1%}; "
        f"of the oracle's headroom {summary['headroom']:.0%}; "
        f"reranker/adapter switched to {summary['switches']}"
    )


def main(
    data: Annotated[list[Path], typer.Option(help="Files of users, in the data card's format.")],
    users: Annotated[int, typer.Option(help="Users drawn of each task.")] = 21,
    queries: Annotated[int, typer.Option(help="A user's last records, as queries.")] = 7,
    fit_pools: Annotated[int, typer.Option(help="Pools bought for each user's heads.")] = 8,
    llm: Annotated[str, typer.Option(help="Local model, as for `hydra-edge -m`.")] = "smollm2",
    threads: Annotated[int, typer.Option(help="For the LLM; 0 lets the machine decide.")] = 0,
    seed: Annotated[int, typer.Option(help="Draws users and resamples them.")] = 0,
    cache: Annotated[Path, typer.Option(help="Where answers are kept.")] = Path(".cache/bench"),
    replay: Annotated[bool, typer.Option(help="Use cached answers only.")] = False,
    bundle: Annotated[Path | None, typer.Option(help="Another base than the shipped one.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
) -> None:
    """Measure answers on users never trained on."""
    console = Console()
    base = load_bundle(bundle)
    encoder = Encoder(base)
    inner = None if replay else open_llm(llm, Config(threads=threads), find_paths())
    model = CachedLLM(inner, cache / f"{llm}.jsonl", name=llm)
    everyone = read_users(data)
    tasks: dict[str, dict] = {}  # type: ignore[type-arg]
    for name in sorted({user.task for user in everyone}):
        of_task = [user for user in everyone if user.task == name]
        drawn = sample_users(of_task, users, least=queries + 8, seed=seed)
        try:
            results = []
            for user in track(drawn, description=name, console=console):
                results.append(
                    run_user(user, base, encoder, model, queries=queries, fit_pools=fit_pools)
                )
                if not console.is_terminal:
                    console.print(f"{name}: {len(results)} of {len(drawn)} users")
        except BackendError as err:
            raise typer.BadParameter(str(err)) from err
        outputs = [r.output for user in drawn for r in user.records]
        spec = Engine(Store.in_memory(), base, encoder).task(name) if outputs else None
        assert spec is not None
        tasks[name] = summarise(results, spec, seed)
        show(name, tasks[name], console)
    figures = {
        "version": __version__, "base_id": base.base_id, "llm": model.name, "seed": seed,
        "candidates": SAMPLING.n, "shown": SAMPLING.shown, "fit_pools": fit_pools,
        "command": f"python -m bench.quality --data {' '.join(p.name for p in data)} "
                   f"--users {users} --queries {queries} --fit-pools {fit_pools} --seed {seed}",
        "machine": platform.processor() or platform.machine(), "llm_calls": model.asked,
        "tasks": tasks,
    }  # fmt: skip
    path = json_path or RESULTS / f"quality-{'-'.join(tasks)}-{llm}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    console.print(f"written to {path}")


if __name__ == "__main__":
    typer.run(main)
