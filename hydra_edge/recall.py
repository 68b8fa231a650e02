"""The user's records in memory, task by task, always in step with their file.

Reading, describing and looking up the vectors of a long history takes seconds, a query
milliseconds: what was read stays until the store's revision says that records have changed,
and where records were only added, only these are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hydra_edge.errors import UnknownTaskError
from hydra_edge.history import History
from hydra_edge.retrieval import LexicalIndex, OkapiIndex, StoreIndex
from hydra_edge.store import Revision, Store
from hydra_edge.tasks import TaskSpec, find_task
from hydra_edge.types import Float2d, Progress, Record
from hydra_edge.vectors import CachedEncoder

# Room kept free for records to come, as a share of those there.
_ROOM = 1 / 8


class _Rows:
    """A matrix that grows at its end; views given out earlier stay as they were."""

    def __init__(self, rows: Float2d) -> None:
        self._buffer = rows
        self._n = len(rows)

    @property
    def all(self) -> Float2d:
        return self._buffer[: self._n]

    def append(self, rows: Float2d) -> None:
        n = self._n + len(rows)
        if n > len(self._buffer):
            room = int(n * _ROOM) + 64
            larger = np.empty((n + room, rows.shape[1]), dtype=np.float32)
            larger[: self._n] = self.all
            self._buffer = larger
        self._buffer[self._n : n] = rows
        self._n = n


@dataclass(eq=False)
class _View:
    """A history, and BM25 over it once it was asked for."""

    history: History
    lexical: LexicalIndex | None = None


@dataclass(eq=False)
class _Kept:
    """What is in memory of one task."""

    revision: Revision
    records: tuple[Record, ...]
    spec: TaskSpec | None = None
    whole: _View | None = None
    public: _View | None = None  # of the whole; the same where no record is private
    inputs: _Rows | None = None
    outputs: _Rows | None = None
    texts: int = 0  # distinct ones whose vectors are here


class Recall:
    """Records, histories and lexical indexes of one user, read once.

    Parameters
    ----------
    store, encoder
        The user's file, and the encoder that keeps its vectors there.
    custom
        The user's own task specs by name.
    """

    def __init__(self, store: Store, encoder: CachedEncoder, custom: dict[str, TaskSpec]) -> None:
        self._store = store
        self._encoder = encoder
        self._custom = custom
        self._kept: dict[str, _Kept] = {}

    def task(self, name: str) -> TaskSpec:
        """Return a task's spec by its canonical name, completed by what the user has answered."""
        kept = self._current(name)
        if kept.spec is None:
            outputs = [record.output for record in kept.records]
            used = () if outputs else self._store.tasks()
            kept.spec = find_task(name, custom=self._custom, outputs=outputs, used=used)
        return kept.spec

    def records(self, name: str) -> tuple[Record, ...]:
        """Return the user's records of a task by its canonical name, oldest first."""
        return self._current(name).records

    def history(self, task: TaskSpec, *, progress: Progress | None = None) -> History:
        """Return the user's records of a task, encoding what is not cached yet."""
        kept = self._current(task.name)
        known = kept.whole.history if kept.whole else None
        self._encoder.reused += kept.texts
        if known is None or known.task != task:
            kept.whole, kept.public = _View(self._build(kept, task, progress)), None
        elif len(known) < len(kept.records):
            kept.whole, kept.public = _View(self._extend(kept, known, progress)), None
        return kept.whole.history if kept.whole else self._build(kept, task, progress)

    def public(self, history: History) -> History:
        """Return a history as if its private records were not there; itself if it has none.

        So its task is what is known of it without them. Nothing is read or encoded again.
        """
        kept = self._kept.get(history.task.name)
        if kept is None or kept.whole is None or kept.whole.history is not history:
            return self._public(history)
        if kept.public is None:
            public = self._public(history)
            kept.public = kept.whole if public is history else _View(public)
        return kept.public.history

    def _public(self, history: History) -> History:
        shown = [i for i, record in enumerate(history.records) if not record.private]
        if len(shown) == len(history):
            return history
        task, outputs = history.task, [history.records[i].output for i in shown]
        try:
            task = find_task(task.name, custom=self._custom, outputs=outputs)
        except UnknownTaskError:  # known from private records only: of its answers nothing is
            task = replace(task, labels=())
        return history.only(np.array(shown, dtype=np.int64), task)

    def lexical(self, history: History) -> LexicalIndex:
        """Return BM25 over a history: the store's own index, or one in memory."""
        kept = self._kept.get(history.task.name)
        for view in (kept.whole, kept.public) if kept else ():
            if view is not None and view.history is history:
                view.lexical = view.lexical or self._index(history)
                return view.lexical
        return self._index(history)

    def _index(self, history: History) -> LexicalIndex:
        if self._store.path is None:
            return OkapiIndex([record.input for record in history.records])
        return StoreIndex(self._store, history)

    def _current(self, name: str) -> _Kept:
        # Read before the records: a change in between is then seen the next time.
        revision = self._store.revision()
        kept = self._kept.get(name)
        if kept is not None and kept.revision == revision:
            return kept
        added = None if kept is None else self._added(kept, name, revision)
        if kept is None or added is None:
            kept = _Kept(revision, tuple(self._store.records(task=name)))
            # Names without records have no end: anyone may ask for any.
            if kept.records:
                self._kept[name] = kept
            else:
                self._kept.pop(name, None)
            return kept
        kept.revision = revision
        if added:
            kept.records, kept.spec = (*kept.records, *added), None
        return kept

    def _added(self, kept: _Kept, name: str, revision: Revision) -> list[Record] | None:
        """Return the records added after those kept; None if that is not all that changed."""
        if kept.revision.rewrites != revision.rewrites:
            return None
        found = self._store.records(task=name, offset=len(kept.records) - 1)
        # A record put in between would have moved the last one on.
        return found[1:] if found and found[0].id == kept.records[-1].id else None

    def _encode(self, kept: _Kept, records: Sequence[Record], progress: Progress | None) -> Float2d:
        texts = [r.input for r in records] + [r.output for r in records]
        kept.texts += len(set(texts))
        return self._encoder.encode(texts, progress=progress)

    def _build(self, kept: _Kept, task: TaskSpec, progress: Progress | None) -> History:
        kept.texts = 0
        vectors, n = self._encode(kept, kept.records, progress), len(kept.records)
        kept.inputs, kept.outputs = _Rows(vectors[:n]), _Rows(vectors[n:])
        return History.build(task, kept.records, vectors[:n], vectors[n:])

    def _extend(self, kept: _Kept, known: History, progress: Progress | None) -> History:
        if kept.inputs is None or kept.outputs is None:
            return self._build(kept, known.task, progress)
        added = kept.records[len(known) :]
        vectors = self._encode(kept, added, progress)
        kept.inputs.append(vectors[: len(added)])
        kept.outputs.append(vectors[len(added) :])
        return known.extended(kept.records, kept.inputs.all, kept.outputs.all)
