"""The shape of a user's file: its tables, its migrations, and how we know it is ours.

Refuses files of other programs and of newer releases; writes nothing into either. Texts are
indexed as the words ``hydra_edge.utility.tokens`` finds, so that SQLite and the in-memory
BM25 see the same ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from threading import Event
from typing import Any

from hydra_edge.errors import StoreError
from hydra_edge.store.faults import primary_code
from hydra_edge.utility import UNICODE, tokens

# "hyed" at byte 68 of the file marks it as ours.
APPLICATION_ID = 0x68796564
MAGIC = b"SQLite format 3\x00"
APPLICATION_ID_OFFSET = 68
# Longer words (keys, encoded data) are indexed by their opening.
_LONGEST_WORD = 100
_HASH_LETTERS = 64  # of a sha256 in hex

# Names under which ``meta`` remembers what a table cannot say of itself.
META_WORDS = "words"
META_ERASING = "erasing"
META_REVISION = "revision"
META_UNLOGGED = "unlogged"
META_LOGGED = "logged"
META_HOLDERS = "holders"

_EMPTY = "INSERT INTO records_fts (records_fts) VALUES ('delete-all')"
# The structure record (row 10): without a sound one the index does not even open to be emptied.
_MEND = "REPLACE INTO records_fts_data VALUES (10, x'00000000000000')"
_REINDEX = (
    "INSERT INTO records_fts (rowid, input, output) "
    "SELECT seq, hydra_words(input), hydra_words(output) FROM records",
    "UPDATE records SET words = hydra_count(input) WHERE words <> hydra_count(input)",
)

# What ``records.mark_changed`` does of a rewrite; that module stands above this one.
_COUNT_REWRITE = (
    "INSERT INTO meta VALUES (?, '1 1') ON CONFLICT (name) DO UPDATE SET value = "
    "(CAST(value AS INTEGER) + 1) || ' ' || "
    "(CAST(substr(value, instr(value, ' ')) AS INTEGER) + 1)"
)

# Each migration runs in one transaction; a released one is never edited, only followed.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # The long texts come last: reading a row's first columns then reads little.
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, "
        "task TEXT NOT NULL, time REAL, added REAL NOT NULL, private INTEGER NOT NULL, "
        "source TEXT NOT NULL, words INTEGER NOT NULL, input TEXT NOT NULL, "
        "output TEXT NOT NULL)",
        "CREATE INDEX records_by_task ON records (task, COALESCE(time, added), seq, words)",
        "CREATE INDEX records_by_source ON records (source)",
        # What BM25 wants of thousands of rows at once, without reading their texts.
        "CREATE INDEX records_short ON records (seq, task, words, COALESCE(time, added))",
        # 'ascii' splits at the spaces that hydra_words puts in, and nowhere else.
        "CREATE VIRTUAL TABLE records_fts USING fts5 (input, output, content='', tokenize='ascii')",
        "CREATE VIRTUAL TABLE records_terms USING fts5vocab (records_fts, instance)",
        "CREATE TRIGGER records_added AFTER INSERT ON records BEGIN "
        "INSERT INTO records_fts (rowid, input, output) "
        "VALUES (new.seq, hydra_words(new.input), hydra_words(new.output)); END",
        "CREATE TRIGGER records_removed AFTER DELETE ON records BEGIN "
        "INSERT INTO records_fts (records_fts, rowid, input, output) "
        "VALUES ('delete', old.seq, hydra_words(old.input), hydra_words(old.output)); END",
        "CREATE TRIGGER records_changed AFTER UPDATE OF seq, input, output ON records BEGIN "
        "INSERT INTO records_fts (records_fts, rowid, input, output) "
        "VALUES ('delete', old.seq, hydra_words(old.input), hydra_words(old.output)); "
        "INSERT INTO records_fts (rowid, input, output) "
        "VALUES (new.seq, hydra_words(new.input), hydra_words(new.output)); END",
        "CREATE TABLE vectors (hash TEXT NOT NULL, base_id TEXT NOT NULL, "
        "vector BLOB NOT NULL, PRIMARY KEY (hash, base_id))",
        "CREATE TABLE pools (key TEXT PRIMARY KEY, task TEXT NOT NULL, model TEXT NOT NULL, "
        "purpose TEXT NOT NULL, query_id TEXT NOT NULL, record_ids TEXT NOT NULL, "
        "completions TEXT NOT NULL, time REAL NOT NULL)",
        "CREATE TABLE choices (seq INTEGER PRIMARY KEY, generation_id TEXT NOT NULL, "
        "task TEXT NOT NULL, query TEXT NOT NULL, candidates TEXT NOT NULL, "
        "record_ids TEXT NOT NULL, picked INTEGER, text TEXT NOT NULL, record_id TEXT, "
        "time REAL NOT NULL)",
        "CREATE INDEX choices_by_generation ON choices (generation_id)",
        "CREATE TABLE log (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, "
        "task TEXT NOT NULL, query TEXT NOT NULL, text TEXT NOT NULL, model TEXT NOT NULL, "
        "candidates TEXT NOT NULL, record_ids TEXT NOT NULL, usage TEXT NOT NULL, "
        "time REAL NOT NULL)",
        "CREATE TABLE heads (task TEXT NOT NULL, role TEXT NOT NULL, version INTEGER NOT NULL, "
        "current INTEGER NOT NULL, created REAL NOT NULL, stale INTEGER NOT NULL, "
        "base_id TEXT NOT NULL, features TEXT NOT NULL, weight BLOB NOT NULL, "
        "precision BLOB NOT NULL, switch TEXT NOT NULL, n_queries INTEGER NOT NULL, "
        "prior_scale REAL NOT NULL, report TEXT NOT NULL, PRIMARY KEY (task, role, version))",
    ),
    (
        # Hash and base were 128 letters a vector, twice; now they are 33 bytes and a number.
        # Five rows in the order of writing fill a page, which rows in the order of hashes do not.
        "CREATE TABLE bases (seq INTEGER PRIMARY KEY, base_id TEXT NOT NULL UNIQUE)",
        "INSERT INTO bases (base_id) SELECT DISTINCT base_id FROM vectors",
        "CREATE TABLE packed (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, "
        "base INTEGER NOT NULL, vector BLOB NOT NULL)",
        "INSERT INTO packed (hash, base, vector) SELECT hydra_key(hash), bases.seq, vector "
        "FROM vectors JOIN bases USING (base_id)",
        "DROP TABLE vectors",
        "ALTER TABLE packed RENAME TO vectors",
        "CREATE UNIQUE INDEX vectors_by_hash ON vectors (hash, base)",
        # BM25 holds the order and the lengths of records in memory.
        "DROP INDEX records_short",
    ),
    (
        # Finds private records by their texts, without a copy of them.
        "CREATE INDEX records_private ON records (length(CAST(input AS BLOB)), "
        "substr(CAST(input AS BLOB), -8), length(CAST(output AS BLOB))) WHERE private",
    ),
    (
        # Sought by its record; by its holder only where much is erased, which reads it all.
        "CREATE TABLE holders (record INTEGER NOT NULL, holder TEXT NOT NULL, "
        "since REAL NOT NULL, PRIMARY KEY (record, holder)) WITHOUT ROWID",
        "CREATE TRIGGER holders_removed AFTER DELETE ON records BEGIN "
        "DELETE FROM holders WHERE record = old.seq; END",
        "CREATE TRIGGER holders_moved AFTER UPDATE OF source ON records BEGIN "
        "DELETE FROM holders WHERE record = new.seq AND holder = new.source; END",
        # Of these nobody remembers which other sources hold them.
        "INSERT INTO meta SELECT 'holders', seq FROM records ORDER BY seq DESC LIMIT 1",
    ),
)


def index_words(text: str) -> list[str]:
    """Return the words a text is indexed and sought by, in order, very long ones cut."""
    return [word[:_LONGEST_WORD] for word in tokens(text, None)]


@lru_cache(maxsize=4)  # a record's words are counted, then indexed
def spaced_words(text: str) -> str:
    """Return ``index_words`` as one text, a space between each two."""
    return " ".join(index_words(text))


def count_words(text: str) -> int:
    """Return how many words a text is indexed by."""
    spaced = spaced_words(text)
    return spaced.count(" ") + 1 if spaced else 0


def _as_text(value: object) -> str:
    """Return what a column holds; bytes are a text that is not valid Unicode.

    Never fails, or a damaged record could not be removed. What cannot be decoded, lone
    surrogates too, is no part of a word either way.
    """
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def hash_key(text_hash: str | bytes) -> bytes:
    """Return a text's hash as it is stored: the 32 bytes it stands for."""
    if not isinstance(text_hash, str):
        return text_hash
    if len(text_hash) != _HASH_LETTERS:
        return text_hash.encode("utf-8", "surrogatepass")
    try:
        return bytes.fromhex(text_hash)
    except ValueError:
        return text_hash.encode("utf-8", "surrogatepass")


def _marking(function: Callable[[Any], Any], interrupted: Event) -> Callable[[Any], Any]:
    """Have a function leave a mark when Ctrl-C ends it: SQLite keeps no exception's kind."""

    def marking(value: Any) -> Any:
        try:
            return function(value)
        except (KeyboardInterrupt, SystemExit):
            interrupted.set()
            raise

    return marking


def register_functions(connection: sqlite3.Connection) -> Event:
    """Give a connection the functions that triggers and migrations call.

    Returns
    -------
    Event
        Set when Ctrl-C ends one of them, which SQLite reports as a fault of its own.
    """
    interrupted = Event()
    for name, function in (
        ("hydra_words", lambda value: spaced_words(_as_text(value))),
        ("hydra_count", lambda value: count_words(_as_text(value))),
        ("hydra_key", hash_key),
    ):
        marking = _marking(function, interrupted)
        connection.create_function(name, 1, marking, deterministic=True)
    return interrupted


@lru_cache(maxsize=1)  # asked for at every writing
def words_mark() -> str:
    """Return what changes when texts would be split into words differently."""
    probe = " ".join(index_words("Ab_c 1.5 don't É İ 日本語 가나 كتاب हिन्दी u\u0308 ภาษา"))
    text = f"{probe}|{_LONGEST_WORD}|{UNICODE}"
    return hashlib.sha256(text.encode()).hexdigest()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return int(value)


def _refuse_foreign(connection: sqlite3.Connection, label: str) -> int:
    """Return the schema's number; judged within one read transaction, so of one moment."""
    connection.execute("BEGIN")
    try:
        mark, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    finally:
        if connection.in_transaction:  # else SQLite ended it for a fault, which is to be heard of
            connection.execute("ROLLBACK")
    if mark != APPLICATION_ID and (mark or version or tables):
        raise StoreError(
            f"{label} is not a hydra-edge file: got an SQLite database of another program "
            f"(application id {mark:#x}). Nothing was changed; choose another user name or move "
            "that file away."
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{label} was written by a newer hydra-edge: got schema {version}; this release "
            f"reads up to {len(MIGRATIONS)}. Nothing was changed; upgrade hydra-edge."
        )
    return version


@contextlib.contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Do what is inside wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def prepare(connection: sqlite3.Connection, label: str) -> None:
    """Bring a file to the newest schema, and its index to this release's words.

    Raises
    ------
    StoreError
        If the file belongs to another program or to a newer release.
    sqlite3.Error
        If SQLite cannot do it; every migration is applied wholly or not at all.
    """
    for number in range(_refuse_foreign(connection, label) + 1, len(MIGRATIONS) + 1):
        with _writing(connection):
            # Another process may have done it while we waited for the lock.
            if _pragma(connection, "user_version") < number:
                for statement in MIGRATIONS[number - 1]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {number}")
    _reindex_if_needed(connection)


def reindex(connection: sqlite3.Connection) -> None:
    """Make the word index anew from the records, within a transaction."""
    try:
        connection.execute(_EMPTY)
    except sqlite3.DatabaseError as err:
        if primary_code(err) != sqlite3.SQLITE_CORRUPT:  # which may have ended the transaction
            raise
        # Apple's SQLite lets nobody write into a table of the index itself, unless it is told to.
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)
        connection.execute(_MEND)
        connection.execute(_EMPTY)
    for statement in _REINDEX:
        connection.execute(statement)


def _indexed_as(connection: sqlite3.Connection) -> Any:
    """Return the mark of the words that records are indexed by; None in a new file."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (META_WORDS,)).fetchone()
    return None if row is None else row[0]


def refuse_other_release(connection: sqlite3.Connection, label: str) -> None:
    """Refuse to write into a file that another release has changed since it was opened.

    Called within a transaction. An index of other words would be left with entries of records
    that are gone, or be called damaged.

    Raises
    ------
    StoreError
        If its schema or the words of its index are not this release's.
    """
    if (version := _pragma(connection, "user_version")) != len(MIGRATIONS):
        difference = f"schema {version}; expected {len(MIGRATIONS)}"
    elif _indexed_as(connection) != words_mark():
        difference = "an index of other words; expected this release's"
    else:
        return
    raise StoreError(
        f"Cannot write {label}: another release of hydra-edge has the file now: got {difference}. "
        "Start this program anew."
    )


def _reindex_if_needed(connection: sqlite3.Connection) -> None:
    """Index every record again if words are found differently now.

    The index keeps no texts: to remove an entry it must be told the very words it was given.
    """
    mark = words_mark()
    known = _indexed_as(connection)
    if known == mark:
        return
    with _writing(connection):
        reindex(connection)
        if known is not None:  # programs that use the file meanwhile hold words in memory
            connection.execute(_COUNT_REWRITE, (META_REVISION,))
        connection.execute("REPLACE INTO meta VALUES (?, ?)", (META_WORDS, mark))
