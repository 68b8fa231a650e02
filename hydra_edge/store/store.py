"""Store: the one door to a user's file. Owns no SQL; delegates to one module per table.

Every method holds one transaction (long ones: one per batch) and may be called from any
thread. Texts go in and out unchanged: NUL, lone surrogates and any script included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hydra_edge.store import (
    adding,
    backup,
    check,
    choices,
    erasure,
    expiry,
    forget,
    heads,
    held,
    holders,
    log,
    pools,
    privacy,
    records,
    renaming,
    restore,
    search,
    traces,
    vectors,
)
from hydra_edge.store.bm25 import Bm25
from hydra_edge.store.choices import Helped, StoredChoice
from hydra_edge.store.database import Database
from hydra_edge.store.forget import Withdrawn
from hydra_edge.store.held import Held
from hydra_edge.store.incoming import Restored
from hydra_edge.store.log import LoggedGeneration
from hydra_edge.store.pools import StoredPool
from hydra_edge.store.records import Revision, TaskCounts
from hydra_edge.store.schema import reindex
from hydra_edge.tasks import canonical_name
from hydra_edge.types import (
    AddResult,
    Bool1d,
    Completion,
    Float2d,
    ForgetReceipt,
    Generation,
    HeadState,
    Progress,
    Record,
    RenameReceipt,
    Role,
)


class Store:
    """One person's history, vectors, pools, choices, heads and log; see ``Store.open``.

    Every method may raise ``StoreError`` when the file is damaged, read-only, in use for too
    long, or its disk is full; the message says which, and what to do.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._bm25 = Bm25()
        self._helped = Helped()
        self._tasks = TaskCounts()

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Self:
        """Open a user's file, made (mode 0600) or migrated as needed.

        Raises
        ------
        UnknownUserError
            If it does not exist and ``create`` is False; the message lists the known users.
        ConfigError
            If its folder cannot be made.
        StoreError
            If it is damaged, another program's, newer than this release, or not writable. It
            is then left as it was.
        """
        store = cls(Database.open(path, create=create))
        try:
            erasure.finish(store._db)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def in_memory(cls) -> Self:
        """Return an empty store that leaves nothing behind."""
        return cls(Database.open(None))

    @property
    def path(self) -> Path | None:
        """Where the file is; None in memory."""
        return self._db.path

    def close(self) -> None:
        """Close the file; calling it twice is harmless, using the store afterwards is not."""
        self._db.close()

    @property
    def is_of_parent(self) -> bool:
        """Whether the file was opened before this process was forked."""
        return self._db.is_of_parent

    def check_process(self) -> None:
        """Refuse to serve a forked child; asked before a lock of one's own is taken.

        Raises
        ------
        StoreError
            If the file was opened before this process was forked.
        """
        self._db.check_process()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, new: Iterable[Record], *, progress: Progress | None = None) -> AddResult:
        """Store records, in batches of which each is one transaction.

        A record without an id gets one from its content, so adding the same again changes
        nothing. Under an id already taken by other content it replaces that content if it
        comes from the same source, for the same task or with the same texts, and the id was not
        met before in this call; else it is stored under the id with its content's hash appended,
        private if the one that has the id is, or one of its own source that stands beside it; the
        only one of its source and task beside another's is replaced. Where an import's place is
        gone, or it was an export of this history, another that holds its records word for word gets
        them, unless all of either were private, and may replace the others if they are fewer (see
        ``moved``); a chat, mail or commit is replaced by whichever import has its id. Replacing
        keeps the time if the new record has none, and keeps a record private that was; a record
        that is the same gets another time if its import, or ``add`` by hand, says one. What was
        made of a replaced text goes with it: pools that ask about the record or show it, and
        vectors.

        New texts are private if those of a private record were the very same before this call,
        under whatever id; and records that were public before it become private with one of the
        very same texts that is given as private. But neither those of sources that apps may write
        under, nor others with theirs.

        That another import already has the very same record, and keeps it, is remembered (see
        ``holders``).

        Parameters
        ----------
        new
            Taken from the iterable a batch at a time.
        progress
            Told ``("records", done, total)`` after each batch; total 0 if not known.

        Returns
        -------
        AddResult
            Four counts that add up to all records given; ``updated`` includes those that
            only became private.

        Raises
        ------
        StoreError
            If a batch cannot be stored; earlier ones are, and the message says how many.
        """
        return adding.add(self._db, new, progress)

    def revision(self) -> Revision:
        """Say how often the records have changed, by whichever program."""
        with self._db.reading() as connection:
            return records.revision(connection)

    def count(
        self, task: str | None = None, *, source: str | None = None, until: float | None = None
    ) -> int:
        """Count the records, of one task and one source if given.

        ``until``: those of that moment or before it (unix seconds); one without a time was made
        when it was added.
        """
        with self._db.reading() as connection:
            return records.count(connection, task, source, until)

    def counts_until(self, task: str, moments: Sequence[float]) -> list[int]:
        """Count the records of a task up to each of some moments, as ``count`` does up to one.

        Counting up to one reads all before it: for many that would take seconds.
        """
        with self._db.reading() as connection:
            return records.counts_until(connection, task, moments)

    def tasks(self) -> dict[str, int]:
        """Count the records of each task, the most frequent first."""
        with self._db.reading() as connection:
            return self._tasks.counts(connection)

    def public_tasks(self) -> dict[str, int]:
        """Count the records of each task that are not private, the most frequent first."""
        with self._db.reading() as connection:
            return records.counts_by(connection, "task", public_only=True)

    def sources(self, *, public_only: bool = False) -> dict[str, int]:
        """Count the records, or the public ones, of each source, the most frequent first."""
        with self._db.reading() as connection:
            return records.counts_by(connection, "source", public_only=public_only)

    def get(self, record_id: str) -> Record:
        """Return one record; RecordNotFoundError lists ids that begin like an unknown one."""
        with self._db.reading() as connection:
            return records.get(connection, record_id)

    def find(self, record_id: str) -> Record | None:
        """Return one record, None if there is none with that id."""
        with self._db.reading() as connection:
            stored = records.find(connection, record_id)
        return None if stored is None else stored.record

    def find_same(self, record: Record) -> Record | None:
        """Return the record that says the same as one, under its id or beside who has that."""
        with self._db.reading() as connection:
            return records.find_same(connection, record)

    def records(
        self,
        *,
        task: str | None = None,
        source: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        newest_first: bool = False,
    ) -> list[Record]:
        """Return records in history order: by time (if None, when added), then as added."""
        with self._db.reading() as connection:
            return records.in_order(
                connection, task=task, source=source, limit=limit, offset=offset,
                newest_first=newest_first,
            )  # fmt: skip

    def held_from(self, source: str) -> list[Held]:
        """Say what there is of a source, without the texts: oldest row first."""
        with self._db.reading() as connection:
            return held.of_source(connection, source)

    def also_held_from(self, source: str) -> list[Held]:
        """Say which records of other sources a source holds, too, as its imports have shown.

        Only imports are remembered, and only as holding what another import brought.
        """
        with self._db.reading() as connection:
            return held.by_others(connection, source)

    def holders(
        self, ids: Sequence[str] = (), *, source: str | None = None, task: str | None = None
    ) -> dict[str, list[str]]:
        """Say which other sources hold records, too, by id, the latest found first.

        Of ``ids``, of a source, or of a task; records that nobody else holds are left out.
        """
        with self._db.reading() as connection:
            return holders.of_records(connection, ids, source=source, task=task)

    def heirs(self, ids: Sequence[str], *, without: Collection[str] = ()) -> dict[str, str]:
        """Say to which sources ``hand_over`` would give records."""
        with self._db.reading() as connection:
            return holders.heirs(connection, ids, without)

    def hand_over(self, ids: Sequence[str], *, without: Collection[str] = ()) -> dict[str, str]:
        """Give records to another source that holds them, where one does; return those by id.

        They become private where all there is of that source is. ``without`` are sources that get
        none.
        """
        with self._db.writing() as connection:
            return holders.hand_over(connection, ids, without)

    def drop_holder(self, source: str, ids: Sequence[str]) -> None:
        """Forget that a source holds records of others, as it does no longer."""
        with self._db.writing() as connection:
            holders.drop(connection, source, ids)

    def unwatched(self, ids: Sequence[str]) -> int:
        """Count the records that came before it was remembered which other sources hold them."""
        with self._db.reading() as connection:
            return holders.unwatched(connection, ids)

    def outputs(self, task: str) -> list[str]:
        """Return the outputs of a task's records in history order, which tell its kind."""
        with self._db.reading() as connection:
            return records.outputs(connection, task)

    def set_private(self, ids: Iterable[str], private: bool) -> int:
        """Mark records as private or not; return how many changed; an unknown id changes none.

        Records of the very same texts become private with one, but for those of sources that apps
        may write under; and answers that were kept and were shown one that becomes private.
        """
        with self._db.writing() as connection:
            return privacy.set_private(connection, list(ids), private)

    def rename_task(self, old: str, new: str, knows: Callable[[str], bool]) -> RenameReceipt:
        """Move records, choices, pools, log entries and heads of a task to another name.

        Ids stay as they are. What there is under the new name stays, with its heads in use; heads
        of the old one come behind them. ``knows`` tells whether the base has something of its own
        for a name: a head that was fitted under another one does not serve there.
        """
        with self._db.writing() as connection:
            return renaming.rename(connection, old, new, knows)

    def reindex(self) -> int:
        """Make the word index anew from the records; return how many there are.

        Raises
        ------
        StoreError
            If the records themselves cannot be read.
        """
        with self._db.writing() as connection:
            reindex(connection)
            records.mark_changed(connection, rewritten=True)
            return records.count(connection, None, None, None)

    def together(self) -> AbstractContextManager[object]:
        """Let no other program write meanwhile: what is stored inside is, all of it or nothing."""
        return self._db.writing()

    def search(
        self, query: str, *, task: str | None = None, limit: int = 20, public_only: bool = False
    ) -> list[Record]:
        """Return records that hold all words of the query, else any of them, best first.

        Words are sought in inputs and outputs together. A query without any word (an emoji,
        say) is sought as it stands, newest first. Nothing in a query is an operator.
        ``public_only``: private records are passed over; only how rare a word is among them, too,
        can show in the order.
        """
        with self._db.reading() as connection:
            return search.search(connection, query, task, limit, public_only=public_only)

    def bm25(
        self,
        query: str,
        task: str,
        limit: int,
        *,
        before: str | None = None,
        postings: int = 20_000,
    ) -> list[tuple[str, float]]:
        """Rank one task's records by BM25 of their inputs (k1 = 1.5, b = 0.75).

        Parameters
        ----------
        query
            Each distinct word counts once, however often it occurs; only the first 256 do.
        task
            Only this task's records are ranked, and counted for idf and mean length; a word
            beyond the budget is taken to be as frequent among them as in the whole file.
        before
            Rank as if this record and all later ones in history order did not exist.
        postings
            How many (word, record) pairs of the whole file may find records, the rarest words
            first; words beyond only order what was found, so that time stays bounded. Where
            nothing was, the newest of these records that hold such a word are ordered.

        Returns
        -------
        list of (str, float)
            Record ids with positive scores, best first, among equals the newest first.
        """
        with self._db.reading() as connection:
            return self._bm25.search(
                connection, query, task, limit, before=before, postings=postings
            )

    def fill_vectors(self, out: Float2d, rows: Mapping[str, int], base_id: str) -> Bool1d:
        """Read cached vectors into the rows of a matrix.

        A damaged one (not as wide as the matrix, or not finite) counts as none.

        Parameters
        ----------
        out
            Shape ``(n, d)``, written to.
        rows
            ``types.text_hash`` of a text -> the row its vector belongs in.

        Returns
        -------
        Bool1d
            Shape ``(n,)``: which rows were written.
        """
        with self._db.reading() as connection:
            return vectors.fill(connection, out, rows, base_id)

    def put_vectors(
        self,
        base_id: str,
        items: Mapping[str, npt.NDArray[np.floating]],
        *,
        rewrites: int | None = None,
    ) -> bool:
        """Cache vectors by ``types.text_hash`` of their text; return whether all were stored.

        Each is ``(d,)`` of any float type. ``rewrites`` is how often records had been rewritten
        or forgotten (``revision``) before the texts were read: where that has changed no more are
        stored, for a text may be gone.

        Raises
        ------
        ShapeError
            If one is not one-dimensional, or not finite in float16.
        """
        return vectors.put(self._db, base_id, items, rewrites)

    def texts_in_use(self, texts: Iterable[str]) -> tuple[int, set[str]]:
        """Return how often records were rewritten, and which texts one has; reads all of them."""
        with self._db.reading() as connection:
            return records.revision(connection).rewrites, records.still_used(connection, set(texts))

    def vector_count(self, base_id: str) -> int:
        """Count the vectors cached for one base."""
        with self._db.reading() as connection:
            return vectors.count(connection, base_id)

    def drop_other_vectors(self, base_id: str) -> int:
        """Delete the vectors of all other bases; return how many there were.

        It costs nothing where there are none.
        """
        with self._db.writing() as connection:
            return vectors.drop_others(connection, base_id)

    def put_pool(
        self,
        key: str,
        *,
        task: str,
        model: str,
        query_id: str,
        record_ids: Sequence[str],
        completions: Sequence[Completion],
        purpose: str = "pool",
        rewrites: int | None = None,
    ) -> bool:
        """Keep the answers sampled for a prompt (see ``StoredPool``); return whether they were.

        They are on disk on return. ``key`` identifies prompt and model: a pool under the same key
        is replaced. ``rewrites`` is how often records had been rewritten or forgotten
        (``revision``) when the prompt was made: where that has changed nothing is kept, for the
        prompt may show what is gone.
        """
        pool = StoredPool(
            key, task, model, purpose, query_id, tuple(record_ids), tuple(completions)
        )
        with self._db.writing() as connection:
            return pools.put(connection, pool, rewrites)

    def pool(self, key: str) -> tuple[Completion, ...] | None:
        """Return the answers kept under a key, in the order they were drawn."""
        with self._db.reading() as connection:
            return pools.get(connection, key)

    def pools(
        self, task: str | None = None, *, model: str | None = None, purpose: str | None = None
    ) -> list[StoredPool]:
        """Return the pools of a task, an LLM and a purpose (None: any), oldest first."""
        with self._db.reading() as connection:
            return pools.find(connection, task, model, purpose)

    def save_head(self, state: HeadState, *, rewrites: int | None = None) -> HeadState:
        """Store a head as the newest version, in use from now on; return it as stored.

        ``version`` and ``created`` are given here, and in the report the numbers of the newest
        choice and answer; ``stale`` is kept. Of each task and role the last 20 fitted
        or imported versions are kept, and the last 20 steps.
        A report must not quote texts of records. ``rewrites`` is how often records had been
        rewritten or forgotten (``revision``) before the head learned from them.

        Raises
        ------
        ShapeError
            If its arrays do not fit its features or are not finite.
        StoreError
            If its report is not JSON, or ``rewrites`` has changed.
        """
        with self._db.writing() as connection:
            return heads.save(connection, state, rewrites)

    def head(self, task: str, role: Role) -> HeadState | None:
        """Return the version in use."""
        with self._db.reading() as connection:
            return heads.current(connection, task, role)

    def heads(self, task: str | None = None) -> list[HeadState]:
        """Return all versions kept, by task and role, oldest first."""
        with self._db.reading() as connection:
            return heads.versions(connection, task)

    def rollback_head(self, task: str, role: Role, version: int | None = None) -> HeadState | None:
        """Use another version (None: the one before); later ones stay, to go forward again.

        Returns
        -------
        HeadState or None
            The one in use now; None if that was the first: from now on none is.

        Raises
        ------
        StoreError
            If there is no such version, and the message lists those kept; or if that one was
            learned from something forgotten.
        """
        with self._db.writing() as connection:
            return heads.roll_back(connection, task, role, version)

    def drop_stale_heads(self, task: str) -> int:
        """Erase a task's versions learned from something forgotten; return how many there were.

        Those of tasks with neither record nor choice any more, which nobody will fit again, go
        with them.
        """
        with self._db.writing() as connection:
            return heads.drop_stale(connection, task)

    def log_generation(self, generation: Generation, model: str) -> None:
        """Keep what was answered, with what and at what cost, but no text of a record."""
        with self._db.writing() as connection:
            log.put(connection, generation, model)

    def generation(self, generation_id: str) -> LoggedGeneration | None:
        """Return a log entry, if kept."""
        with self._db.reading() as connection:
            return log.get(connection, generation_id)

    def last_generation(self, task: str | None = None) -> LoggedGeneration | None:
        """Return the newest log entry, of one task if given."""
        with self._db.reading() as connection:
            return log.last(connection, task)

    def generations(
        self, *, task: str | None = None, limit: int | None = None, with_private: bool = False
    ) -> tuple[list[LoggedGeneration], int]:
        """Return log entries, the newest first, and how many were passed over on the way.

        Passed over is what ``forget`` would erase with a private record: entries that name one,
        or hold its text. With ``with_private`` none is.
        """
        with self._db.reading() as connection:
            marks = None if with_private else traces.of_private(connection)

            def is_hidden(entry: LoggedGeneration) -> bool:
                ids = (choices.answer_id(entry.id), *entry.record_ids)
                texts = (entry.query, entry.text, *(c.text for c in entry.candidates))
                return marks is not None and marks.touch(ids, texts)

            return log.newest(connection, task, limit, is_hidden)

    def generation_count(self, task: str | None = None) -> int:
        """Return how many log entries there are, of one task if given."""
        with self._db.reading() as connection:
            return log.count(connection, task)

    def mark_unlogged(self) -> None:
        """Remember that an answer was given that is not in the log: no entry is the last one's."""
        with self._db.reading() as connection:
            if log.newest_id(connection) is None or log.last_is_missing(connection):
                return  # nothing to write
        with self._db.writing() as connection:
            log.mark_missing(connection)

    def last_is_missing(self) -> bool:
        """Tell whether the last answer is not in the log, though earlier ones are.

        It was never put there, or was forgotten with a record.
        """
        with self._db.reading() as connection:
            return log.last_is_missing(connection)

    def clear_log(
        self,
        *,
        choices: bool = False,
        before: float | None = None,
        generation_id: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Erase every log entry, down to the bytes; return how many there were.

        ``choices`` erases those no record was kept of, too, and counts them, with the vectors of
        their texts; heads that may have learned from them are marked stale, but none stored before.
        ``before``: only answers given, and choices made, before that moment (unix seconds).
        ``generation_id``: only that answer, and what was chosen of it.

        Entries go in portions, each for good, so that a log larger than the room its disk has left
        can be erased; ``progress`` is told ``("answers", done, total)`` after each.

        Raises
        ------
        DiskFullError
            If there is no room for any portion; it says how many are gone.
        BytesRemainError
            If another program, or a full disk, keeps the bytes from being erased; the entries
            are gone nevertheless, and the next opening erases the bytes.
        """
        return forget.clear_log(
            self._db, with_choices=choices, before=before, generation_id=generation_id,
            progress=progress,
        )  # fmt: skip

    def expire_log(self, days: int) -> int:
        """Erase log entries older than so many days, down to the bytes; return how many went.

        With them goes what would be as old within a day, or within a tenth of a shorter time:
        the file is rewritten no oftener than that. Choices and records stay. What another program
        keeps from being erased is by the next opening.

        Raises
        ------
        DiskFullError
            If there is no room for any portion.
        """
        return expiry.expire(self._db, days)

    def put_choice(self, choice: StoredChoice) -> StoredChoice:
        """Keep what the user took, and return it as kept; a second for a generation replaces it."""
        with self._db.writing() as connection:
            return choices.put(connection, choice)

    def choice(self, generation_id: str) -> StoredChoice | None:
        """Return what was chosen of one answer, if anything was."""
        with self._db.reading() as connection:
            return choices.of_generation(connection, generation_id)

    def withdraw_choice(self, generation_id: str | None) -> Withdrawn | None:
        """Take back what was chosen of an answer (None: what was chosen last), as one change.

        The choice goes, and the record kept of it if that still says what was chosen; and so does
        the adapter's step if it was the last. Other heads that may have learned from it are marked
        stale. Its bytes are erased now, or by the next opening if something is in the way.

        Returns
        -------
        Withdrawn or None
            What it was; None if there is no such choice.
        """
        return forget.withdraw(self._db, generation_id)

    def choices(self, task: str | None = None) -> list[StoredChoice]:
        """Return the choices, of one task if given, oldest first."""
        with self._db.reading() as connection:
            return choices.find(connection, task)

    def helped_counts(self, task: str) -> dict[str, tuple[int, int]]:
        """Count for each record (shown, picked) over the task's choices.

        Shown: it was in the prompt. Picked: and the user took a candidate as it was.
        """
        with self._db.reading() as connection:
            return self._helped.counts(connection, task)

    def forget(
        self,
        ids: Sequence[str] = (),
        *,
        source: str | None = None,
        task: str | None = None,
        progress: Progress | None = None,
        on_deleted: Callable[[ForgetReceipt], None] | None = None,
    ) -> ForgetReceipt:
        """Erase records, by id, source or task, and what they left behind.

        Vectors of their texts, pools, choices and log entries that mention them or hold their
        texts go too (texts that another record has as well stay); heads of their tasks are
        marked stale. Afterwards neither the file nor its WAL holds their bytes.

        Parameters
        ----------
        task
            Its choices, pools, log entries and heads go, too, be there records of it or none.
        progress
            Told ``("answers", done, total)`` from time to time, and again from the beginning if
            others wrote meanwhile; what it raises leaves everything as it was.
        on_deleted
            Called with the receipt once the records are gone, before their bytes are erased.

        Raises
        ------
        RecordNotFoundError
            If an id, the source or the task is unknown; nothing is erased then.
        BytesRemainError
            If another program, or a full disk, keeps the bytes from being erased; the records
            are gone nevertheless, and the next opening erases the bytes. It holds the receipt.
        """
        task = None if task is None else canonical_name(task)
        return forget.forget(self._db, ids, source, task, progress, on_deleted)

    def would_forget(
        self,
        ids: Sequence[str] = (),
        *,
        source: str | None = None,
        task: str | None = None,
        progress: Progress | None = None,
    ) -> ForgetReceipt:
        """Return the receipt ``forget`` would give now, and erase nothing.

        Raises
        ------
        RecordNotFoundError
            If an id, the source or the task is unknown.
        """
        task = None if task is None else canonical_name(task)
        return forget.foresee(self._db, ids, source, task, progress)

    @staticmethod
    def forget_user(path: Path) -> None:
        """Remove one user's file and what SQLite keeps beside it.

        It is emptied first: whoever has it open finds nothing in it, and may not use it any more.

        Raises
        ------
        UnknownUserError
            If there is no such file.
        StoreError
            If it is not one of ours, or cannot be removed.
        """
        forget.forget_user(path)

    def is_erased(self) -> bool:
        """Tell whether no bytes of what was deleted may remain in the file."""
        with self._db.reading() as connection:
            return not erasure.erasing(connection)

    def check(self) -> list[str]:
        """Return what is wrong with the file, one sentence each; empty when healthy."""
        return check.check(self._db)

    def back_up(
        self,
        target: Path,
        *,
        task_files: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Copy all there is into a file of mode 0600; return how many records that are.

        Others may write meanwhile: it is as it was at one moment. It is written beside its place
        and put there in one step, over a file of that name.

        Parameters
        ----------
        task_files
            What describes the person's own tasks, by task, which is kept in the backup alone.
        progress
            Told ``("pages", done, total)`` from time to time.

        Raises
        ------
        StoreError
            If it cannot be written, or a program uses a file of that name.
        """
        with self._db.reading() as connection:
            n = records.count(connection, None, None, None)  # from here on it is one moment
            backup.back_up(self._db, target, task_files or {}, progress)
            return n

    @staticmethod
    def restore(path: Path, source: Path, *, progress: Progress | None = None) -> Restored:
        """Put a backup in the place of a user's file, or where there is none; say what became.

        Nobody may have the file open. Stopped at whatever moment, it is wholly the one or the
        other. What was there is kept beside it, under its name and the date, also where it cannot
        be read. A backup of an earlier release is brought to this one's schema; ``source`` itself
        stays as it is. Its task files are returned, and written nowhere.

        Parameters
        ----------
        path
            Where the user's file is: ``Paths.user_file``.
        source
            What ``back_up`` wrote.
        progress
            Told ``("pages", done, total)`` from time to time; what it raises leaves all as it was.

        Raises
        ------
        StoreError
            If the backup is damaged, no backup or of a newer release, or if the file is in use,
            another program's, or cannot be written. Nothing is changed then.
        """
        return restore.restore(path, source, progress)

    @staticmethod
    def would_restore(path: Path, source: Path) -> Restored:
        """Return what ``restore`` would, but for what is kept, and change nothing.

        Raises
        ------
        StoreError
            If the backup cannot be used, or another program's file is in its place.
        """
        return restore.foresee(path, source)

    def size_bytes(self) -> int:
        """Return how much room the file and its side files take."""
        return self._db.size_bytes()
