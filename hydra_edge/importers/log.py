"""What an import is up to: counts of what was taken and left out, and how far it has come.

Owns the collector every importer fills while it is iterated. It is mutable on purpose: the
caller keeps it, watches it for a progress bar, and reports from it afterwards. It prints
nothing and never holds the text of a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

# A file of another format may hold millions of bad lines; the first ones tell the story.
MAX_BAD_KEPT = 100


@dataclass(frozen=True, slots=True)
class BadLine:
    """One item that could not be read; ``number`` counts from 1 in units of ``ImportLog.item``."""

    number: int
    reason: str


@dataclass(slots=True)
class ImportLog:
    """Collects what one or more importers did; the counts add up, the progress restarts.

    Attributes
    ----------
    read
        Records handed out.
    skipped
        Reason -> how many items were well formed but are of no use here.
    bad
        The first ``MAX_BAD_KEPT`` items that could not be read; ``bad_total`` counts all.
    item
        What ``BadLine.number`` counts: ``line``, ``mail``, ``note``, ``conversation`` ...
    unit, done, total
        Progress within the current source; ``total`` is None where it cannot be known.
    notes
        What is to be said of a source as a whole.
    held
        Ids of items that are in the source and gave no record, or may have given one to somebody
        who read it otherwise. None unless the caller wants them: a set that is filled.
    held_texts
        Of those that have no id: the hash of the text that is left of each.
    empty
        How the ids of what lay in folders would begin that have nothing in them.
    unread
        What of the source may hold records and was not looked into -> how often.
    watch
        Called at every ``step``, also while no record is found; what it raises ends the reading.
    """

    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    bad: list[BadLine] = field(default_factory=list)
    bad_total: int = 0
    notes: list[str] = field(default_factory=list)
    held: set[str] | None = None
    held_texts: set[str] = field(default_factory=set)
    empty: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    item: str = "line"
    unit: str = "bytes"
    done: int = 0
    total: int | None = None
    watch: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def begin(self, *, item: str, unit: str, total: int | None) -> None:
        """Start a source: set what is counted and restart the progress."""
        self.item, self.unit, self.total, self.done = item, unit, total, 0

    def step(self, size: int = 1) -> None:
        """Go on to the next item, which takes so much of the progress."""
        self.done += size
        if self.watch is not None:
            self.watch()

    def skip(self, reason: str) -> None:
        """Count one well-formed item that is of no use."""
        self.skipped[reason] += 1

    def hold(self, *names: str) -> None:
        """Say that items are there, by their ids if they have any."""
        if self.held is not None:
            self.held.update(filter(None, names))

    def miss(self, what: str) -> None:
        """Say that something was not looked into."""
        self.unread[what] += 1

    def reject(self, number: int, reason: str) -> None:
        """Report one item that could not be read."""
        self.bad_total += 1
        if len(self.bad) < MAX_BAD_KEPT:
            self.bad.append(BadLine(number, reason))
