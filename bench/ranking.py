"""How long a ranking takes as a history grows, against a cross-encoder and a full scan.

A ranking is ``Personalizer.rank`` on a file: the query encoded, both first-stage lists, all
features, the head, the best four with their reasons. Queries are distinct; a few go before, so
that what a running program has in memory is there. The rivals:

- a cross-encoder reads query and record together, 50 times. None is shipped, so the shipped
  int8 MiniLM encoder reads the 50 pairs: the same network, runtime and threads, one pass a
  pair. Its first stage and its tokens beyond 128 are left out, in its favour.
- rank-bm25 scores every text of the history for the query, as in the paper; its queries are as
  long as the records' inputs, as they are when a user's own later records are the queries
  (``short_queries`` has the others).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.clock import LEAST_PAIRS, Pairs, Sample, by_turns, sample
from bench.pasts import open_person, past, put_random_vectors, queries, synthetic
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import JsonDict, Record
from hydra_edge.utility import tokens

SIZES = (1_000, 10_000, 100_000)
SCANNED = 44_000  # records of the full scan
CANDIDATES = 50


def _runs(*, quick: bool) -> tuple[int, int, int]:
    """Return how many rankings warm up, how many are timed, and the pairs against each rival."""
    return (20, 40, LEAST_PAIRS) if quick else (50, 200, 2 * LEAST_PAIRS + 1)


def asked_of(data: Sequence[Path], *, quick: bool) -> list[str]:
    """Return the queries of a measurement.

    Raises
    ------
    BenchError
        If the files have too few records for them.
    """
    warm, timed, pairs = _runs(quick=quick)
    return queries(warm + timed + 4 * pairs, data)


def _cross_encoder(person: Personalizer, asked: Sequence[str], pairs: int) -> Pairs:
    records = person.store.records(limit=CANDIDATES)
    encoder = person.engine.encoder.encoder

    def theirs(i: int) -> None:
        encoder.encode([f"{asked[i]} [SEP] {record.input}" for record in records])

    theirs(0)
    return by_turns(lambda i: person.rank(asked[i], k=4), theirs, pairs)


def _full_scan(person: Personalizer, asked: Sequence[str], pairs: int) -> Pairs:
    from rank_bm25 import BM25Okapi

    index = BM25Okapi([tokens(record.input) for record in person.store.records()])

    def theirs(i: int) -> None:
        np.argsort(-index.get_scores(tokens(asked[i])))[:CANDIDATES]

    return by_turns(lambda i: person.rank(asked[i], k=4), theirs, pairs)


def _longer(n: int, data: Sequence[Path]) -> list[str]:
    """Return queries as long as the records' inputs, as a user's later records would be."""
    return queries(n, data) if data else [f"{record.input} q" for record in synthetic(n, seed=2)]


def _encoding(person: Personalizer, asked: Sequence[str]) -> Sample:
    encode = person.engine.encode_query
    return sample([partial(encode, f"{q} again") for q in asked])


def measure(
    data: Sequence[Path],
    *,
    quick: bool,
    threads: int,
    sizes: Sequence[int] = SIZES,
    scanned: int = SCANNED,
) -> JsonDict:
    """Grow one history through all sizes and rank at each.

    Parameters
    ----------
    data
        Files of real records; synthetic ones where they end.
    quick
        Fewer queries of each size.
    threads
        Of the encoder; 0 lets the machine decide.
    sizes, scanned
        Records at which rankings are timed, and at which rank-bm25 scans.
    """
    warm, timed, pairs = _runs(quick=quick)
    asked = asked_of(data, quick=quick)
    steps = sorted({*sizes, scanned})
    records = past(steps[-1], data)
    out: JsonDict = {"p50_ms": {}, "sizes": {}, "queries": timed, "warm_up": warm}
    with tempfile.TemporaryDirectory() as home:
        for low, high in pairwise((0, *steps)):
            with open_person(Path(home), threads=threads) as person:
                _grow(person, records[low:high], seed=low)
                for query in asked[:warm]:
                    person.rank(query, k=4)
                rest = asked[warm:]
                if high in sizes:
                    times = sample([partial(person.rank, q, k=4) for q in rest[:timed]])
                    out["p50_ms"][str(high)] = round(times.p50, 3)
                    out["sizes"][str(high)] = times.summary()
                if high == min(sizes):
                    out["of_which_encoding"] = _encoding(person, rest[:timed]).summary()
                    versus = _cross_encoder(person, rest[timed:], pairs)
                    out["cross_encoder_over_rank"] = round(versus.ratio, 3)
                    out["cross_encoder"] = versus.summary()
                if high == scanned:
                    versus = _full_scan(person, _longer(pairs, data), pairs)
                    short = _full_scan(person, rest[timed + 2 * pairs :], pairs)
                    out["rank_bm25_scan_over_rank_44k"] = round(versus.ratio, 3)
                    out["rank_bm25_scan"] = versus.summary() | {
                        "records": scanned,
                        "short_queries": short.summary(),
                    }
    return out


def _grow(person: Personalizer, records: Sequence[Record], seed: int) -> None:
    person.add(records)
    put_random_vectors(person.store, person.bundle.base_id, records, seed)
