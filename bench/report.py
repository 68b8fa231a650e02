"""What a measurement leaves behind: tables on the terminal, JSON, and plots if wanted.

Owns formats only; every figure comes from ``bench.summary``. matplotlib is imported when a
plot is drawn, and needed for nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bench.guard import BenchError
from hydra_edge.types import JsonDict

_PLOTTED = ("consensus", "reranker_only", "shared", "gated", "oracle")  # beside the baselines


class Stages:
    """Progress by stage: bars on a terminal, lines elsewhere (a log shows that it lives)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.name = ""
        self._bars: Progress | None = None
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> Stages:
        """Start showing."""
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(), console=self.console,
            )  # fmt: skip
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop showing."""
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` users of a stage are done."""
        what = f"{self.name}: {stage}"
        if self._bars is None:
            self.console.print(f"{what} {done} of {total} users", highlight=False, markup=False)
            return
        if what not in self._ids:
            self._ids[what] = self._bars.add_task(escape(what), total=total)
        self._bars.update(self._ids[what], completed=done)


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def _interval(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return "not measured"
    return f"{value['mean']:+.4f} [{', '.join(_number(value[b], '+.4f') for b in ('low', 'high'))}]"


def _bounds(low_high: list[float | None]) -> str:
    return f"[{', '.join(_number(bound, '+.1%') for bound in low_high)}]"


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def show(name: str, task: JsonDict, console: Console) -> None:
    """Print one task's table and what follows from it; of one nobody was measured for, why."""
    if "reason" in task:
        say(console, f"NOT MEASURED: {task['reason']}")
        return
    drawn = f"{task['users']} of {task['users_available']} users, {task['queries']} queries"
    if short := task["users_too_short"]:
        drawn += f", {short} more with too few records"
    if missing := len(task["users_missing"]):
        drawn += f", NOT COMPLETE: answers of {missing} missing"
    table = Table(title=f"{escape(name)} ({task['kind']}): {drawn}")
    table.add_column("row")
    metrics = list(task["rows"]["gated"]["metrics"])
    for column in ("utility", *metrics, "answers asked", "tokens written"):
        table.add_column(column, justify="right")
    for row, values in task["rows"].items():
        cells = [_number(values["metrics"].get(metric)) for metric in metrics]
        calls, tokens = f"{values['llm_calls']:,}", f"{values['tokens']:,}"
        table.add_row(row, _number(values["utility"]), *cells, calls, tokens)
    console.print(table)
    lines = [
        f"gated over {task['best_prompt_only']} (best of the paper's): "
        f"{_number(task['relative_gain'], '+.1%')} {_bounds(task['gain_interval'])}, "
        f"in utility {_interval(task['gain'])}",
        f"gated over {task['best_any']} (best prompt-only): "
        f"{_number(task['relative_gain_any'], '+.1%')} {_bounds(task['gain_interval_any'])}",
        f"gated over consensus: {_interval(task['gain_over_consensus'])}",
        f"personal over shared: {_interval(task['personal_minus_shared'])}; "
        f"over shuffled: {_interval(task['personal_minus_shuffled'])}",
        f"users helped {task['users_helped']:.0%}, harmed {task['users_harmed']:.0%}; "
        f"of the oracle's headroom {_number(task['headroom'], '.0%')}",
        f"reranker/adapter switched to {task['switches']}; "
        f"{task['fit_llm_calls']:,} LLM calls for fitting",
    ]
    if "published" in task:
        cost = task["published"]
        lines.append(
            f"gated over HYDRA as published: {_interval(task['gain_over_published'])}; a user's "
            f"heads take {cost['bytes_per_user']:,} bytes and "
            f"{(cost['record_calls'] + cost['pool_calls']) / cost['users']:.0f} LLM calls"
        )
    if (seen := task["seen_in_training"]) and seen["queries"]["seen"]:
        lines += [
            f"{n} queries {how} by the base: "
            + ", ".join(
                f"{row} {_number(seen['rows'][row][part])}"
                for row in (task["best_prompt_only"], "consensus", "gated")
            )
            for part, how in (("seen", "whose text was read"), ("unseen", "whose was not"))
            if (n := seen["queries"][part])
        ]
    if task["targets_in_input"]:
        lines.append(f"{task['targets_in_input']} targets stand word for word in their own input")
    if task["targets_in_history"]:
        lines.append(f"{task['targets_in_history']} queries were answered before, word for word")
    lines += [
        f"history of {p['records']} records: gated {p['utility']:.4f} "
        f"[{p['low']:.4f}, {p['high']:.4f}], {p['users']} users"
        for p in task["growth"]
    ]
    if left := task.get("growth_left_out"):
        lines.append(f"NOT MEASURED: history of {left}")
    for line in lines:
        say(console, line)
    for user, why in task["users_failed"].items():
        console.print(f"NOT MEASURED: user {user}: {why}", highlight=False, markup=False)


def write_json(figures: JsonDict, path: Path) -> None:
    """Write the figures; the same figures give the same bytes."""
    text = json.dumps(figures, indent=1, sort_keys=True, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def need(*modules: str) -> None:
    """Refuse to begin without modules of the bench extra: hours later they would be missed.

    Raises
    ------
    BenchError
        If one is not installed.
    """
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise BenchError(
            f"Nothing was measured: found no {', '.join(missing)}; expected the packages of the "
            "bench extra. Run pip install '.[bench]' first."
        )


def slug(llm: str) -> str:
    """Return an LLM's name as a part of a file's: without its folder, and not too long."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", llm.rpartition("/")[2])[:40]


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def plot(figures: JsonDict, path: Path) -> list[Path]:
    """Draw rows by task, and growth where it was measured; return the files written."""
    tasks = {name: task for name, task in figures["tasks"].items() if "reason" not in task}
    written = [_plot_rows(tasks, path.with_suffix(".rows.png"))] if tasks else []
    grown = {name: task["growth"] for name, task in tasks.items() if task["growth"]}
    if grown:
        written.append(_plot_growth(grown, path.with_suffix(".growth.png")))
    return written


def _plot_rows(tasks: dict[str, JsonDict], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(tasks) + 1, 3.6), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, (name, task) in zip(axes, tasks.items(), strict=True):
        best = dict.fromkeys((task["best_prompt_only"], task["best_any"], *_PLOTTED))
        values = [task["rows"][row]["utility"] for row in best]
        colours = ["#c44" if row == "gated" else "#89a" for row in best]
        axis.bar(range(len(best)), values, color=colours)
        axis.set_xticks(range(len(best)), list(best), rotation=60, ha="right")
        axis.set_title(name)
    axes[0].set_ylabel("utility")
    figure.savefig(path, dpi=120)
    return path


def _plot_growth(grown: dict[str, list[JsonDict]], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, points in grown.items():
        sizes = [p["records"] for p in points]
        (line,) = axis.plot(sizes, [p["utility"] for p in points], marker="o", label=name)
        low, high = [p["low"] for p in points], [p["high"] for p in points]
        axis.fill_between(sizes, low, high, alpha=0.15, color=line.get_color())
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlabel("records in history")
    axis.set_ylabel("utility of the gated answer")
    axis.legend()
    figure.savefig(path, dpi=120)
    return path
