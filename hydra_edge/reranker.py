"""The reranker: which of a user's records are shown to the LLM for a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hydra_edge.active import ActiveHead
from hydra_edge.features import FeatureMap, reranker_features
from hydra_edge.heads import Groups
from hydra_edge.history import History
from hydra_edge.retrieval import LexicalIndex, Shortlist, first_stage
from hydra_edge.types import Bool1d, Float1d, Float2d, Int1d, Progress, RankedRecord, Record
from hydra_edge.utility import utility

PSEUDO_QUERIES = 500  # the user's most recent records used as queries, at most
PAIRS = 16  # records of a shortlist that one pseudo-query is fitted on, at least
_PAIRS_FOR_SHOWN = 4  # as many for each record a prompt shows: the best must have rivals
Helped = Mapping[str, tuple[int, int]]


def pair_features(
    features: FeatureMap,
    vector: Float1d,
    history: History,
    shortlist: Shortlist,
    helped: Helped | None = None,
) -> Float2d:
    """Return the scaled features of a shortlist, shape ``(m, d)``, learned ones included."""
    raw = np.hstack(
        (
            reranker_features(vector, history, shortlist, helped),
            features.learned(vector, history.inputs[shortlist.index]),
            features.learned(vector, history.outputs[shortlist.index]),
        )
    )
    return features.scale(raw)


def rerank(
    head: ActiveHead,
    query: str,
    vector: Float1d,
    history: History,
    lexical: LexicalIndex,
    *,
    k: int,
    helped: Helped | None = None,
    hidden: Bool1d | None = None,
) -> tuple[RankedRecord, ...]:
    """Choose the ``k`` records to show, best first, each with its exact contributions.

    Parameters
    ----------
    head
        The weights in force.
    query, vector
        The query and its unit vector, shape ``(dim,)``.
    history, lexical
        Only what was there before the query.
    k
        How many records to return; fewer if there are fewer. Of records with the very same texts
        the best is returned.
    helped
        Record id -> (times shown, times the answer was taken as it was).
    hidden
        Records that are passed over, shape ``(len(history),)``; None hides none.
    """
    shortlist = first_stage(query, vector, history, lexical, hidden=hidden)
    if not len(shortlist) or k <= 0:
        return ()
    phi = pair_features(head.features, vector, history, shortlist, helped)
    scores = head.scores(phi)
    found = [history.records[i] for i in shortlist.index.tolist()]
    order = _unlike(found, np.argsort(-scores, kind="stable"), k)
    parts = head.contributions(phi, order)
    return tuple(
        RankedRecord(found[i], float(scores[i]), part)
        for i, part in zip(order.tolist(), parts, strict=True)
    )


def _unlike(found: list[Record], order: Int1d, k: int) -> Int1d:
    """Return the first ``k`` of an order of records without those whose texts come before.

    A record may be there twice (a renamed note, a commit after a rebase); shown twice, it would
    take the place of another and tell the LLM nothing.
    """
    chosen: dict[tuple[str, str], int] = {}
    for i in order.tolist():
        chosen.setdefault((found[i].input, found[i].output), i)
        if len(chosen) == k:
            break
    return np.fromiter(chosen.values(), dtype=np.int64)


def shared_trust(
    head: ActiveHead, query: str, vector: Float1d, history: History, lexical: LexicalIndex
) -> tuple[Int1d, Float1d]:
    """Say how likely each shortlisted record is the one to go by: the softmax of its score.

    A head is a conditional logit, so this is the very distribution it was fitted to. The shared
    head is meant here: what a candidate's features are must not change with the user's own.

    Returns
    -------
    tuple of Int1d and Float1d
        Positions in the history and their probabilities, both ``(m,)``; empty without records.
    """
    shortlist = first_stage(query, vector, history, lexical, before=len(history))
    if not len(shortlist):
        return shortlist.index, np.zeros(0, dtype=np.float32)
    scores = head.scores(pair_features(head.features, vector, history, shortlist))
    mass = np.exp(scores - scores.max())
    return shortlist.index, np.asarray(mass / mass.sum(), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ProxyData:
    """Pseudo-queries of one history with proxy utilities, oldest first.

    ``position`` (n_groups,) is each pseudo-query's place in the history.
    """

    groups: Groups
    position: Int1d


def _spread(m: int, pairs: int) -> Int1d:
    """Choose ``pairs`` of ``m`` rows: the best half of them, and the others evenly from the rest.

    A head fitted on the nearest records only would not know how a far one looks.
    """
    if m <= pairs:
        return np.arange(m)
    rest = np.linspace(pairs // 2, m - 1, pairs - pairs // 2)
    return np.concatenate((np.arange(pairs // 2), rest.round().astype(np.int64)))


def proxy_data(
    features: FeatureMap,
    history: History,
    lexical: LexicalIndex,
    *,
    limit: int = PSEUDO_QUERIES,
    shown: int = 0,
    helped: Callable[[int], Helped] | None = None,
    progress: Progress | None = None,
) -> ProxyData:
    """Make pseudo-queries of a user's own records; needs no LLM.

    Each of the latest ``limit`` of ``History.queries`` sees only earlier records; the utility of
    record r is the agreement of its output with the pseudo-query's own.

    Parameters
    ----------
    shown
        How many records a prompt shows, where the head is judged by its first so many.
    helped
        Given a pseudo-query's position: what was known by then of how records helped. Positions
        are asked for in order.
    """
    positions = [i for i in history.queries.tolist() if i >= 2][-limit:]
    items: list[tuple[Float2d, Float1d]] = []
    for done, i in enumerate(positions, start=1):
        query, vector = history.records[i], history.inputs[i]
        past = history.before(i)
        shortlist = first_stage(query.input, vector, past, lexical, before=i)
        phi = pair_features(features, vector, past, shortlist, helped(i) if helped else None)
        rows = _spread(len(shortlist), max(PAIRS, _PAIRS_FOR_SHOWN * shown))
        truths = [
            utility(past.records[int(j)].output, query.output, history.task)
            for j in shortlist.index[rows]
        ]
        items.append((phi[rows], np.array(truths, dtype=np.float32)))
        if progress is not None and (done % 20 == 0 or done == len(positions)):
            progress("pseudo-queries", done, len(positions))
    groups = Groups.stack(items, dim=len(features.names))
    return ProxyData(groups, np.array(positions, dtype=np.int64))
