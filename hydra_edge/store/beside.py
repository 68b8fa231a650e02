"""Records beside another: they asked for an id that was taken, and got it with ``~`` and a mark."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from hydra_edge.records import is_beside
from hydra_edge.store.records import COLUMNS, record_of
from hydra_edge.store.values import CHUNK, bind
from hydra_edge.types import Record


def _ends(wanted: str) -> tuple[str | bytes, str | bytes]:
    """Return what the ids that begin with one id and ``~`` lie between."""
    return bind(f"{wanted}~"), bind(f"{wanted}\x7f")  # what comes after "~"


def with_others_beside(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of many ids that others stand beside."""
    found: set[str] = set()
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        rows = connection.execute(
            f"WITH wanted (place, low, high) AS (VALUES {', '.join(['(?, ?, ?)'] * len(part))}) "
            "SELECT place FROM wanted "
            "WHERE EXISTS (SELECT 1 FROM records WHERE id > low AND id < high)",
            [value for place, name in enumerate(part) for value in (place, *_ends(name))],
        )
        found |= {part[place] for (place,) in rows}
    return found


class Beside:
    """The records whose ids begin with one id and ``~``: they stand beside the one that has it."""

    def __init__(self, wanted: str) -> None:
        self.by_content: dict[str, str] = {}  # to ids
        self.ids: set[str] = set()
        self._wanted = wanted
        self._ids: dict[tuple[str, str], list[str]] = {}  # by source and task
        self._sources: set[str] = set()
        self._private: set[str] = set()  # sources

    @classmethod
    def of(cls, connection: Connection, wanted: str) -> Beside:
        """Read those beside an id."""
        beside = cls(wanted)
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM records WHERE id > ? AND id < ?", _ends(wanted)
        )
        for row in rows:
            beside.note(record_of(row))
        return beside

    def note(self, record: Record) -> None:
        """Take up one of them."""
        self.ids.add(record.id)
        if is_beside(self._wanted, record.id):
            self.by_content[record.content_hash] = record.id
            self._ids.setdefault((record.source, record.task), []).append(record.id)
            self._sources.add(record.source)
        if record.private:
            self._private.add(record.source)

    def has(self, source: str, task: str) -> bool:
        """Tell whether a source has a record of a task here."""
        return (source, task) in self._ids

    def only(self, source: str, task: str) -> str | None:
        """Return the id of a source's record of a task if it has just one here."""
        ids = self._ids.get((source, task), [])
        return ids[0] if len(ids) == 1 else None

    def hides(self, source: str) -> bool:
        """Tell whether one of a source's records is private; any record, if it has none here.

        A source has none here if what it held were others' records, word for word.
        """
        return source in self._private if source in self._sources else bool(self._private)
