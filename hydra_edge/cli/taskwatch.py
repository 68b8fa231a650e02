"""What adding records makes of their tasks: another kind or scale, and what stays behind.

Also what is to be said of their times.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hydra_edge.cli import options
from hydra_edge.cli.views import plural
from hydra_edge.errors import ConfigError

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.tasks import TaskSpec
    from hydra_edge.types import AddResult, Record

_SHOWN = 5  # answers that a remark names, at most
_HOW = "say so in a task file (`hydra-edge tasks path` is its folder, docs/settings.md has how)"


def not_dated(count: int) -> list[str]:
    """Say of how many records no time is taken, as it is in the future; nothing if of none."""
    if not count:
        return []
    now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%d %H:%M")
    dated = "1 record is dated" if count == 1 else f"{count} records are dated"
    return [
        f"{dated} in the future by this device's clock, which says {now} UTC: no such time is "
        "taken. Put right the clock, or the times, and add them again."
    ]


def add_watched(
    add: Callable[[Iterable[Record], Personalizer], AddResult],
    records: Iterable[Record],
    me: Personalizer,
    notes: list[str],
    user: str | None,
) -> AddResult:
    """Add records, and note what became of their tasks.

    Parameters
    ----------
    notes
        What is to be said is put behind them.
    user
        Whom the command named.
    """
    watch = TaskWatch(me.store)
    result = add(watch.passing(records), me)
    notes.extend(watch.notes(user))
    return result


@dataclass(frozen=True, slots=True)
class _State:
    """A task as its answers tell it, and the ratings of it that are beyond its scale."""

    spec: TaskSpec
    beyond: Counter[str]


class TaskWatch:
    """Compares the tasks of records before and after these are added."""

    def __init__(self, store: Store) -> None:
        from hydra_edge.paths import find_paths
        from hydra_edge.taskfile import read_task_dir

        self._store = store
        self._custom = read_task_dir(find_paths().tasks)
        self._counts = store.tasks()
        self._before: dict[str, _State | None] = {}

    def passing(self, records: Iterable[Record]) -> Iterator[Record]:
        """Pass records on to be added; the first of a task comes before any of it is stored."""
        for record in records:
            if record.task not in self._before:
                self._before[record.task] = self._state(record.task)
            yield record

    def notes(self, user: str | None) -> list[str]:
        """Say what has changed, once all are added."""
        said = [
            note
            for task, before in self._before.items()
            if before is not None
            and (after := self._state(task)) is not None
            and (note := _change(before, after))
        ]
        return [*said, *self._left_behind(user)]

    def _state(self, task: str) -> _State | None:
        """Return a task as it is now; None if it cannot change, or nothing is known of it."""
        from hydra_edge.tasks import BUILTIN, find_task

        declared = (BUILTIN | self._custom).get(task)
        if declared is not None and declared.kind == "text":
            return None
        answers = self._store.outputs(task)
        try:
            spec = find_task(task, custom=self._custom, outputs=answers) if answers else None
        except ConfigError:  # its file says nothing that can be used
            spec = None
        return None if spec is None else _State(spec, Counter(_beyond(spec, answers)))

    def _left_behind(self, user: str | None) -> Iterator[str]:
        """Say what stays with a task whose records have moved to another."""
        counts = self._store.tasks()
        grown = {task: counts.get(task, 0) - self._counts.get(task, 0) for task in self._before}
        for old, count in self._counts.items():
            moved = count - counts.get(old, 0)
            if moved <= 0 or max(grown.values(), default=0) <= 0:
                continue
            choices, pools = len(self._store.choices(old)), len(self._store.pools(old))
            if not (choices or pools):
                continue
            new = max(grown, key=lambda task: grown[task])
            rename = options.command("tasks", "rename", old, new, "--merge", user=user)
            yield (
                f"{plural(moved, 'record')} of {old} moved to another task; "
                f"{plural(choices, 'choice')} and {plural(pools, 'answer pool')} stay with {old} "
                f"and teach {new} nothing. To take them along: {rename}"
            )


def slip_told(spec: TaskSpec, answers: Sequence[str]) -> str:
    """Say that ratings are beyond a task's scale and count for nothing; empty if none is."""
    found = list(dict.fromkeys(_beyond(spec, answers)))
    if not found:
        return ""
    more = ", ..." if len(found) > _SHOWN else ""
    are = "are" if len(found) > 1 else "is"
    low, high = _ends(spec)
    return (
        f"{', '.join(found[:_SHOWN])}{more} {are} beyond the {low} to {high} of {spec.name} and "
        "left out as a slip, until most of the latest 16 answers are. If the scale is another now, "
        f"{_HOW}"
    )


def _ends(spec: TaskSpec) -> tuple[str, str]:
    from hydra_edge.spelling import rating_value

    ordered = sorted(spec.labels, key=rating_value)
    return ordered[0], ordered[-1]


def _beyond(spec: TaskSpec, answers: Iterable[str]) -> Iterator[str]:
    """Yield the answers that are numbers, and on no place of a rating's scale."""
    from hydra_edge.spelling import number, rating_value

    if spec.kind != "rating" or not spec.labels:
        return
    low, high = map(rating_value, _ends(spec))
    for answer in answers:
        if number(answer) is not None and not low <= rating_value(answer) <= high:
            yield answer.strip()


def _change(before: _State, after: _State) -> str:
    """Say in what a task is another than before; empty if in nothing."""
    old, new = before.spec, after.spec
    if old.kind != new.kind:
        kinds = {"text": "free text", "label": "a choice of labels", "rating": "a rating"}
        why = "its answers are too many or too long for a set. " if new.kind == "text" else ""
        return (
            f"{new.name} is {kinds[new.kind]} from now on, no longer {kinds[old.kind]}: {why}If "
            f"it is something else, {_HOW}"
        )
    if new.kind != "rating" or not (old.labels and new.labels):
        return ""
    if _ends(old) != _ends(new):
        (was_low, was_high), (low, high) = _ends(old), _ends(new)
        return (
            f"{new.name} runs from {low} to {high} from now on, no longer from {was_low} to "
            f"{was_high}. If that is not its scale, {_HOW}"
        )
    return slip_told(new, list((after.beyond - before.beyond).elements()))
