"""What commands over kept answers share: their options, the bench, each query, what they write.

Owns no figure. ``picks``, ``stopping``, ``votes`` and ``again`` stand on it; nobody is fitted with
an LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import typer
from rich.console import Console

from bench import command
from bench.case import Case
from bench.command import (
    CACHE,
    Base,
    Cache,
    Figures,
    Model,
    Queries,
    Replay,
    Seed,
    Tasks,
    Users,
    given,
    head,
    new_app,
)
from bench.datasets import TaskData, draw_tasks, read_files
from bench.guard import check_not_trained_on
from bench.report import slug
from bench.run import Bench, fit_user
from export.cache import CachedLLM, answers_file, open_cached
from hydra_edge.bundle import load_bundle
from hydra_edge.encoder import Encoder
from hydra_edge.types import JsonDict


def cached_llm(llm: str, folder: Path, *, replay: bool, threads: int) -> CachedLLM:
    """Open an LLM behind the cache of its answers; to replay, the cache alone."""
    return open_cached(llm, answers_file(folder, llm), replay=replay, threads=threads)


def open_bench(
    data: Sequence[Path],
    llm: str,
    cache: Path,
    *,
    replay: bool,
    bundle: Path | None,
    queries: int,
    seed: int,
) -> Bench:
    """Load the base and open the LLM's kept answers; the LLM is the caller's to close.

    Raises
    ------
    BenchError
        If the base was trained on one of the files.
    """
    base = load_bundle(bundle)
    check_not_trained_on(base, data)
    model = cached_llm(llm, cache, replay=replay, threads=0)
    return Bench(base, Encoder(base), model, queries, 0, seed)


def draw(
    bench: Bench, paths: Sequence[Path], users: int, only: Sequence[str] | None
) -> list[TaskData]:
    """Read files and draw the users of each of their tasks, or of those in ``only``."""
    return draw_tasks(
        read_files(paths), users=users, queries=bench.queries, seed=bench.seed, specs={},
        only=only or (), bundle=bench.bundle,
    )  # fmt: skip


def cases(bench: Bench, data: TaskData) -> Iterator[Case]:
    """Give each user's queries in order; one joins the history once the next is asked for."""
    for user in data.users:
        subject = fit_user(bench, data, user)
        with closing(subject.engine.store):
            for position in range(subject.edge, len(user.records)):
                yield Case(subject, position)
                subject.engine.store.add([user.records[position]])


def write(
    figures: JsonDict,
    kind: str,
    bench: Bench,
    context: typer.Context,
    path: Path | None,
    console: Console,
) -> None:
    """Write a command's figures, and how they were made."""
    llm = str(context.params["llm"])
    made = head(kind, given(context), bench.bundle.base_id, timed=False)
    command.write(made | figures, path, f"{kind}-{slug(llm)}", console)


def app_of(
    kind: str, measure: Callable[[Bench, list[TaskData], Console], JsonDict], tasks: str
) -> typer.Typer:
    """Return the app of a command over kept answers.

    Parameters
    ----------
    kind
        The command's name.
    measure
        Measures the users drawn and prints what it found; its docstring is the help.
    tasks
        Which tasks it is for, in words.
    """
    app = new_app()
    files = typer.Option(..., help=f"Files of users, of {tasks} tasks.")

    @app.command(help=measure.__doc__)
    def main(
        context: typer.Context,
        data: list[Path] = files,
        task: Tasks = None,
        users: Users = 20,
        queries: Queries = 5,
        llm: Model = "smollm2",
        seed: Seed = 0,
        cache: Cache = CACHE,
        replay: Replay = False,
        bundle: Base = None,
        json_path: Figures = None,
    ) -> None:
        bench = open_bench(
            data, llm, cache, replay=replay, bundle=bundle, queries=queries, seed=seed
        )
        console = Console()
        made = {"llm": bench.llm.name, "seed": seed, "users": users, "queries": queries}
        figures = measure(bench, draw(bench, data, users, task), console)
        bench.llm.close()
        write(made | figures, kind, bench, context, json_path, console)

    return app
