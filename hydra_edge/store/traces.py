"""What records that are to be forgotten have left behind: found, and nothing changed.

Their ids and their texts are sought in what was answered, chosen and bought; answers kept as
records go along if they repeat what they were shown. Erasing it all is the part of ``forget``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from sqlite3 import Connection

from hydra_edge.errors import (
    RecordNotFoundError,
)
from hydra_edge.prompt import SHOT_WORDS, cut, fold
from hydra_edge.store import choices, holders, log, pools, records
from hydra_edge.store.values import CHUNK, bind, text_of, texts_from_json
from hydra_edge.types import Progress, Record

# A forgotten text at least this long is also sought inside other texts; a shorter one (a
# label, a rating, "yes") only as a whole: it says nothing of anyone where it stands by chance.
DISTINCTIVE = 16
# So many texts are sought one after the other, which is faster than to look a text through for
# all of them at once; of several times as many it would be slower.
_FEW = 32
# So are many, in the first so many texts looked through: to get ready for more takes longer.
_LOOKS = 24
# Of a text that is looked through each so-manieth place is, for so many letters: wherever one that
# is sought begins, such a place is within its first ``DISTINCTIVE`` letters.
_STEP = 7
_PART = DISTINCTIVE - _STEP + 1
# Where there may be something of a task.
_WITH_TASK = ("records", "choices", "pools", "log", "heads")
# Answers looked through between two words of how far it is: a fraction of a second.
_TOLD_EACH = 1000


def _plain(text: str) -> str:
    """Fold the spacing of a text: prompts and models change it."""
    return " ".join(text.split())


class Traces:
    """What forgotten records may be recognized by elsewhere: their ids and their texts."""

    def __init__(self, ids: Iterable[str], texts: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._texts = frozenset(filter(None, map(_plain, texts)))
        self._long = [text for text in self._texts if len(text) >= DISTINCTIVE]
        self._by_start: dict[str, list[str]] = {}
        for text in self._long:
            self._by_start.setdefault(text[:DISTINCTIVE], []).append(text)
        self._looked = 0

    @cached_property
    def _parts(self) -> dict[str, set[int]]:
        """Where in a distinctive text's beginning its parts stand; takes as long as many looks."""
        parts: dict[str, set[int]] = {}
        for start in self._by_start:
            for offset in range(_STEP):
                parts.setdefault(start[offset : offset + _PART], set()).add(offset)
        return parts

    def touch(self, ids: Iterable[str | None], texts: Iterable[str]) -> bool:
        """Tell whether something names one of the ids or holds one of the texts."""
        if not self._ids.isdisjoint(ids):
            return True
        folded = [_plain(text) for text in texts]
        if not self._texts.isdisjoint(folded):
            return True
        # In one go, which is faster: no folded text goes on behind the end of a line.
        return any(True for _ in self.long_ones_in("\n".join(folded)))

    def long_ones_in(self, text: str) -> Iterator[str]:
        """Walk over the distinctive texts that a text, its spacing folded, holds."""
        self._looked += 1
        if len(self._long) <= _FEW or self._looked <= _LOOKS:
            yield from (whole for whole in self._long if whole in text)
            return
        parts = self._parts
        places = range(0, len(text) - _PART + 1, _STEP)
        for place in [i for i in places if text[i : i + _PART] in parts]:
            for offset in parts[text[place : place + _PART]]:
                begin = place - offset
                if begin < 0:
                    continue
                for whole in self._by_start.get(text[begin : begin + DISTINCTIVE], ()):
                    if text.startswith(whole, begin):
                        yield whole


def of_private(connection: Connection) -> Traces:
    """Return what private records are recognized by; what a public one says, too, is not."""
    rows = connection.execute(f"SELECT seq, {records.COLUMNS} FROM records WHERE private")
    private = {row[0]: records.record_of(row[1:]) for row in rows}
    texts = {text for record in private.values() for text in records.texts_of(record)}
    texts -= records.still_used(connection, texts, private)
    return Traces((record.id for record in private.values()), texts)


@dataclass(frozen=True, slots=True)
class Trail:
    """One stored choice, log entry or pool, as far as forgetting is concerned."""

    row: int
    generation_id: str
    ids: tuple[str | None, ...]
    texts: tuple[str, ...]
    drawn: tuple[str, ...]  # those of the texts that an LLM answered

    @property
    def sampled(self) -> frozenset[str]:
        """What an LLM answered, spacing folded."""
        return frozenset(map(_plain, self.drawn))


# By table: the columns of its answers' ids, of the records kept of them, of queries and candidates;
# and the table. What a choice shares with its log entry is told by that: both go, or neither.
_ANSWERS = {
    "choices": (
        "generation_id",
        "record_id",
        "CASE WHEN log.id IS NULL THEN choices.query ELSE '' END",
        "CASE WHEN log.id IS NULL THEN choices.candidates ELSE '[]' END",
        "choices LEFT JOIN log ON log.id = generation_id AND generation_id <> '' "
        "AND log.query = choices.query AND log.candidates = choices.candidates",
    ),
    "log": ("id", "NULL", "query", "candidates", "log"),
}


def _answer_trails(
    connection: Connection,
    table: str,
    generations: Sequence[str] | None = None,
    known: Container[int] = (),
) -> Iterator[Trail]:
    """Walk over ``choices`` or ``log``, of some answers if given, but for the rows known."""
    generation_column, record_column, queries, pools_column, joined = _ANSWERS[table]
    clause = ""
    if generations is not None:
        clause = f" WHERE {generation_column} IN ({', '.join('?' * len(generations))})"
    for row, generation_id, record_id, record_ids, query, text, candidates in connection.execute(
        f"SELECT {table}.seq, {generation_column}, {record_column}, {table}.record_ids, {queries}, "
        f"{table}.text, {pools_column} FROM {joined}{clause}",
        [bind(generation_id) for generation_id in generations or ()],
    ):
        if row in known:
            continue
        own = () if record_id is None else (text_of(record_id),)
        counts = log.counts_of(candidates)
        yield Trail(
            row,
            text_of(generation_id),
            (*own, *texts_from_json(record_ids)),
            (text_of(query), text_of(text), *(of_pool for of_pool, _ in counts)),
            tuple(of_pool for of_pool, count in counts if count),
        )


def _pool_trails(connection: Connection) -> Iterator[Trail]:
    for row, ids, completions in pools.naming(connection):
        texts = tuple(pools.answers_of(pools.completions_of(completions)))
        yield Trail(row, "", ids, texts, texts)


def _tasks_of(connection: Connection, table: str, trails: Sequence[Trail]) -> set[str]:
    """Return the tasks of some pools or choices."""
    select = f"SELECT task FROM {table} WHERE rowid = ?"
    return {text_of(connection.execute(select, (t.row,)).fetchone()[0]) for t in trails}


def _watched(
    connection: Connection, progress: Progress | None
) -> Callable[[Iterator[Trail]], Iterator[Trail]]:
    """Let walks over all choices, log entries and pools tell how far they are, taken together."""
    if progress is None:
        return iter
    counts = "SELECT (SELECT COUNT(*) FROM choices) + (SELECT COUNT(*) FROM log) + COUNT(*)"
    total = int(connection.execute(f"{counts} FROM pools").fetchone()[0])
    done = 0

    def watch(trails: Iterator[Trail]) -> Iterator[Trail]:
        nonlocal done
        for trail in trails:
            yield trail
            done += 1
            if done % _TOLD_EACH == 0 or (done == total and total > _TOLD_EACH):
                progress("answers", done, total)

    return watch


def _of_task(connection: Connection, table: str, task: str | None) -> set[int]:
    """Return the rows that are a task's own; none if no task is to go."""
    if task is None:
        return set()
    rows = connection.execute(f"SELECT rowid FROM {table} WHERE task = ?", (bind(task),))
    return {row for (row,) in rows}


def _find_trails(
    connection: Connection,
    ids: set[str],
    texts: set[str],
    task: str | None,
    progress: Progress | None,
) -> dict[str, list[Trail]]:
    """Find what mentions the records, holds their texts, or is of the task, by table."""
    traces, watched = Traces(ids, texts), _watched(connection, progress)
    own = {table: _of_task(connection, table, task) for table in ("choices", "log", "pools")}
    found = {
        table: [
            t
            for t in watched(_answer_trails(connection, table))
            if t.row in own[table] or traces.touch(t.ids, t.texts)
        ]
        for table in ("choices", "log")
    }
    # A choice and the log entry it answers share their texts: both go, or neither.
    generations = list({t.generation_id for trails in found.values() for t in trails} - {""})
    for table, trails in found.items():
        known = {t.row for t in trails}
        for start in range(0, len(generations), CHUNK):
            part = generations[start : start + CHUNK]
            trails.extend(_answer_trails(connection, table, part, known))
    # The pool such an answer was chosen from names neither it nor its query; its samples do.
    chosen_from = {
        t.sampled
        for trails in found.values()
        for t in trails
        if any(len(text) >= DISTINCTIVE for text in t.sampled)
    }
    touched = [
        t
        for t in watched(_pool_trails(connection))
        if t.row in own["pools"] or t.sampled in chosen_from or traces.touch(t.ids, t.texts)
    ]
    return found | {"pools": touched}


def _rows_of(
    connection: Connection, ids: Sequence[str], source: str | None, task: str | None
) -> list[int]:
    """Return the rows to forget; what is unknown of them raises before anything is erased."""
    seqs = dict.fromkeys(records.seqs_of(connection, ids))
    if source is not None:
        rows = connection.execute(
            "SELECT seq FROM records WHERE source = ?", (bind(source),)
        ).fetchall()
        if not (rows or holders.is_holder(connection, source)):
            known = ", ".join(map(repr, records.counts_by(connection, "source"))) or "none"
            raise RecordNotFoundError(
                f"There is no record from source {source!r:.80}. Known sources: {known}."
            )
        seqs.update(dict.fromkeys(row[0] for row in rows))
    if task is not None:
        if not any(_of_task(connection, table, task) for table in _WITH_TASK):
            known = ", ".join(map(repr, records.counts_by(connection, "task"))) or "none"
            raise RecordNotFoundError(f"There is nothing of task {task!r:.80}. Tasks: {known}.")
        seqs.update(dict.fromkeys(sorted(_of_task(connection, "records", task))))
    if not seqs and task is None and source is None:
        raise RecordNotFoundError(
            "Cannot forget: got no record id, no source and no task; expected one."
        )
    return list(seqs)


def _repeats(connection: Connection, gone: Mapping[int, Record]) -> dict[int, Record]:
    """Find the answers that were kept as records, were shown one of those gone, and repeat one.

    An answer kept is the user's own word, but where an LLM copied a record into it, that record
    would live on in it; and so in answers that were shown this one.
    """
    found: dict[int, Record] = {}
    known = {record.id: record for record in gone.values()}
    answers, before = choices.kept_answers(connection), -1
    while before < len(found):  # one that repeats may itself be repeated
        before = len(found)
        traces = Traces((), _shown_texts(known.values()))
        shown = [answer for answer in answers if not known.keys().isdisjoint(answer.shown)]
        ids = [i for answer in shown for i in answer.record_ids]
        for record_id, stored in records.find_all(connection, ids).items():
            if stored is None or record_id in known:
                continue
            record = stored.record
            # What the user's own query says is no repetition: it may be asked again and again.
            query, output = _plain(record.input), _plain(record.output)
            if any(text not in query for text in traces.long_ones_in(output)):
                found[stored.seq] = known[record_id] = record
    return found


def _shown_texts(gone: Iterable[Record]) -> Iterator[str]:
    """Walk over records' texts, whole and as much of them as an LLM is shown."""
    for record in gone:
        yield from records.texts_of(record)
        yield cut(record.input, SHOT_WORDS)
        yield from (fold(record.output, multiline=multiline) for multiline in (False, True))


@dataclass(frozen=True, slots=True)
class Found:
    """What is to go, as the file was when it was looked through."""

    seqs: tuple[int, ...]  # of records
    repeats: int  # of these
    trails: dict[str, list[Trail]]  # by table
    texts: set[str]  # no record to stay has them
    tasks: set[str]  # whose heads may have learned from it, and stay
    whole_task: str | None  # goes with its heads
    source: str | None  # goes as a whole


def find(
    connection: Connection,
    ids: Sequence[str],
    source: str | None,
    task: str | None,
    progress: Progress | None,
) -> Found:
    """Find records, what they left behind, and all there is of a task."""
    named = records.of_seqs(connection, _rows_of(connection, ids, source, task))
    repeats = _repeats(connection, named)
    gone = {**named, **repeats}
    texts = {text for record in gone.values() for text in records.texts_of(record)}
    texts -= records.still_used(connection, texts, gone)
    ids_gone = {record.id for record in gone.values()}
    trails = _find_trails(connection, ids_gone, texts, task, progress)
    derived = {text for found in trails.values() for t in found for text in t.texts} - texts
    texts |= derived - records.still_used(connection, derived, gone)
    tasks = {record.task for record in gone.values()}
    for table in ("pools", "choices"):
        tasks |= _tasks_of(connection, table, trails[table])
    return Found(tuple(gone), len(repeats), trails, texts, tasks - {task}, task, source)
