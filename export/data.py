"""Multi-user histories in the data sets' line format, read for training and measuring.

One JSON object a line: ``user``, ``id``, ``seq``, ``time`` (unix seconds or null), ``task``,
``input``, ``output``. Within a user, ``seq`` is the order of time; where it is missing ``time`` is,
and where that is missing too the order of the lines.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra_edge.errors import HydraError
from hydra_edge.types import Record

LEAST_RECORDS = 12  # a user with fewer has no past to speak of


class LeakError(HydraError):
    """A pseudo-query, or a record shown to one, must not be known yet."""

    code = "leak"


@dataclass(frozen=True)
class UserHistory:
    """One pseudonymous user's records of one task, oldest first."""

    user: str
    task: str
    records: tuple[Record, ...]


def _lines(path: Path) -> Iterator[dict[str, object]]:
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as stream
    ):
        for line in stream:
            if line.strip():
                yield json.loads(line)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line as it was read: ``place`` is its place among all lines."""

    line: dict[str, object]
    place: int

    def number(self, name: str) -> float | None:
        """Return ``seq`` or ``time``; None if the line has none.

        Raises
        ------
        HydraError
            If it is no number.
        """
        value = self.line.get(name)
        try:
            return None if value is None else float(str(value))
        except ValueError as err:
            raise HydraError(
                f"A line of user {self.line.get('user')!r} has {name} {value!r}; expected a number "
                "or null. Correct it, or leave it out of every line of that user."
            ) from err


def _ordered(rows: Sequence[_Row]) -> list[tuple[float, _Row]]:
    """Order one user's lines, oldest first, each with its moment.

    What every line has decides: ``seq``, else ``time``, else the lines' own order.
    """
    seqs = [row.number("seq") for row in rows]
    known = [seq for seq in seqs if seq is not None]
    if len(known) == len(rows):
        return sorted(zip(known, rows, strict=True), key=lambda one: one[0])
    times = [time for row in rows if (time := row.number("time")) is not None]
    if len(times) == len(rows):
        rows = [row for _, row in sorted(zip(times, rows, strict=True), key=lambda one: one[0])]
    return [(float(i), row) for i, row in enumerate(rows)]


def read_users(paths: Sequence[Path]) -> list[UserHistory]:
    """Read every user of the files, ordered by name; ``seq`` becomes the records' time.

    Time proper is often missing or coarse, and the rule of the data is that a query sees
    only records of smaller ``seq``.

    Raises
    ------
    HydraError
        If a line's ``seq`` or ``time`` is no number.
    """
    lines = [_Row(line, i) for i, line in enumerate(one for path in paths for one in _lines(path))]
    of_user: dict[tuple[str, str], list[_Row]] = {}
    for row in lines:
        of_user.setdefault((str(row.line["user"]), str(row.line["task"])), []).append(row)
    return [
        UserHistory(
            user, task,
            tuple(
                Record(
                    input=str(row.line["input"]), output=str(row.line["output"]), task=task,
                    id=str(row.line.get("id") or f"{user}-{row.place}"), time=moment,
                )
                for moment, row in _ordered(of_user[user, task])
            ),
        )
        for user, task in sorted(of_user)
    ]  # fmt: skip


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


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(paths: Sequence[Path]) -> dict[str, str]:
    """Return each input's sha256, cut to 16 digits: what a base was trained on."""
    return {path.name: sha256_of(path)[:16] for path in sorted(paths)}
