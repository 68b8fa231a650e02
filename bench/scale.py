"""How every cost grows with a history: import, embed, fit, rank, memory and disk.

    python -m bench.scale                                  # 1,000 and 10,000: some minutes
    python -m bench.scale --sizes 1000,10000,100000        # an hour, most of it the encoder's

Each size is a person of their own in a process of their own, from an empty folder to a
ranking; nothing is made up, every text is encoded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from bench.clock import use_clock
from bench.command import (
    Clock,
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
from bench.starts import run_python
from hydra_edge.bundle import load_bundle
from hydra_edge.types import JsonDict

ROWS = {
    "records_per_s": "records imported a second",
    "import_s": "import, s",
    "fit_cold_s": "first fit with embedding, s",
    "texts_per_s": "texts embedded a second",
    "fit_warm_s": "fit again, s",
    "rank_first_ms": "first ranking of a new process, ms",
    "rank_p50_ms": "ranking, ms (p50)",
    "rank_p95_ms": "ranking, ms (p95)",
    "peak_mb": "most memory, MB",
    "text_mb": "text, MB",
    "db_mb": "file, MB",
    "db_over_text": "file without 900 B a distinct text, over text",
    "vectors_bytes_per_text": "bytes of vectors a distinct text",
}
ASKED = 121  # rankings: the first of a process, 40 to warm up, and those timed
_LIFE = """
import json, sys
from pathlib import Path
from bench.pasts import TASK, open_person, past
from bench.clock import now_s, peak_mb, use_clock
home, n, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
data = json.loads(sys.argv[3])
use_clock(sys.argv[5])
records = past(n, [Path(name) for name in data])
texts = {text for record in records for text in (record.input, record.output)}
out = {"text_mb": sum(len(r.input.encode()) + len(r.output.encode()) for r in records) / 1e6}
distinct = len(texts)
del texts
with open_person(home, threads=threads) as person:
    started = now_s()
    person.add(records)
    out["import_s"] = now_s() - started
    out["records_per_s"] = n / out["import_s"]
    del records
with open_person(home, threads=threads) as person:
    without = person.store.size_bytes()
    started = now_s()
    report = person.fit_head(TASK, use_llm=False)
    out["fit_cold_s"] = now_s() - started
    out["texts_per_s"] = report.texts_embedded / out["fit_cold_s"]
    started = now_s()
    person.fit_head(TASK, use_llm=False)
    out["fit_warm_s"] = now_s() - started
with open_person(home, threads=threads) as person:
    size = person.store.size_bytes()
    out["db_mb"] = size / 1e6
    out["db_over_text"] = (size - 900 * distinct) / 1e6 / out["text_mb"]
    out["vectors_bytes_per_text"] = (size - without) / distinct
out["peak_mb"] = peak_mb()
print(json.dumps(out))
"""
_RANK = """
import json, sys
from pathlib import Path
from bench.pasts import open_person, queries
from bench.clock import now_s, peak_mb, sample, use_clock
use_clock(sys.argv[5])
data = [Path(name) for name in json.loads(sys.argv[3])]
with open_person(Path(sys.argv[1]), threads=int(sys.argv[4])) as person:
    asked = queries(int(sys.argv[6]), data)
    started = now_s()
    person.rank(asked[0], k=4)
    first = (now_s() - started) * 1e3
    for query in asked[1:41]:
        person.rank(query, k=4)
    times = sample([lambda q=q: person.rank(q, k=4) for q in asked[41:]])
print(json.dumps({
    "rank_first_ms": first, "rank_p50_ms": times.p50, "rank_p95_ms": times.quantile(0.95),
    "peak_mb": peak_mb(),
}))
"""

app = new_app()


def life(size: int, data: Sequence[Path], *, threads: int, clock: str) -> JsonDict:
    """Take one person from an empty folder to rankings; return what each step cost."""
    files = json.dumps([str(path.resolve()) for path in data])
    with tempfile.TemporaryDirectory() as home:
        arguments = (home, str(size), files, str(threads), clock)
        lived: JsonDict = json.loads(run_python(_LIFE, *arguments))
        ranked: JsonDict = json.loads(run_python(_RANK, *arguments, str(ASKED)))
    ranked["peak_mb"] = max(lived["peak_mb"], ranked["peak_mb"])
    return {name: round(value, 3) for name, value in (lived | ranked).items()}


def show(figures: JsonDict, console: Console) -> None:
    """Print a column for each size."""
    found = figures["scale"]
    table = Table("", *(f"{int(size):,}" for size in found))
    for name, title in ROWS.items():
        table.add_row(title, *(f"{one[name]:,.4g}" for one in found.values()))
    console.print(table)


def plot(figures: JsonDict, path: Path) -> Path:
    """Draw each cost over the number of records."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    sizes = [int(size) for size in figures["scale"]]
    panels = (("import_s", "fit_cold_s", "fit_warm_s"), ("rank_p50_ms", "rank_p95_ms"),
              ("peak_mb", "db_mb", "text_mb"))  # fmt: skip
    for axis, names in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in names:
            values = [one[name] for one in figures["scale"].values()]
            axis.plot(sizes, values, marker="o", label=ROWS[name])
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("records")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    return path


@app.command()
def main(
    context: typer.Context,
    data: Texts = None,
    sizes: Sizes = "1000,10000",
    threads: Threads = 0,
    clock: Clock = "wall",
    json_path: Figures = None,
    draw: Plot = False,
) -> None:
    """Measure how costs grow."""
    console, found = Console(), {}
    wanted = parse_sizes(sizes, "--sizes", least=1)
    use_clock(clock)
    if draw:
        need("matplotlib")
    queries(ASKED, data or [])  # files with too few records are refused now, not after the fits
    for size in wanted:
        console.print(f"{size:,} records")
        found[str(size)] = life(size, data or [], threads=threads, clock=clock)
    figures = head("scale", given(context), load_bundle().base_id) | {
        "threads": threads, "clock": clock, "scale": found,
        "data": [path.name for path in data or []] or ["synthetic"],
    }  # fmt: skip
    show(figures, console)
    path = write(figures, json_path, "scale", console)
    if draw:
        plot(figures, path.with_suffix(".png"))


if __name__ == "__main__":
    start(app)
