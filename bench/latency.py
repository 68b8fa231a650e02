"""How long everything takes, against its rivals: decode, rank, fit, startup, import.

    python -m bench.latency --quick --only rank,fit
    python -m bench.latency --json bench/results/latency.json

Ratios are medians of at least seven pairs taken by turns, but for two: those of decoding with
``--quick`` are medians of three rounds, and the paper's head runs after ours, in another process
(``paper_head_over_fit``: one median over the other). Use a machine at rest: the result notes the
load it was measured under. Each section is written once it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import fits, ranking, starts
from bench.clock import LEAST_PAIRS, use_clock
from bench.command import Clock, Figures, Plot, Quick, Texts, given, head, new_app, start, write
from bench.goals import AT_LEAST, AT_MOST, DECODING
from bench.guard import BenchError
from bench.report import need, say
from hydra_edge.bundle import load_bundle
from hydra_edge.types import JsonDict

SECTIONS = ("decode", "rank", "fit", "startup", "import")
NEEDED = {"fit": ("sklearn",), "startup": ("psutil",)}  # modules, by section
EXPORT_PYTHON = Path(__file__).parent.parent / ".venv-export" / "bin" / "python"

app = new_app()


def sections_of(only: str) -> tuple[str, ...]:
    """Read ``--only rank,fit``; all sections if it is empty.

    Raises
    ------
    BenchError
        If one is unknown.
    """
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise BenchError(f"--only {unknown[0]!r}: expected some of {', '.join(SECTIONS)}.")
    return tuple(name for name in SECTIONS if not wanted or name in wanted)


def value_at(figures: JsonDict, path: str) -> float | None:
    """Return the figure at a dotted path; None where it was not measured."""
    value: object = figures
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def verdicts(figures: JsonDict) -> Iterator[tuple[str, float, str, bool]]:
    """Yield every figure that has a target: its name, value, target, and whether it is met."""
    targets = {path: f"<= {limit:g}" for path, limit in AT_MOST.items()}
    targets |= {path: f">= {limit:g}" for path, limit in AT_LEAST.items()}
    for model in figures.get("decode", {}):
        targets |= {f"decode.{model}.{name}": target for name, target in DECODING.items()}
    for path, target in targets.items():
        value = value_at(figures, path)
        if value is None:
            continue
        limit = limit_of(target)
        yield path, value, target, value <= limit if target.startswith("<=") else value >= limit


def limit_of(target: str) -> float:
    """Return the number in a target, ``>= 5``."""
    return float(target[2:])


def show(figures: JsonDict, console: Console) -> None:
    """Print the figures against their targets."""
    load = figures["machine"]["load_1min"]
    table = Table(title=f"{figures['machine']['processor']}, load {load} at the start")
    for column in ("figure", "measured", "target", ""):
        table.add_column(column, justify="right" if column == "measured" else "left")
    for path, value, target, met in verdicts(figures):
        table.add_row(path, f"{value:,.3f}", target, "met" if met else "NOT MET")
    for model, found in figures.get("decode", {}).items():
        for name in sorted(found.keys() - DECODING.keys()):  # of a bare loop: no goal of ours
            table.add_row(f"decode.{model}.{name}", f"{found[name]:,.3f}", "", "")
    console.print(table)


def plot(figures: JsonDict, path: Path) -> Path:
    """Draw every figure as a share of its target."""
    from matplotlib.figure import Figure

    rows = list(verdicts(figures))
    shares = [value / limit_of(target) for _, value, target, _ in rows]
    figure = Figure(figsize=(7.5, 0.34 * len(rows) + 1.2), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(rows)), shares, color=["#59a" if met else "#c44" for *_, met in rows])
    axis.axvline(1.0, color="#333", linewidth=1)
    axis.set_yticks(range(len(rows)), [f"{name} ({target})" for name, _, target, _ in rows])
    axis.set_xscale("log")
    axis.set_xlabel("measured over target; red: not met")
    axis.invert_yaxis()
    figure.savefig(path, dpi=120)
    return path


def _decode(
    quick: bool, threads: int, figures: JsonDict, note: Callable[[str], None]
) -> JsonDict | None:
    """Return every ratio by model; what they are made of goes to ``decode_detail``."""
    try:
        from bench import decode

        about = decode.about_llama_cpp()
    except ImportError as err:
        note(f"decoding was not measured: {err}")
        return None
    models = decode.models_here(("smollm2-q8",) if quick else decode.MODELS, note)
    if not models:
        return None
    llm_threads = threads or decode.free_threads()
    figures["machine"] |= about | {"llm_threads": llm_threads}
    pairs = decode.QUICK_ROUNDS if quick else LEAST_PAIRS
    timed = decode.measure_in_full(models, pairs=pairs, threads=llm_threads)
    figures["decode_detail"] = {model: found.detail() for model, found in timed.items()}
    return {model: found.ratios() for model, found in timed.items()}


@app.command()
def main(
    context: typer.Context,
    data: Texts = None,
    only: Annotated[str, typer.Option(help=f"Some of {','.join(SECTIONS)}.")] = "",
    quick: Quick = False,
    threads: Annotated[
        int, typer.Option(help="Of the encoder and of the LLM; 0: chosen for the machine.")
    ] = 0,
    clock: Clock = "wall",
    torch: Annotated[
        Path | None, typer.Option(help="A Python with the export extra, for the paper's head.")
    ] = None,
    json_path: Figures = None,
    draw: Plot = False,
) -> None:
    """Measure latencies and print each against its target."""
    files, wanted, console = data or [], sections_of(only), Console()
    use_clock(clock)
    needed = [module for name in wanted for module in NEEDED.get(name, ())]
    need(*needed, *(["matplotlib"] if draw else []))
    if "rank" in wanted:
        ranking.asked_of(files, quick=quick)  # too few are refused before anything is measured
    bundle = load_bundle()

    def note(text: str) -> None:
        say(console, text)

    python = torch or (EXPORT_PYTHON if EXPORT_PYTHON.exists() else None)
    figures = head("latency", given(context), bundle.base_id) | {
        "threads": threads, "quick": quick, "data": [path.name for path in files] or ["synthetic"],
    }  # fmt: skip
    measures: dict[str, Callable[[], JsonDict | None]] = {
        "decode": lambda: _decode(quick, threads, figures, note),
        "rank": lambda: ranking.measure(files, quick=quick, threads=threads),
        "fit": lambda: fits.measure(files, quick=quick, threads=threads, torch=python, note=note),
        "startup": lambda: starts.measure(files, quick=quick),
        "import": lambda: starts.measure_import(files, quick=quick),
    }
    for name in wanted:
        note(f"measuring {name}")
        found = measures[name]()
        if found is not None:
            figures[name] = found
        figures["targets"] = [
            {"figure": name, "measured": value, "target": target, "met": met}
            for name, value, target, met in verdicts(figures)
        ]
        # Now: of a run that is stopped, what is measured is kept.
        path = write(figures, json_path, "latency", console)
    show(figures, console)
    if draw:
        note(f"drawn in {plot(figures, path.with_suffix('.png'))}")


if __name__ == "__main__":
    start(app)
