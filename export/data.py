"""Multi-user histories in the data sets' line format, read for training and measuring.

``lines`` has the format. Two spellings of a task's name are one task.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import random
import warnings
import zlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from export.lines import Row, in_order, is_packed, read_lines
from hydra_edge.closedset import answer_key
from hydra_edge.errors import HydraError
from hydra_edge.tasks import BUILTIN, TaskSpec, canonical_name, find_task, infer_task
from hydra_edge.types import Record

LEAST_RECORDS = 12  # a user with fewer has no past to speak of
LEAST_EARLIER = 2  # records before a pseudo-query: fewer leave nothing to choose from
# An answer is shared, and may be named in a bundle, if so many users gave it: a rare one could be
# a secret.
LEAST_USERS = 3


class LeakError(HydraError):
    """A pseudo-query, or a record shown to one, must not be known yet."""

    code = "leak"


@dataclass(frozen=True)
class UserHistory:
    """One pseudonymous user's records of one task, oldest first.

    ``spec`` is what all users' answers show of a task that is not built in (``with_specs``); None
    leaves it to this user's own answers.
    """

    user: str
    task: str
    records: tuple[Record, ...]
    spec: TaskSpec | None = None

    @property
    def custom_tasks(self) -> dict[str, TaskSpec]:
        """What an ``Engine`` must be told of the task."""
        return {} if self.spec is None else {self.task: self.spec}

    @property
    def full_spec(self) -> TaskSpec:
        """The task's spec, its closed set completed by this user's answers."""
        outputs = [record.output for record in self.records]
        return find_task(self.task, custom=self.custom_tasks, outputs=outputs)


def read_users(paths: Sequence[Path]) -> list[UserHistory]:
    """Read every user of the files, ordered by name; ``seq`` becomes the records' time.

    Time proper is often missing or coarse, and the rule of the data is that a query sees
    only records of smaller ``seq``. A warning says of how many users the order is in doubt, and
    why: later records could be shown to earlier queries. Lines with a blank input or output are
    left out, with a warning: a device takes no such record. So are lines that are there already, as
    where files overlap: a query would find its twin in its past. And so are lines that are marked
    private, and what the same user says in other lines word for word: an LLM that is asked about
    others may be remote, and a base is for everyone.

    Raises
    ------
    HydraError
        If a file cannot be read or is there twice, a line's ``seq`` is no number or its ``time`` no
        moment where it decides, or its id, user, task, input or output no text, or its user or
        task blank, or it cannot be told whether it is private.
    """
    check_distinct(paths)
    of_user = _rows_by_user(paths)
    ordered: dict[tuple[str, str], list[tuple[float, Row]]] = {}
    doubtful: dict[str, set[str]] = {}
    for user, task in sorted(of_user):
        ordered[user, task], doubts = in_order(of_user[user, task])
        for doubt in doubts:
            doubtful.setdefault(doubt, set()).add(user)
    everyone = {user for user, _ in ordered}
    for doubt, users in doubtful.items():
        warnings.warn(
            f"The order of records is in doubt for {len(users)} of {len(everyone)} users, first "
            f"{min(users)!r}: {doubt}",
            stacklevel=2,
        )
    return [
        UserHistory(
            user, task,
            tuple(
                Record(
                    input=row.text("input"), output=row.text("output"), task=task,
                    id=row.id(), time=moment,
                )
                for moment, row in lines
            ),
        )
        for (user, task), lines in ordered.items()
    ]  # fmt: skip


def _rows_by_user(paths: Sequence[Path]) -> dict[tuple[str, str], list[Row]]:
    """Return the lines that are taken, by user and task; a warning tells of those that are not."""
    kept: list[Row] = []
    hidden: set[tuple[str, ...]] = set()
    private: list[str] = []
    blank: list[str] = []
    repeated: list[str] = []
    first_in: dict[tuple[str, ...], Path] = {}
    places = itertools.count()
    for path in paths:
        for at, line in read_lines(path):
            row = Row(line, next(places), at)
            if row.private():
                private.append(at)
                hidden.add(_said(row))
                continue
            if not (row.text("input").strip() and row.text("output").strip()):
                blank.append(at)
                continue
            marks = row.marks()
            content = (*marks, *_said(row))
            # With nothing to tell them apart, one may write the same twice, but not in two files.
            if content in first_in and (marks or first_in[content] is not path):
                repeated.append(at)
                continue
            first_in.setdefault(content, path)
            kept.append(row)
    of_user: dict[tuple[str, str], list[Row]] = {}
    for row in kept:
        if _said(row) in hidden:
            private.append(row.at)
        else:
            of_user.setdefault(_owner(row), []).append(row)
    for lines, what in (
        (private, "that are marked private, or say what such a line says,"),
        (blank, "with a blank input or output"),
        (repeated, "that are there already, word for word,"),
    ):
        if lines:
            warnings.warn(
                f"{len(lines)} lines {what} are left out; the first is {lines[0]}.", stacklevel=3
            )
    return of_user


def _owner(row: Row) -> tuple[str, str]:
    return row.name("user"), canonical_name(row.name("task"))


def _said(row: Row) -> tuple[str, ...]:
    """Return who says what: two lines that do not differ in it are one record to a device."""
    return (*_owner(row), row.text("input"), row.text("output"))


def has_private(paths: Sequence[Path]) -> bool:
    """Whether a line of these files is left out because it is marked private.

    Raises
    ------
    HydraError
        If a file cannot be read, or it cannot be told of a line.
    """
    return any(Row(line, 0, at).private() for path in paths for at, line in read_lines(path))


def has_twin(user: UserHistory, position: int) -> bool:
    """Whether an earlier record says the same as the one at ``position``: it shows its answer.

    The same is what it is to a device, which learns from the first of them only
    (``History.firsts``): input and output word for word, whatever the ids.
    """
    record = user.records[position]
    earlier = user.records[:position]
    return any((one.input, one.output) == (record.input, record.output) for one in earlier)


def sample_users(
    users: Sequence[UserHistory], n: int, *, least: int, seed: int
) -> list[UserHistory]:
    """Draw up to ``n`` users who have at least ``least`` records; same seed, same users."""
    able = [u for u in users if len(u.records) >= least]
    drawn = random.Random(seed).sample(able, min(n, len(able)))
    return sorted(drawn, key=lambda u: u.user)


def by_task(users: Sequence[UserHistory]) -> dict[str, list[UserHistory]]:
    """Sort users by task, tasks by name; within a task the order stays."""
    tasks = sorted({user.task for user in users})
    return {task: [user for user in users if user.task == task] for task in tasks}


def shared_labels(spec: TaskSpec, users: Sequence[UserHistory]) -> tuple[str, ...]:
    """Return which of a closed set's answers are declared or given by ``LEAST_USERS`` or more."""
    kind = spec.kind
    answers = ((u.user, r.output) for u in users for r in u.records)
    given = {(user, answer_key(output, kind)) for user, output in answers}
    givers = Counter(answer for _, answer in given)
    built_in = BUILTIN.get(spec.name)
    declared = {answer_key(a, kind) for a in (built_in.labels if built_in else ())}
    return tuple(
        label
        for label in spec.labels
        if (key := answer_key(label, kind)) in declared or givers[key] >= LEAST_USERS
    )


def with_specs(
    users_by_task: Mapping[str, Sequence[UserHistory]],
) -> dict[str, list[UserHistory]]:
    """Give all users of a task that is not built in one spec.

    Of users with few records alone, a closed set looks like free text: what they are asked and
    what is learned from them would be of another kind than everybody else's.
    """
    specs = {t: None if t in BUILTIN else _spec_of(t, of) for t, of in users_by_task.items()}
    return {t: [replace(u, spec=specs[t]) for u in of] for t, of in users_by_task.items()}


def _spec_of(task: str, users: Sequence[UserHistory]) -> TaskSpec:
    """Infer a task from all users' answers; where all have a set of their own, from each one's."""
    spec = infer_task(task, [record.output for user in users for record in user.records])
    if spec.kind != "text":
        return replace(spec, labels=shared_labels(spec, users))
    able = [user for user in users if len(user.records) >= LEAST_RECORDS]
    own = [s for user in able if (s := user.full_spec).kind != "text"]
    if 2 * len(own) <= len(able):
        return spec
    kinds = Counter(s.kind for s in own)
    usual = max(sorted(kinds), key=kinds.__getitem__)
    return replace(next(s for s in own if s.kind == usual), labels=())


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content_sha256(path: Path) -> str:
    """Return the sha256 of what a packed file holds.

    Raises
    ------
    HydraError
        If it cannot be unpacked.
    """
    try:
        with gzip.open(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise HydraError(
            f"{path} cannot be unpacked: {err}. Expected a whole gzip file. Give it anew, or "
            "without .gz if it is not packed."
        ) from err


def check_distinct(paths: Sequence[Path]) -> None:
    """Refuse the same lines twice, packed or not: a query would find its twin in its past.

    Raises
    ------
    HydraError
        At the second of two files that hold the same.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        mark = _content_sha256(path) if is_packed(path) else sha256_of(path)
        if (first := seen.setdefault(mark, path)) is not path:
            raise HydraError(
                f"{path} holds the same as {first}; expected every record once. Give one of them."
            )


def numbered(name: str, taken: Container[str]) -> str:
    """Return a name, with a number if it is taken."""
    free, n = name, 1
    while free in taken:
        n += 1
        free = f"{name} ({n})"
    return free


def fingerprint(paths: Sequence[Path]) -> dict[str, str]:
    """Return each input's sha256, cut to 16 digits: what a base was trained on.

    A packed file is followed by what it holds (``<name> unpacked``): packed anew, or not at all,
    it has other bytes and is still the same data. Of files of one name the later are numbered.
    """
    marks: dict[str, str] = {}
    for path in sorted(paths):
        name = numbered(path.name, marks)
        marks[name] = sha256_of(path)[:16]
        if is_packed(path):
            marks[f"{name} unpacked"] = _content_sha256(path)[:16]
    return marks
