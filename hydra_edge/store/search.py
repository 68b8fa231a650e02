"""Finding records by their words, as a person asks for them; BM25 for ranking is ``bm25``."""

from __future__ import annotations

from sqlite3 import Connection

from hydra_edge.store.bm25 import MAX_TERMS, quoted
from hydra_edge.store.records import COLUMNS, ORDER, record_of
from hydra_edge.store.schema import index_words
from hydra_edge.store.values import bind
from hydra_edge.types import Record


def search(
    connection: Connection, query: str, task: str | None, limit: int, *, public_only: bool
) -> list[Record]:
    """Return the records that hold the query's words; see ``Store.search``."""
    words = list(dict.fromkeys(index_words(query)))[:MAX_TERMS]
    within, values = ("", ()) if task is None else ("AND task = ? ", (bind(task),))
    if public_only:
        within += "AND NOT private "
    if not words:
        return _containing(connection, query.strip(), within, values, limit)
    for joint in (" AND ", " OR "):
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM records_fts CROSS JOIN records ON seq = records_fts.rowid "
            f"WHERE records_fts MATCH ? {within}ORDER BY records_fts.rank, seq DESC LIMIT ?",
            (joint.join(map(quoted, words)), *values, max(limit, 0)),
        ).fetchall()
        if rows:
            return [record_of(row) for row in rows]
    return []


def _containing(
    connection: Connection,
    text: str,
    within: str,
    values: tuple[str | bytes, ...],
    limit: int,
) -> list[Record]:
    """Look for signs (an emoji, say) as they stand, newest first: no index knows them."""
    if not text:
        return []
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM records "
        f"WHERE (instr(input, ?) OR instr(output, ?)) {within}"
        f"ORDER BY {ORDER} DESC, seq DESC LIMIT ?",
        (bind(text), bind(text), *values, max(limit, 0)),
    )
    return [record_of(row) for row in rows]
