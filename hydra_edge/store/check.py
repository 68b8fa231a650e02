"""The health of a user's file, in words, for ``hydra-edge doctor``. Repairs nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from sqlite3 import Connection

from hydra_edge.errors import StoreError
from hydra_edge.store import erasure, heads, vectors
from hydra_edge.store.database import Database, side_files

_SHOWN = 5


def _integrity(connection: Connection) -> list[str]:
    rows = connection.execute(f"PRAGMA integrity_check({_SHOWN})").fetchall()
    return [f"The file is damaged: {text}." for (text,) in rows if text != "ok"]


def _index(connection: Connection) -> list[str]:
    problems = []
    try:
        connection.execute("INSERT INTO records_fts (records_fts) VALUES ('integrity-check')")
    except sqlite3.DatabaseError:
        problems.append("The search index is damaged.")
    missing, extra = connection.execute(
        "SELECT (SELECT COUNT(*) FROM records WHERE seq NOT IN "
        "(SELECT id FROM records_fts_docsize)), "
        "(SELECT COUNT(*) FROM records_fts_docsize WHERE id NOT IN (SELECT seq FROM records))"
    ).fetchone()
    if missing:
        problems.append(f"{missing} records are missing from the search index.")
    if extra:
        problems.append(f"{extra} entries of the search index belong to no record.")
    return problems


def _schema(connection: Connection) -> list[str]:
    """Compare with a fresh file: an added trigger could copy what should be forgotten."""
    query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    fresh = Database.open(None)
    try:
        with fresh.reading() as other:
            expected = dict(other.execute(query).fetchall())
    finally:
        fresh.close()
    found = dict(connection.execute(query).fetchall())
    odd = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    return [f"The schema was changed by another program: {', '.join(odd)}."] if odd else []


def _heads(connection: Connection) -> list[str]:
    heads.versions(connection, None)  # reads and checks every array
    return []


def _vectors(connection: Connection) -> list[str]:
    if not (n := vectors.damaged(connection)):
        return []
    return [f"Damaged vectors: {n}. They are left out, and made anew when next needed."]


def _erasure(db: Database, connection: Connection) -> list[str]:
    if not erasure.erasing(connection):
        return []
    lacking = erasure.lacking_mb(db)
    room = f", or free {lacking:,} MB on its disk," if lacking else ""
    return [
        f"An erasure is not finished. Close other programs using the file{room} and open it again."
    ]


def _modes(db: Database) -> list[str]:
    if db.path is None or os.name != "posix":  # Windows knows no modes
        return []
    return [
        f"{part} can be read by others (mode {part.stat().st_mode & 0o777:o}); expected 600."
        for part in (db.path, *side_files(db.path))
        if part.exists() and part.stat().st_mode & 0o077
    ]


def check(db: Database) -> list[str]:
    """Return what is wrong with the file; see ``Store.check``."""
    looks = (_integrity, _index, _schema, _heads, _vectors, partial(_erasure, db))
    return _found(db, looks, _modes(db))


def damage(db: Database) -> list[str]:
    """Return what is wrong with what a file holds, but for what is made anew when it is needed."""
    return _found(db, (_integrity, _index, _schema, _heads), [])


def _found(
    db: Database, looks: Sequence[Callable[[Connection], list[str]]], problems: list[str]
) -> list[str]:
    """Take all these looks at a file; return the problems that there are by then."""
    for look in looks:
        # The index checks itself by a statement that SQLite counts as writing.
        transaction = db.writing if look is _index else db.reading
        try:
            with transaction() as connection:
                problems += look(connection)
        except StoreError as err:
            problems.append(str(err))
    return list(dict.fromkeys(problems))
