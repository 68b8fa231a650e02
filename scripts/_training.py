"""What training found, for docs/training.md."""

from __future__ import annotations

from typing import Any

from _tables import BASE, SHIPPED, grid, interval, results

BORROWED = {
    "habit": "habit", "own_fit": "own_fit", "own_fit_borrowed": "own_fit, borrowed",
    "shared": "shared head", "shared_borrowed": "shared head, borrowed",
}  # fmt: skip
LADDER = {"reranker": "records shown", "adapter": "answers", "closed": "closed sets, no LLM"}


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


def ladder() -> str:
    """Return what each rung pays over the one below, the mean over tasks; bold: surely."""
    (result,) = results("ladder")
    rows = []
    for of_roles in (result["ladder"], result["tuned"]["ladder"]):
        of_all = {role: of_roles[role]["all tasks"] for role in LADDER}
        for rung in of_all["reranker"]:
            found = [of_all[role].get(rung) for role in LADDER]
            tops = next((one["tops"] for one in found if one and "tops" in one), "")
            rows.append([rung, tops, *map(_rung, found)])
    return "\n".join([*grid(("rung", "tops", *LADDER.values()), rows), ""])


def _rung(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    utility = f"{found['utility']['mean']:.4f}"
    if "gain" not in found:
        return utility
    gain = found["gain"]
    said = f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
    return f"{utility}, {f'**{said}**' if gain['low'] > 0 else said}"
