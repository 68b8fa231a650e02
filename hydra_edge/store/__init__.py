"""One SQLite file per person: everything hydra-edge remembers of them."""

from __future__ import annotations

from hydra_edge.store.choices import StoredChoice, answer_id
from hydra_edge.store.forget import Withdrawn
from hydra_edge.store.incoming import Contents, Restored
from hydra_edge.store.log import LoggedGeneration
from hydra_edge.store.pools import StoredPool
from hydra_edge.store.records import Revision
from hydra_edge.store.store import Store

__all__ = [
    "Contents",
    "LoggedGeneration",
    "Restored",
    "Revision",
    "Store",
    "StoredChoice",
    "StoredPool",
    "Withdrawn",
    "answer_id",
]
