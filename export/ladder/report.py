"""The ladder in figures: what each rung gives users left out, and what it adds to the one below.

Owns the intervals and the verdict. A user is the unit: queries of one rise and fall together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from export.intervals import TAILS, wider
from export.ladder.climb import Judged
from export.ladder.rungs import Rung
from hydra_edge.types import Double1d, JsonDict

DRAWS = 4000
LEAST_USERS = 5  # of fewer no interval is to be believed
ALL = "all tasks"
BASELINE = "baseline"

_Value = Callable[[Judged], Double1d]
_ByTask = dict[str, dict[str, float]]  # a mean a user, by task


def interval(by_task: Mapping[str, Double1d], *, seed: int) -> JsonDict:
    """Return the mean over tasks of the mean over users, with its interval over users.

    Parameters
    ----------
    by_task
        One value a user; users are drawn anew within each task.
    """
    rng = np.random.default_rng(seed)
    mean = float(np.mean([values.mean() for values in by_task.values()]))
    drawn = np.full(DRAWS, mean)
    for values in by_task.values():
        index = rng.integers(0, len(values), (DRAWS, len(values)))
        off = values[index].mean(axis=1) - values.mean()
        drawn += off * wider(len(values)) / len(by_task)
    low, high = np.quantile(drawn, TAILS)
    return {"mean": round(mean, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def summarize(
    judged: Mapping[str, Sequence[Judged]], rungs: Sequence[Rung], *, seed: int
) -> JsonDict:
    """Put what was judged in figures, by material, task group and rung.

    A rung ``pays`` where the interval of its paired difference to the rung it tops lies above 0,
    on ``LEAST_USERS`` or more of every task.
    """
    out: JsonDict = {}
    for what in sorted({j.what for of_rung in judged.values() for j in of_rung}):
        of_what = {name: [j for j in of_rung if j.what == what] for name, of_rung in judged.items()}
        tasks = sorted({j.task for of_rung in of_what.values() for j in of_rung})
        out[what] = {
            group: _ladder(
                {n: [j for j in js if j.task in some] for n, js in of_what.items()}, rungs, seed
            )
            for group, some in ((ALL, tasks), *((task, [task]) for task in tasks))
        }
    return out


def _ladder(judged: Mapping[str, Sequence[Judged]], rungs: Sequence[Rung], seed: int) -> JsonDict:
    out: JsonDict = {}
    if plain := judged.get(BASELINE):
        out[BASELINE] = {"utility": _interval(_means(plain, _shared), seed)}
    for rung in rungs:
        ours, theirs = judged[rung.name], judged.get(rung.over, ())
        figures: JsonDict = {
            "users": len({(j.task, j.user) for j in ours}),
            "queries": sum(len(j.shared) for j in ours),
            "utility": _interval(_means(ours, _shared), seed),
            "tops": rung.over,
        }
        if theirs:
            figures["gain"] = _paired(ours, theirs, _shared, seed)
            enough = min(map(len, _means(ours, _shared).values())) >= LEAST_USERS
            figures["pays"] = enough and figures["gain"]["low"] > 0.0
        halved = _means(ours, _personal)
        if halved:
            figures["personal"] = {
                "users": sum(len(users) for users in halved.values()),
                "queries": sum(len(j.personal) for j in ours),
                "utility": _interval(halved, seed),
                "over_shared": _difference(halved, _means(ours, _later), seed),
            }
            below = _means(theirs, _personal)
            if below:
                figures["personal"]["gain"] = _difference(halved, below, seed)
        out[rung.name] = figures
    return out


def _shared(judged: Judged) -> Double1d:
    return judged.shared


def _later(judged: Judged) -> Double1d:
    return judged.later


def _personal(judged: Judged) -> Double1d:
    return judged.personal


def _means(judged: Sequence[Judged], value: _Value) -> _ByTask:
    """Return each user's mean, what several LLMs answered to them together."""
    gathered: dict[str, dict[str, list[Double1d]]] = {}
    for one in judged:
        if len(value(one)):
            gathered.setdefault(one.task, {}).setdefault(one.user, []).append(value(one))
    return {
        task: {user: float(np.concatenate(parts).mean()) for user, parts in sorted(users.items())}
        for task, users in sorted(gathered.items())
    }


def _interval(means: _ByTask, seed: int) -> JsonDict:
    return interval({t: np.array(list(users.values())) for t, users in means.items()}, seed=seed)


def _difference(ours: _ByTask, theirs: _ByTask, seed: int) -> JsonDict:
    paired = {
        task: np.array([mean - theirs[task][user] for user, mean in users.items()])
        for task, users in ours.items()
    }
    return interval(paired, seed=seed)


def _paired(ours: Sequence[Judged], theirs: Sequence[Judged], value: _Value, seed: int) -> JsonDict:
    return _difference(_means(ours, value), _means(theirs, value), seed)


def lines(figures: JsonDict) -> list[str]:
    """Lay out what ``export.ladder.run`` measured as a table for people."""
    out = _table("", figures["ladder"])
    if tuned := figures.get("tuned"):
        out += _table("encoder, ", tuned["ladder"])
    return out


def _table(prefix: str, figures: JsonDict) -> list[str]:
    out = []
    for what, groups in figures.items():
        for group, ladder in groups.items():
            out.append(f"{prefix}{what}, {group}")
            out += [_line(name, rung) for name, rung in ladder.items()]
    return out


def _line(name: str, rung: JsonDict) -> str:
    u = rung["utility"]
    text = f"  {name:18} {u['mean']:.4f} [{u['low']:.4f}, {u['high']:.4f}]"
    if gain := rung.get("gain"):
        verdict = "pays" if rung["pays"] else "does not pay"
        text += f"  {_signed(gain)} over {rung['tops']}: {verdict}"
    if own := rung.get("personal"):
        text += f"; own head {_signed(own['over_shared'])} (n = {own['users']})"
    return text


def write(path: Path, figures: JsonDict) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _signed(gain: JsonDict) -> str:
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


# How the materials are called in a document.
NAMES = {"reranker": "records shown", "adapter": "answers", "closed": "closed sets, no LLM"}


def markdown(figures: JsonDict) -> list[str]:
    """Lay out the means over tasks as a table for a document: utility, and gain over ``tops``."""
    out = [f"| rung | tops | {' | '.join(NAMES.values())} |", "|" + "---|" * (len(NAMES) + 2)]
    tuned = figures.get("tuned", {"ladder": {}})
    for ladder in (figures["ladder"], tuned["ladder"]):
        groups = {what: ladder[what][ALL] for what in NAMES if what in ladder}
        for name in dict.fromkeys(name for group in groups.values() for name in group):
            cells = [_cell(groups.get(what, {}).get(name)) for what in NAMES]
            tops = next((g[name]["tops"] for g in groups.values() if "tops" in g.get(name, {})), "")
            out.append(f"| {name} | {tops} | {' | '.join(cells)} |")
    return out


def _cell(rung: JsonDict | None) -> str:
    if rung is None:
        return ""
    text = f"{rung['utility']['mean']:.4f}"
    if gain := rung.get("gain"):
        mark = "**" if rung["pays"] else ""
        text += f", {mark}{_signed(gain)}{mark}"
    return text


def by_task(figures: JsonDict) -> list[str]:
    """List, rung by rung, the tasks on which it pays and those on which it costs."""
    out = []
    tuned = figures.get("tuned", {"ladder": {}})
    for ladder in (figures["ladder"], tuned["ladder"]):
        told: dict[str, list[str]] = {}
        for what, groups in ladder.items():
            for task, rungs in groups.items():
                for name, rung in rungs.items():
                    gain = rung.get("gain")
                    if task != ALL and gain and (rung["pays"] or gain["high"] < 0.0):
                        said = f"{task} {gain['mean']:+.4f} ({NAMES[what]})"
                        told.setdefault(name, []).append(said)
        out += [f"- `{name}`: {', '.join(parts)}." for name, parts in told.items()]
    return out
