"""What became of a source: which other one has its records now.

A folder is renamed, an export is dated, a history goes to another device: the source's name is
another then, but the records are not. Two sources that are both there are two, whatever they
share; but an export of this history is what it was made of, and of dated exports the newest says
what is so. Apps and pipes never take a record over, nor does an app lose one.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path, PurePath
from sqlite3 import Connection

from hydra_edge.records import from_stream
from hydra_edge.store.values import bind
from hydra_edge.types import Record

# Sources whose ids nobody else's item has: a message's, a mail's, a commit's.
_UNIQUE = frozenset({"chatgpt", "mbox", "git"})
_DATED = "chatgpt"  # its exports of several days lie side by side
_NOTES = "markdown"
_KINDS = _UNIQUE | {_NOTES, "jsonl", "csv", "lamp"}
_EXPORT = "jsonl"  # what `history export` writes
_EXPORTED = {field.name for field in fields(Record)}
_LONGEST_LINE = 2**20


def _kind(source: str) -> str:
    kind, colon, place = source.partition(":")
    return kind if colon and place and kind in _KINDS else ""


def _place(source: str) -> str:
    return source.partition(":")[2]


def _is_gone(source: str) -> bool:
    """Tell whether nothing is where a source was; in doubt, it is still there."""
    place = _place(source)
    if from_stream(source):
        return True
    if not Path(place).is_absolute() or "\ufffd" in place:  # a name that could not be kept as it is
        return False
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _leads_to(earlier: str, source: str) -> bool:
    """Tell whether a source's place is a link now, to where another one is."""
    there, here = _place(earlier), _place(source)
    if there == here or not Path(there).is_absolute():
        return False
    try:
        return os.path.realpath(there) == here
    except (OSError, ValueError):
        return False


def _is_away(source: str) -> bool:
    """Tell whether what a source lay in is gone, too: a drive, say, that may come back."""
    if from_stream(source):
        return False
    try:
        return not Path(_place(source)).parent.is_dir()
    except OSError:
        return True


def _is_newer(source: str, earlier: str) -> bool:
    """Tell whether a file was written after another; a folder is as it is now."""
    try:
        ours, theirs = Path(_place(source)).stat(), Path(_place(earlier)).stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(ours.st_mode) or ours.st_mtime_ns > theirs.st_mtime_ns


def _is_export(source: str) -> bool:
    """Tell whether a file begins as `history export` writes it."""
    path = Path(_place(source))
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            first = json.loads(file.readline(_LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() == _EXPORTED


def _around(source: str) -> list[str]:
    """Return a source, and the folders it is in as they are called if they were imported."""
    kind, _, place = source.partition(":")
    folders = PurePath(place).parents if kind == _NOTES else ()
    return [source, *(f"{kind}:{folder}" for folder in folders)]


def may_take(earlier: str, source: str) -> bool:
    """Tell whether records that are alike in both may become a source's, by what is on the disk."""
    kind, before = _kind(source), _kind(earlier)
    if not kind or before not in {kind, _EXPORT} or from_stream(source):
        return False
    if _is_gone(earlier) or _leads_to(earlier, source):
        return True
    return before == _EXPORT and _is_newer(source, earlier) and _is_export(earlier)


def _may_replace(earlier: str, source: str) -> bool:
    """Tell whether a source may say what became of another one's records.

    More is lost by it than by another source's name: a drive may come back, and another mailbox
    with the same mail in it is no later one.
    """
    if may_take(earlier, source):
        return not (_is_gone(earlier) and _is_away(earlier))
    return _are_dated(earlier, source) and _is_newer(source, earlier)


def _are_dated(earlier: str, source: str) -> bool:
    return _kind(earlier) == _kind(source) == _DATED


class Moves:
    """Which sources took others' records over, as one call of ``add`` sees it.

    Parameters
    ----------
    newest
        The last row of before that call.
    batch
        How many records it stores at once: so many it has seen before it replaces any.
    """

    def __init__(self, newest: int, batch: int) -> None:
        # Ids of an earlier source that a new one holds word for word, and those it holds edited.
        self._alike: Counter[tuple[str, str]] = Counter()
        self._edited: Counter[tuple[str, str]] = Counter()
        self._held: dict[str, int] = {}  # records of an earlier one, before the first was taken
        self._may_take, self._may_replace = cache(may_take), cache(_may_replace)  # look at the disk
        # As it was before the first was taken.
        self._takes: dict[tuple[str, str], bool] = {}
        self._hides: dict[str, bool] = {}
        self._newest, self._batch = newest, batch

    def note(self, connection: Connection, earlier: str, source: str, *, alike: bool) -> None:
        """Take up that a source asks for the id of another one's record."""
        if self._may_replace(earlier, source):
            (self._alike if alike else self._edited)[earlier, source] += 1
            if earlier not in self._held:
                self._held[earlier] = self._count(connection, earlier)

    def edits(self, earlier: str, source: str) -> bool:
        """Tell whether what a source has under an earlier one's id, but otherwise, is an edit.

        Where ids are not unique by themselves, most of those they share have to be alike, and
        most of what the earlier one had: two folders may have a README each. An export of this
        history may hold far more than one source.
        """
        if not self._may_replace(earlier, source):
            return False
        is_own_kind = _kind(source) == _kind(earlier)
        if is_own_kind and _kind(source) in _UNIQUE:
            return True
        alike = self._alike[earlier, source]
        if alike <= self._edited[earlier, source]:
            return False
        return not is_own_kind or 2 * alike > min(self._held[earlier], self._batch)

    def takes_edited(
        self, connection: Connection, earlier: str, source: str, *, private: bool
    ) -> bool:
        """Tell whether a record becomes a source's with the edit of it."""
        return _are_dated(earlier, source) or self.takes(
            connection, earlier, source, private=private
        )

    def takes(self, connection: Connection, earlier: str, source: str, *, private: bool) -> bool:
        """Tell whether a record that is alike in both becomes a source's; ``private`` from now on.

        What is new to a source, or to a folder of notes it is in, is private where all that was
        there is: so what is all private keeps its name, and gets nothing that may be public.
        """
        pair = earlier, source
        if pair not in self._takes:
            may = self._may_take(earlier, source)
            self._takes[pair] = may and not self._all_private(connection, earlier)
            if may and source not in self._hides:
                self._hides[source] = self._is_hidden(connection, source)
        return self._takes[pair] and (private or not self._hides[source])

    def _count(self, connection: Connection, source: str) -> int:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM records WHERE source = ? AND seq <= ?",
            (bind(source), self._newest),
        ).fetchone()
        return int(count)

    def _is_hidden(self, connection: Connection, source: str) -> bool:
        known = (self._all_private(connection, each) for each in _around(source))
        return next((hidden for hidden in known if hidden is not None), False)

    def _all_private(self, connection: Connection, source: str) -> bool | None:
        """Tell whether all that was there of a source is private; None if nothing was."""
        (least,) = connection.execute(
            "SELECT MIN(private) FROM records WHERE source = ? AND seq <= ?",
            (bind(source), self._newest),
        ).fetchone()
        return None if least is None else bool(least)
