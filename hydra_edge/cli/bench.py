"""``bench``: how fast hydra-edge is on this device, with the user's own history."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.group import put
from hydra_edge.cli.session import open_user

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.types import JsonDict

WARM_UP = 10
QUERIES = 50

Queries = Annotated[
    int, typer.Option("--queries", "-n", metavar="N", min=1, help="Rankings to time.")
]


def _ms(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000.0


def _quantile(times: Sequence[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not on this system
        return None
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak * (1 if sys.platform == "darwin" else 1024))


def measure(person: Personalizer, task: str | None, queries: int) -> JsonDict:
    """Time loading, ranking and encoding; nothing of it is logged, no LLM is asked.

    Queries are the user's own latest inputs, with a word added so that none is found in a
    cache. Texts that were never encoded are, once, and stay encoded as after any ranking.
    """
    from statistics import median

    engine = person.engine
    spec = person.task(task)
    load_ms = _ms(lambda: engine.history(spec))
    history = engine.history(spec)
    own = [record.input for record in history.records[-(WARM_UP + queries) :]] or ["a first query"]
    asked = [f"{own[i % len(own)]} n{i}" for i in range(WARM_UP + queries)]
    first_ms = _ms(lambda: person.rank(asked[0], task=spec.name))
    for query in asked[1:WARM_UP]:
        person.rank(query, task=spec.name)
    ranked = [_ms(partial(person.rank, query, task=spec.name)) for query in asked[WARM_UP:]]
    encoded = [_ms(partial(engine.encode_query, f"{query} again")) for query in asked[WARM_UP:]]
    return {
        "task": spec.name,
        "records": len(history),
        "base_id": person.bundle.base_id,
        "load_history_ms": load_ms,
        "rank_first_ms": first_ms,
        "rank_ms": {
            "n": queries,
            "p50": median(ranked),
            "p95": _quantile(ranked, 0.95),
            "p99": _quantile(ranked, 0.99),
        },
        "of_which_encoding_ms": median(encoded),
        "file_bytes": person.store.size_bytes(),
        "peak_memory_bytes": _peak_bytes(),
        "llm_calls": 0,
    }


def bench(
    ctx: typer.Context,
    user: options.User = None,
    task: options.Task = None,
    queries: Queries = QUERIES,
    as_json: options.AsJson = False,
) -> None:
    """Time rankings on your own history, on this device.

    No LLM is asked, and nothing is sent or logged. `python -m bench.latency` in the source
    measures everything else, against other programs.
    """
    with open_user(ctx, user) as person:
        output.note("timing rankings; other programs at work make them slower")
        figures = measure(person, task, queries)
    if as_json:
        output.write_json(figures)
        return
    times = figures["rank_ms"]
    memory = figures["peak_memory_bytes"]
    output.heading(f"{figures['task']}, {figures['records']:,} records")
    output.table(
        ("", ""),
        (
            ("a ranking, p50 / p95 / p99", f"{times['p50']:.1f} / {times['p95']:.1f} / "
             f"{times['p99']:.1f} ms, n = {times['n']}"),
            ("of which encoding the query", f"{figures['of_which_encoding_ms']:.1f} ms"),
            ("the first ranking", f"{figures['rank_first_ms']:.0f} ms"),
            ("loading the history", f"{figures['load_history_ms']:.0f} ms"),
            ("its file", views.size(figures["file_bytes"])),
            ("most memory", "not known here" if memory is None else views.size(memory)),
        ),
    )  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    put(
        app, "bench", bench,
        "hydra-edge bench",
        "hydra-edge bench --user me --task commit_subject -n 100 --json",
    )  # fmt: skip
