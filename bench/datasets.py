"""Whom to measure: users from data files or LaMP folders, by task, with the task's spec.

Owns which records are queries (each user's last), and inferring a task never seen from what
came before them. Refuses files that are not in the data sets' line format.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.guard import BenchError
from export.data import UserHistory, read_users, sample_users
from hydra_edge.importers import ImportLog, read_lamp
from hydra_edge.tasks import BUILTIN, TaskSpec, canonical_name, infer_task, read_task_file
from hydra_edge.types import Record

LEAST_HISTORY = 3  # records before a user's first query: people begin with few
_FORMAT = "one JSON object a line with user, task, input and output"


@dataclass(frozen=True, eq=False)
class TaskData:
    """The ``users`` drawn for one task, of those ``able``: with enough records.

    ``custom`` holds the spec if it is not built in: what an ``Engine`` must be told.
    """

    spec: TaskSpec
    custom: dict[str, TaskSpec]
    users: tuple[UserHistory, ...]
    able: tuple[UserHistory, ...]

    @property
    def name(self) -> str:
        """The task's stored name."""
        return self.spec.name


def _tidy(user: UserHistory) -> UserHistory:
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
        If a file cannot be read, or a line is not of the format.
    """
    try:
        return [_tidy(user) for user in read_users(paths)]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as err:
        why = f"{err} is missing" if isinstance(err, KeyError) else err
        names = ", ".join(path.name for path in paths)
        raise BenchError(f"{names} cannot be read: {why}. Expected {_FORMAT}.") from err


def questions(folder: Path) -> list[Path]:
    """Return LaMP's questions files at and below a folder.

    Raises
    ------
    BenchError
        If there is none.
    """
    paths = sorted(folder.rglob("*questions*.json"))
    if not paths:
        raise BenchError(f"{folder} holds no *questions*.json; expected a folder of LaMP files.")
    return paths


def read_lamp_folder(folder: Path, *, users: int, least: int, seed: int) -> list[UserHistory]:
    """Read up to ``users`` people of every LaMP questions file below a folder.

    Each file is parsed once; a person's profile is the history, its last records the queries.
    The question itself is not used: its wording differs from the profile's.

    Raises
    ------
    BenchError
        If there is no questions file.
    ImportFormatError
        If a file is not LaMP's, or its task is unclear.
    """
    found: list[UserHistory] = []
    for path in questions(folder):
        outputs = path.with_name(path.name.replace("questions", "outputs"))
        people = _people(path, least)
        drawn = random.Random(seed).sample(people, min(users, len(people)))
        for person in sorted(drawn, key=lambda p: str(p["id"])):
            user = _person(person, path, outputs if outputs.exists() else None)
            if user is not None:
                found.append(user)
    return found


def _people(path: Path, least: int) -> list[dict[str, object]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise BenchError(f"{path} cannot be read: {err}. Expected LaMP's questions.") from err
    return [
        {"id": str(position), **item}
        for position, item in enumerate(value if isinstance(value, list) else [])
        if isinstance(item, dict) and len(item.get("profile") or ()) >= least
    ]


def _person(person: dict[str, object], path: Path, outputs: Path | None) -> UserHistory | None:
    """Read one question by the importer, from a file of its own: it parses whole files."""
    with tempfile.TemporaryDirectory() as home:
        single = Path(home) / path.name
        single.write_text(json.dumps([person]), encoding="utf-8")
        records = list(read_lamp(single, outputs, ImportLog()))
    if not records:
        return None
    if all(record.time is not None for record in records):
        records.sort(key=lambda record: record.time or 0.0)
    named = [replace(r, id=r.id or f"{person['id']}-{i}", source="")
             for i, r in enumerate(records)]  # fmt: skip
    return _tidy(UserHistory(f"{path.stem}-{person['id']}", named[0].task, tuple(named)))


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


def spec_for(
    name: str, users: Sequence[UserHistory], queries: int, specs: dict[str, TaskSpec]
) -> TaskSpec:
    """Return a task's spec: the one given, the built-in one, or one inferred.

    Inferred from the answers of all users, but for their queries': those are the targets.
    """
    known = BUILTIN | specs
    if name in known:
        return known[name]
    return infer_task(name, [r.output for user in users for r in user.records[:-queries]])


def draw_tasks(
    everyone: Sequence[UserHistory],
    *,
    users: int,
    queries: int,
    seed: int,
    specs: dict[str, TaskSpec],
    only: Sequence[str] = (),
) -> list[TaskData]:
    """Put the users of each task together and draw some of them; same seed, same users.

    Parameters
    ----------
    specs
        Task specs given, by name; they win over the built-in ones.
    only
        Names of the tasks wanted; all, if empty.

    Raises
    ------
    BenchError
        If a task wanted is not there, or none of its users has enough records.
    """
    names = sorted({user.task for user in everyone})
    wanted = {canonical_name(name) for name in only}
    if unknown := sorted(wanted - set(names)):
        raise BenchError(f"No users of task {unknown[0]!r}; the data has {', '.join(names)}.")
    least = queries + LEAST_HISTORY
    tasks = []
    for name in names:
        if wanted and name not in wanted:
            continue
        of_task = [user for user in everyone if user.task == name]
        drawn = sample_users(of_task, users, least=least, seed=seed)
        if not drawn:
            longest = max(len(user.records) for user in of_task)
            raise BenchError(
                f"No user of {name} can be measured: the longest history has {longest} records; "
                f"expected {least} ({queries} queries and {LEAST_HISTORY} before them). "
                "Lower --queries, or leave the task out with --task."
            )
        spec = spec_for(name, of_task, queries, specs)
        custom = {} if spec is BUILTIN.get(name) else {name: spec}
        able = tuple(user for user in of_task if len(user.records) >= least)
        tasks.append(TaskData(spec, custom, tuple(drawn), able))
    if not tasks:
        raise BenchError(f"There is nobody to measure. Expected --data files with {_FORMAT}.")
    return tasks
