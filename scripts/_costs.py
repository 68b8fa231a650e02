"""What ranking, fitting, starting and writing cost: the tables of speed."""

from __future__ import annotations

from typing import Any

from _tables import grid, measured_with, results

from bench import goals

DECODING = {
    "best8_over_greedy_16": "best of 8 over one greedy answer, 16 tokens",
    "bare8_over_greedy_16": "the same of a bare llama.cpp loop",
    "best8_over_greedy_64": "best of 8 over one greedy answer, 64 tokens",
    "bare8_over_greedy_64": "the same of a bare llama.cpp loop",
    "independent8_over_best8_16": "eight independent answers over best of 8, 16 tokens",
    "sequential8_over_best8_16": "eight with prefix reuse over best of 8, 16 tokens",
    "sequential8_over_best8_64": "eight with prefix reuse over best of 8, 64 tokens",
    "label_best8_over_greedy": "best of 8 over one greedy answer, label",
    "over_bare_loop": "speed over a bare llama.cpp loop",
}
NARROW = 0.1  # a target met by less than this share of it is met by chance of the hour
GROWTH = {
    "import_s": "import, s", "fit_cold_s": "first fit, embedding all, s",
    "fit_warm_s": "fit again, s", "rank_p50_ms": "ranking, ms (p50)",
    "peak_mb": "most memory, MB", "text_mb": "text, MB", "db_mb": "file, MB",
}  # fmt: skip


def speeds() -> str:
    """Return the tables of latency and of candidate decoding."""
    parts = (("latency", speed), ("latency-decode", decoding))
    return "\n".join(
        line for name, write in parts for result in results(name) for line in (write(result), "")
    )


def scales() -> str:
    """Return the table of how costs grow."""
    return "\n".join(line for result in results("scale") for line in (growth(result), ""))


def speed(result: dict[str, Any]) -> str:
    """Return the table of latencies against their targets, those missed included."""
    machine = result["machine"]
    clock = "wall" if machine["clock"] == "wall" else "processor"
    title = (
        f"Speed on {machine['cores']} cores ({machine['processor']}, {machine['isa']}), {clock} "
        f"time (`{result['command']} --json bench/results/latency.json`):\n"
    )
    # Decoding has a table of its own, by ratio and model.
    found = [row for row in result["targets"] if not row["figure"].startswith("decode.")]
    rows = [
        [row["figure"], _figure(row), row["target"], "yes" if row["met"] else "**no**"]
        for row in found
    ]
    lines = grid(("figure", "measured", "target", "met"), rows)
    return "\n".join([title, *lines, *narrowly(found), *elsewhere(found), *measured_with(result)])


def narrowly(targets: list[dict[str, Any]]) -> list[str]:
    """Name the figures that another run on the same machine may well find on the other side."""
    close = [
        row["figure"]
        for row in targets
        if row["met"] and abs(row["measured"] / float(row["target"][2:]) - 1) < NARROW
    ]
    said = f"\nMet by less than {NARROW:.0%}, so that another run may miss it: {', '.join(close)}."
    return [said] if close else []


def elsewhere(targets: list[dict[str, Any]]) -> list[str]:
    """Say what of this is missed on an older processor."""
    met = {row["figure"] for row in targets if row["met"]}
    told = []
    for result in results("latency-avx2"):
        missed = [
            f"{row['figure']} {_figure(row)}"
            for row in result["targets"]
            if not row["met"] and row["figure"] in met
        ]
        machine = result["machine"]
        if missed:
            told.append(
                f"\nOn an older processor ({machine['processor']}, {machine['isa']}; "
                f"`bench/results/latency-avx2.json`) these are missed, too: {', '.join(missed)}."
            )
    return told


def _figure(row: dict[str, Any]) -> str:
    return f"{row['measured']:,.4g}" if row["measured"] < 1000 else f"{row['measured']:,.0f}"


def decoding(result: dict[str, Any]) -> str:
    """Return the ratios of candidate decoding, a column for each LLM."""
    models = result["decode"]
    title = (
        f"Candidates, ratios of times on {result['machine']['llm_threads']} threads by turns "
        f"(`{result['command']} --json bench/results/latency-decode.json`):\n"
    )
    rows = [
        [ratio, goals.DECODING.get(name, ""), *(f"{found[name]:.2f}" for found in models.values())]
        for name, ratio in DECODING.items()
    ]
    lines = grid(("ratio", "target", *models), rows)
    return "\n".join([title, *lines, *measured_with(result)])


def growth(result: dict[str, Any]) -> str:
    """Return how costs grow with a history, a column for each size."""
    sizes = result["scale"]
    clock = "wall time" if result["clock"] == "wall" else "processor time on a busy machine"
    title = (
        f"One history from import to ranking, {result['threads'] or 'all'} thread(s), {clock} "
        f"(`python -m bench.scale --sizes {','.join(sizes)} --threads {result['threads']} "
        f"--clock {result['clock']}`):\n"
    )
    rows = []
    for name, cost in GROWTH.items():
        values = [found[name] for found in sizes.values()]
        rows.append([cost, *(f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in values)])
    lines = grid(("records", *(f"{int(size):,}" for size in sizes)), rows)
    return "\n".join([title, *lines, *measured_with(result)])
