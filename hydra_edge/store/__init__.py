"""One SQLite file per person: everything hydra-edge remembers of them."""

from __future__ import annotations

from hydra_edge.store.choices import StoredChoice, answer_id
from hydra_edge.store.heads import SEEN, seen_by
from hydra_edge.store.log import LoggedGeneration
from hydra_edge.store.pools import StoredPool
from hydra_edge.store.records import Revision
from hydra_edge.store.store import Store

__all__ = [
    "SEEN",
    "LoggedGeneration",
    "Revision",
    "Store",
    "StoredChoice",
    "StoredPool",
    "answer_id",
    "seen_by",
]
