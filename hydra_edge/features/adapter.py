"""Features of a (query, candidate) pair: what speaks for this answer being the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hydra_edge.features.closed import (
    CLOSED_FEATURES,
    Classifier,
    ClosedPast,
    by_names,
    closed_features,
)
from hydra_edge.features.words import WORD_FEATURES, word_features
from hydra_edge.history import History
from hydra_edge.outputs import CASING, PUNCTUATION, opening_of, style_of
from hydra_edge.spelling import fold_label, number
from hydra_edge.types import Candidate, Float1d, Float2d, Int1d, Record
from hydra_edge.utility import agreement_matrix, tokens

ADAPTER_FEATURES = (
    "greedy",  # 1 for the LLM's first choice
    "consensus",  # mean agreement with the other samples: minimum Bayes risk
    "votes",  # share of the samples that are this answer
    "log_votes",  # log of the same
    "logprob",  # mean log-probability of a token, against the pool's mean
    "cos_query",  # cosine with the query
    "in_query",  # share of its words that the query holds
    "copied",  # share of its words found only in the records shown
    "cos_shown",  # mean cosine with the outputs shown
    "support_near",  # similarity to the outputs of near records, sharply weighted
    "support_wide",  # the same, broadly weighted
    "log_support_near",
    "log_support_wide",
    "habit",  # the user's recency-weighted share (label), mean agreement (rating), centroid (text)
    "log_habit",
    "length_fit",  # minus distance from the user's usual length, in deviations
    "opening_fit",  # log of how often the user opens like this
    "casing_fit",  # minus distance from the user's capitals
    "punctuation_fit",  # minus distance from the user's colons and full stops
    "support_ranked",  # similarity to the outputs of the records the shared reranker trusts
    "log_support_ranked",
    "cos_consensus",  # mean cosine with the other samples
    "zero_shot",  # 1 if the LLM gave it when shown no record
    *WORD_FEATURES,
    *CLOSED_FEATURES,
)
_AT = {name: column for column, name in enumerate(ADAPTER_FEATURES)}
CLOSED_COLUMNS = slice(len(ADAPTER_FEATURES) - len(CLOSED_FEATURES), len(ADAPTER_FEATURES))
_WORDS = slice(CLOSED_COLUMNS.start - len(WORD_FEATURES), CLOSED_COLUMNS.start)
NEIGHBOURS = 50
SHARP, BROAD = 0.05, 0.2  # temperatures of nearness in cosine
FLOOR = 0.02  # added inside logarithms of shares
OPENING_FLOOR = 0.01
# What the user's own records say of a free text; of the first four there are logarithms beside it.
_TOLD = [
    _AT[name]
    for name in (
        "support_near", "support_wide", "habit", "support_ranked", "length_fit", "opening_fit",
        "casing_fit", "punctuation_fit", "words_own", "words_near",
    )
]  # fmt: skip
_TOLD_LOGS = [_AT[f"log_{ADAPTER_FEATURES[i]}"] for i in _TOLD[:4]]


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidate answers to one query, with their vectors and what was shown to the LLM.

    ``query_vector`` (dim,), ``vectors`` (m, dim), ``shown_vectors`` (k, dim): unit rows.
    ``shown`` are the records in the prompt. ``trusted`` (s,) are positions in the history and
    ``trust`` (s,), adding up to 1, how likely the shared reranker holds each to help.
    """

    query: str
    query_vector: Float1d
    candidates: tuple[Candidate, ...]
    vectors: Float2d
    shown: tuple[Record, ...]
    shown_vectors: Float2d
    trusted: Int1d
    trust: Float1d


def _words(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in tokens(text)}


def _share(words: Sequence[str], among: set[str]) -> float:
    return sum(word in among for word in words) / len(words) if words else 0.0


def _weigh(rows: Float2d, weights: Float1d) -> Float1d:
    """Return ``rows @ weights``, shape ``(m,)``, with no warning of what is not in it.

    For five columns of float32 OpenBLAS (0.3.31, AVX-512) also reads a lane of its stack that it
    never wrote. The product is right, but what happens to lie there can look like a NaN to it.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(rows @ weights)


def _near(pool: Pool, history: History) -> tuple[Int1d, Float1d]:
    """Return the nearest records and their cosines to the query."""
    cosine = history.cosines(pool.query_vector)
    if len(cosine) > NEIGHBOURS:
        index = np.argpartition(-cosine, NEIGHBOURS - 1)[:NEIGHBOURS]
    else:
        index = np.arange(len(cosine))
    return index.astype(np.int64), cosine[index].astype(np.float32)


def _similarity(pool: Pool, history: History, index: Int1d) -> Float2d:
    """Compare candidates with records' outputs: shape ``(m, len(index))``, [0, 1]."""
    if history.task.kind == "text":
        cosine = pool.vectors @ history.outputs[index].T
        return np.asarray(np.clip(cosine, 0.0, 1.0), dtype=np.float32)
    return np.stack([history.agreement(c.text, number(c.text), index) for c in pool.candidates])


def _support(pool: Pool, history: History, out: Float2d) -> None:
    """Fill the six support columns: what near and trusted records speak for."""
    names = ("support_near", "support_wide", "support_ranked")
    if len(history) == 0:
        out[:, [_AT[f"log_{name}"] for name in names]] = np.log(FLOOR)
        return
    trusted = _similarity(pool, history, pool.trusted)
    out[:, _AT["support_ranked"]] = _weigh(trusted, pool.trust)
    index, cosine = _near(pool, history)
    similarity = _similarity(pool, history, index)
    for name, temperature in (("support_near", SHARP), ("support_wide", BROAD)):
        weight = np.exp((cosine - cosine.max()) / temperature)
        out[:, _AT[name]] = _weigh(similarity, weight / weight.sum())
    for name in names:
        out[:, _AT[f"log_{name}"]] = np.log(out[:, _AT[name]] + FLOOR)


def _habit(pool: Pool, history: History) -> Float1d:
    profile = history.profile
    if len(history) == 0:
        return np.zeros(len(pool.candidates), dtype=np.float32)
    if history.task.kind == "text":
        return np.asarray(pool.vectors @ profile.centroid, dtype=np.float32)
    if history.task.kind == "label":
        shares = [profile.shares.get(fold_label(c.text), 0.0) for c in pool.candidates]
        return np.array(shares, dtype=np.float32)
    weight = history.recency / history.recency.sum()
    return _weigh(_similarity(pool, history, np.arange(len(history))), weight)


def _votes(pool: Pool, history: History, out: Float2d) -> None:
    """Fill what the pool itself says: the LLM's own opinion."""
    texts = [c.text for c in pool.candidates]
    count = np.array([c.count for c in pool.candidates], dtype=np.float32)
    share = count / max(float(count.sum()), 1.0)
    out[:, _AT["greedy"]] = [c.greedy for c in pool.candidates]
    out[:, _AT["zero_shot"]] = [c.zero_shot for c in pool.candidates]
    agreement = agreement_matrix(texts, history.task)
    if history.task.kind == "text":
        # Without itself, or one candidate of many samples would agree with its own echo only.
        others = np.maximum(count.sum() - 1.0, 1.0)
        own = np.diag(agreement) * np.minimum(count, 1.0)
        out[:, _AT["consensus"]] = (_weigh(agreement, count) - own) / others
        alike = pool.vectors @ pool.vectors.T
        own = np.diag(alike) * np.minimum(count, 1.0)
        out[:, _AT["cos_consensus"]] = (_weigh(alike, count) - own) / others
    else:
        out[:, _AT["consensus"]] = _weigh(agreement, share)
    out[:, _AT["votes"]] = share
    out[:, _AT["log_votes"]] = np.log(share + FLOOR)
    logprobs = [c.logprob for c in pool.candidates if c.logprob is not None]
    if logprobs:
        mean = sum(logprobs) / len(logprobs)
        out[:, _AT["logprob"]] = [
            0.0 if c.logprob is None else c.logprob - mean for c in pool.candidates
        ]


def _style(pool: Pool, history: History, out: Float2d) -> None:
    """Fill how a free text is written, against how the user writes."""
    profile = history.profile
    query_words = set(tokens(pool.query))
    shown_words = _words([r.output for r in pool.shown]) - query_words
    for row, candidate in enumerate(pool.candidates):
        words = tokens(candidate.text)
        style = np.array(style_of(candidate.text), dtype=np.float32)
        gap = -np.abs(style - profile.style)
        length = abs(float(np.log1p(len(words))) - profile.log_length_mean)
        opening = profile.openings.get(opening_of(candidate.text), 0.0)
        out[row, _AT["in_query"]] = _share(words, query_words)
        out[row, _AT["copied"]] = _share(words, shown_words)
        out[row, _AT["length_fit"]] = -length / profile.log_length_std
        out[row, _AT["opening_fit"]] = np.log(opening + OPENING_FLOOR)
        out[row, _AT["casing_fit"]] = gap[CASING].mean()
        out[row, _AT["punctuation_fit"]] = gap[PUNCTUATION].mean()


def adapter_features(pool: Pool, history: History, classifier: Classifier | None = None) -> Float2d:
    """Compute the raw features of a pool; those that do not apply to the task's kind are 0.

    Parameters
    ----------
    pool
        ``m`` candidates; for label and rating tasks every member of the closed set.
    history
        As it was at the time of the query.
    classifier
        What the base knows of a closed set, if it does. Labels speak by their names if it does not.

    Returns
    -------
    Float2d
        Shape ``(m, len(ADAPTER_FEATURES))``, float32, in that order, unscaled.
    """
    out = np.zeros((len(pool.candidates), len(ADAPTER_FEATURES)), dtype=np.float32)
    if not pool.candidates:
        return out
    _votes(pool, history, out)
    out[:, _AT["cos_query"]] = pool.vectors @ pool.query_vector
    if len(pool.shown):
        out[:, _AT["cos_shown"]] = (pool.vectors @ pool.shown_vectors.T).mean(axis=1)
    _support(pool, history, out)
    out[:, _AT["habit"]] = _habit(pool, history)
    out[:, _AT["log_habit"]] = np.log(np.maximum(out[:, _AT["habit"]], 0.0) + FLOOR)
    if history.task.kind == "text":
        _style(pool, history, out)
        out[:, _WORDS] = word_features(
            pool.query, pool.candidates, history, pool.trusted, pool.trust
        )
    else:
        answers = [c.text for c in pool.candidates]
        past = ClosedPast.of(history, answers)
        if classifier is None and history.task.kind == "label":
            classifier = by_names(answers, pool.vectors)
        out[:, CLOSED_COLUMNS] = closed_features(past, pool.query_vector, classifier)
    return out


def draw_in(raw: Float2d, records: int, half_at: float) -> Float2d:
    """Believe what few records say of free texts less: their evidence is drawn to its mean.

    One record is one example of what its user writes, and a pool's best match with it is often no
    better than the others. What ``n`` records say counts ``n / (n + half_at)``, as the mean of
    ``n`` observations beside ``half_at`` imagined ones does.

    Parameters
    ----------
    raw
        Shape ``(m, d)``, unscaled, of one pool; the columns of ``ADAPTER_FEATURES`` come first.
    records
        How many there were at the time of the query.
    half_at
        How many records count half; 0: all that is said is believed.

    Returns
    -------
    Float2d
        A copy, shape ``(m, d)``.
    """
    out = raw.copy()
    if half_at == 0.0 or not len(raw):
        return out
    told = out[:, _TOLD]
    mean = told.mean(axis=0)
    out[:, _TOLD] = mean + (told - mean) * (records / (records + half_at))
    out[:, _TOLD_LOGS] = np.log(np.maximum(out[:, _TOLD[:4]], 0.0) + FLOOR)
    return out
