"""Cached vectors of texts, by text hash and base. Knows nothing of encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.store.database import CHUNK, DamagedValueError, Database, bind
from hydra_edge.types import text_hash

_BATCH = 2000
Half1d = npt.NDArray[np.float16]


def read(connection: Connection, hashes: Sequence[str], base_id: str) -> dict[str, Half1d]:
    """Return the vectors known for these texts; see ``Store.vectors``."""
    found: dict[str, Half1d] = {}
    for start in range(0, len(hashes), CHUNK):
        part = hashes[start : start + CHUNK]
        rows = connection.execute(
            "SELECT hash, vector FROM vectors "
            f"WHERE hash IN ({', '.join('?' * len(part))}) AND base_id = ?",
            (*part, bind(base_id)),
        )
        for key, blob in rows:
            if not isinstance(blob, bytes) or len(blob) % 2:
                raise DamagedValueError(f"the vector of text {key} is not float16")
            found[key] = np.frombuffer(blob, "<f2").astype(np.float16, copy=False)
    return found


def _rows(
    items: Mapping[str, npt.NDArray[np.floating]], base: str | bytes
) -> Iterator[tuple[str, str | bytes, bytes]]:
    for key, vector in items.items():
        if vector.ndim != 1:
            raise ShapeError(
                f"Cannot store the vector of text {key}: got shape {vector.shape}; expected (d,)."
            )
        with np.errstate(over="ignore"):
            half = vector.astype("<f2")
        if not np.isfinite(half).all():
            raise ShapeError(
                f"Cannot store the vector of text {key}: got values that are not finite in "
                "float16; expected a unit vector."
            )
        yield key, base, half.tobytes()


def put(db: Database, base_id: str, items: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Store vectors in batches; see ``Store.put_vectors``."""
    rows = _rows(items, bind(base_id))
    while batch := list(islice(rows, _BATCH)):
        with db.writing() as connection:
            connection.executemany("REPLACE INTO vectors VALUES (?, ?, ?)", batch)


def drop(connection: Connection, texts: Iterable[str]) -> int:
    """Delete the vectors of texts, under every base; return how many there were."""
    keys = [(text_hash(text),) for text in texts]
    return connection.executemany("DELETE FROM vectors WHERE hash = ?", keys).rowcount


def count(connection: Connection, base_id: str) -> int:
    """Count the vectors of one base."""
    row = connection.execute(
        "SELECT COUNT(*) FROM vectors WHERE base_id = ?", (bind(base_id),)
    ).fetchone()
    return int(row[0])


def drop_others(connection: Connection, base_id: str) -> int:
    """Delete the vectors of all other bases; return how many there were."""
    return connection.execute("DELETE FROM vectors WHERE base_id <> ?", (bind(base_id),)).rowcount
