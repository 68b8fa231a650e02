"""Leftovers: what is kept of a source that is no longer in it.

Owns when a reading tells that at all, and which records it is. Erasing them is the part of
``forgetting``; a source that was not read whole has none.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from reprlib import repr as shown

from hydra_edge.importers import ImportLog
from hydra_edge.records import checked, stored_id, without_suffix
from hydra_edge.store import Store
from hydra_edge.store.held import Content, Held, content_of
from hydra_edge.store.moved import is_later_export
from hydra_edge.types import Record

# Of so many records, most are not given up without a word: a drive may not be mounted.
MANY = 20
_REASONS = 3


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is kept of a source and no longer in it.

    ``total`` is how much was kept of it before, of the tasks it was read for. ``other_tasks`` is
    how many records of it are of other tasks: they are left alone, as with other options they may
    still be read. ``later`` is how many came after the reading began, by the clock: they are left
    alone, too. ``heirs`` has what other sources hold, too, by id: those get them, and none are
    among ``ids``. ``earlier`` counts those of ``ids`` that earlier exports of the same account
    brought.
    """

    source: str
    ids: tuple[str, ...]
    private: int  # of these
    total: int
    other_tasks: int
    later: int
    gone: int  # of the total, be it in other sources or not
    heirs: Mapping[str, str]
    no_heirs: tuple[str, ...]  # sources that get none
    unheld: tuple[str, ...]  # ids: other sources' records that are no longer in this one
    earlier: Mapping[str, int]

    @property
    def are_most(self) -> bool:
        """Whether more than half of many records would go."""
        return _are_most(self.gone, self.total)


def _are_most(gone: int, total: int) -> bool:
    return total >= MANY and 2 * gone > total


class SourceReading:
    """One reading of a source, as it is compared with what is kept of it; made before it begins."""

    def __init__(self) -> None:
        self._began = time.time()
        self._source = ""
        self._tasks: set[str] = set()
        # By the id asked for, in the order of reading.
        self._read: defaultdict[str, dict[Content, None]] = defaultdict(dict)
        self._before: dict[str, Held] = {}
        self._also: dict[str, Held] = {}  # of other sources
        self._earlier: dict[str, dict[str, Held]] = {}  # by source that may be an earlier export
        self._newest = -math.inf  # time that was read
        self._later = 0

    @property
    def source(self) -> str:
        """What is read; empty before the first record."""
        return self._source

    def noting(self, records: Iterable[Record]) -> Iterator[Record]:
        """Pass records on as the source has them."""
        for record in records:
            given = checked(record)
            self._source = given.source
            self._tasks.add(given.task)
            if given.time is not None:
                self._newest = max(self._newest, given.time)
            self._read[_asked(stored_id(given))][content_of(given)] = None
            yield record

    def look(self, store: Store) -> None:
        """See what is there of the source, before any of this reading is stored.

        What came to it by another program since the reading began, or comes later, is no leftover:
        the list of what is to be read may be older.
        """
        there = store.held_from(self._source)
        self._before = self._of_before(there)
        self._later = len(there) - len(self._before)
        self._also = self._of_before(store.also_held_from(self._source))
        holders = chain.from_iterable(store.holders(source=self._source).values())
        self._earlier = {
            other: self._of_before([*store.held_from(other), *store.also_held_from(other)])
            for other in {*store.sources(), *holders}
            if is_later_export(other, self._source)
        }

    def _of_before(self, there: Iterable[Held]) -> dict[str, Held]:
        return {held.id: held for held in there if held.added < self._began}

    def not_read(self, log: ImportLog) -> str:
        """Say what of the source was not read and may hold records; empty if nothing is."""
        missing = Counter(log.unread)
        if log.bad_total:
            missing[f"unreadable {log.item}"] = log.bad_total
        if log.empty:
            ids = [_spelled_alike(name) for name in self._before]
            for start in log.empty:
                if count := sum(name.startswith(start) for name in ids):
                    missing[f"records of the folder {shown(start)}, which is empty now"] = count
        told = [f"{what} ({count})" for what, count in missing.most_common(_REASONS)]
        more = len(missing) - len(told)
        return "; ".join([*told, *([f"and {more} more"] if more else [])])

    def leftovers(self, store: Store, log: ImportLog, *, stored: bool) -> Leftovers:
        """Compare what was there of the source with what was read.

        What another program has changed meanwhile is none.

        Parameters
        ----------
        store
            With what there was before; with what was read, too, if ``stored``: else it is told as
            it would be then.
        log
            Of the reading, with the items that gave no record: those are no leftovers.
        """
        known = [held for held in store.held_from(self._source) if held.id in self._before]
        ours = [held for held in known if held.task in self._tasks]
        gone = self._gone(ours, self._before, log, stored=stored)
        others = [held for held in known if held.task not in self._tasks]
        if not stored:  # some of them may be moved to a task that was read
            others = [held for held in others if _asked(held.id) not in self._read]
        earlier = self._of_earlier(store, log, stored=stored)
        no_heirs = (self._source, *earlier)
        named = [*gone, *chain.from_iterable(earlier.values())]
        heirs = store.heirs([held.id for held in named], without=no_heirs)
        left = [held for held in named if held.id not in heirs]
        ids = [held.id for held in left]
        counts = {source: len({held.id for held in of} & {*ids}) for source, of in earlier.items()}
        return Leftovers(
            self._source, tuple(ids), sum(held.private for held in left), len(ours), len(others),
            self._later, len(gone), heirs, no_heirs, self._unheld(store, log, stored=stored),
            {source: count for source, count in counts.items() if count},
        )  # fmt: skip

    def _of_earlier(self, store: Store, log: ImportLog, *, stored: bool) -> dict[str, list[Held]]:
        """Return what of earlier exports is no longer in this one, which is of the same account.

        Most of an earlier one is in this one, then, under ids that nobody else's chats have; and
        what is not is older than the newest in this one, so that it was there to be exported. In
        doubt it is another account, or this is no later export: none of it is named.
        """
        found = {}
        kept = {_asked(name) for name in log.held or ()}
        for source, before in self._earlier.items():
            there = sum(name in self._read or name in kept for name in map(_asked, before))
            known = [
                held
                for held in store.held_from(source)
                if held.id in before and held.task in self._tasks
            ]
            gone = self._gone(known, before, log, stored=stored)
            is_older = all(held.time is not None and held.time < self._newest for held in gone)
            if 2 * there > len(before) and is_older:
                found[source] = gone
        return found

    def _unheld(self, store: Store, log: ImportLog, *, stored: bool) -> tuple[str, ...]:
        """Return which records of others are no longer in this source, though it held them.

        None if these are most of many: where a drive is not mounted, they may be there again.
        """
        known = [
            held
            for held in store.also_held_from(self._source)
            if held.id in self._also
            and held.task in self._tasks
            and not _spelled_alike(held.id).startswith(tuple(log.empty))
        ]
        gone = self._gone(known, self._also, log, stored=stored)
        return () if _are_most(len(gone), len(known)) else tuple(held.id for held in gone)

    def _gone(
        self, known: Sequence[Held], before: Mapping[str, Held], log: ImportLog, *, stored: bool
    ) -> list[Held]:
        """Return which of what is known of a source is not in what was read."""
        kept = {_asked(name) for name in log.held or ()}
        families: defaultdict[str, list[Held]] = defaultdict(list)
        for held in known:
            families[_asked(held.id)].append(held)
        gone: list[Held] = []
        for name, family in families.items():
            if name in kept:
                continue
            read = self._read.get(name, {})
            unlike = [
                held
                for held in family
                if held.content not in read
                and held.content == before[held.id].content
                and not {held.input, held.output} & log.held_texts
            ]
            there = {held.content for held in family}
            gone += unlike if stored else _not_followed(unlike, [c for c in read if c not in there])
        return gone


def _not_followed(unlike: Iterable[Held], new: list[Content]) -> list[Held]:
    """Return those of one id that what is read of it anew is not going to be an edit of."""
    left = []
    for held in unlike:
        moved = [content for content in new if content[1:] == held.content[1:]]
        if edit := moved or [content for content in new if content[0] == held.task]:
            new.remove(edit[0])
        else:
            left.append(held)
    return left


def _spelled_alike(name: str) -> str:
    """Return a name with each letter and its accents as one."""
    return unicodedata.normalize("NFC", name)


def _asked(record_id: str) -> str:
    """Return the id a record asked for, accents spelled as one."""
    return without_suffix(_spelled_alike(record_id))
