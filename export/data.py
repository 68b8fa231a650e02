"""Multi-user histories in the data sets' line format, read for training and measuring.

One JSON object a line: ``user``, ``id``, ``seq``, ``time`` (unix seconds or null), ``task``,
``input``, ``output``. Within a user, ``seq`` is the order of time.
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


def read_users(paths: Sequence[Path]) -> list[UserHistory]:
    """Read every user of the files, ordered by name; ``seq`` becomes the records' time.

    Time proper is often missing or coarse, and the rule of the data is that a query sees
    only records of smaller ``seq``.
    """
    rows: dict[tuple[str, str], list[tuple[int, Record]]] = {}
    for path in paths:
        for order, line in enumerate(_lines(path)):
            seq = int(str(line.get("seq", order)))
            record = Record(
                input=str(line["input"]), output=str(line["output"]), task=str(line["task"]),
                id=str(line.get("id") or f"{line['user']}-{seq}"), time=float(seq),
            )  # fmt: skip
            rows.setdefault((str(line["user"]), record.task), []).append((seq, record))
    return [
        UserHistory(user, task, tuple(r for _, r in sorted(rows[user, task], key=lambda x: x[0])))
        for user, task in sorted(rows)
    ]


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


def fingerprint(paths: Sequence[Path]) -> dict[str, str]:
    """Return each input's sha256, cut to 16 digits: what a base was trained on."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in sorted(paths)}
