"""Histories to measure on: real records from data files, else texts of words as in a language.

Owns where records and vectors come from. Speed does not depend on what a vector says, so
histories of which only the ranking is measured get random unit vectors, kept in the store as
the encoder's would be; everything else is encoded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.datasets import read_files
from bench.guard import BenchError
from hydra_edge.config import Config
from hydra_edge.paths import Paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record, text_hash

TASK = "note_title"
VOCABULARY = 30_000
INPUT_WORDS = (8, 60)
OUTPUT_WORDS = (3, 9)
QUERY_WORDS = 16
DIM = 384
_CHUNK = 2_000


class Texts:
    """An endless source of texts whose words are as unevenly frequent as in a language."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        syllables = ["ka", "ro", "mi", "te", "su", "len", "dar", "vi", "po", "neth", "ul", "gra"]
        draw = random.Random(1).choice
        words: dict[str, None] = {}
        while len(words) < VOCABULARY:
            words["".join(draw(syllables) for _ in range(1 + len(words) % 4))] = None
            words[f"{draw(syllables)}{draw(syllables)}{len(words):x}"] = None
        self._words = list(words)
        # Zipf: the word of rank r is said as often as 1 / (r + 2).
        self._weights = np.cumsum([1.0 / (rank + 2.0) for rank in range(len(self._words))]).tolist()

    def words(self, least: int, most: int) -> str:
        """Return so many words."""
        n = self._random.randint(least, most)
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=n))


def synthetic(n: int, seed: int = 0) -> list[Record]:
    """Return ``n`` records, every text a different one."""
    texts = Texts(seed)
    return [
        Record(
            f"{texts.words(*INPUT_WORDS)} no{i}", f"{texts.words(*OUTPUT_WORDS)} nr{i}", TASK,
            id=f"r{i}", time=float(i),
        )
        for i in range(n)
    ]  # fmt: skip


def real(paths: Sequence[Path]) -> list[Record]:
    """Return the records of data files as one person's, in the files' order.

    Raises
    ------
    BenchError
        If a file cannot be read.
    """
    everyone = [record for user in read_files(paths) for record in user.records]
    return [
        replace(record, id=f"r{i}", time=float(i), task=TASK) for i, record in enumerate(everyone)
    ]


def past(n: int, paths: Sequence[Path]) -> list[Record]:
    """Return ``n`` records: real ones as far as the files reach, synthetic ones beyond."""
    known = real(paths)[:n] if paths else []
    return known + [
        replace(record, id=f"s{i}", time=float(len(known) + i))
        for i, record in enumerate(synthetic(n - len(known)))
    ]


def queries(n: int, paths: Sequence[Path]) -> list[str]:
    """Return ``n`` queries: the last records' inputs of the files, else ``QUERY_WORDS`` words.

    No text is a record's: the vectors of those are stored, and a ranking would not encode it.

    Raises
    ------
    BenchError
        If the files have fewer records.
    """
    if paths:
        records = real(paths)
        if len(records) < n:
            raise BenchError(
                f"{', '.join(path.name for path in paths)}: got {len(records)} records; expected "
                f"{n}, one for each query. Give more files, or none: texts are then made up."
            )
        return [f"{record.input} q{i}" for i, record in enumerate(records[len(records) - n :])]
    texts = Texts(seed=1)
    return [f"{texts.words(QUERY_WORDS, QUERY_WORDS)} q{i}" for i in range(n)]


def put_random_vectors(store: Store, base_id: str, records: Sequence[Record], seed: int) -> None:
    """Keep a random unit vector of every text, as if it had been encoded."""
    draw = np.random.default_rng(seed)
    for start in range(0, len(records), _CHUNK):
        part = records[start : start + _CHUNK]
        texts = list(dict.fromkeys(text for r in part for text in (r.input, r.output)))
        vectors = draw.standard_normal((len(texts), DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.put_vectors(base_id, dict(zip(map(text_hash, texts), vectors, strict=True)))


def open_person(home: Path, *, threads: int = 0) -> Personalizer:
    """Open the file of the person ``bench`` in a folder laid out like ``HYDRA_EDGE_HOME``."""
    paths = Paths(home, home, home / "cache")
    config = Config(threads=threads, log=False)
    return Personalizer.open("bench", create=True, config=config, paths=paths)
