"""What kept answers tell: of pools that end early, and of people whose choices change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _tables import grid, measured_with, results

KEPT = 0.98  # of the utility on every task: what a rule has to keep
VOTES = {
    "settled_by_one": "settled by the first answer",
    "saved_one_by_one": "answers saved, drawn one by one",
    "saved_four_together": "saved, four requests at once", "same_choice": "same choice",
}  # fmt: skip
RULES = {
    "6 of 8 finished": "6 of 8 finished", "7 of 8 finished": "7 of 8 finished",
    "all but 1 of each prompt": "all but the last of each prompt's",
    "chance to be beaten < 0.2": "chance to be beaten < 0.2",
    "chance to be beaten < 0.1": "chance to be beaten < 0.1",
    "chance to be beaten < 0.05": "chance to be beaten < 0.05",
}  # fmt: skip


def votes() -> str:
    """Return what closed sets would save, over all LLMs, a line a task."""
    stored = results("votes-*")
    rows = []
    for name in stored[0]["tasks"]:
        found = [result["tasks"][name] for result in stored]
        rows.append([name, *(_range([of[share] for of in found], 0) for share in VOTES)])
    headings = (f"task, {len(stored)} LLMs", *VOTES.values())
    return "\n".join([_made_by(stored), *grid(headings, rows), *_base(stored), ""])


def stopping() -> str:
    """Return what rules that stop free text would keep and save, over all LLMs and tasks."""
    stored = results("stopping-*")
    of_tasks = [task["rules"] for result in stored for task in result["tasks"].values()]
    rows = [
        [
            name,
            _range([found[rule]["utility_kept"] for found in of_tasks], 1),
            *(_range([found[rule][share] for found in of_tasks], 0)
              for share in ("steps_saved", "tokens_saved")),
        ]
        for rule, name in RULES.items()
    ]  # fmt: skip
    headings = (
        "rule", f"utility kept (lowest to highest of {len(stored[0]['tasks'])} tasks, "
        f"{len(stored)} LLMs)", "steps saved", "tokens saved",
    )  # fmt: skip
    said = (
        f"\n{_most_saved(of_tasks)} For tasks and LLMs one by one there is "
        "`bench/results/stopping-*.json`."
    )
    return "\n".join([_made_by(stored), *grid(headings, rows), *_base(stored), said, ""])


def picks() -> str:
    """Return how soon a head follows a person who takes other answers than before."""
    stored = results("picks-*")
    one = stored[0]
    rows = []
    for changed in next(iter(one["tasks"].values()))["changed"]:
        first, _, then = changed.partition(", then ")
        for result in stored if first != then else ():
            for name, task in result["tasks"].items():
                fits = task["changed"][changed]
                shares = (fits["everything"][-1], *fits["far_back"])
                rows.append([changed, result["llm"], name, *(f"{share:.2f}" for share in shares)])
    headings = (
        "takes", "LLM", "task", f"after {one['after'][-1]}, learned from everything",
        *(f"after {n}" for n in one["after"]),
    )  # fmt: skip
    return "\n".join([_made_by(stored), *grid(headings, rows), *_base(stored), ""])


def _most_saved(of_tasks: Sequence[dict[str, Any]]) -> str:
    """Say which of the rules measured keeps enough everywhere, and saves most of the steps."""
    saved = {
        rule: sum(found[rule]["steps_saved"] for found in of_tasks) / len(of_tasks)
        for rule in of_tasks[0]
        if min(found[rule]["utility_kept"] for found in of_tasks) >= KEPT
    }
    if not saved:
        return f"No rule keeps {100 * KEPT:.0f} % of the utility on every task."
    rule = max(saved, key=lambda one: saved[one])
    steps = _range([found[rule]["steps_saved"] for found in of_tasks], 1)
    return (
        f"Of the rules that keep {100 * KEPT:.0f} % of the utility on every task, *{rule}* saves "
        f"most: {steps} of the steps."
    )


def _range(shares: Sequence[float], digits: int) -> str:
    """Write the lowest and the highest of some shares in per cent; one if they read the same."""
    ends = dict.fromkeys(f"{100 * share:.{digits}f}" for share in (min(shares), max(shares)))
    return f"{' to '.join(ends)} %"


def _made_by(stored: Sequence[dict[str, Any]]) -> str:
    llm = stored[0]["command"].rpartition(" --llm ")[2]
    command = stored[0]["command"].removesuffix(llm)
    llms = ", ".join(result["llm"] for result in stored)
    return (
        f"{stored[0]['users']} users x {stored[0]['queries']} queries a task; {llms} (for each "
        f"`{command}LLM`):\n"
    )


def _base(stored: Sequence[dict[str, Any]]) -> list[str]:
    return next((said for result in stored if (said := measured_with(result))), [])
