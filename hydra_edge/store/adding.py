"""Adding records to the user's file: which are new, and which are what became of those there."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from sqlite3 import Connection

from hydra_edge.errors import StoreError
from hydra_edge.records import beside, from_apps, from_stream, stored_id
from hydra_edge.store import heads, pools, privacy, vectors
from hydra_edge.store.beside import Beside, with_others_beside
from hydra_edge.store.database import Database
from hydra_edge.store.holders import Sharing
from hydra_edge.store.moved import Moves
from hydra_edge.store.records import (
    Revision,
    Stored,
    find,
    find_all,
    mark_changed,
    revision,
    still_used,
    texts_of,
)
from hydra_edge.store.schema import count_words
from hydra_edge.store.times import corrects, says_when, time_of
from hydra_edge.store.values import bind
from hydra_edge.types import AddResult, Progress, Record

# Records of one transaction: a stopped import has stored whole batches, nothing else.
BATCH = 500
_NOTES = "markdown:"


def _same(a: Record, b: Record) -> bool:
    return (*texts_of(a), a.task) == (*texts_of(b), b.task)


def _insert(connection: Connection, record: Record, now: float) -> int:
    """Store a new record; return its row number."""
    cursor = connection.execute(
        "INSERT INTO records (id, task, time, added, private, source, words, input, output) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            bind(record.id),
            bind(record.task),
            time_of(record),
            now,
            int(record.private),
            bind(record.source),
            count_words(record.input),
            bind(record.input),
            bind(record.output),
        ),
    )
    return int(cursor.lastrowid or 0)


def _update(connection: Connection, stored: Stored, record: Record, source: str) -> None:
    """Replace a record's content; what was once private stays so until the user says else."""
    connection.execute(
        "UPDATE records SET task = ?, time = COALESCE(?, time), private = ?, "
        "source = ?, words = ?, input = ?, output = ? WHERE seq = ?",
        (
            bind(record.task),
            time_of(record),
            int(record.private or stored.record.private),
            bind(source),
            count_words(record.input),
            bind(record.input),
            bind(record.output),
            stored.seq,
        ),
    )


def _drop_what_was_made(connection: Connection, replaced: Mapping[str, Record]) -> None:
    """Delete what was made of texts that an update replaced, given as they were, by id.

    Pools that ask about such a record or show it were answered for the old text and would be
    judged by the new one; vectors of texts that no record has any more serve nobody.
    """
    texts = {text for record in replaced.values() for text in texts_of(record)}
    texts |= pools.drop_naming(connection, replaced.keys())
    vectors.drop(connection, texts - still_used(connection, texts))


class _Adding:
    """One call of ``add``: where what it was given stands, and what its batch replaced."""

    def __init__(self) -> None:
        self._met: set[str] = set()  # ids
        self._replaced: dict[str, Record] = {}
        self._hidden: list[str] = []  # ids of those this batch made private
        self._known: dict[str, Stored | None] = {}  # of the batch's ids, as they are stored
        self._beside: dict[str, Beside] = {}  # of ids that were taken
        self._left: set[str] = set()  # of the batch's ids: others stand beside one nobody has
        self._as_left = Revision()
        self._newest: int | None = None  # row that was there before this call
        self._hides = False  # one of those before this call is private
        self._public = privacy.PublicTexts(0)  # of before this call
        self._moves = Moves(0, BATCH)
        self._moved = False  # a record of this batch became another source's
        self._sharing = Sharing()
        self._other_column = False  # was met of a table that is here, its items under another task

    def put_all(self, connection: Connection, batch: Sequence[Record]) -> Counter[str]:
        """Store a batch; count the fields of ``AddResult``."""
        now = time.time()
        if self._newest is None:
            self._newest = connection.execute("SELECT MAX(seq) FROM records").fetchone()[0] or 0
            self._public = privacy.PublicTexts(self._newest)
            self._moves = Moves(self._newest, BATCH)
            hides = connection.execute("SELECT 1 FROM records WHERE private LIMIT 1").fetchone()
            self._hides = hides is not None
        wanted = [stored_id(record) for record in batch]
        self._known = find_all(connection, wanted)
        wanted = self._as_spelled(connection, batch, wanted)
        self._other_column |= any(
            (stored := self._known[name]) is not None
            and stored.record.source == record.source
            and stored.record.task != record.task
            and stored.record.input == record.input
            and stored.record.output != record.output
            for record, name in zip(batch, wanted, strict=True)
        )
        for record, name in zip(batch, wanted, strict=True):
            stored = self._known[name]
            if stored is not None and (earlier := stored.record.source) != record.source:
                alike = _same(stored.record, record)
                self._moves.note(connection, earlier, record.source, alike=alike)
        self._replaced, self._hidden, self._moved = {}, [], False
        free = [name for name, stored in self._known.items() if stored is None]
        self._left = with_others_beside(connection, free)
        # Kept from batch to batch: all records of a source may ask for one id.
        if revision(connection) != self._as_left or len(self._beside) > BATCH:
            self._beside.clear()
        fields = [
            self._put(connection, record, name, now)
            for record, name in zip(batch, wanted, strict=True)
        ]
        twins = self._twins(connection, batch, fields)
        if twins or self._hidden:
            privacy.hide(connection, [*self._hidden, *twins])
        counts = Counter(fields)
        if counts.keys() - {"unchanged"} or self._moved:
            rewritten = bool(twins) or self._moved or "updated" in counts
            mark_changed(connection, rewritten=rewritten)
        self._as_left = revision(connection)
        self._sharing.store(connection, now)
        if self._replaced:
            _drop_what_was_made(connection, self._replaced)
        return counts

    def _as_spelled(
        self, connection: Connection, batch: Sequence[Record], wanted: Sequence[str]
    ) -> list[str]:
        """Return the ids wanted, those of notes as they are held.

        A note's path may be held with its accents apart, as some systems spell names.
        """
        apart = {
            name: unicodedata.normalize("NFD", name)
            for record, name in zip(batch, wanted, strict=True)
            if self._known[name] is None and not name.isascii() and record.source.startswith(_NOTES)
        }
        held = {
            name: stored
            for name, stored in find_all(connection, list(apart.values())).items()
            if stored is not None
        }
        self._known |= held
        return [apart[name] if apart.get(name) in held else name for name in wanted]

    def _twins(
        self, connection: Connection, batch: Sequence[Record], fields: Sequence[str]
    ) -> list[str]:
        """Return public records of before this call with the very texts of new private ones.

        Of such as were given as private, and not by an app: those have what is theirs only.
        """
        said = [
            record
            for record, field in zip(batch, fields, strict=True)
            if record.private and field != "unchanged" and not from_apps(record.source)
        ]
        twins = self._public.twins(connection, said)
        if twins:
            self._beside.clear()
        return twins

    def _stored(self, connection: Connection, record_id: str | None) -> Stored | None:
        if record_id is None:
            return None
        if record_id not in self._known:
            self._known[record_id] = find(connection, record_id)
        return self._known[record_id]

    def _put(self, connection: Connection, record: Record, wanted: str, now: float) -> str:
        """Store one record; return the field of ``AddResult`` that counts it."""
        stored = self._stored(connection, wanted)
        if stored is None:
            record = record if record.id else replace(record, id=wanted)
            return self._put_back(connection, record, now)
        if _same(stored.record, record):
            return self._keep(connection, stored, record)
        other = wanted
        twin: Stored | None = stored
        while twin is not None and not _same(twin.record, record):
            other = beside(other, record)
            twin = self._stored(connection, other)
        if twin is not None:
            return self._keep(connection, twin, record)
        if wanted not in self._met and self._follows(connection, stored, record):
            return self._replace(connection, stored, record)
        return self._put_beside(connection, replace(record, id=other), stored.record, now)

    def _follows(self, connection: Connection, stored: Stored, record: Record) -> bool:
        """Tell whether a record is what became of the one that has its id.

        It may have been edited, or moved to another task; but it may also be from another column
        of the same table, for another task, and say the same there by chance.
        """
        if from_stream(record.source):
            return False
        if stored.record.source != record.source:
            return self._is_edit(connection, stored.record, record)
        if stored.record.task == record.task:
            return True
        moved = texts_of(stored.record) == texts_of(record) and not self._other_column
        beside = self._beside_of(connection, stored.record.id) if moved else None
        return beside is not None and not beside.has(record.source, record.task)

    def _is_edit(self, connection: Connection, held: Record, record: Record) -> bool:
        """Tell whether a record is an edit of one that another source brought."""
        if held.task != record.task or not self._moves.edits(held.source, record.source):
            return False
        moment = time_of(record)
        if moment is not None and held.time is not None and moment < held.time:
            return False  # an older copy
        # One that stands beside it is this source's own, and the one that was edited.
        return not self._beside_of(connection, held.id).has(record.source, record.task)

    def _put_back(self, connection: Connection, record: Record, now: float) -> str:
        """Store a record under an id that is free, maybe since the record that had it went.

        Those beside it may hold its very text, or be marked private.
        """
        beside = self._beside_of(connection, record.id) if record.id in self._left else None
        if beside is not None and not beside.ids <= self._met:
            if twin := self._stored(connection, beside.by_content.get(record.content_hash)):
                return self._keep(connection, twin, record)
            record = replace(record, private=record.private or beside.hides(record.source))
        self._add(connection, record, now)
        return "added"

    def _put_beside(
        self, connection: Connection, record: Record, holder: Record, now: float
    ) -> str:
        """Store a record that is not the one that has the id it asked for.

        Its id is the one it gets if it is new here. It may be a record that is there already, or
        one that was marked private and has been edited since.
        """
        beside = self._beside_of(connection, holder.id)
        if twin := self._stored(connection, beside.by_content.get(record.content_hash)):
            return self._keep(connection, twin, record)
        record = replace(
            record, private=record.private or holder.private or beside.hides(record.source)
        )
        other_task = holder.task != record.task and not from_stream(record.source)
        if holder.source != record.source or other_task:  # else it is another item of its source's
            # Of several records of its source and task, any may be the one that was edited.
            earlier = self._stored(connection, beside.only(record.source, record.task))
            if earlier is not None and earlier.record.id not in self._met:
                return self._replace(connection, earlier, record)
        beside.note(self._add(connection, record, now))
        return "renamed"

    def _beside_of(self, connection: Connection, wanted: str) -> Beside:
        if wanted not in self._beside:
            self._beside[wanted] = Beside.of(connection, wanted)
        return self._beside[wanted]

    def _as_private(self, connection: Connection, record: Record) -> Record:
        """Return a record private if its very texts were so before this call, under any id.

        Not what apps may have added: whether they find it again would tell them what is private.
        """
        if record.private or not (self._newest and self._hides) or from_apps(record.source):
            return record
        return replace(record, private=privacy.is_hidden(connection, record, self._newest))

    def _add(self, connection: Connection, record: Record, now: float) -> Record:
        record = self._as_private(connection, record)
        self._known[record.id] = Stored(_insert(connection, record, now), record)
        self._met.add(record.id)
        return record

    def _replace(self, connection: Connection, stored: Stored, record: Record) -> str:
        edited = texts_of(stored.record) != texts_of(record)
        if edited:
            record = self._as_private(connection, record)
        earlier, source = stored.record.source, record.source
        moves = source == earlier or self._moves.takes_edited(
            connection, earlier, source, private=record.private or stored.record.private
        )
        _update(connection, stored, record, source if moves else earlier)
        self._sharing.drop(connection, stored.seq)
        if not moves:
            self._sharing.note(stored.seq, earlier, source)
        if record.private and not stored.record.private:
            self._hidden.append(stored.record.id)
        if stored.record.task != record.task:  # heads of that task have learned from it
            heads.mark_stale(connection, [stored.record.task])
        if edited:
            self._replaced[stored.record.id] = stored.record
        return self._updated(stored)

    def _keep(self, connection: Connection, stored: Stored, record: Record) -> str:
        held, ours = stored.record, stored.record.source == record.source
        hides = record.private and not held.private
        # Asked first: what was public until now goes along when it moves.
        moves = not ours and self._moves.takes(
            connection, held.source, record.source, private=record.private or held.private
        )
        if hides:
            connection.execute("UPDATE records SET private = 1 WHERE seq = ?", (stored.seq,))
            self._hidden.append(held.id)
        if moves:
            connection.execute(
                "UPDATE records SET source = ? WHERE seq = ?", (bind(record.source), stored.seq)
            )
            self._moved = True
        if not ours:
            self._sharing.note(stored.seq, held.source, record.source, moves=moves)
        dates = self._dates(held, record, ours=ours or moves)
        if dates:
            connection.execute(
                "UPDATE records SET time = ? WHERE seq = ?", (time_of(record), stored.seq)
            )
        if hides or dates or moves:
            self._changed(stored)
        self._met.add(held.id)
        return "updated" if hides or dates else "unchanged"

    def _dates(self, held: Record, record: Record, *, ours: bool) -> bool:
        """Tell whether the record that is held gets the time of one with the very same texts.

        It does if it has none, if its own source says another, or if somebody does and it is ahead
        of the clock; but where a source has such texts twice, the first says it.
        """
        moment = time_of(record)
        if moment is None or moment == held.time:
            return False
        if held.time is None or corrects(record, held):
            return True
        return ours and held.id not in self._met and says_when(record)

    def _updated(self, stored: Stored) -> str:
        self._met.add(stored.record.id)
        self._changed(stored)
        return "updated"

    def _changed(self, stored: Stored) -> None:
        self._known.pop(stored.record.id)
        self._beside.clear()


def add(db: Database, records: Iterable[Record], progress: Progress | None) -> AddResult:
    """Store records in batches; see ``Store.add``."""
    total = len(records) if isinstance(records, Sized) else 0
    waiting = iter(records)
    adding, result, done = _Adding(), AddResult(), 0
    while batch := list(islice(waiting, BATCH)):
        try:
            with db.writing() as connection:
                counts = adding.put_all(connection, batch)
        except StoreError as err:
            raise type(err)(
                f"{err} Of these records the first {done} are stored; adding all of them again "
                "is safe."
            ) from err
        done += len(batch)
        result = replace(result, **{name: getattr(result, name) + n for name, n in counts.items()})
        if progress is not None:
            progress("records", done, total)
    if added := result.added + result.renamed:
        with suppress(StoreError):  # the records are stored: a full disk may leave them in pieces
            _merge_index(db, added)
    return result


def _merge_index(db: Database, added: int) -> None:
    """Make one piece of the word index where this call brought at least half of the records.

    SQLite keeps a piece for each batch and a search looks into all of them. Merging takes as long
    as the history is large, so that it is left to imports that are as large themselves.
    """
    with db.writing() as connection:
        newest = connection.execute("SELECT MAX(seq) FROM records").fetchone()[0] or 0
        if 2 * added >= newest:
            connection.execute("INSERT INTO records_fts (records_fts) VALUES ('optimize')")
