"""Cached vectors of texts, by text hash and base. Knows nothing of encoders.

A damaged vector counts as missing: whoever asks for it makes it again and puts it in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from sqlite3 import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.store.database import Database
from hydra_edge.store.records import as_read
from hydra_edge.store.schema import hash_key
from hydra_edge.store.values import CHUNK, bind
from hydra_edge.types import Half1d, text_hash

_BATCH = 2000
# Vectors of a base that say how long each is: most of them are whole.
_WITNESSES = 50


def _base(connection: Connection, base_id: str) -> int | None:
    row = connection.execute("SELECT seq FROM bases WHERE base_id = ?", (bind(base_id),)).fetchone()
    return None if row is None else row[0]


def _size(connection: Connection, base: int) -> int:
    """Return how many bytes a vector of a base takes: as many as most of the newest do."""
    row = connection.execute(
        "SELECT length(vector) AS size FROM "
        "(SELECT vector FROM vectors WHERE base = ? ORDER BY seq DESC LIMIT ?) "
        "WHERE typeof(vector) = 'blob' GROUP BY size ORDER BY COUNT(*) DESC, size DESC LIMIT 1",
        (base, _WITNESSES),
    ).fetchone()
    return 0 if row is None else int(row[0])


def _unpacked(blobs: Sequence[Any], size: int) -> list[Half1d | None]:
    """Return vectors as they were put, None for those that are not whole or not finite."""
    found: list[Half1d | None] = [None] * len(blobs)
    whole = [i for i, b in enumerate(blobs) if isinstance(b, bytes) and len(b) == size]
    if size % 2 or not whole:
        return found
    table = np.frombuffer(b"".join(blobs[i] for i in whole), "<f2").reshape(len(whole), size // 2)
    table = table.astype(np.float16, copy=False)
    for row in np.flatnonzero(np.isfinite(table).all(axis=1)).tolist():
        found[whole[row]] = table[row]
    return found


def read(connection: Connection, hashes: Sequence[str], base_id: str) -> dict[str, Half1d]:
    """Return the vectors known for these texts; see ``Store.vectors``."""
    base = _base(connection, base_id)
    found: dict[str, Half1d] = {}
    if base is None:
        return found
    size = _size(connection, base)
    names = {hash_key(text): text for text in hashes}
    keys = list(names)
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        rows = connection.execute(
            "SELECT hash, vector FROM vectors "
            f"WHERE hash IN ({', '.join('?' * len(part))}) AND base = ?",
            (*part, base),
        ).fetchall()
        unpacked = _unpacked([blob for _, blob in rows], size)
        for (key, _), vector in zip(rows, unpacked, strict=True):
            if vector is not None:
                found[names[key]] = vector
    return found


def damaged(connection: Connection) -> int:
    """Count the vectors that ``read`` leaves out."""
    n = 0
    for (base,) in connection.execute("SELECT DISTINCT base FROM vectors").fetchall():
        size = _size(connection, base)
        rows = connection.execute("SELECT vector FROM vectors WHERE base = ?", (base,))
        while batch := rows.fetchmany(_BATCH):
            n += sum(v is None for v in _unpacked([blob for (blob,) in batch], size))
    return n


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


def put(
    db: Database,
    base_id: str,
    items: Mapping[str, npt.NDArray[np.floating]],
    rewrites: int | None,
) -> bool:
    """Store vectors in batches while records stay as they were; see ``Store.put_vectors``."""
    rows = _rows(items)
    while batch := list(islice(rows, _BATCH)):
        with db.writing() as connection:
            if not as_read(connection, rewrites):
                return False
            _put_batch(connection, base_id, batch)
    return True


def _put_batch(connection: Connection, base_id: str, batch: Sequence[tuple[bytes, bytes]]) -> None:
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
    others = connection.execute(
        "SELECT 1 FROM bases WHERE base_id <> ? LIMIT 1", (bind(base_id),)
    ).fetchone()
    if others is None:  # without looking at every vector
        return 0
    dropped = connection.execute(
        "DELETE FROM vectors WHERE base IS NOT ?", (_base(connection, base_id),)
    ).rowcount
    connection.execute("DELETE FROM bases WHERE base_id <> ?", (bind(base_id),))
    return dropped
