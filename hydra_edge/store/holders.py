"""Holders: which other sources hold a record, so that it is not gone where its own has it no more.

A record is of the source that brought it first, or took it over. Here stands who else said the
very same, as far as imports have shown: imports alone, of what other imports brought.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from sqlite3 import Connection
from typing import TypeVar

from hydra_edge.records import is_import
from hydra_edge.store import privacy
from hydra_edge.store.moved import are_alike, has_moved, is_gone, is_hidden
from hydra_edge.store.records import find_all, mark_changed
from hydra_edge.store.schema import META_HOLDERS
from hydra_edge.store.values import CHUNK, DamagedValueError, bind, text_of

_T = TypeVar("_T")


class Sharing:
    """What one call of ``add`` finds of records that two sources hold; stored batch by batch."""

    def __init__(self) -> None:
        self._readers: dict[int, set[str]] = {}  # by row: who was just found to hold it
        self._others: dict[int, set[str]] = {}  # by row: who holds it besides its own source
        self._has_moved = cache(has_moved)  # looks at the disk

    def note(self, row: int, owner: str, reader: str, *, moves: bool = False) -> None:
        """Take up that a source has a record of another one; ``moves``: it is its own from now."""
        if not (is_import(owner) and is_import(reader)):
            return
        self._readers.setdefault(row, set()).add(reader)
        if not (moves and self._has_moved(owner, reader)):
            self._others.setdefault(row, set()).add(owner if moves else reader)

    def drop(self, connection: Connection, row: int) -> None:
        """Forget who held a record, whose content is another now."""
        self._readers.pop(row, None)
        self._others.pop(row, None)
        connection.execute("DELETE FROM holders WHERE record = ?", (row,))

    def store(self, connection: Connection, now: float) -> None:
        """Remember what was taken up; what is known already writes nothing."""
        known: dict[int, set[str]] = {}
        for part in _parts(list(self._readers)):
            for row, holder in connection.execute(
                f"SELECT record, holder FROM holders WHERE record IN ({_places(part)})", part
            ):
                known.setdefault(row, set()).add(text_of(holder))
        gone = [
            (row, bind(holder))
            for row, holders in known.items()
            for holder in holders - self._readers[row]
            if any(self._has_moved(holder, reader) for reader in self._readers[row])
        ]
        new = [
            (row, bind(holder), now)
            for row, holders in self._others.items()
            for holder in sorted(holders - known.get(row, set()))
        ]
        if gone:
            connection.executemany("DELETE FROM holders WHERE record = ? AND holder = ?", gone)
        if new:
            connection.executemany("INSERT INTO holders VALUES (?, ?, ?)", new)
        self._readers, self._others = {}, {}


def of_records(
    connection: Connection,
    ids: Sequence[str] = (),
    *,
    source: str | None = None,
    task: str | None = None,
) -> dict[str, list[str]]:
    """Return the other sources that hold records, by id; see ``Store.holders``."""
    asked = [(f"id IN ({_places(part)})", part) for part in _parts(list(dict.fromkeys(ids)))]
    asked += [("source = ?", [source])] if source is not None else []
    asked += [("task = ?", [task])] if task is not None else []
    found: dict[str, list[str]] = {}
    for condition, values in asked:
        rows = connection.execute(
            "SELECT id, holder FROM holders JOIN records ON seq = record "
            f"WHERE {condition} ORDER BY since DESC, holder",
            [bind(value) for value in values],
        )
        for record_id, name in rows:
            found.setdefault(text_of(record_id), []).append(text_of(name))
    return found


def is_holder(connection: Connection, source: str) -> bool:
    """Tell whether a source is remembered to hold records of others."""
    row = connection.execute(
        "SELECT 1 FROM holders WHERE holder = ? LIMIT 1", (bind(source),)
    ).fetchone()
    return row is not None


def heirs(connection: Connection, ids: Sequence[str], without: Collection[str]) -> dict[str, str]:
    """Return whose records would be, were they not their own source's; see ``Store.heirs``."""

    @cache
    def worth(source: str, owner: str) -> tuple[bool, bool]:
        """Tell how little a source says of what there is: one that is gone says least."""
        return is_gone(source), not are_alike(source, owner)

    found: dict[str, str] = {}
    owners = find_all(connection, ids)
    for record_id, sources in of_records(connection, ids).items():
        stored = owners[record_id]
        left = [source for source in sources if source not in without]
        if stored is not None and left:
            found[record_id] = min(left, key=partial(worth, owner=stored.record.source))
    return found


def hand_over(
    connection: Connection, ids: Sequence[str], without: Collection[str]
) -> dict[str, str]:
    """Give records to others that hold them; see ``Store.hand_over``."""
    found = heirs(connection, ids, without)
    if not found:
        return found
    hidden = {source for source in set(found.values()) if is_hidden(connection, source)}
    connection.executemany(
        "UPDATE records SET source = ? WHERE id = ?",
        [(bind(source), bind(record_id)) for record_id, source in found.items()],
    )
    if hides := [record_id for record_id, source in found.items() if source in hidden]:
        privacy.set_private(connection, hides, True)
    mark_changed(connection, rewritten=True)
    return found


def drop(connection: Connection, holder: str, ids: Iterable[str] | None = None) -> None:
    """Forget that a source holds records of others, some or any."""
    if ids is None:
        connection.execute("DELETE FROM holders WHERE holder = ?", (bind(holder),))
        return
    connection.executemany(
        "DELETE FROM holders WHERE holder = ? AND record = (SELECT seq FROM records WHERE id = ?)",
        [(bind(holder), bind(record_id)) for record_id in ids],
    )


def unwatched(connection: Connection, ids: Sequence[str]) -> int:
    """Count records of which it is not known who else holds them; see ``Store.unwatched``."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (META_HOLDERS,)).fetchone()
    if row is None:
        return 0
    if not text_of(row[0]).isdecimal():
        raise DamagedValueError(f"the last record of unknown holders is {row[0]!r}")
    return sum(
        connection.execute(
            f"SELECT COUNT(*) FROM records WHERE id IN ({_places(part)}) AND seq <= ?",
            (*map(bind, part), int(row[0])),
        ).fetchone()[0]
        for part in _parts(ids)
    )


def _parts(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
