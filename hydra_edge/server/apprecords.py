"""An app's records: kept under ids of its own, and told by the ids it gave.

What others have under an id, be it private or not, must neither be changed by an app nor become
known to it by the id its record gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from hydra_edge.records import MAX_NAME_CHARS, is_beside, stored_id
from hydra_edge.types import RankedRecord, Record, text_hash

if TYPE_CHECKING:
    from hydra_edge.server.tokens import Scope
    from hydra_edge.store import Store

_APPS_PREFIX = re.compile(r"^app:[^:]*:+")


def as_told(scope: Scope, shown: Iterable[RankedRecord]) -> tuple[RankedRecord, ...]:
    """Return records as whoever asks may know them: an app those of apps by the ids they gave."""
    if scope.is_owner:
        return tuple(shown)
    return tuple(
        replace(r, record=replace(r.record, id=_APPS_PREFIX.sub("", r.record.id))) for r in shown
    )


def of_app(store: Store, record: Record) -> Record:
    """Return an app's record so that adding it changes none of another source, and tells of none.

    For an app what others keep private does not exist: neither what its record counts as nor the
    id it gets may depend on that. So it gets an id of the app's own, unless the app has it under
    the plain one (an answer it kept), or others have the very record for all to see.
    """
    name = stored_id(record)
    own = _own_id(store, record.source, name)
    found = store.find(name)
    if found is None or store.find(own) is not None:
        return replace(record, id=own)
    if found.source == record.source:
        return replace(record, id=name)
    if (variant := _only_variant(store, record, name)) is not None:
        return replace(record, id=variant)
    same = store.find_same(record)
    if same is None or same.private:
        return replace(record, id=own)
    return replace(record, id=same.id, private=False, time=None)


def _own_id(store: Store, source: str, name: str) -> str:
    """Return the id an app's record is kept under, which no other source uses.

    One that was exported and imported again is another source's, under the same id.
    """
    if len(source) + 1 + len(name) > MAX_NAME_CHARS:
        name = text_hash(name)
    marks = ":"
    while (found := store.find(f"{source}{marks}{name}")) and found.source != source:
        marks += ":"
    return f"{source}{marks}{name}"


def _only_variant(store: Store, record: Record, name: str) -> str | None:
    """Return the id of an app's one record beside another's of that id, as apps had them before."""
    theirs = store.records(task=record.task, source=record.source)
    ids = [r.id for r in theirs if is_beside(name, r.id)]
    return ids[0] if len(ids) == 1 else None
