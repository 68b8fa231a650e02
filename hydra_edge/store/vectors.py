"""Cached vectors of texts, by text hash and base. Knows nothing of encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from sqlite3 import Connection

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.store.database import CHUNK, DamagedValueError, Database, bind
from hydra_edge.store.schema import hash_key
from hydra_edge.types import text_hash

_BATCH = 2000
Half1d = npt.NDArray[np.float16]


def _base(connection: Connection, base_id: str) -> int | None:
    row = connection.execute("SELECT seq FROM bases WHERE base_id = ?", (bind(base_id),)).fetchone()
    return None if row is None else row[0]


def read(connection: Connection, hashes: Sequence[str], base_id: str) -> dict[str, Half1d]:
    """Return the vectors known for these texts; see ``Store.vectors``."""
    base = _base(connection, base_id)
    found: dict[str, Half1d] = {}
    if base is None:
        return found
    names = {hash_key(text): text for text in hashes}
    keys = list(names)
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        rows = connection.execute(
            "SELECT hash, vector FROM vectors "
            f"WHERE hash IN ({', '.join('?' * len(part))}) AND base = ?",
            (*part, base),
        )
        for key, blob in rows:
            if not isinstance(blob, bytes) or len(blob) % 2:
                raise DamagedValueError(f"the vector of text {names[key]} is not float16")
            found[names[key]] = np.frombuffer(blob, "<f2").astype(np.float16, copy=False)
    return found


def _rows(
    items: Mapping[str, npt.NDArray[np.floating]],
) -> Iterator[tuple[bytes, bytes]]:
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
        yield hash_key(key), half.tobytes()


def put(db: Database, base_id: str, items: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Store vectors in batches; see ``Store.put_vectors``."""
    rows = _rows(items)
    while batch := list(islice(rows, _BATCH)):
        with db.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO bases (base_id) VALUES (?)", (bind(base_id),))
            base = _base(connection, base_id)
            connection.executemany(
                "REPLACE INTO vectors (base, hash, vector) VALUES (?, ?, ?)",
                ((base, *row) for row in batch),
            )


def drop(connection: Connection, texts: Iterable[str]) -> int:
    """Delete the vectors of texts, under every base; return how many there were."""
    keys = [(hash_key(text_hash(text)),) for text in texts]
    return connection.executemany("DELETE FROM vectors WHERE hash = ?", keys).rowcount


def count(connection: Connection, base_id: str) -> int:
    """Count the vectors of one base."""
    row = connection.execute(
        "SELECT COUNT(*) FROM vectors WHERE base = ?", (_base(connection, base_id),)
    ).fetchone()
    return int(row[0])


def drop_others(connection: Connection, base_id: str) -> int:
    """Delete the vectors of all other bases; return how many there were."""
    dropped = connection.execute(
        "DELETE FROM vectors WHERE base IS NOT ?", (_base(connection, base_id),)
    ).rowcount
    connection.execute("DELETE FROM bases WHERE base_id <> ?", (bind(base_id),))
    return dropped
