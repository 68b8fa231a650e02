"""Whom to measure: users from data files or LaMP folders, by task, with the task's spec.

Owns which records are queries (each user's last), and inferring a task never seen from what came
before them. Refuses files that are not in the data sets' line format.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.guard import BenchError
from export.data import UserHistory, read_users, sample_users
from hydra_edge.bundle import Bundle
from hydra_edge.closedset import is_scale
from hydra_edge.spelling import number
from hydra_edge.taskfile import read_task_file
from hydra_edge.tasks import (
    BUILTIN,
    TaskSpec,
    canonical_name,
    closed_task,
    find_task,
    infer_task,
    on_scale,
)
from hydra_edge.types import Record

LEAST_HISTORY = 3  # records before a user's first query: people begin with few
GROWTH_USERS = 5  # a curve of growth of fewer tells nothing
MAX_LEVELS = 60  # of a rating in a prompt: no larger set is inferred to be closed
_FORMAT = "one JSON object a line with user, task, input and output"


@dataclass(eq=False)
class LampUsers:
    """Who was read from LaMP folders: ``users``, of those drawn, and who was not, and why.

    ``bench.lamp`` reads them. ``long`` are more people, with enough records for the largest size of
    a curve of growth. ``left_out`` says by file what cannot be measured; ``too_short`` counts by
    task the people who have too few records, ``unread`` those who have enough and were not drawn.
    """

    users: list[UserHistory] = field(default_factory=list)
    long: list[UserHistory] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    too_short: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class TaskData:
    """The ``users`` drawn for one task, of those ``able``: with enough records.

    ``custom`` holds the spec if it is not built in: what an ``Engine`` must be told. ``too_short``
    counts the users who are not able, ``unread`` those who are and whose records were not read;
    ``note`` says what should be known of the spec.
    """

    spec: TaskSpec
    custom: dict[str, TaskSpec]
    users: tuple[UserHistory, ...]
    able: tuple[UserHistory, ...]
    too_short: int = 0
    unread: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        """The task's stored name."""
        return self.spec.name


def tidy(user: UserHistory) -> UserHistory:
    """Name the task and the records as a store will: one id a record, times in order.

    A line repeated word for word under one id is one record.
    """
    task = canonical_name(user.task)
    kept: dict[str, Record] = {}
    for record in user.records:
        name, number = record.id, 1
        while name in kept and _content(kept[name]) != _content(record):
            number += 1
            name = f"{record.id}~{number}"
        if name not in kept:
            kept[name] = replace(record, id=name, task=task, time=float(len(kept)))
    return UserHistory(user.user, task, tuple(kept.values()))


def _content(record: Record) -> tuple[str, str]:
    return record.input, record.output


def read_files(paths: Sequence[Path]) -> list[UserHistory]:
    """Read the users of data files.

    Raises
    ------
    BenchError
        If a file cannot be read.
    HydraError
        If a line is not of the format.
    """
    try:
        return [tidy(user) for user in read_users(paths)]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as err:
        why = f"{err} is missing" if isinstance(err, KeyError) else err
        names = ", ".join(path.name for path in paths)
        raise BenchError(f"{names} cannot be read: {why}. Expected {_FORMAT}.") from err


def growth_users(users: int) -> int:
    """Return how many people the curve of growth of so many drawn takes at least."""
    return max(2, min(GROWTH_USERS, users))


def growth_sizes(edges: Sequence[int], sizes: Sequence[int], users: int) -> list[int]:
    """Return which sizes of history enough people have for a curve of ``users`` of them.

    Parameters
    ----------
    edges
        How many records everyone has before their queries.
    """
    least = growth_users(users)
    return [size for size in sorted(set(sizes)) if sum(e >= size for e in edges) >= least]


def read_specs(paths: Sequence[Path], everyone: Sequence[UserHistory]) -> dict[str, TaskSpec]:
    """Read task files, by the name of the task they describe.

    One file for data of one task describes that task, whatever the file is called.

    Raises
    ------
    BenchError
        If a file describes a task that the data does not have.
    """
    specs = {spec.name: spec for spec in map(read_task_file, paths)}
    names = sorted({user.task for user in everyone})
    if len(specs) == len(names) == 1:
        return {names[0]: replace(*specs.values(), name=names[0])}
    if unknown := sorted(set(specs) - set(names)):
        raise BenchError(
            f"A task file describes {unknown[0]!r}; the data has {', '.join(names)}. "
            "Give the task's name in it: name = '...'."
        )
    return specs


def known_specs(specs: Mapping[str, TaskSpec], bundle: Bundle | None) -> dict[str, TaskSpec]:
    """Return every task known before anybody answers: those given, built in, and closed sets.

    The sets are those of the base, which an ``Engine`` takes for closed as well.
    """
    sets = {} if bundle is None else bundle.manifest.closed_sets
    closed = {name: s for name, of in sets.items() if (s := closed_task(name, of)) is not None}
    return closed | BUILTIN | dict(specs)


def spec_for(
    name: str, users: Sequence[UserHistory], queries: int, known: Mapping[str, TaskSpec]
) -> TaskSpec:
    """Return a task's spec: the one ``known``, or one inferred.

    What kind an unknown task is of is inferred from all answers: that gives no answer away. Its
    closed set is what was answered before the queries, whose answers are the targets; so is that of
    a task that names no labels. A rating, known or not, has every number answered before them but
    for slips, so that all users are measured on one scale.
    """
    answers = _earlier(users, queries)
    spec = known.get(name)
    if spec is not None:
        spec = _of_one_kind(spec, answers)
        return spec if spec.kind != "rating" else _on_one_scale(spec, answers)
    inferred, by_all = infer_task(name, answers), infer_task(name, _all_answers(users))
    numbers = bool(answers) and all(number(one) is not None for one in answers)
    # Too few or too different for a device that sees one person's answers; here are everyone's.
    kind = "rating" if numbers and is_scale(answers) else by_all.kind
    if inferred.kind == kind:
        return inferred
    if kind == "text":
        return by_all
    known_before = _levels(answers) if kind == "rating" else answers
    return infer_task(name, known_before * 8)  # as often as it wants to hear each


def _earlier(users: Sequence[UserHistory], queries: int) -> list[str]:
    return [record.output for user in users for record in user.records[:-queries]]


def _all_answers(users: Sequence[UserHistory]) -> list[str]:
    return [record.output for user in users for record in user.records]


def _levels(answers: Iterable[str]) -> list[str]:
    """Return the levels of a scale; of more than a prompt should list, its two ends.

    A user's own answers complete them, as they do where a task file names no labels.
    """
    once = {number(one): one.strip() for one in sorted(answers, reverse=True)}
    levels = [once[value] for value in sorted(value for value in once if value is not None)]
    return levels if len(levels) <= MAX_LEVELS else [levels[0], levels[-1]]


def _of_one_kind(spec: TaskSpec, answers: Sequence[str]) -> TaskSpec:
    """Decide for all users whether a task that names no labels is one of free text.

    By one's own answers alone it would be for some of them, and a closed set for the others.
    """
    numbers = [one for one in answers if number(one) is not None]
    if spec.kind == "text" or spec.labels:
        return spec
    if spec.kind == "rating" and 2 * len(numbers) >= len(answers):
        return spec
    return find_task(spec.name, custom={spec.name: spec}, outputs=answers)


def _on_one_scale(spec: TaskSpec, answers: Sequence[str]) -> TaskSpec:
    """Complete a rating's labels as a device does; a spec that knows them all stays as it is."""
    numbers = on_scale(spec, [one for one in answers if number(one) is not None])
    known = {number(label) for label in spec.labels}
    added = [one for one in _levels([*spec.labels, *numbers]) if number(one) not in known]
    if not added:
        return spec
    return find_task(spec.name, custom={spec.name: spec}, outputs=added)


def _note(
    known: TaskSpec | None, spec: TaskSpec, users: Sequence[UserHistory], queries: int
) -> str:
    """Say what was made of answers where nobody had said it, or where they are not what was."""
    answers = _earlier(users, queries)
    if known is not None and spec.kind == known.kind:
        return ""
    if known is not None:
        wanted = "numbers" if known.kind == "rating" else "labels"
        return (
            f"taken as text, not {known.kind}: most of {len(answers)} answers are no {wanted}, or "
            "too many to be named; give --task-spec with labels to say otherwise"
        )
    every = _all_answers(users)
    found = f"text from {len(every)} answers, {len(set(map(str.strip, every)))} distinct"
    if spec.kind == "label":
        found = f"label, {len(spec.labels)} labels, from {len(answers)} answers"
    if spec.kind == "rating":
        levels = len({value for one in answers if (value := number(one)) is not None})
        found = (
            f"rating, {levels} levels from {spec.labels[0]} to {spec.labels[-1]}, from "
            f"{len(answers)} answers"
        )
    return f"inferred as {found}; give --task-spec to say otherwise"


def draw_tasks(
    everyone: Sequence[UserHistory],
    *,
    users: int,
    queries: int,
    seed: int,
    specs: dict[str, TaskSpec],
    only: Sequence[str] = (),
    bundle: Bundle | None = None,
    lamp: LampUsers | None = None,
    left_out: dict[str, str] | None = None,
) -> list[TaskData]:
    """Put the users of each task together and draw some of them; same seed, same users.

    Parameters
    ----------
    specs
        Task specs given, by name; they win over the built-in ones.
    only
        Names of the tasks wanted; all, if empty.
    bundle
        The base, whose closed sets are known before what is answered to a task is looked at.
    lamp
        Who of ``everyone`` was drawn from LaMP folders, and how many others there are.
    left_out
        Told, by task, why none of its users can be measured while others' can; None: such a task
        is an error.

    Raises
    ------
    BenchError
        If a task wanted is not there, or there is nobody who has enough records.
    """
    names = sorted({user.task for user in everyone})
    wanted = {canonical_name(name) for name in only}
    if unknown := sorted(wanted - set(names)):
        raise BenchError(f"No users of task {unknown[0]!r}; the data has {', '.join(names)}.")
    least, lamp = queries + LEAST_HISTORY, lamp or LampUsers()
    known, tasks = known_specs(specs, bundle), []
    too_short: dict[str, str] = {}
    for name in names:
        if wanted and name not in wanted:
            continue
        of_task = [user for user in everyone if user.task == name]
        drawn = sample_users(of_task, users, least=least, seed=seed)
        if not drawn:
            longest = max(len(user.records) for user in of_task)
            too_short[name] = (
                f"No user of {name} can be measured: the longest history has {longest} records; "
                f"expected {least} ({queries} queries and {LEAST_HISTORY} before them)."
            )
            continue
        spec = spec_for(name, of_task, queries, known)
        custom = {} if spec is BUILTIN.get(name) else {name: spec}
        read = [*of_task, *(user for user in lamp.long if user.task == name)]
        able = tuple(user for user in read if len(user.records) >= least)
        short = len(read) - len(able) + lamp.too_short[name]
        note = _note(known.get(name), spec, of_task, queries)
        tasks.append(TaskData(spec, custom, tuple(drawn), able, short, lamp.unread[name], note))
    if too_short and (not tasks or left_out is None):
        raise BenchError(
            f"{' '.join(too_short.values())} Lower --queries, or leave "
            f"{'the task' if len(too_short) == 1 else 'these tasks'} out with --task."
        )
    if left_out is not None:
        left_out |= too_short
    if not tasks:
        raise BenchError(f"There is nobody to measure. Expected --data files with {_FORMAT}.")
    return tasks
