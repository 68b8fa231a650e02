"""What became of a source: which other one has its records now.

A folder is renamed, an export is dated, a history goes to another device: the source's name is
another then, but the records are not. Two sources that are both there are two, whatever they
share; but an export of this history is what it was made of. Apps and pipes never take a record
over, nor does an app lose one.
"""

from __future__ import annotations

import json
import os
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
_NOTES = "markdown"
_KINDS = _UNIQUE | {_NOTES, "jsonl", "csv", "lamp"}
_EXPORT = "jsonl"  # what `history export` writes
_EXPORTED = {field.name for field in fields(Record)}
_LONGEST_LINE = 2**20


def _kind(source: str) -> str:
    kind, colon, place = source.partition(":")
    return kind if colon and place and kind in _KINDS else ""


def _is_gone(source: str) -> bool:
    """Tell whether nothing is where a source was; in doubt, it is still there."""
    place = source.partition(":")[2]
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


def _is_export(source: str) -> bool:
    """Tell whether a file begins as `history export` writes it."""
    path = Path(source.partition(":")[2])
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


class Moves:
    """Which sources took others' records over, as one call of ``add`` sees it.

    ``newest`` is the last row of before that call.
    """

    def __init__(self, newest: int) -> None:
        # Ids of an earlier source that a new one holds word for word, less those it holds edited.
        self._alike: Counter[tuple[str, str]] = Counter()
        self._may_take = cache(self._can_take)  # looks at the disk
        self._takes: dict[tuple[str, str], bool] = {}  # as it was before the first was taken
        self._newest = newest

    def note(self, earlier: str, source: str, *, alike: bool) -> None:
        """Take up that a source asks for the id of another one's record."""
        if self._may_take(earlier, source):
            self._alike[earlier, source] += 1 if alike else -1

    def edits(self, earlier: str, source: str) -> bool:
        """Tell whether what a source has under an earlier one's id, but otherwise, is an edit.

        Where ids are not unique by themselves, most of those they share have to be alike:
        two folders may have a README each.
        """
        return self.is_unique(earlier, source) or self._alike[earlier, source] > 0

    @staticmethod
    def is_unique(earlier: str, source: str) -> bool:
        """Tell whether one id is one item in both of two sources."""
        kind = _kind(source)
        return kind in _UNIQUE and kind == _kind(earlier)

    def takes(self, connection: Connection, earlier: str, source: str) -> bool:
        """Tell whether records that are alike in both become a source's.

        What is new to a source, or to a folder of notes it is in, is private where all that was
        there is: so what is all private keeps its name, and gets nothing that may be public.
        """
        pair = earlier, source
        if pair not in self._takes:
            self._takes[pair] = (
                self._may_take(earlier, source)
                and not self._all_private(connection, earlier)
                and not self._is_hidden(connection, source)
            )
        return self._takes[pair]

    @staticmethod
    def _can_take(earlier: str, source: str) -> bool:
        kind, before = _kind(source), _kind(earlier)
        if not kind or before not in {kind, _EXPORT} or from_stream(source):
            return False
        return _is_gone(earlier) or (before == _EXPORT and _is_export(earlier))

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
