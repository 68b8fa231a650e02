"""A user's file, what it holds, and whether its bytes still do, for tests of what becomes of it.

A test takes a fixture of a module like this one by name: ``store = filled_store.store``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mode

import numpy as np
import pytest

from hydra_edge.store import Store, StoredChoice
from hydra_edge.types import (
    Candidate,
    Completion,
    Generation,
    HeadInfo,
    HeadState,
    RankedRecord,
    Record,
    Usage,
)

SECRET_IN = "Xylophone rendezvous qwzjk behind the harbour at midnight"
SECRET_OUT = "Vermillion passphrase zzyzx"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users" / "me.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


def raw_bytes(path: Path) -> bytes:
    """Everything on disk, lower-cased as the index stores it."""
    return b"".join(p.read_bytes() for p in sorted(path.parent.iterdir())).lower()


def left_of(text: str, path: Path) -> list[str]:
    """Return the words of a text still found in the raw bytes."""
    raw = raw_bytes(path)
    return [word for word in text.lower().split() if word.encode() in raw]


def cached_vectors(
    store: Store, hashes: Sequence[str], base_id: str, width: int | None = None
) -> dict[str, np.ndarray]:
    """Return the cached vectors of texts by their hash; as wide as most of the base's are."""
    rows = store._db.connection.execute(
        "SELECT length(vector) FROM vectors JOIN bases ON bases.seq = base WHERE base_id = ?",
        (base_id,),
    ).fetchall()
    out = np.zeros((len(hashes), width or (mode(rows)[0] // 2 if rows else 1)), dtype=np.float32)
    found = store.fill_vectors(out, {key: row for row, key in enumerate(hashes)}, base_id)
    return {hashes[row]: out[row].astype(np.float16) for row in np.flatnonzero(found).tolist()}


def filler(n: int, seed: int = 0) -> list[Record]:
    """Make records of common words."""
    rng = random.Random(seed)
    words = [f"common{i}" for i in range(300)]
    return [
        Record(" ".join(rng.choices(words, k=30)), rng.choice(words), task="t", id=f"f{seed}-{i}")
        for i in range(n)
    ]


def put_pool(
    store: Store,
    key: str,
    *texts: str,
    query_id: str = "",
    record_ids: tuple[str, ...] = (),
) -> None:
    """Keep what an LLM answered for a query, which was shown records."""
    store.put_pool(
        key,
        task="t",
        model="m",
        query_id=query_id,
        record_ids=record_ids,
        completions=[Completion(text) for text in texts],
    )


def put_choice(
    store: Store,
    generation_id: str,
    task: str = "t",
    query: str = "q",
    *,
    candidates: Sequence[Candidate] = (Candidate("x"),),
    shown: Sequence[str] = (),
    picked: int | None = None,
    text: str = "x",
    record_id: str | None = None,
    moment: float | None = None,
) -> StoredChoice:
    """Keep what the user took of an answer that was shown records; now, if no moment is given."""
    return store.put_choice(
        StoredChoice(
            generation_id, task, query, tuple(candidates), tuple(shown), picked, text, record_id,
            time.time() if moment is None else moment,
        )
    )  # fmt: skip


def keep(store: Store, name: str, answer: str, *shown: str) -> None:
    """Keep an answer to a query, which was shown records, as one of the history."""
    store.add([Record(f"query {name}", answer, task="t", id=f"choice-{name}")])
    put_choice(
        store, name, query=f"query {name}", candidates=[Candidate(answer)], shown=shown, picked=0,
        text=answer, record_id=f"choice-{name}",
    )  # fmt: skip


def head_of(task: str) -> HeadState:
    """Return the smallest head."""
    one = np.ones(1, dtype=np.float32)
    return HeadState(task, "adapter", "b", ("f",), one, one.reshape(1, 1), "shared", 1, 1.0, {})


def generation_of(
    id_: str, query: str, text: str, shown: tuple[str, ...] = (), sampled: tuple[str, ...] = ()
) -> Generation:
    """Return an answer, by what it was shown and what else was sampled."""
    info = HeadInfo("t", "adapter", "shared", None, "b")
    records = tuple(RankedRecord(Record("i", "o", id=i), 1.0, {}) for i in shown)
    candidates = tuple(Candidate(t) for t in (text, *sampled))
    return Generation(id_, query, "t", text, candidates, records, info, info, Usage())


def fill(store: Store, text: str) -> None:
    """Put a text into every table but those of records and vectors."""
    store.put_pool(
        "k", task="t", model="m", query_id="r1", record_ids=["r1"], completions=[Completion(text)]
    )
    put_choice(
        store, "g", query=text, candidates=[Candidate(text)], shown=["r1"], picked=0, text=text
    )
    store.save_head(head_of("t"))
    store.log_generation(generation_of("g", text, text), "m")
