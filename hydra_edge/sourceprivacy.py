"""Whether records are private because those there already of their file or folder are."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter
from pathlib import PurePath, PurePosixPath

from hydra_edge.records import from_stream, is_import, stored_id
from hydra_edge.store import Store
from hydra_edge.types import Record

_NOTES = "markdown:"


def as_their_source(records: Iterable[Record], store: Store) -> Iterator[Record]:
    """Mark records private that are new to a store, if all it has of their source are private.

    Those it holds already are as their owner wants them. A note is of the folder it lies in, too,
    if that was imported by itself; and a file or folder that has moved is known by what it held.
    Only imports have a source in this sense: a pipe has none, as whatever came through it before
    may be something else, nor has what was added by hand or by an application.
    """
    there = _There(store)
    for source, new in groupby(records, key=attrgetter("source")):
        yield from there.mark(source, new)


def holder(store: Store, record: Record) -> Record | None:
    """Return the stored record that has the id of this one, be it spelled with accents apart."""
    name = stored_id(record)
    there = store.find(name)
    if there is None and not name.isascii():
        there = store.find(unicodedata.normalize("NFD", name))
    return there


def _is_held(store: Store, record: Record) -> bool:
    there = holder(store, record)
    return there is not None and there.content_hash == record.content_hash


class _There:
    """What a store holds of its sources, as it was when the first import was met."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _known(self) -> dict[str, int]:
        return self._store.sources()

    @cached_property
    def _hidden(self) -> set[str]:
        public = self._store.sources(public_only=True)
        return {s for s in self._known if s not in public and not from_stream(s)}

    @cached_property
    def _folders(self) -> _Folders:
        return _Folders(self._known, self._hidden)

    @cached_property
    def _texts(self) -> dict[int, bool]:
        return _held(self._store)

    def mark(self, source: str, records: Iterator[Record]) -> Iterator[Record]:
        """Mark those of one source private that are to be so."""
        if not is_import(source):
            yield from records
            return
        hidden, hide = source in self._hidden, self._folders.hide
        if source not in self._known:
            records = _as_moved(records, self._texts, hide)
        for record in records:
            hides = (hidden or hide(record)) and not _is_held(self._store, record)
            yield replace(record, private=True) if hides else record


class _Folders:
    """Folders of notes that were imported, and whether all there is of one is private."""

    def __init__(self, known: Collection[str], hidden: Collection[str]) -> None:
        self._hidden = {_folder(s): s in hidden for s in known if s.startswith(_NOTES)}

    def hide(self, record: Record) -> bool:
        """Tell whether a note lies in a private folder; of several it is in, the innermost says."""
        if not record.source.startswith(_NOTES) or not any(self._hidden.values()):
            return False
        from hydra_edge.importers.markdown import SUFFIXES

        folder, path = (
            _folder(record.source),
            PurePosixPath(unicodedata.normalize("NFC", record.id)),
        )
        if path.suffix.lower() in SUFFIXES:
            return self._says((folder / path).parent)
        # The path was no id, being too long, say: the note may lie in any folder below.
        below = (f for f, hidden in self._hidden.items() if hidden and f.is_relative_to(folder))
        return self._says(folder) or any(below)

    def _says(self, folder: PurePosixPath) -> bool:
        around = (self._hidden.get(each) for each in (folder, *folder.parents))
        return next((hidden for hidden in around if hidden is not None), False)


def _folder(source: str) -> PurePosixPath:
    path = PurePath(source.removeprefix(_NOTES)).as_posix()
    return PurePosixPath(unicodedata.normalize("NFC", path))  # as the ids of notes are


def _held(store: Store) -> dict[int, bool]:
    """Return whether imported records are private, by a hash of both texts; none if none is."""
    public = store.sources(public_only=True)
    imports = {s: n for s, n in store.sources().items() if is_import(s) or from_stream(s)}
    held: dict[int, bool] = {}
    if all(n == public.get(source) for source, n in imports.items()):
        return held
    for source in imports:
        for record in store.records(source=source):
            texts = _texts(record)
            held[texts] = held.get(texts, True) and record.private
    return held


def _texts(record: Record) -> int:
    return hash((record.input, record.output))


def _as_moved(
    records: Iterator[Record], held: dict[int, bool], decided: Callable[[Record], bool]
) -> Iterator[Record]:
    """Mark new records private if those of their source that are held under others all are.

    All wait until one that is public, or the last one, has told. Those that are ``decided`` tell
    nothing of the rest.
    """
    waited: list[Record] = []
    hides = False
    for record in records if held else ():
        waited.append(record)
        private = None if decided(record) else held.get(_texts(record))
        hides = private is not False and (hides or private is True)
        if private is False:
            break
    for record in chain(waited, records):
        new = hides and _texts(record) not in held and not decided(record)
        yield replace(record, private=True) if new else record
