"""What is held of a source: enough of each record to compare it with what the source has now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from sqlite3 import Connection

from hydra_edge.store.records import COLUMNS, record_of
from hydra_edge.store.values import bind
from hydra_edge.types import Record, text_hash

Content = tuple[str, str, str]  # a task, and the hashes of input and output


@dataclass(frozen=True, slots=True)
class Held:
    """A record without its texts: ``input`` and ``output`` are their hashes.

    ``added`` is when it came, by the clock of then; or when its holder was first found to have it,
    of a record of another source. ``time`` is that of the record.
    """

    id: str
    task: str
    input: str
    output: str
    private: bool
    added: float
    time: float | None = None

    @property
    def content(self) -> Content:
        """What it says."""
        return self.task, self.input, self.output


def content_of(record: Record) -> Content:
    """Return what a record says, as ``Held.content`` has it."""
    return record.task, text_hash(record.input), text_hash(record.output)


def of_source(connection: Connection, source: str) -> list[Held]:
    """Return what there is of a source; see ``Store.held_from``."""
    rows = connection.execute(
        f"SELECT added, {COLUMNS} FROM records WHERE source = ? ORDER BY seq", (bind(source),)
    )
    return [_held(record_of(row), added) for added, *row in rows]


def by_others(connection: Connection, source: str) -> list[Held]:
    """Return what a source holds of others' records; see ``Store.also_held_from``."""
    rows = connection.execute(
        f"SELECT since, {COLUMNS} FROM holders JOIN records ON seq = record "
        "WHERE holder = ? ORDER BY seq",
        (bind(source),),
    )
    return [_held(record_of(row), since) for since, *row in rows]


def _held(record: Record, added: object) -> Held:
    when = added if isinstance(added, float) else math.inf  # damaged: it may have come just now
    return Held(record.id, *content_of(record), record.private, when, record.time)
