"""An app's records: kept under ids of its own, and told by the ids it gave.

What others have under an id, be it private or not, must neither be changed by an app nor become
known to it by the id its record gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from hydra_edge.errors import RecordNotFoundError
from hydra_edge.records import MAX_NAME_CHARS
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
    name = record.id or record.content_hash[:16]  # as the store names what has no id
    own = _own_id(store, record.source, name)
    found = _stored(store, name)
    if found is None or _stored(store, own) is not None:
        return replace(record, id=own)
    if found.source == record.source:
        return replace(record, id=name)
    if (variant := _only_variant(store, record, name)) is not None:
        return replace(record, id=variant)
    while found is not None and found.content_hash != record.content_hash:
        name = f"{name}~{record.content_hash[:6]}"
        found = _stored(store, name)
    if found is None or found.private:
        return replace(record, id=own)
    return replace(record, id=name, private=False, time=None)


def _own_id(store: Store, source: str, name: str) -> str:
    """Return the id an app's record is kept under, which no other source uses.

    One that was exported and imported again is another source's, under the same id.
    """
    if len(source) + 1 + len(name) > MAX_NAME_CHARS:
        name = text_hash(name)
    marks = ":"
    while (found := _stored(store, f"{source}{marks}{name}")) and found.source != source:
        marks += ":"
    return f"{source}{marks}{name}"


def _only_variant(store: Store, record: Record, name: str) -> str | None:
    """Return the id of an app's one record beside another's of that id, as apps had them before."""
    beside = re.compile(re.escape(name) + r"(?:~[0-9a-f]{6})+")
    ids = [
        r.id for r in store.records(task=record.task, source=record.source)
        if beside.fullmatch(r.id)
    ]  # fmt: skip
    return ids[0] if len(ids) == 1 else None


def _stored(store: Store, record_id: str) -> Record | None:
    try:
        return store.get(record_id)
    except RecordNotFoundError:
        return None
