"""The connection to one user's file: opening, locking and transactions.

Knows nothing of what the tables mean. Creates files for their owner only, never writes into
a file it cannot read, and lets no ``sqlite3`` error out.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePath

from hydra_edge.errors import StoreError, UnknownUserError
from hydra_edge.paths import other_users
from hydra_edge.privatefiles import make_private_dir
from hydra_edge.store.faults import RESTORE, explain, primary_code, told
from hydra_edge.store.schema import prepare, refuse_other_release, register_functions
from hydra_edge.store.values import DamagedValueError

# Longer than any other program of ours holds the lock in one go.
BUSY_TIMEOUT_S = 60.0
SIDE_FILES = ("-wal", "-shm", "-journal")


def _create_private(path: Path) -> None:
    """Make an empty file of mode 0600 whatever the umask, or tighten the mode of ours."""
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        # By name, not by descriptor: closing one would drop the locks SQLite holds on it.
        for part in (path, *side_files(path)):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mode & 0o077:
                    part.chmod(0o600)


def side_files(path: Path) -> tuple[Path, ...]:
    """Return the names SQLite may use beside a file."""
    return tuple(path.with_name(path.name + suffix) for suffix in SIDE_FILES)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tell which file stands under a name; None if there is none to be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def file_uri(path: PurePath) -> str:
    """Return a path as SQLite wants it: the host of a network share, on Windows, as part of it."""
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else uri.replace("file://", "file:////", 1)


def _find(path: Path, *, create: bool) -> Path:
    """Return where the file really is, made if it may be; see ``Database.open``."""
    try:
        if not create and not path.exists():
            if path.is_symlink():
                raise StoreError(
                    f"Cannot open {path}: it is a link to {path.readlink()}, which is not there; "
                    "expected a file. Bring that file back, or remove the link."
                )
            raise UnknownUserError(
                f"There is no user {path.stem!r} in {path.parent}. Known users: "
                f"{other_users(path) or 'none yet'}. Import or add something first to begin one."
            )
        if not path.parent.exists():
            make_private_dir(path.parent)
        path = path.resolve()
        _create_private(path)
        wal = path.with_name(path.name + "-wal")
        lost = not path.stat().st_size and wal.exists() and wal.stat().st_size
    except OSError as err:
        raise StoreError(
            f"Cannot open {path}: {err.strerror or err}. Expected a file in a folder you may "
            "write to. Check both, or set HYDRA_EDGE_HOME to a writable place."
        ) from err
    if lost:
        # SQLite would take the file for new and throw its -wal away.
        raise StoreError(f"{path} is damaged: it is empty, but its -wal is not. {RESTORE}")
    return path


_left_open: list[sqlite3.Connection] = []  # of a parent process; see Database.close


class Database:
    """One connection, shared by the threads of a process under one lock.

    ``identity`` is that of the file as it was opened: a file removed since can still be read and
    written through the connection, but nobody will find what is written there.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None,
        identity: tuple[int, int] | None = None,
        interrupted: threading.Event | None = None,
    ) -> None:
        self.connection = connection
        self.path = path
        # Set by an SQL function that Ctrl-C ended.
        self._interrupted = interrupted or threading.Event()
        # No inode: this platform does not tell files apart.
        self._identity = identity if identity is not None and identity[1] else None
        self._lock = threading.RLock()
        self._closed = False
        self._process = os.getpid()

    def check_process(self) -> None:
        """Refuse to serve a process that was forked off the one which opened the file.

        A child has the connection without its locks on the file: once the parent closes its own,
        what the child writes goes into a file that nobody finds. Nor is the thread there that may
        have held a lock of ours, so that this is asked before any is taken.

        Raises
        ------
        StoreError
            If this is another process.
        """
        if self.is_of_parent:
            raise StoreError(
                f"Cannot use {self.label}: it was opened before this process was forked; expected "
                "one opened in this process. Open it here, or start processes by spawn."
            )

    @property
    def is_of_parent(self) -> bool:
        """Whether the file was opened before this process was forked."""
        return self.path is not None and self._process != os.getpid()  # a child has its own memory

    @classmethod
    def open(
        cls, path: Path | None, *, create: bool = True, wait_s: float = BUSY_TIMEOUT_S
    ) -> Database:
        """Open a user's file (None: one in memory), made or migrated as needed.

        ``wait_s`` is how long it ever waits for other programs' locks.

        Raises
        ------
        UnknownUserError
            If it does not exist and may not be made.
        StoreError
            If it is damaged, foreign, newer than this release, or cannot be written.
        """
        if path is not None:
            path = _find(path, create=create)
        name = ":memory:" if path is None else file_uri(path) + "?mode=rw"
        try:
            connection = sqlite3.connect(
                name,
                uri=path is not None,
                timeout=wait_s,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as err:
            raise explain(err, path) from err
        # Once it is open: some file systems only then know the file's lasting identity.
        identity = None if path is None else _identity(path)
        interrupted = register_functions(connection)
        try:
            cls._configure(connection, str(path), wait_s)
        except sqlite3.Error as err:
            connection.close()
            raise told(err, path, interrupted) from err
        except BaseException:
            connection.close()
            raise
        return cls(connection, path, identity, interrupted)

    @staticmethod
    def _configure(connection: sqlite3.Connection, label: str, wait_s: float) -> None:
        # Some builds of SQLite let triggers call no function of ours, and use no index of words.
        connection.execute("PRAGMA trusted_schema = ON")
        connection.execute("PRAGMA secure_delete = ON")
        # Sorting and VACUUM would otherwise leave private texts in the system's temp folder.
        connection.execute("PRAGMA temp_store = MEMORY")
        # Before WAL is on: the mark of a file of ours then stands in the file itself.
        prepare(connection, label)
        deadline = time.monotonic() + wait_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as err:
                # SQLite does not wait by itself where two openers could wait for each other.
                busy = primary_code(err) == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @property
    def label(self) -> str:
        """What to call this file in a message."""
        return "the history in memory" if self.path is None else str(self.path)

    @contextlib.contextmanager
    def _transaction(self, begin: str, *, writes: bool) -> Iterator[sqlite3.Connection]:
        self.check_process()
        with self._lock:
            if self._closed:
                raise StoreError(f"Cannot use {self.label}: it has been closed. Open it again.")
            nested = self.connection.in_transaction
            try:
                if not nested:
                    self.connection.execute(begin)
                    self._check_in_place()
                    if writes:
                        refuse_other_release(self.connection, self.label)
                yield self.connection
                if not nested:
                    self.connection.execute("COMMIT")
            except BaseException as err:
                if not nested and self.connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self.connection.execute("ROLLBACK")
                if isinstance(err, (sqlite3.Error, DamagedValueError)):
                    raise told(err, self.path, self._interrupted) from err
                raise

    def _check_in_place(self) -> None:
        """Refuse a file that was removed, or replaced by another, since it was opened."""
        if self.path is None or self._identity is None:
            return
        if (found := _identity(self.path)) != self._identity:
            got = "no file" if found is None else "another file"
            raise StoreError(
                f"Cannot use {self.label}: the history was removed by another program: got {got} "
                "of that name; expected the one that was opened. Import or add something first "
                "if there is none, and open it again: start `serve` or `mcp` anew."
            )

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Hold one moment of the file still: every query inside sees the same state."""
        return self._transaction("BEGIN", writes=False)

    def writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Hold the write lock: everything inside is stored together, or not at all."""
        return self._transaction("BEGIN IMMEDIATE", writes=True)

    def moment(self) -> tuple[int, int]:
        """Tell, within ``reading`` or ``writing``, of which moment the file is.

        Another one was written to in between, by whichever program.
        """
        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return int(version), self.connection.total_changes  # by others, and by us

    def rewrite(self) -> None:
        """Copy what is live over the whole file and empty its WAL.

        Pages may keep stale copies of rows that moved; ``secure_delete`` does not reach those.

        Raises
        ------
        StoreError
            If another program is in the way.
        """
        self.check_process()
        with self._lock:
            try:
                self.connection.execute("VACUUM")
                busy = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error as err:
                raise told(err, self.path, self._interrupted) from err
        if busy:
            raise StoreError(f"Cannot empty the WAL of {self.label}: another program reads it.")

    @contextlib.contextmanager
    def waiting_at_most(self, seconds: float) -> Iterator[None]:
        """Wait no longer than this for other programs' locks."""
        with self._lock:
            before = self.connection.execute("PRAGMA busy_timeout").fetchone()[0]
            self.connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
            try:
                yield
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {before}")

    def size_bytes(self) -> int:
        """Return how much room the file and what SQLite keeps beside it take."""
        if self.path is not None:
            size = 0
            for part in (self.path, *side_files(self.path)):
                with contextlib.suppress(FileNotFoundError):  # the others come and go
                    size += part.stat().st_size
            return size
        with self.reading() as connection:
            pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
            return pages * int(connection.execute("PRAGMA page_size").fetchone()[0])

    def close(self) -> None:
        """Close the connection; calling it twice is harmless.

        In a forked child it is left open, for good: closing would have SQLite tidy up the file.
        """
        if self.is_of_parent:
            _left_open.append(self.connection)
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self.connection.close()
