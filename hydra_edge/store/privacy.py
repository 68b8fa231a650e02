"""Which records are private, and what becomes so with them.

A text is private wherever it stands once its owner has said so of one record, until they say
otherwise: whether a record of the very same texts comes later or was there before. What is private
only by its record, as a later edit is, takes nothing earlier along. Only what apps may have
written is as they said, or they could find out what is private, or hide what is not theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection

from hydra_edge.records import from_apps
from hydra_edge.store import choices, records
from hydra_edge.store.schema import count_words
from hydra_edge.store.values import bind
from hydra_edge.types import Record

_LAST = 2**63 - 1  # no row has a higher number


def is_hidden(connection: Connection, record: Record, newest: int) -> bool:
    """Tell whether a private record among the first ``newest`` rows has a record's very texts."""
    # The + keep SQLite from putting the values into the expressions that the index is made of.
    row = connection.execute(
        "SELECT 1 FROM records WHERE private "
        "AND length(CAST(input AS BLOB)) = length(CAST(:input AS BLOB)) "
        "AND substr(CAST(input AS BLOB), -8) = substr(CAST(:input AS BLOB), -8) "
        "AND length(CAST(output AS BLOB)) = length(CAST(:output AS BLOB)) "
        "AND +input = :input AND +output = :output AND +seq <= :newest LIMIT 1",
        {"input": bind(record.input), "output": bind(record.output), "newest": newest},
    ).fetchone()
    return row is not None


class PublicTexts:
    """The public records among the first ``newest`` rows, by their texts, as far as was asked."""

    def __init__(self, newest: int) -> None:
        self._newest = newest
        self._lengths: set[int] = set()  # in words, of the inputs that were read
        self._seqs: dict[int, list[int]] = {}  # by a hash of both texts, as they are stored

    def twins(self, connection: Connection, marked: Iterable[Record]) -> list[str]:
        """Return the ids of those with the very texts of one of some records, but no app's."""
        texts = {records.texts_of(record) for record in marked} if self._newest else set()
        if lengths := {count_words(text) for text, _ in texts} - self._lengths:
            self._read(connection, lengths)
        seqs = [s for pair in texts for s in self._seqs.get(hash(tuple(map(bind, pair))), ())]
        return [
            record.id
            for record in records.of_seqs(connection, seqs).values()
            if records.texts_of(record) in texts
            and not (record.private or from_apps(record.source))
        ]

    def _read(self, connection: Connection, lengths: set[int]) -> None:
        """Read the records whose inputs have one of some lengths.

        An index knows these: where few texts are sought few are read, and none is read twice.
        """
        for seq, *texts in connection.execute(
            "SELECT seq, input, output FROM records WHERE NOT private AND seq IN "
            "(SELECT seq FROM records INDEXED BY records_by_task "
            f"WHERE words IN ({', '.join(map(str, lengths))}) AND seq <= ?)",
            (self._newest,),
        ):
            self._seqs.setdefault(hash(tuple(texts)), []).append(seq)
        self._lengths |= lengths


def set_private(connection: Connection, ids: Sequence[str], private: bool) -> int:
    """Mark records; see ``Store.set_private``."""
    seqs = records.seqs_of(connection, ids)
    if private:
        named = records.of_seqs(connection, seqs).values()
        changed = hide(connection, [*ids, *PublicTexts(_LAST).twins(connection, named)])
    else:
        changed = connection.executemany(
            "UPDATE records SET private = 0 WHERE seq = ? AND private", [(seq,) for seq in seqs]
        ).rowcount
    if changed > 0:
        records.mark_changed(connection, rewritten=True)
    return changed


def hide(connection: Connection, ids: Sequence[str]) -> int:
    """Mark records private, and the answers kept that their LLM was shown them for.

    Those may repeat them, and are private if they are kept later. Returns how many changed.
    """
    changed = connection.executemany(
        "UPDATE records SET private = 1 WHERE id = ? AND NOT private",
        [(bind(record_id),) for record_id in (*ids, *choices.answers_made_from(connection, ids))],
    )
    return max(changed.rowcount, 0)
