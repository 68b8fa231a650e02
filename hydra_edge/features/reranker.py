"""Features of a (query, record) pair: what speaks for showing this record with this query."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from hydra_edge.history import History
from hydra_edge.retrieval import Shortlist
from hydra_edge.spelling import fold_label
from hydra_edge.types import Bool2d, Float1d, Float2d, Record

RERANKER_FEATURES = (
    "cos_input",  # cosine of the query and the record's input
    "cos_output",  # cosine of the query and the record's output
    "bm25",  # BM25 over the query's best
    "bm25_rank",  # reciprocal rank by BM25
    "recency",  # minus log of how many records back, over log of the history's length
    "consensus",  # agreement of its output with those of the query's other near records
    "log_consensus",  # log of the same: support counts most where there is little
    "habit",  # how usual its output is for the user (label share, closeness to centroid)
    "length_fit",  # minus distance of its output's length from the user's usual, in deviations
    "duplicate",  # 1 if a better record of the shortlist says the same
    "helped",  # log odds that answers shown with it were taken as they were
)
_AT = {name: column for column, name in enumerate(RERANKER_FEATURES)}
NEAR = 0.1  # temperature of nearness in cosine: .1 apart counts e times less
SUPPORT_FLOOR = 0.02
DUPLICATE = 0.97  # cosine of two inputs from which they say the same
_NOT_TOLD_APART = 0.9999  # cosine of two inputs that are one to the encoder
_READ = 100  # first letters of a text, all of which the encoder reads
_DROPPED = frozenset({"Mn", "Cc", "Cf", "Cs", "Co", "Cn"})  # what it drops: accents, controls


def _output_similarity(history: History, shortlist: Shortlist, vectors: Float2d) -> Float2d:
    """Compare the shortlist's outputs with each other: shape ``(m, m)``, [0, 1].

    ``vectors`` are the outputs', shape ``(m, dim)``.
    """
    index = shortlist.index
    if history.task.kind == "text":
        return np.asarray(np.clip(vectors @ vectors.T, 0.0, 1.0), dtype=np.float32)
    return history.agreements(index)


def _habit(history: History, shortlist: Shortlist, vectors: Float2d) -> Float1d:
    profile = history.profile
    if history.task.kind == "text":
        return np.asarray(vectors @ profile.centroid, dtype=np.float32)
    texts = history.described.text
    shares = [profile.shares.get(fold_label(texts[i]), 0.0) for i in shortlist.index.tolist()]
    return np.array(shares, dtype=np.float32)


def _same_inputs(records: Sequence[Record], vectors: Float2d) -> Bool2d:
    """Say which records' inputs say the same, each as itself too: shape ``(m, m)``.

    Texts that differ only in words the encoder does not know (of Thai it knows few) have one
    vector: they say the same only if they are written the same.
    """
    cosine = vectors @ vectors.T
    same = cosine > DUPLICATE
    # The first record like it is then itself, or a better one.
    np.fill_diagonal(same, val=True)
    one = cosine > _NOT_TOLD_APART
    np.fill_diagonal(one, val=False)
    rows = np.flatnonzero(one.any(axis=1))
    if rows.size:
        written: dict[str, int] = {}
        texts = [_letters(records[i].input) for i in rows.tolist()]
        which = np.zeros(len(records), dtype=np.int64)
        which[rows] = [written.setdefault(text, len(written)) for text in texts]
        same &= ~one | (which[:, None] == which)
    return np.asarray(same, dtype=np.bool_)


def _letters(text: str) -> str:
    """Return the first letters of a text, spelled as the encoder reads them but for blanks."""
    letters = "".join(text[: 20 * _READ].split()).lower()
    if not letters.isascii():
        split = unicodedata.normalize("NFD", letters)
        letters = "".join(c for c in split if unicodedata.category(c) not in _DROPPED)
    return letters[:_READ]


def reranker_features(
    query: Float1d,
    history: History,
    shortlist: Shortlist,
    helped: Mapping[str, tuple[int, int]] | None = None,
) -> Float2d:
    """Compute the raw features of a query's shortlist.

    Parameters
    ----------
    query
        Unit vector, shape ``(dim,)``.
    history
        As it was at the time of the query.
    shortlist
        The ``m`` records to score.
    helped
        Record id -> (times shown, times the answer was taken as it was).

    Returns
    -------
    Float2d
        Shape ``(m, len(RERANKER_FEATURES))``, float32, in that order, unscaled.
    """
    m, n = len(shortlist), len(history)
    out = np.zeros((m, len(RERANKER_FEATURES)), dtype=np.float32)
    if m == 0:
        return out
    index = shortlist.index
    outputs = history.outputs[index]
    similarity = _output_similarity(history, shortlist, outputs)
    nearness = np.exp((shortlist.cosine - shortlist.cosine.max()) / NEAR)
    weight = np.tile(nearness, (m, 1))
    np.fill_diagonal(weight, 0.0)
    total = weight.sum(axis=1)
    consensus = (weight * similarity).sum(axis=1) / np.maximum(total, 1e-9)
    same = _same_inputs([history.records[i] for i in index.tolist()], history.inputs[index])
    length = np.log1p(history.described.length[index])
    profile = history.profile
    out[:, _AT["cos_input"]] = shortlist.cosine
    out[:, _AT["cos_output"]] = outputs @ query
    out[:, _AT["bm25"]] = shortlist.bm25
    out[:, _AT["bm25_rank"]] = shortlist.bm25_rank
    out[:, _AT["recency"]] = -np.log1p(n - 1 - index) / np.log(n + 1.0)
    out[:, _AT["consensus"]] = consensus
    out[:, _AT["log_consensus"]] = np.log(consensus + SUPPORT_FLOOR)
    out[:, _AT["habit"]] = _habit(history, shortlist, outputs)
    out[:, _AT["length_fit"]] = -np.abs(length - profile.log_length_mean) / profile.log_length_std
    out[:, _AT["duplicate"]] = same.argmax(axis=1) < np.arange(m)
    if helped:
        counts = [helped.get(history.records[i].id, (0, 0)) for i in index.tolist()]
        shown, taken = np.array(counts, dtype=np.float32).T
        out[:, _AT["helped"]] = np.log((taken + 1.0) / (shown - taken + 1.0))
    return out
