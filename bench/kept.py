"""What commands over kept pools share: options, the bench they open, each query, what they write.

Owns no figure. ``picks``, ``stopping``, ``votes`` and ``again`` stand on it; nobody is fitted with
an LLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.case import Case
from bench.datasets import TaskData, draw_tasks, read_files
from bench.guard import check_not_trained_on
from bench.quality import RESULTS, cached_llm
from bench.report import slug, write_json
from bench.run import Bench, fit_user
from hydra_edge.bundle import load_bundle
from hydra_edge.encoder import Encoder
from hydra_edge.types import JsonDict

Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only these tasks.")]
Users = Annotated[int, typer.Option(min=1, help="Users drawn of each task.")]
Queries = Annotated[int, typer.Option(min=1, help="A user's last records, as queries.")]
Model = Annotated[str, typer.Option(help="Local model, as for `hydra-edge -m`.")]
Seed = Annotated[int, typer.Option(help="Draws users, queries and their order.")]
Cache = Annotated[Path, typer.Option(help="Where answers are kept.")]
Replay = Annotated[bool, typer.Option(help="Use cached answers only.")]
Base = Annotated[Path | None, typer.Option(help="Another base than the shipped one.")]
Figures = Annotated[Path | None, typer.Option("--json", help="Write figures here.")]

CACHE = Path(".cache/bench")


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
        for position in range(subject.edge, len(user.records)):
            yield Case(subject, position)
            subject.engine.store.add([user.records[position]])
        subject.engine.store.close()


def write(figures: JsonDict, kind: str, llm: str, path: Path | None, console: Console) -> None:
    """Write a command's figures, where nothing else is said beside those of the documentation."""
    path = path or RESULTS / f"{kind}-{slug(llm)}.json"
    write_json(figures, path)
    console.print(f"written to {path}", soft_wrap=True)
