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
from hydra_edge.types import Bool1d, Float2d, Half2d, Int1d, text_hash

_BATCH = 2000
# All vectors are read where a search for each would take longer: one more in so many is wanted.
_SCAN = 3
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


def _unpacked(blobs: Sequence[Any], size: int) -> tuple[Int1d, Half2d]:
    """Return which vectors are whole and finite, and these as they were put: ``(k,), (k, d)``."""
    whole = [i for i, b in enumerate(blobs) if isinstance(b, bytes) and len(b) == size]
    if size % 2 or not whole:
        return np.zeros(0, dtype=np.int64), np.zeros((0, size // 2), dtype=np.float16)
    table = np.frombuffer(b"".join([blobs[i] for i in whole]), "<f2").reshape(-1, size // 2)
    table = table.astype(np.float16, copy=False)
    finite = np.isfinite(table).all(axis=1)
    index = np.array(whole, dtype=np.int64)
    return (index, table) if finite.all() else (index[finite], table[finite])


def _rows_of(
    connection: Connection, base: int, keys: Sequence[bytes]
) -> Iterator[list[tuple[Any, Any]]]:
    """Yield hashes and vectors, all that are asked for among them, some at a time."""
    newest = connection.execute("SELECT MAX(seq) FROM vectors").fetchone()[0] or 0
    if len(keys) * _SCAN > newest:  # one look through the file is faster than a search for each
        rows = connection.execute("SELECT hash, vector FROM vectors WHERE +base = ?", (base,))
        while batch := rows.fetchmany(_BATCH):
            yield batch
        return
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        marks = ", ".join("?" * len(part))
        yield connection.execute(
            f"SELECT hash, vector FROM vectors WHERE hash IN ({marks}) AND base = ?", (*part, base)
        ).fetchall()


def fill(connection: Connection, out: Float2d, rows: Mapping[str, int], base_id: str) -> Bool1d:
    """Read the vectors known for some texts; see ``Store.fill_vectors``."""
    found = np.zeros(len(out), dtype=np.bool_)
    base = _base(connection, base_id)
    if base is None:
        return found
    size = 2 * out.shape[1]
    by_key = {hash_key(text): row for text, row in rows.items()}
    for batch in _rows_of(connection, base, list(by_key)):
        asked = [(by_key[key], blob) for key, blob in batch if key in by_key]
        index, table = _unpacked([blob for _, blob in asked], size)
        filled = np.array([row for row, _ in asked], dtype=np.int64)[index]
        out[filled] = table
        found[filled] = True
    return found


def damaged(connection: Connection) -> int:
    """Count the vectors that ``read`` leaves out."""
    n = 0
    for (base,) in connection.execute("SELECT DISTINCT base FROM vectors").fetchall():
        size = _size(connection, base)
        rows = connection.execute("SELECT vector FROM vectors WHERE base = ?", (base,))
        while batch := rows.fetchmany(_BATCH):
            n += len(batch) - len(_unpacked([blob for (blob,) in batch], size)[0])
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


def count_of(connection: Connection, texts: Iterable[str]) -> int:
    """Count the vectors of texts, under every base."""
    select = "SELECT COUNT(*) FROM vectors WHERE hash = ?"
    keys = (hash_key(text_hash(text)) for text in texts)
    return sum(int(connection.execute(select, (key,)).fetchone()[0]) for key in keys)


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
