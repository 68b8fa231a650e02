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
_UNIQUE = frozenset({"chatgpt", "claude", "mbox", "git", "slack"})
_DATED = frozenset({"chatgpt", "claude", "slack"})  # their exports of several days lie side by side
_WHOLE = "chatgpt"  # each of them has all there is, of no chosen chats or months
_NOTES = "markdown"
_KINDS = _UNIQUE | {_NOTES, "jsonl", "csv", "lamp"}
_EXPORT = "jsonl"  # what `history export` writes
_EXPORTED = {field.name for field in fields(Record)}
_LONGEST_LINE = 2**20
_LAST = 2**63 - 1  # no row has a higher number


def _kind(source: str) -> str:
    kind, colon, place = source.partition(":")
    return kind if colon and place and kind in _KINDS else ""


def _place(source: str) -> str:
    return source.partition(":")[2]


def is_gone(source: str) -> bool:
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
    if is_gone(earlier) or _leads_to(earlier, source):
        return True
    return before == _EXPORT and _is_newer(source, earlier) and _is_export(earlier)


def has_moved(earlier: str, source: str) -> bool:
    """Tell whether a source that holds what an earlier one held is that one in another place."""
    if not _kind(source) or _kind(earlier) != _kind(source):
        return False
    return (is_gone(earlier) and not _is_away(earlier)) or _leads_to(earlier, source)


def are_alike(source: str, other: str) -> bool:
    """Tell whether two sources are of one kind: two mailboxes, say."""
    return _kind(source) == _kind(other)


def is_later_export(earlier: str, source: str) -> bool:
    """Tell whether a source may be a later export of all there is, by what is on the disk."""
    are_whole = _kind(earlier) == _kind(source) == _WHOLE
    return are_whole and earlier != source and _may_replace(earlier, source)


def is_hidden(connection: Connection, source: str, newest: int = _LAST) -> bool:
    """Tell whether what is new to a source is private: all there was of it or around it is.

    ``newest``: the last row that is looked at.
    """
    known = (_all_private(connection, each, newest) for each in _around(source))
    return next((hidden for hidden in known if hidden is not None), False)


def _all_private(connection: Connection, source: str, newest: int) -> bool | None:
    """Tell whether all that was there of a source is private; None if nothing was."""
    (least,) = connection.execute(
        "SELECT MIN(private) FROM records WHERE source = ? AND seq <= ?", (bind(source), newest)
    ).fetchone()
    return None if least is None else bool(least)


def _may_replace(earlier: str, source: str) -> bool:
    """Tell whether a source may say what became of another one's records.

    More is lost by it than by another source's name: a drive may come back, and another mailbox
    with the same mail in it is no later one.
    """
    if may_take(earlier, source):
        return not (is_gone(earlier) and _is_away(earlier))
    return _are_dated(earlier, source) and _is_newer(source, earlier)


def _are_dated(earlier: str, source: str) -> bool:
    return _kind(earlier) == _kind(source) and _kind(source) in _DATED


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
            self._takes[pair] = may and not _all_private(connection, earlier, self._newest)
            if may and source not in self._hides:
                self._hides[source] = is_hidden(connection, source, self._newest)
        return self._takes[pair] and (private or not self._hides[source])

    def _count(self, connection: Connection, source: str) -> int:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM records WHERE source = ? AND seq <= ?",
            (bind(source), self._newest),
        ).fetchone()
        return int(count)
