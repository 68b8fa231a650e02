"""Utility of hydra-edge on users its base has never seen, against every other way to answer.

    python -m bench.quality --data commit_subject.dev.jsonl.gz --users 21 --queries 5

A query is one of a user's last records; its history is what came before. The heads are fitted
on records before the user's first query, with an LLM asked about a few of them. All rows come
from one run and one cache of answers; with ``--replay`` no LLM is needed. Users whose answers such
a cache lacks, or on whom the LLM broke down, are not measured: the result says that it is not
complete, and has no mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.command import (
    CACHE,
    Base,
    Cache,
    Figures,
    Model,
    Queries,
    Replay,
    Tasks,
    Users,
    head,
    new_app,
    parse_sizes,
    start,
    write,
)
from bench.datasets import LampUsers, draw_tasks, read_files, read_specs
from bench.guard import BenchError, check_not_trained_on
from bench.kept import cached_llm
from bench.lamp import questions, read_lamp_folders
from bench.published import Published
from bench.report import Stages, can_plot, plot, say, show, slug
from bench.rows import ROWS
from bench.run import GROWTH, Bench, grow, run_task
from bench.summary import is_complete, mean_of, summarise, why_no_mean
from export.data import UserHistory
from export.label import SAMPLING
from export.published.labels import Allowance
from hydra_edge.bundle import load_bundle
from hydra_edge.encoder import Encoder
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import JsonDict, text_hash

# Figures of tasks stand beside each other only if these are the same.
SAME = ("llm", "seed", "candidates", "shown", "fit_pools", "queries")

app = new_app()


def measure(
    bench: Bench,
    everyone: Sequence[UserHistory],
    console: Console,
    *,
    users: int,
    specs: dict[str, TaskSpec],
    only: Sequence[str],
    sizes: Sequence[int],
    published: Published | None = None,
    lamp: LampUsers | None = None,
    left_out: dict[str, str] | None = None,
    seen: Sequence[UserHistory] | None = None,
    seen_in: str = "",
) -> dict[str, JsonDict]:
    """Measure every task of the users given; return each one's figures, or why there are none.

    Parameters
    ----------
    left_out
        Told, by task, why nobody can be measured for it; None: such a task is an error.
    seen
        Whom the base was trained on; None if nobody says.
    seen_in
        What they were read from.

    Raises
    ------
    BenchError
        If there is nobody to measure, or a leak.
    """
    tasks: dict[str, JsonDict] = {}
    rows = ROWS if published is None else (*ROWS, *published.rows)
    texts = None if seen is None else {r.input for user in seen for r in user.records}
    drawn = draw_tasks(
        everyone, users=users, queries=bench.queries, seed=bench.seed, specs=specs, only=only,
        bundle=bench.bundle, lamp=lamp, left_out=left_out,
    )  # fmt: skip
    for name in sorted({user.task for user in everyone} & set(left_out or ())):
        say(console, f"LEFT OUT: {name}: {(left_out or {})[name]}")
    if published is not None:
        published.check([data.name for data in drawn])
    for data in drawn:
        if data.note:
            say(console, f"{data.name}: {data.note}")
    for data in drawn:
        with Stages(console) as report:
            report.name = data.name
            run = run_task(bench, data, report, rows)
            if run.results:
                grow(bench, run, sizes, report)
        known = None if seen is None else {u.user for u in seen if u.task == data.name}
        tasks[data.name] = summarise(run, bench.seed, rows, texts, known)
        if published is not None:
            tasks[data.name]["published"] = published.costs(data.name)
        show(data.name, tasks[data.name], console)
        if (of_them := tasks[data.name].get("users_seen")) is not None:
            say(
                console,
                f"{data.name}: {of_them} of {tasks[data.name]['users']} users measured have "
                f"records in {seen_in}",
            )
    return tasks


def kept_tasks(path: Path | None, measured: JsonDict) -> dict[str, JsonDict]:
    """Read an earlier result's tasks, each with its base and the command that measured it.

    Raises
    ------
    BenchError
        If it cannot be read, or was measured in another way than is ``measured`` now.
    """
    if path is None:
        return {}
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        odd = [name for name in SAME if earlier[name] != measured[name]]
        tasks = {
            name: {"base_id": earlier["base_id"], "command": earlier["command"], **of}
            for name, of in earlier["tasks"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise BenchError(
            f"--keep {path.name} cannot be read: {err}. Expected a file that --json wrote."
        ) from err
    if odd:
        raise BenchError(
            f"--keep {path.name} was measured with another {', '.join(odd)}; expected "
            f"{', '.join(f'{name} {measured[name]}' for name in odd)}. Measure its tasks again."
        )
    return tasks


def means_of(tasks: dict[str, JsonDict], console: Console) -> JsonDict:
    """Return the mean relative gains over tasks, or why there are none, and say either."""
    figures: JsonDict = {}
    for key, best, over in (
        ("relative_gain", "best_prompt_only", "the best of the paper's prompt-only answers"),
        ("relative_gain_any", "best_any", "the best of all prompt-only answers"),
    ):
        mean = figures[f"mean_{key}"] = mean_of(tasks, key, best)
        reason = why_no_mean(tasks, key, best)
        if reason:
            figures[f"mean_{key}_reason"] = reason
        told = f"not known: {reason}" if mean is None else f"{mean:+.1%}"
        say(console, f"mean relative gain over {over}: {told}")
    return figures


def uncovered(tasks: Mapping[str, JsonDict], *, replay: bool) -> str:
    """Say how many users of which tasks were lost to the LLM or the replay; nothing if none was."""
    missing = everyone = grown = 0
    for task in tasks.values():
        lost = [user for user, why in task["users_failed"].items() if not why.startswith(GROWTH)]
        everyone += task["users"] + len(lost)
        missing += len(set(lost).intersection(task["users_missing"]))
        grown += len(set(task["users_missing"]).difference(lost))
    if not missing + grown:
        return ""
    odd = ", ".join(name for name, task in tasks.items() if not is_complete(task))
    of_growth = f" and {grown} of those for growth" if grown else ""
    how, then = (
        ("not covered", "run without --replay on a copy of the cache")
        if replay
        else ("lost to the LLM", "run the same again: what was answered is kept")
    )
    return f"{missing} of {everyone} users{of_growth} {how} ({odd}); {then}"


@app.command()
def main(
    data: Annotated[
        list[Path] | None, typer.Option(help="Files of users, in the data card's format.")
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files for --data.")
    ] = None,
    lamp: Annotated[list[Path] | None, typer.Option(help="Folder of LaMP's files.")] = None,
    task: Tasks = None,
    task_spec: Annotated[
        list[Path] | None, typer.Option(help="TOML files that describe tasks.")
    ] = None,
    users: Users = 21,
    queries: Queries = 5,
    fit_pools: Annotated[int, typer.Option(min=0, help="What a fit may buy, in pools of 8.")] = 8,
    history: Annotated[
        str, typer.Option(help="Sizes of history for the growth curve: 0,1,4,16,64.")
    ] = "",
    llm: Model = "smollm2",
    threads: Annotated[int, typer.Option(help="For the LLM; 0 lets the machine decide.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Draws users and resamples them.")] = 0,
    seen_in: Annotated[
        list[Path] | None,
        typer.Option(
            help="Training files: figures also by whether they hold a query's text, and how many "
            "of those measured are in them."
        ),
    ] = None,
    cache: Cache = CACHE,
    replay: Replay = False,
    bundle: Base = None,
    published: Annotated[
        Path | None, typer.Option(help="Add HYDRA as published, with this folder's encoders.")
    ] = None,
    published_calls: Annotated[
        int, typer.Option(min=0, help="Its labelling of each user, in records tried.")
    ] = 40,
    published_pools: Annotated[int, typer.Option(min=0, help="The same, in pools.")] = 5,
    json_path: Figures = None,
    keep: Annotated[
        Path | None, typer.Option(help="Earlier figures to keep of tasks not measured now.")
    ] = None,
    draw: Annotated[
        bool | None,
        typer.Option("--plot/--no-plot", help="Draw plots; by default if matplotlib is there."),
    ] = None,
) -> None:
    """Measure answers on users never trained on."""
    console, files, lamps = Console(), [*(data or ()), *(more or ())], lamp or []
    if draw and not can_plot():
        raise BenchError("--plot needs matplotlib; run pip install '.[bench]' first.")
    sizes = parse_sizes(history)
    base = load_bundle(bundle)
    everyone = read_files(files)
    measured = [*files, *(path for folder in lamps for path in questions(folder))]
    check_not_trained_on(base, measured)
    allowance = Allowance(published_calls, published_pools)
    rival = Published.open(published, measured, allowance, seed) if published else None
    lamp_users = read_lamp_folders(lamps, users=users, queries=queries, seed=seed, sizes=sizes)
    everyone += lamp_users.users
    for name, why in lamp_users.left_out.items():
        say(console, f"LEFT OUT: {name}: {why}")
    if not everyone and lamp_users.left_out:
        reasons = "; ".join(f"{name}: {why}" for name, why in lamp_users.left_out.items())
        raise BenchError(
            f"There is nobody to measure: got {reasons}; expected profiles of inputs with the "
            "person's own answers. Give the files of another LaMP task."
        )
    model = cached_llm(llm, cache, replay=replay, threads=threads)
    bench = Bench(base, Encoder(base), model, queries, fit_pools, seed)
    options: dict[str, object] = {
        "data": files, "lamp": lamps, "task": task or [], "task-spec": task_spec or [],
        "llm": llm, "users": users, "queries": queries,
        "fit-pools": fit_pools, "seed": seed, "history": history,
        "seen-in": seen_in or [], "bundle": bundle,
        "published": published, "published-calls": published_calls if published else None,
        "published-pools": published_pools if published else None, "keep": keep,
    }  # fmt: skip
    figures = head("quality", options, base.base_id, timed=False) | {
        "llm": model.name, "seed": seed, "candidates": SAMPLING.n, "shown": SAMPLING.shown,
        "fit_pools": fit_pools, "queries": queries,
    }  # fmt: skip
    seen = read_files(seen_in) if seen_in else None
    kept = kept_tasks(keep, figures)  # before the hours of measuring, not after
    left_out = dict(lamp_users.left_out)
    measured_now = measure(
        bench, everyone, console, users=users, specs=read_specs(task_spec or [], everyone),
        only=task or (), sizes=sizes, published=rival, lamp=lamp_users, left_out=left_out,
        seen=seen, seen_in=", ".join(path.name for path in seen_in or ()),
    )  # fmt: skip
    tasks = kept | measured_now
    model.close()
    # Gains of two bases have no mean in common.
    of_base = {n: t for n, t in tasks.items() if t.get("base_id", base.base_id) == base.base_id}
    figures |= {
        **means_of(of_base, console), "tasks": tasks,
        "complete": all(map(is_complete, tasks.values())), "left_out": left_out,
    }  # fmt: skip
    stamp = text_hash(f"{figures['command']} {base.base_id}")[:8]  # the same run, the same file
    say(console, f"{model.asked:,} prompts were answered anew, the others from {model.path}")
    path = write(figures, json_path, f"quality-{slug(llm)}-{stamp}", console)
    if draw or (draw is None and can_plot() and figures["complete"]):
        say(console, f"drawn in {', '.join(map(str, plot(figures, path)))}")
    if said := uncovered(measured_now, replay=replay):
        say(console, said)
    if said or any("reason" in of_task for of_task in measured_now.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    start(app)
