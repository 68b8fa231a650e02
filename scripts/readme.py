"""Write the README's transcript and figures: `make readme` (figures only: --figures).

The transcript is what the commands print on this machine, nothing else; the figures, some of
docs/training.md among them, come from `bench/results/*.json` and the shipped base's manifest.
Between the markers, nothing is written by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import goals

ROOT = Path(__file__).parent.parent
README, TRAINING = ROOT / "README.md", ROOT / "docs" / "training.md"
MANIFEST = ROOT / "hydra_edge" / "bundles" / "default" / "manifest.json"
BASE = json.loads(MANIFEST.read_text(encoding="utf-8"))
SHIPPED = BASE["base_id"]
LEAST_QUERIES = 5  # of a part of a task's queries that is worth a sentence
EARLIER = "\n\\* Measured with an earlier base; the others with the one that is shipped."
QUERY = (
    "Large language models answer questions about long stories poorly. We build a corpus of "
    "narratives with questions and show that retrieving the right passages helps."
)
COMMANDS = (
    "hydra-edge import jsonl examples/papers/author-a.jsonl --user me",
    "hydra-edge fit-head --user me --budget 90s",
    f'hydra-edge rank "{QUERY}" -k 2',
    f'hydra-edge "{QUERY}" --explain',
)


def transcript() -> str:
    """Run the commands in a fresh home and return what a terminal shows."""
    parts = []
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"HYDRA_EDGE_HOME": home, "COLUMNS": "100", "NO_COLOR": "1"}
        for command in COMMANDS:
            arguments = shlex.split(command)
            program = Path(sys.executable).parent / arguments[0]
            result = subprocess.run(
                [program, *arguments[1:]], env=env, cwd=ROOT, text=True, check=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            lines = [line.rstrip() for line in result.stdout.splitlines()]
            parts.append("\n".join([f"$ {command}", *lines]).strip())
    return "```\n" + "\n\n".join(parts) + "\n```\n"


def results(pattern: str) -> list[dict[str, Any]]:
    """Read the stored results of a name, in order."""
    paths = sorted((ROOT / "bench" / "results").glob(f"{pattern}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def grid(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table."""
    first, *others = (list(cells) for cells in (headings, *rows))
    return ["| " + " | ".join(first) + " |", "|" + "---|" * len(first)] + [
        "| " + " | ".join(cells) + " |" for cells in others
    ]


def figures() -> str:
    """Return a quality table for every stored result: one LLM, a line a task."""
    out = []
    out += [line for result in results("quality-*") for line in (table(result), "")]
    by_llm: dict[str, list[dict[str, Any]]] = {}
    for result in results("published-*"):
        by_llm.setdefault(result["llm"], []).append(result)
    out += [line for of_llm in by_llm.values() for line in (published(of_llm), "")]
    for pattern, write in (("personal-*", own), ("growth-*", curve)):
        out += [line for result in results(pattern) for line in (write(result), "")]
    for name, write in (("latency", speed), ("latency-decode", decoding), ("scale", growth)):
        path = ROOT / "bench" / "results" / f"{name}.json"
        if path.exists():
            out += [write(json.loads(path.read_text(encoding="utf-8"))), ""]
    return "\n".join(out)


def classifiers() -> str:
    """Return what the base's classifiers pay, as its manifest states it."""
    headings = (
        "task", "users, queries", "the LLM's first answer", "lent, as to a set never seen",
        "with it", "with it and learned maps",
    )  # fmt: skip
    rows = []
    for name, task in BASE["quality"]["adapter"].items():
        worth = task["utility"]
        if "never_seen" in worth:
            rows.append([
                name, f"{task['users']}, {task['queries']}", f"{worth['baseline']:.4f}",
                f"{worth['never_seen']:.4f}", f"**{worth['interpretable']:.4f}**",
                f"{worth['maps']:.4f}",
            ])  # fmt: skip
    return "\n".join([*grid(headings, rows), ""])


def few() -> str:
    """Return what it pays to believe few records less, as the base's manifest states it."""
    stated = BASE["quality"]["half_at"]
    tried = stated["utility"]
    known = list(next(iter(tried.values())))
    headings, rows = ["records until half is believed", *(f"{n} known" for n in known)], []
    for half_at, worth in sorted(tried.items(), key=lambda one: float(one[0])):
        mark = "**" if float(half_at) == stated["half_at"] else ""
        cells = [half_at, *(f"{worth[n]:.4f}" for n in known)]
        rows.append([f"{mark}{cell}{mark}" for cell in cells])
    return "\n".join([*grid(headings, rows), ""])


BORROWED = {
    "habit": "habit", "own_fit": "own_fit", "own_fit_borrowed": "own_fit, borrowed",
    "shared": "shared head", "shared_borrowed": "shared head, borrowed",
}  # fmt: skip


def borrowed() -> str:
    """Return what it is worth to borrow a classifier, a line for each size of the past."""
    (result,) = results("borrowed")
    ((name, by_size),) = result["tasks"].items()
    headings, rows = ("records", *BORROWED.values(), "borrowing adds to it"), []
    for size in sorted(by_size, key=lambda size: float("inf" if size == "all" else size)):
        found = by_size[size]
        gain = found["gain_of_borrowing"]["shared"]
        rows.append([size, *(f"{found['utility'][row]:.3f}" for row in BORROWED), interval(gain)])
    stars = [f"\n{name} was measured with an earlier base."] if result["base_id"] != SHIPPED else []
    return "\n".join([*grid(headings, rows), *stars, ""])


def speed(result: dict[str, Any]) -> str:
    """Return the table of latencies against their targets, those missed included."""
    machine = result["machine"]
    clock = "wall" if machine["clock"] == "wall" else "processor"
    title = (
        f"Speed on {machine['cores']} cores ({machine['processor']}), {clock} time "
        "(`python -m bench.latency --json bench/results/latency.json`):\n"
    )
    rows = []
    for row in result["targets"]:
        measured = (
            f"{row['measured']:,.4g}" if row["measured"] < 1000 else f"{row['measured']:,.0f}"
        )
        met = "yes" if row["met"] else "**no**"
        rows.append([row["figure"], measured, row["target"], met])
    lines = grid(("figure", "measured", "target", "met"), rows)
    return "\n".join([title, *lines, *measured_with(result)])


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


def decoding(result: dict[str, Any]) -> str:
    """Return the ratios of candidate decoding, a column for each LLM."""
    models = result["decode"]
    title = (
        "Candidates, ratios of times measured by turns "
        "(`python -m bench.latency --only decode --json bench/results/latency-decode.json`):\n"
    )
    rows = [
        [ratio, goals.DECODING.get(name, ""), *(f"{found[name]:.2f}" for found in models.values())]
        for name, ratio in DECODING.items()
    ]
    lines = grid(("ratio", "target", *models), rows)
    return "\n".join([title, *lines, *measured_with(result)])


GROWTH = {
    "import_s": "import, s", "fit_cold_s": "first fit, embedding all, s",
    "fit_warm_s": "fit again, s", "rank_p50_ms": "ranking, ms (p50)",
    "peak_mb": "most memory, MB", "text_mb": "text, MB", "db_mb": "file, MB",
}  # fmt: skip


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


HEADINGS = (
    "task", "users x queries", "best of the paper's", "dense k=4", "consensus", "shared",
    "personal", "**gated**", "oracle of 8", "gain over the paper's", "over all", "harmed",
    "headroom",
)  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Return one result's table; utilities, then relative gains with 90 % intervals."""
    title = (
        f"LLM: **{result['llm']}**, {result['candidates']} candidates, {result['shown']} records "
        f"shown, {result['fit_pools']} pools to fit a user (`{result['command']}`):\n"
    )
    rows = []
    for name, task in result["tasks"].items():
        worth = utilities(task)
        low, high = task["gain_interval"]
        rows.append([
            marked(name, result),
            f"{task['users']} x {task['queries'] // task['users']}",
            f"{worth[task['best_prompt_only']]:.3f} ({task['best_prompt_only']})",
            *(f"{worth[row]:.3f}" for row in ("dense_k4", "consensus", "shared", "personal")),
            f"**{worth['gated']:.3f}**", f"{worth['oracle']:.3f}",
            f"{percent(task['relative_gain'])} [{percent(low)}, {percent(high)}]",
            f"{percent(task['relative_gain_any'])} ({task['best_any']})",
            f"{task['users_harmed']:.0%}",
            "none" if task["headroom"] is None else f"{task['headroom']:.0%}",
        ])  # fmt: skip
    return "\n".join(
        [
            title,
            *grid(HEADINGS, rows),
            *explained(result),
            *read_before(result),
            f"\nMean relative gain: {percent(result['mean_relative_gain'])} over the best of the "
            f"paper's prompt-only answers, {percent(result['mean_relative_gain_any'])} over the "
            "best of all prompt-only answers.",
        ]
    )


def read_before(result: dict[str, Any]) -> list[str]:
    """Say for each task how it goes with texts the base was trained on, as others' records."""
    lines = []
    for name, task in result["tasks"].items():
        seen = task.get("seen_in_training")
        # A text or two that two people share tells nothing.
        if not seen or min(seen["queries"].values()) < LEAST_QUERIES:
            continue
        best, n = task["best_prompt_only"], seen["queries"]
        gated, paper = seen["rows"]["gated"], seen["rows"][best]
        lines.append(
            f"\nOf {name}'s {task['queries']} queries {n['seen']} are texts that other people's "
            f"records in the training files have, too: gated {gated['seen']:.3f}, {best} "
            f"{paper['seen']:.3f}. On the {n['unseen']} others: gated {gated['unseen']:.3f}, "
            f"{best} {paper['unseen']:.3f}."
        )
    return lines


def published(results: list[dict[str, Any]]) -> str:
    """Return one LLM's comparison with HYDRA as published, a result for each task."""
    one = results[0]
    title = (
        "Against HYDRA as published (a cross-encoder for each role from the same MiniLM, a "
        "two-layer head for each user and role; `python -m export published` trains it, on 30 "
        f"users a task by default, which may be too few for it), LLM **{one['llm']}** "
        f"(for each task `{one['command'].replace(next(iter(one['tasks'])), 'TASK')}`):\n"
    )
    headings = (
        "task", "HYDRA as published", "its reranker, greedy", "its adapter, BM25's records",
        "**gated**", "ours over it", "its bytes a user", "its LLM calls to fit a user", "ours",
        "steps its encoders were trained",
    )  # fmt: skip
    rows = []
    for result in results:
        for name, task in result["tasks"].items():
            worth, cost = utilities(task), task["published"]
            calls = (cost["record_calls"] + cost["pool_calls"]) / cost["users"]
            steps = [role["steps"] for role in cost["trained"]["roles"].values()]
            rows.append([
                marked(name, result),
                *(f"{worth[r]:.3f}" for r in ("hydra_published", "published_reranker",
                                              "published_adapter")),
                f"**{worth['gated']:.3f}**", interval(task["gain_over_published"]),
                f"{cost['bytes_per_user']:,}", f"{calls:.0f}",
                f"{task['fit_llm_calls'] / task['users']:.0f}",
                " and ".join(map(str, steps)),
            ])  # fmt: skip
    stars = [line for result in results for line in explained(result)]
    return "\n".join([title, *grid(headings, rows), *stars[:1]])


def own(result: dict[str, Any]) -> str:
    """Return what a head of one's own adds: against the shared head, and another user's."""
    title = (
        f"What a head of one's own adds after at most {8 * result['fit_pools']} answers to a "
        "user's past (pools of 8, and two plain answers beside each), LLM "
        f"**{result['llm']}**; *shuffled* is another user's head (`{result['command']}`):\n"
    )
    headings = (
        "task", "shared", "personal", "shuffled", "**gated**", "personal over shared",
        "personal over shuffled", "personal heads the gate let in (reranker, adapter)",
    )  # fmt: skip
    rows = []
    for name, task in result["tasks"].items():
        worth = utilities(task)
        let_in = [
            sum(n for switch, n in task["switches"].items() if switch.split("/")[i] == "personal")
            for i in (0, 1)
        ]
        rows.append([
            marked(name, result),
            *(f"{worth[row]:.3f}" for row in ("shared", "personal", "shuffled")),
            f"**{worth['gated']:.3f}**",
            interval(task["personal_minus_shared"]), interval(task["personal_minus_shuffled"]),
            "{} and {} of {}".format(*let_in, task["users"]),
        ])  # fmt: skip
    return "\n".join([title, *grid(headings, rows), *explained(result)])


def curve(result: dict[str, Any]) -> str:
    """Return what users are served with so many records of their past, a line a task."""
    grown = {name: task["growth"] for name, task in result["tasks"].items() if task["growth"]}
    sizes = sorted({point["records"] for points in grown.values() for point in points})
    title = (
        f"The gated answer by the number of records before the queries, LLM **{result['llm']}**, "
        "the same users in a line, none of them with fewer records than its last column "
        f"(`{result['command']}`):\n"
    )
    rows = []
    for name, points in grown.items():
        found = {point["records"]: f"{point['utility']:.3f}" for point in points}
        served = (found.get(size, "") for size in sizes)
        rows.append([marked(name, result), str(points[0]["users"]), *served])
    lines = grid(("task", "users", *map(str, sizes)), rows)
    return "\n".join([title, *lines, *explained(result)])


def is_earlier(name: str, result: dict[str, Any]) -> bool:
    """Tell whether a task's figures are of another base than the one that is shipped."""
    return bool(result["tasks"][name].get("base_id", result["base_id"]) != SHIPPED)


def marked(name: str, result: dict[str, Any]) -> str:
    """Write a task's name, with a star if its base is an earlier one."""
    return f"{name} \\*" if is_earlier(name, result) else name


def explained(result: dict[str, Any]) -> list[str]:
    """Say what the stars mean, if there are any."""
    return [EARLIER] if any(is_earlier(name, result) for name in result["tasks"]) else []


def measured_with(result: dict[str, Any]) -> list[str]:
    """Say which base a table of costs is of, if not of the one that is shipped."""
    if result["base_id"] == SHIPPED:
        return []
    return [
        f"\nMeasured with base {result['base_id'][:8]}, an earlier one; the shipped one is "
        f"{SHIPPED[:8]}."
    ]


def utilities(task: dict[str, Any]) -> dict[str, float]:
    """Return each row's utility."""
    return {row: figures["utility"] for row, figures in task["rows"].items()}


def interval(gain: dict[str, float]) -> str:
    """Write a gain with its interval."""
    return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"


def percent(gain: float | None) -> str:
    """Write a relative gain, which does not exist over a baseline of zero."""
    return "undefined" if gain is None else f"{gain:+.1%}"


def replace(text: str, name: str, content: str) -> str:
    """Put content between a section's markers."""
    pattern = re.compile(rf"(<!-- {name}:begin[^>]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"there is no section {name} to write")
    return pattern.sub(lambda m: m[1] + content + m[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", action="store_true", help="leave the transcript as it is")
    parser.add_argument("--check", action="store_true", help="fail if the figures are stale")
    args = parser.parse_args()
    pages = {
        README: {"figures": figures()},
        TRAINING: {"classifiers": classifiers(), "few": few(), "borrowed": borrowed()},
    }
    if not (args.check or args.figures):
        pages[README]["transcript"] = transcript()
    for page, sections in pages.items():
        old = new = page.read_text(encoding="utf-8")
        for name, content in sections.items():
            new = replace(new, name, content)
        if new == old:
            continue
        if args.check:
            sys.exit(f"{page.name}: figures are stale; run make readme")
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
