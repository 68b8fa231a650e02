"""People of LaMP folders as users, with what cannot be measured and the reason.

Owns that one person is one user, however many questions are theirs, and that a folder larger than
memory can be read: the profiles of those drawn are read, of the others what tells people apart.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.datasets import LEAST_HISTORY, LampUsers, growth_sizes, tidy
from bench.guard import BenchError
from export.data import UserHistory, numbered
from hydra_edge.importers import ImportLog, read_lamp
from hydra_edge.types import text_hash

_TRIED = 20  # people of a file who are looked at for its task


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
    names: dict[str, set[str]] = defaultdict(set)  # folders' files, and their ids, may be alike
    for folder in folders:
        for path in questions(folder):
            file = path.relative_to(folder.parent).as_posix()
            people = _load(path)
            task, why = _task_of(path, people)
            if why:
                found.left_out[file] = why
            else:
                taken = names[task]
                for place, person in enumerate(people):
                    name = numbered(f"{path.stem}-{person['id']}", taken)
                    taken.add(name)
                    by_task[task].append(_Profile.of(person, path, file, place, name))
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

    ``place`` is its place among the file's questions that have a profile. The items themselves are
    not kept: such a folder may be larger than memory.
    """

    path: Path
    file: str
    place: int
    user: str
    size: int
    items: frozenset[int]

    @classmethod
    def of(
        cls, person: Mapping[str, object], path: Path, file: str, place: int, user: str
    ) -> _Profile:
        """Mark a profile's items: the same mark if they say the same, whatever their ids.

        Profiles that number their items from 1 share ids, and are different people's.
        """
        profile: Any = person["profile"]
        said = [item | {"id": None} if isinstance(item, dict) else item for item in profile]
        marks = frozenset(int(text_hash(json.dumps(i, sort_keys=True))[:16], 16) for i in said)
        return cls(path, file, place, user, len(profile), marks)


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


def _person(
    person: dict[str, object], path: Path, name: str = ""
) -> tuple[UserHistory | None, Counter[str]]:
    """Read one question by the importer, from a file of its own: it parses whole files.

    Parameters
    ----------
    name
        What the user is called.

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
    return tidy(UserHistory(name, named[0].task, tuple(named))), lost


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
    wanted: dict[Path, list[tuple[_Profile, list[UserHistory]]]] = defaultdict(list)
    for people, into in ((drawn, found.users), (long, found.long)):
        for one in people:
            wanted[one.path].append((one, into))
    for path, of_file in wanted.items():
        lost: Counter[str] = Counter()
        places = {one.place for one, _ in of_file}
        asked = {place: p for place, p in enumerate(_load(path)) if place in places}
        for one, into in sorted(of_file, key=lambda of: of[0].user):
            user, of_person = _person(asked[one.place], path, one.user)
            lost += of_person
            if user is not None:
                into.append(user)
        if lost:
            told = "; ".join(f"{why} ({n} items)" for why, n in sorted(lost.items()))
            found.left_out[of_file[0][0].file] = f"of the people drawn: {told}"
