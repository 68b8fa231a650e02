"""What is stored with a head about how it came to be: the keys of its report, and their readers.

A report may come from an earlier release, or from a file somebody else wrote: what is missing, or
of another type, is told by the readers alone. The keys are in people's files and never change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra_edge.types import HeadState, JsonDict

# The gate's last word: why a head serves or not, on how many queries, and the evidence for it.
REASON = "reason"
HELD_OUT = "held_out"
UTILITY = "utility"
SHARED_OVER_BASELINE = "shared_over_baseline"
PERSONAL_OVER_SHARED = "personal_over_shared"
# The table a fit shows, and the kind of its task's answers then.
ROWS = "rows"
KIND = "kind"
# That it was brought from elsewhere.
IMPORTED = "imported"
# The number of the last of the choices it was fitted on.
CHOICES_UP_TO = "choices_up_to"
# An adapter head's: the LLM whose pools it was fitted on; absent where all of them were.
MODEL = "model"
# And how many these were: where there are choices, there may be none.
POOLS_OF_MODEL = "pools_of_model"
# Earlier releases told when the last of the choices was made.
CHOICES_UNTIL = "choices_until"
# Of a head that is one choice's step on from another: the answer chosen from, and the version it
# was taken from; None if there was none.
CHOICE = "choice"
ORIGIN = "origin"
# The numbers of the newest choice of its task and of the newest answer when it was stored. They
# tell what it can have learned from, also where the clock was set back.
SEEN = "seen"
# Where its task was renamed, and a base knows one of the names: the one that it was fitted under.
# Under another it does not serve.
NAMED = "named"
# What is said of this device's choices.
_OF_CHOICES = frozenset({CHOICES_UP_TO, CHOICES_UNTIL, SEEN, CHOICE, ORIGIN})


def reason_of(report: Mapping[str, Any]) -> object:
    """Return why a head serves or not; empty if it is not told."""
    return report.get(REASON, "")


def kind_of(report: Mapping[str, Any], kind: str) -> object:
    """Return the kind of answers a head was fitted to; ``kind`` if it is not told."""
    return report.get(KIND, kind)


def name_of(report: Mapping[str, Any], task: str) -> object:
    """Return the name of its task that a head was fitted under; ``task`` if it is not told."""
    return report.get(NAMED, task)


def rows_of(report: Mapping[str, Any]) -> list[JsonDict]:
    """Return the rows of the table, with whatever is in them."""
    rows = report.get(ROWS)
    return [row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict)]


def gains_of(report: Mapping[str, Any]) -> JsonDict:
    """Return what the heads gained by name, as it is stored."""
    return {name: report.get(name) for name in (PERSONAL_OVER_SHARED, SHARED_OVER_BASELINE)}


def shared_helps(report: Mapping[str, Any]) -> bool | None:
    """Tell whether the gate would let the shared head serve; None if it is not told."""
    gain = report.get(SHARED_OVER_BASELINE)
    low = gain.get("low") if isinstance(gain, dict) else None
    return low > 0.0 if isinstance(low, int | float) else None


def is_imported(report: Mapping[str, Any]) -> bool:
    """Tell whether a head was brought from elsewhere."""
    return bool(report.get(IMPORTED))


def model_of(head: HeadState | None) -> str | None:
    """Return the LLM whose pools an adapter's head was fitted on, to fit it again on the same.

    None, for pools of all LLMs: no LLM was named, or an earlier release fitted it. What an
    imported head says is of another device's pools.
    """
    if head is None or is_imported(head.report):
        return None
    model = head.report.get(MODEL)
    return model if isinstance(model, str) else None


def taught_by(head: HeadState | None) -> str | None:
    """Return the LLM whose pools an adapter's head learned from; None if no one LLM's did."""
    return model_of(head) if head is not None and head.report.get(POOLS_OF_MODEL) else None


def choices_up_to(report: Mapping[str, Any]) -> Any:
    """Return the number of the last choice a head was fitted on; None if it is not told."""
    return report.get(CHOICES_UP_TO)


def choices_until(report: Mapping[str, Any]) -> Any:
    """Return when the last choice was made that an earlier release fitted a head on."""
    return report.get(CHOICES_UNTIL, -math.inf)


def step_of(report: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Return the answer whose choice a head is a step on from another by, and that version.

    None for a head that was fitted, or brought; no version where there was none.
    """
    return (report[CHOICE], report.get(ORIGIN)) if CHOICE in report else None


def seen_by(report: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the newest choice and answer when a head was stored; None: by an earlier release."""
    match report.get(SEEN):
        case [int(choice), int(answer)]:
            return choice, answer
    return None


def without_model(report: Mapping[str, Any]) -> JsonDict:
    """Return a report that does not say which LLM's answers taught a head."""
    return {name: value for name, value in report.items() if name != MODEL}


def as_imported(report: Mapping[str, Any]) -> JsonDict:
    """Return the report of a head from elsewhere: what it says of choices is of that device's."""
    return {k: v for k, v in report.items() if k not in _OF_CHOICES} | {IMPORTED: True}


def renamed(
    report: JsonDict, old: str, new: str, knows: Callable[[str], bool], newest: int
) -> JsonDict:
    """Return the report of a head whose task is given another name.

    Parameters
    ----------
    knows
        Tells whether a base knows a name.
    newest
        The version behind which those of the head are moved.
    """
    moved = dict(report)
    named = moved.pop(NAMED, old)
    if named != new and (knows(named) or knows(new)):
        moved[NAMED] = named
    if isinstance(origin := moved.get(ORIGIN), int):
        moved[ORIGIN] = origin + newest
    return moved
