"""Whom to measure: users from data files or LaMP folders, by task, with the task's spec.

Owns which records are queries (each user's last), inferring a task never seen from what came
before them, and that one person is one user. Refuses files that are not in the data sets' line
format; what of a LaMP folder cannot be measured is left out with the reason.
"""

from __future__ import annotations

import json
import random
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.guard import BenchError
from export.data import UserHistory, read_users, sample_users
from hydra_edge.bundle import Bundle
from hydra_edge.importers import ImportLog, read_lamp
from hydra_edge.tasks import (
    BUILTIN,
    TaskSpec,
    canonical_name,
    closed_task,
    find_task,
    infer_task,
    number,
    read_task_file,
)
from hydra_edge.types import Record, text_hash

LEAST_HISTORY = 3  # records before a user's first query: people begin with few
GROWTH_USERS = 5  # a curve of growth of fewer tells nothing
MAX_LEVELS = 60  # of a rating in a prompt: no larger set is inferred to be closed
_TRIED = 20  # people of a LaMP file who are looked at for its task
_SHORT_WORDS = 6  # of an answer that might be a label
_FORMAT = "one JSON object a line with user, task, input and output"


@dataclass(eq=False)
class LampUsers:
    """Who was read from LaMP folders: ``users``, of those drawn, and who was not, and why.

    ``long`` are more people, with enough records for the largest size of a curve of growth.
    ``left_out`` says by file what cannot be measured; ``too_short`` counts by task the people who
    have too few records, ``unread`` those who have enough and were not drawn.
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
        If a file cannot be read.
    HydraError
        If a line is not of the format.
    """
    try:
        return [_tidy(user) for user in read_users(paths)]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as err:
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


def parse_sizes(text: str, option: str = "--history", least: int = 0) -> tuple[int, ...]:
    """Read sizes of history, ``0,1,4``.

    Raises
    ------
    BenchError
        If one is not a whole number of at least ``least``, or there is none and ``least`` is not 0.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    good = [part.isdecimal() and int(part) >= least for part in parts]
    if not all(good) or (least and not good):
        raise BenchError(
            f"{option} is {text!r}; expected whole numbers of at least {least}: {option} "
            f"{'0,1,4,16,64' if not least else '1000,10000'}"
        )
    return tuple(sorted({int(part) for part in parts}))


def growth_sizes(edges: Sequence[int], sizes: Sequence[int], users: int) -> list[int]:
    """Return which sizes of history enough people have for a curve of ``users`` of them.

    Parameters
    ----------
    edges
        How many records everyone has before their queries.
    """
    least = max(2, min(GROWTH_USERS, users))
    return [size for size in sorted(set(sizes)) if sum(e >= size for e in edges) >= least]


def read_lamp_folders(
    folders: Sequence[Path], *, users: int, queries: int, seed: int, sizes: Sequence[int] = ()
) -> LampUsers:
    """Read up to ``users`` people of every task that LaMP folders hold.

    A profile is the history, its last records the ``queries``. The question itself is not used:
    its wording differs from the profile's. Questions of one person, in one file or several, are
    one user, who has the longest of their profiles. For the largest of the ``sizes`` of history
    that enough people have, up to ``users`` who have it are read as well.

    Raises
    ------
    BenchError
        If there is no questions file, or one cannot be read.
    ImportFormatError
        If a file is not LaMP's, or its task is unclear.
    """
    found, least = LampUsers(), queries + LEAST_HISTORY
    by_task: dict[str, list[_Profile]] = defaultdict(list)
    for folder in folders:
        for path in questions(folder):
            file = path.relative_to(folder.parent).as_posix()
            people = _load(path)
            task, why = _task_of(path, people)
            if why:
                found.left_out[file] = why
            else:
                by_task[task] += [_Profile.of(person, path, file) for person in people]
    drawn: list[_Profile] = []
    long: list[_Profile] = []
    for task, profiles in sorted(by_task.items()):
        everyone = _one_each(profiles)
        able = [one for one in everyone if one.size >= least]
        found.too_short[task] = len(everyone) - len(able)
        if not able:
            longest = max(one.size for one in everyone)
            found.left_out |= {
                one.file: f"nobody has {least} records; the longest profile of {task} has {longest}"
                for one in everyone
            }
        of_task = random.Random(seed).sample(able, min(users, len(able)))
        drawn += of_task
        grown = growth_sizes([one.size - queries for one in able], sizes, len(of_task))
        reach = [one for one in able if grown and one.size - queries >= grown[-1]]
        more = set(random.Random(seed).sample(reach, min(users, len(reach)))) - set(of_task)
        long += [one for one in able if one in more]
        found.unread[task] = len(able) - len(of_task) - len(more)
    _read_drawn(found, drawn, long)
    return found


@dataclass(frozen=True, slots=True)
class _Profile:
    """One question of a LaMP file: whose it is, how many items it has, and marks of these.

    The items themselves are not kept: such a folder may be larger than memory.
    """

    path: Path
    file: str
    id: str
    size: int
    items: frozenset[int]

    @classmethod
    def of(cls, person: Mapping[str, object], path: Path, file: str) -> _Profile:
        """Mark a profile's items: the same mark if they say the same, whatever their ids.

        Profiles that number their items from 1 share ids, and are different people's.
        """
        profile: Any = person["profile"]
        said = [item | {"id": None} if isinstance(item, dict) else item for item in profile]
        marks = frozenset(int(text_hash(json.dumps(i, sort_keys=True))[:16], 16) for i in said)
        return cls(path, file, str(person["id"]), len(profile), marks)


def _load(path: Path) -> list[dict[str, object]]:
    """Return a file's questions that have a profile."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as err:
        raise BenchError(f"{path} cannot be read: {err}. Expected LaMP's questions.") from err
    return [
        {"id": str(position), **item}
        for position, item in enumerate(value if isinstance(value, list) else [])
        if isinstance(item, dict) and isinstance(item.get("profile"), list) and item["profile"]
    ]


def _person(person: dict[str, object], path: Path) -> tuple[UserHistory | None, Counter[str]]:
    """Read one question by the importer, from a file of its own: it parses whole files.

    Returns
    -------
    tuple of UserHistory or None, and Counter
        The user, if there is any record; how many items were left out for which reason.
    """
    log, outputs = ImportLog(), path.with_name(path.name.replace("questions", "outputs"))
    with tempfile.TemporaryDirectory() as home:
        single = Path(home) / path.name
        single.write_text(json.dumps([person]), encoding="utf-8")
        records = list(read_lamp(single, outputs if outputs.exists() else None, log))
    lost = log.skipped + Counter(bad.reason for bad in log.bad)
    if not records:
        return None, lost
    if all(record.time is not None for record in records):
        records.sort(key=lambda record: record.time or 0.0)
    named = [replace(r, id=r.id or f"{person['id']}-{i}", source="")
             for i, r in enumerate(records)]  # fmt: skip
    return _tidy(UserHistory(f"{path.stem}-{person['id']}", named[0].task, tuple(named))), lost


def _task_of(path: Path, people: Sequence[dict[str, object]]) -> tuple[str, str]:
    """Return a file's task, or why there is nobody in it who could be measured."""
    lost: Counter[str] = Counter()
    for person in people[:_TRIED]:
        user, of_person = _person(person, path)
        lost += of_person
        if user is not None and user.task == "citation":
            return "", (
                "a LaMP-1 profile holds the papers its author wrote, not the references they "
                "chose, so that no answer could be right"
            )
        if user is not None:
            return user.task, ""
    return "", "; ".join(sorted(lost)) or "it holds no question with a profile"


def _one_each(profiles: Sequence[_Profile]) -> list[_Profile]:
    """Keep one profile of every person, the longest; in the order they came in.

    Two profiles are one person's if they share half of the shorter one. One item proves nothing:
    two people may give a film the same tag.
    """
    holders: dict[int, list[int]] = defaultdict(list)
    kept: set[int] = set()
    for place in sorted(range(len(profiles)), key=lambda i: -profiles[i].size):
        items = profiles[place].items
        shared = Counter(other for item in items if item in holders for other in holders[item])
        if any(2 * n >= min(len(items), len(profiles[o].items)) for o, n in shared.items()):
            continue
        kept.add(place)
        for item in items:
            holders[item].append(place)
    return [profiles[place] for place in sorted(kept)]


def _read_drawn(found: LampUsers, drawn: Sequence[_Profile], long: Sequence[_Profile]) -> None:
    """Read the people drawn, each file once, and note what the importer leaves out of them."""
    wanted: dict[Path, dict[str, tuple[str, list[UserHistory]]]] = defaultdict(dict)
    for people, into in ((drawn, found.users), (long, found.long)):
        for one in people:
            wanted[one.path][one.id] = one.file, into
    for path, of_file in wanted.items():
        lost: Counter[str] = Counter()
        asked = {str(p["id"]): p for p in _load(path) if str(p["id"]) in of_file}
        for name, person in sorted(asked.items()):
            user, of_person = _person(person, path)
            lost += of_person
            if user is not None:
                of_file[name][1].append(user)
        if lost:
            told = "; ".join(f"{why} ({n} items)" for why, n in sorted(lost.items()))
            found.left_out[next(iter(of_file.values()))[0]] = f"of the people drawn: {told}"


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

    Inferred from the answers of all users, but for their queries': those are the targets. A
    rating, known or not, has every number answered before them, so that all users are measured on
    one scale.
    """
    answers = _earlier(users, queries)
    spec = known.get(name)
    if spec is not None:
        return spec if spec.kind != "rating" else _on_one_scale(spec, answers)
    inferred = infer_task(name, answers)
    if inferred.kind != "rating" and answers and all(number(one) is not None for one in answers):
        # Too few or too different for a device that sees one person's answers; here are everyone's.
        levels = _levels(answers)
        return infer_task(name, levels * 8)  # as often as it wants to hear each
    return inferred


def _earlier(users: Sequence[UserHistory], queries: int) -> list[str]:
    return [record.output for user in users for record in user.records[:-queries]]


def _levels(answers: Iterable[str]) -> list[str]:
    """Return the levels of a scale; of more than a prompt should list, its two ends.

    A user's own answers complete them, as they do where a task file names no labels.
    """
    once = {number(one): one.strip() for one in sorted(answers, reverse=True)}
    levels = [once[value] for value in sorted(value for value in once if value is not None)]
    return levels if len(levels) <= MAX_LEVELS else [levels[0], levels[-1]]


def _on_one_scale(spec: TaskSpec, answers: Sequence[str]) -> TaskSpec:
    """Complete a rating's labels; a spec that knows them all stays as it is."""
    numbers = [one for one in answers if number(one) is not None]
    known = {number(label) for label in spec.labels}
    added = [one for one in _levels([*spec.labels, *numbers]) if number(one) not in known]
    if not added:
        return spec
    return find_task(spec.name, custom={spec.name: spec}, outputs=added)


def _note(spec: TaskSpec, answers: Sequence[str]) -> str:
    """Say so where free text was inferred from answers that might be labels: many come again."""
    distinct = {answer.strip() for answer in answers}
    short = all(len(one.split()) <= _SHORT_WORDS and "\n" not in one for one in distinct)
    if spec.kind != "text" or not short or 5 * len(distinct) > 4 * len(answers):
        return ""
    return (
        f"inferred as text from {len(answers)} answers, {len(distinct)} distinct; give --task-spec "
        "to say otherwise"
    )


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

    Raises
    ------
    BenchError
        If a task wanted is not there, or none of its users has enough records.
    """
    names = sorted({user.task for user in everyone})
    wanted = {canonical_name(name) for name in only}
    if unknown := sorted(wanted - set(names)):
        raise BenchError(f"No users of task {unknown[0]!r}; the data has {', '.join(names)}.")
    least, lamp = queries + LEAST_HISTORY, lamp or LampUsers()
    known, tasks = known_specs(specs, bundle), []
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
        spec = spec_for(name, of_task, queries, known)
        custom = {} if spec is BUILTIN.get(name) else {name: spec}
        read = [*of_task, *(user for user in lamp.long if user.task == name)]
        able = tuple(user for user in read if len(user.records) >= least)
        short = len(read) - len(able) + lamp.too_short[name]
        note = _note(spec, _earlier(of_task, queries)) if name not in known else ""
        tasks.append(TaskData(spec, custom, tuple(drawn), able, short, lamp.unread[name], note))
    if not tasks:
        raise BenchError(f"There is nobody to measure. Expected --data files with {_FORMAT}.")
    return tasks
