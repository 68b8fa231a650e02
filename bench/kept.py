"""What commands over kept pools share: their options, the bench they open, each query in turn.

Owns no figure. ``picks``, ``stopping`` and ``votes`` stand on it; nobody is fitted with an LLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.case import Case
from bench.datasets import TaskData, draw_tasks, read_files
from bench.guard import check_not_trained_on
from bench.quality import cached_llm
from bench.run import Bench, fit_user
from hydra_edge.bundle import load_bundle
from hydra_edge.encoder import Encoder

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


def draw(bench: Bench, path: Path, users: int) -> TaskData:
    """Read one file and draw its users."""
    (data,) = draw_tasks(
        read_files([path]), users=users, queries=bench.queries, seed=bench.seed, specs={}, only=()
    )
    return data


def cases(bench: Bench, data: TaskData) -> Iterator[Case]:
    """Give each user's queries in order; one joins the history once the next is asked for."""
    for user in data.users:
        subject = fit_user(bench, data, user)
        for position in range(subject.edge, len(user.records)):
            yield Case(subject, position)
            subject.engine.store.add([user.records[position]])
        subject.engine.store.close()
