"""hydra-edge beside what people would use instead, each doing its own part of the job.

    python -m bench.peers --json bench/results/peers.json

Measured here: rank-bm25 (a full scan), a MiniLM cross-encoder (see ``bench.ranking``), and
scikit-learn's logistic regression (see ``bench.fits``). Quoted, because they need an LLM or a
service: what memory layers ask of an LLM to add one record, as their own trackers report it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import fits, ranking, starts
from bench.clock import LEAST_PAIRS, use_clock
from bench.command import (
    Clock,
    Figures,
    Plot,
    Quick,
    Texts,
    Threads,
    given,
    head,
    new_app,
    start,
    write,
)
from bench.report import need
from hydra_edge.bundle import load_bundle
from hydra_edge.types import JsonDict

# Not measured by us; LLM calls and seconds to add one record, and who says so.
QUOTED = (
    ("mem0 2.2", "1 call", "4-20 s", "github.com/mem0ai/mem0 issues 2813, 3097"),
    ("Graphiti 0.31", "many calls", "about 12 s", "github.com/getzep/graphiti issue 186"),
)

app = new_app()


def measure(data: list[Path], *, quick: bool, threads: int, records: int) -> JsonDict:
    """Rank, fit and add beside the peers, on a history of ``records``."""
    bundle = load_bundle()
    ranked = ranking.measure(data, quick=quick, threads=threads, sizes=(records,), scanned=records)
    fitted = fits.against_sklearn(fits.material(bundle), bundle, LEAST_PAIRS)
    added = starts.measure_import(data, quick=quick)
    return {
        "records": records,
        "rank": {name: ranked[name] for name in ("cross_encoder", "rank_bm25_scan")},
        "fit": fitted["sklearn"] | {"warm_ms": fitted["warm_ms"]},
        "add": {"ms_per_record": round(1000.0 / added["records_per_s"], 4), "llm_calls": 0},
        "quoted": [list(row) for row in QUOTED],
    }


def rows(peers: JsonDict) -> list[tuple[str, float, str, float, float]]:
    """Return what is compared: job, ours (ms), the peer, theirs (ms), and the ratio."""
    named = (
        ("rank", "MiniLM cross-encoder, 50 pairs", peers["rank"]["cross_encoder"]),
        ("rank", "rank-bm25, full scan", peers["rank"]["rank_bm25_scan"]),
        ("fit, strength chosen", "scikit-learn, 5 folds", peers["fit"]["same_job"]),
        ("fit once", "scikit-learn, plain", peers["fit"]["one_fit_over_one_fit"]),
    )
    return [
        (job, one["ours"]["p50_ms"], name, one["theirs"]["p50_ms"], one["ratio"])
        for job, name, one in named
    ]


def show(figures: JsonDict, console: Console) -> None:
    """Print both sides of every comparison."""
    peers = figures["peers"]
    table = Table("job", "hydra-edge", "peer", "takes", "ratio",
                  title=f"{peers['records']:,} records")  # fmt: skip
    for job, ours, name, theirs, ratio in rows(peers):
        table.add_row(job, f"{ours:.2f} ms", name, f"{theirs:.2f} ms", f"{ratio:.2f}x")
    console.print(table)
    added = Table("to add a record", "LLM", "time", "source")
    added.add_row("hydra-edge", "0 calls", f"{peers['add']['ms_per_record']:.3f} ms", "measured")
    for name, calls, seconds, source in peers["quoted"]:
        added.add_row(name, calls, seconds, f"quoted: {source}")
    console.print(added)


def plot(figures: JsonDict, path: Path) -> Path:
    """Draw how many times longer each peer takes."""
    from matplotlib.figure import Figure

    compared = rows(figures["peers"])
    figure = Figure(figsize=(6.5, 2.4), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(compared)), [ratio for *_, ratio in compared], color="#59a")
    axis.axvline(1.0, color="#333", linewidth=1)
    axis.set_yticks(range(len(compared)), [f"{job}: {name}" for job, _, name, *_ in compared])
    axis.set_xscale("log")
    axis.set_xlabel("peer's time over ours")
    figure.savefig(path, dpi=120)
    return path


@app.command()
def main(
    context: typer.Context,
    data: Texts = None,
    records: Annotated[int, typer.Option(min=50, help="Length of the history.")] = 10_000,
    quick: Quick = False,
    threads: Threads = 0,
    clock: Clock = "wall",
    json_path: Figures = None,
    draw: Plot = False,
) -> None:
    """Measure beside the peers."""
    use_clock(clock)
    need("sklearn", *(["matplotlib"] if draw else []))
    console = Console()
    figures = head("peers", given(context), load_bundle().base_id) | {
        "threads": threads,
        "peers": measure(data or [], quick=quick, threads=threads, records=records),
    }
    show(figures, console)
    path = write(figures, json_path, "peers", console)
    if draw:
        plot(figures, path.with_suffix(".png"))


if __name__ == "__main__":
    start(app)
