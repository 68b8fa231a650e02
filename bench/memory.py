"""How much memory each stage of one person's life takes, in a process of its own.

    python -m bench.memory --json bench/results/memory.json

Resident memory after each stage: Python and our imports, the base verified, the history in
memory, the encoder loaded, a ranking, a fit. No LLM is loaded: its memory is its own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from bench.command import (
    Figures,
    Plot,
    Sizes,
    Texts,
    Threads,
    given,
    head,
    new_app,
    parse_sizes,
    start,
    write,
)
from bench.pasts import queries
from bench.report import need
from bench.starts import prepare, run_python
from hydra_edge.bundle import load_bundle
from hydra_edge.types import JsonDict

STAGES = ("start", "import", "base", "history", "encoder", "rank", "fit")
_STAGES = """
import json, sys
from pathlib import Path
import psutil
me, out = psutil.Process(), {}
def note(stage):
    out[stage] = me.memory_info().rss / 1e6
note("start")
from bench.pasts import TASK, open_person
note("import")
with open_person(Path(sys.argv[1]), threads=int(sys.argv[3])) as person:
    person.bundle
    note("base")
    person.engine.history(person.task(TASK))
    note("history")
    person.engine.encode_query(sys.argv[2])
    note("encoder")
    for i in range(20):
        person.rank(f"{sys.argv[2]} {i}", k=4)
    note("rank")
    person.fit_head(use_llm=False)
    note("fit")
from bench.clock import peak_mb
print(json.dumps({"rss_mb": out, "peak_mb": peak_mb()}))
"""

app = new_app()


def measure(sizes: Sequence[int], data: Sequence[Path], *, threads: int = 0) -> JsonDict:
    """Return resident memory (MB) after each stage, and its peak, for each size of history."""
    out: JsonDict = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as home:
            prepare(Path(home), size, data)
            told = run_python(_STAGES, home, queries(1, data)[0], str(threads))
            out[str(size)] = json.loads(told)
    return out


def show(figures: JsonDict, console: Console) -> None:
    """Print a column for each size of history."""
    found = figures["memory"]
    table = Table("MB resident after", *(f"{int(size):,} records" for size in found))
    for stage in STAGES:
        table.add_row(stage, *(f"{one['rss_mb'][stage]:.0f}" for one in found.values()))
    table.add_row("peak", *(f"{one['peak_mb']:.0f}" for one in found.values()))
    console.print(table)


def plot(figures: JsonDict, path: Path) -> Path:
    """Draw memory by stage, a line for each size of history."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for size, one in figures["memory"].items():
        axis.plot(STAGES, [one["rss_mb"][s] for s in STAGES], marker="o", label=f"{int(size):,}")
    axis.set_ylabel("MB resident")
    axis.set_ylim(bottom=0)
    axis.legend(title="records")
    figure.savefig(path, dpi=120)
    return path


@app.command()
def main(
    context: typer.Context,
    data: Texts = None,
    sizes: Sizes = "1000,10000",
    threads: Threads = 0,
    json_path: Figures = None,
    draw: Plot = False,
) -> None:
    """Measure memory by stage."""
    console, wanted = Console(), parse_sizes(sizes, "--sizes", least=1)
    need("psutil", *(["matplotlib"] if draw else []))
    figures = head("memory", given(context), load_bundle().base_id) | {
        "threads": threads, "memory": measure(wanted, data or [], threads=threads),
    }  # fmt: skip
    show(figures, console)
    path = write(figures, json_path, "memory", console)
    if draw:
        plot(figures, path.with_suffix(".png"))


if __name__ == "__main__":
    start(app)
