"""Whether what is committed here is private: it is where records of this repository are.

One repository has many places (linked worktrees, folders in it, clones, and where it was before
it was moved), and any of them may be what was imported. So it is known by the folder git keeps
for all its working trees and by its commits, not by a path. In doubt, a commit is private.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath

from hydra_edge.githook.repository import Repository
from hydra_edge.records import clean_text, without_suffix
from hydra_edge.store import Store
from hydra_edge.types import Record

_SOURCE = "git:"
_RECENT = 500  # commits of this repository that are sought among the records of other sources
_ASKED = 250  # ids of a source that git is asked for, from either end of its history
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def is_private(repository: Repository, store: Store) -> bool:
    """Return whether any record of this repository is private."""
    ids: list[str] = []
    for source in store.sources():
        if not source.startswith(_SOURCE):
            continue
        private = [record.id for record in store.records(source=source) if record.private]
        if private and _is_here(repository, source.removeprefix(_SOURCE)):
            return True
        ids += _some_commits(private)
    # Another place, or one that is gone, may have held the same history.
    if ids and repository.has_any(ids):
        return True
    return _any_private(store, repository.recent_commits(_RECENT))


def as_before(records: Iterable[Record], repository: Repository, store: Store) -> Iterator[Record]:
    """Mark records of a repository private that are new to a store, if any there is private.

    Those it holds already are as their owner wants them.
    """
    private = is_private(repository, store)
    for record in records:
        new = private and not _is_stored(store, record)
        yield replace(record, private=True) if new else record


def _is_stored(store: Store, record: Record) -> bool:
    found = store.find(record.id)
    return found is not None and found.content_hash == record.content_hash


def _is_here(repository: Repository, folder: str) -> bool:
    """Return whether a folder is of this repository; one git knows nothing of, if it may be."""
    same = repository.shares(folder)
    if same is not None:
        return same
    root, other = PurePath(clean_text(os.path.realpath(repository.root))), PurePath(folder)
    return root.is_relative_to(other) or other.is_relative_to(root)


def _some_commits(ids: Sequence[str]) -> list[str]:
    commits = [name for name in map(without_suffix, ids) if _COMMIT.fullmatch(name)]
    return commits if len(commits) <= 2 * _ASKED else commits[:_ASKED] + commits[-_ASKED:]


def _any_private(store: Store, ids: Iterable[str]) -> bool:
    """Look for records by id: an exported history comes back under another source."""
    return any(found is not None and found.private for found in map(store.find, ids))
