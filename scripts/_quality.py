"""What answers are worth: the digest of the README, the tables of docs/measured.md."""

from __future__ import annotations

import sys
from typing import Any

from _published import against_published, published
from _tables import explained, grid, interval, is_earlier, marked, percent, results, utilities

LEAST_QUERIES = 5  # of a part of a task's queries that is worth a sentence
HEADINGS = (
    "task", "users x queries", "best of the paper's", "dense k=4", "consensus", "shared",
    "personal", "**gated**", "oracle of 8", "gain over the paper's", "over all",
    "helped, harmed", "headroom",
)  # fmt: skip


def digest() -> str:
    """Return the gain of every task that was measured, all LLMs in a line, losses included."""
    of_set: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    stored = results("quality-*")
    for result in stored:
        by_llm = of_set.setdefault(tuple(result["tasks"]), {})
        if result["llm"] in by_llm:
            sys.exit(f"two stored results of {', '.join(result['tasks'])} with {result['llm']}")
        by_llm[result["llm"]] = result
    llms = list(dict.fromkeys(llm for by_llm in of_set.values() for llm in by_llm))
    columns = ("best of the paper's", "**ours**", "gain", "helped, harmed")
    headings = ["task", *(f"{llm}: {column}" for llm in llms for column in columns)]
    rows = []
    for tasks, by_llm in of_set.items():
        found = [by_llm.get(llm) for llm in llms]
        for name in tasks:
            earlier = any(result and is_earlier(name, result) for result in found)
            cells = [cell for result in found for cell in _gain(result, name)]
            rows.append([f"{name} \\*" if earlier else name, *cells])
        if len(tasks) > 1:
            rows.append(["*mean*", *(c for result in found for c in _mean(result))])
    stars = [line for result in stored for line in explained(result)][:1]
    seen = [
        f"\n{result['llm']}: {line.strip()}" for result in stored for line in read_before(result)
    ]
    return "\n".join([*grid(headings, rows), *stars, *seen, own_heads(), against_published()])


def _gain(result: dict[str, Any] | None, name: str) -> list[str]:
    if result is None:
        return [""] * 4
    task = result["tasks"][name]
    worth, best = utilities(task), task["best_prompt_only"]
    return [
        f"{worth[best]:.3f} ({best})", f"**{worth['gated']:.3f}**",
        percent(task["relative_gain"]), helped_and_harmed([task]),
    ]  # fmt: skip


def _mean(result: dict[str, Any] | None) -> list[str]:
    if result is None:
        return [""] * 4
    gain = f"**{percent(result['mean_relative_gain'])}**"
    return ["", "", gain, helped_and_harmed(list(result["tasks"].values()))]


def helped_and_harmed(tasks: list[dict[str, Any]]) -> str:
    """Write the shares of users who are better and worse off, the means over tasks."""
    shares = ([task[f"users_{how}"] for task in tasks] for how in ("helped", "harmed"))
    return ", ".join(f"{sum(of_tasks) / len(of_tasks):.0%}" for of_tasks in shares)


def own_heads() -> str:
    """Return what a head of one's own added where users had pools to fit it, in a sentence."""
    tasks = [task for result in results("personal-*") for task in result["tasks"].values()]
    if not tasks:
        return ""
    gains = ", ".join(interval(task["personal_minus_shared"]) for task in tasks)
    let_in, users = zip(*((sum(_let_in(task)), 2 * task["users"]) for task in tasks), strict=True)
    return (
        f"\nA head of one's own on top of the shared one, after 64 answers each: {gains} on "
        f"{len(tasks)} tasks; the gate let in {sum(let_in)} of {sum(users)} such heads.\n"
    )


def _let_in(task: dict[str, Any]) -> list[int]:
    """Count the users whose own head the gate let in, as a reranker and as an adapter."""
    return [
        sum(n for switch, n in task["switches"].items() if switch.split("/")[i] == "personal")
        for i in (0, 1)
    ]


def quality() -> str:
    """Return a table for every stored result of quality: one LLM, a line a task."""
    out = [line for result in results("quality-*") for line in (table(result), "")]
    by_llm: dict[str, list[dict[str, Any]]] = {}
    for result in results("published-*"):
        by_llm.setdefault(result["llm"], []).append(result)
    out += [line for of_llm in by_llm.values() for line in (published(of_llm), "")]
    for pattern, write in (("personal-*", own), ("growth-*", curve)):
        out += [line for result in results(pattern) for line in (write(result), "")]
    return "\n".join(out)


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
            helped_and_harmed([task]),
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
        rows.append([
            marked(name, result),
            *(f"{worth[row]:.3f}" for row in ("shared", "personal", "shuffled")),
            f"**{worth['gated']:.3f}**",
            interval(task["personal_minus_shared"]), interval(task["personal_minus_shuffled"]),
            "{} and {} of {}".format(*_let_in(task), task["users"]),
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
