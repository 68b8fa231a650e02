"""Labelled queries of training users, with everything maps and priors are learned from.

Two sources: closed sets as candidates without any LLM's votes, and pools that real LLMs have
answered. Every query sees earlier records only: features come from the code the device runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np

from export.classify import Classifiers
from export.data import UserHistory
from export.labels import PoolLabel
from export.priors import Labelled, engine_for
from hydra_edge.adapter import merge, pool_features, pool_utilities
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.features.adapter import CLOSED_COLUMNS
from hydra_edge.features.closed import Classifier, ClosedPast, closed_features
from hydra_edge.history import History
from hydra_edge.retrieval import LexicalIndex
from hydra_edge.types import Completion, Float1d, Float2d, Progress, Record


@dataclass(frozen=True, eq=False)
class Episode:
    """One labelled query with ``m`` candidates.

    ``raw`` (m, d) are unscaled interpretable features, ``utilities`` (m,). ``query`` (dim,) and
    each of ``sides`` (m, dim) are what learned maps multiply: a candidate has one side.
    ``position`` is the query's place in the user's history as known; ``past`` is what a closed
    set's features are drawn from.
    """

    position: int
    raw: Float2d
    utilities: Float1d
    query: Float1d
    sides: tuple[Float2d, ...]
    past: ClosedPast | None = None


@dataclass(frozen=True, eq=False)
class UserEpisodes:
    """One user's labelled queries of one task, oldest first."""

    user: str
    task: str
    kind: str
    episodes: tuple[Episode, ...]


def with_answers(users: Iterable[UserEpisodes]) -> list[UserEpisodes]:
    """Return those who have a query with an answer."""
    return [user for user in users if user.episodes]


def count_users(users: Iterable[UserEpisodes] | Iterable[Labelled]) -> int:
    """Count people, however many tasks and LLMs of theirs there are."""
    return len({user.user for user in users})


@dataclass(frozen=True, eq=False)
class _Seen:
    """One user's records as the device's code sees them."""

    engine: Engine
    history: History
    lexical: LexicalIndex

    @classmethod
    @contextmanager
    def of(cls, user: UserHistory, bundle: Bundle, encoder: TextEncoder) -> Iterator[Self]:
        engine = engine_for(user, bundle, encoder)
        with closing(engine.store):
            history = engine.history(engine.task(user.task))
            yield cls(engine, history, engine.lexical(history))


def _episode(
    seen: _Seen, position: int, completions: Sequence[Completion], shown: Sequence[Record]
) -> Episode | None:
    """Make an episode of what was answered to a record as the query; None without a candidate."""
    history = seen.history
    record, vector = history.records[position], history.inputs[position]
    candidates = merge(completions, history.task)
    if not candidates:
        return None
    past = history.before(position)
    pool = seen.engine.pool(record.input, vector, candidates, shown, past, seen.lexical)
    return Episode(
        position,
        pool_features(seen.engine.features["adapter"], pool, past),
        pool_utilities(pool, record.output, history.task),
        vector,
        (pool.vectors,),
        None if history.task.kind == "text" else ClosedPast.of(past, [c.text for c in candidates]),
    )


def closed_episodes(
    users: Sequence[UserHistory], bundle: Bundle, encoder: TextEncoder, limit: int, report: Progress
) -> list[UserEpisodes]:
    """Label the closed set as candidates nobody voted for: no LLM is needed.

    Parameters
    ----------
    users
        Of label and rating tasks.
    bundle
        With the reranker's maps.
    limit
        Each user's latest records that are queries, at most.
    """
    out = []
    for done, user in enumerate(users, start=1):
        with _Seen.of(user, bundle, encoder) as seen:
            n, kind = len(seen.history), seen.history.task.kind
            made = [_episode(seen, i, (), ()) for i in range(max(2, n - limit), n)]
        episodes = tuple(e for e in made if e is not None)
        out.append(UserEpisodes(user.user, user.task, kind, episodes))
        report("closed sets", done, len(users))
    return out


def pool_episodes(
    answers: Iterable[PoolLabel],
    users: Mapping[tuple[str, str], UserHistory],
    bundle: Bundle,
    encoder: TextEncoder,
    report: Progress,
    shares: Mapping[str, float] = MappingProxyType({}),
    latest: int | None = None,
) -> list[UserEpisodes]:
    """Label the pools that LLMs answered, oldest query first.

    What one LLM answered to a user is kept apart from what another did: their pools share
    queries, and leaving one out would not leave its truth out.

    Parameters
    ----------
    answers
        In any order.
    users
        By task and user.
    bundle
        With the reranker's maps.
    shares
        By task, how much of a pool is drawn with no record shown; 0 of tasks not named.
    latest
        How many of the records before a query are known, as ``position`` then says; None: all
        of them. The answers are those that an LLM gave to prompts made of all.
    """
    by_user: dict[tuple[str, str, str], list[PoolLabel]] = {}
    for answer in answers:
        by_user.setdefault((answer.task, answer.user, answer.llm), []).append(answer)
    out = []
    for done, key in enumerate(sorted(by_user), start=1):
        user, share = users[key[:2]], shares.get(key[0], 0.0)
        asked = sorted(by_user[key], key=lambda a: a.position)
        with _Seen.of(user, bundle, encoder) as seen:
            kind, made = seen.history.task.kind, []
            place = {record.id: record for record in seen.history.records}
            for answer in asked:
                shown = [place[i] for i in answer.shown_ids]
                if latest is None:
                    made.append(_episode(seen, answer.position, answer.mixed(share), shown))
                    continue
                known = min(latest, answer.position)
                records = seen.history.records[answer.position - known : answer.position + 1]
                with _Seen.of(replace(user, records=tuple(records)), bundle, encoder) as few:
                    made.append(_episode(few, known, answer.mixed(share), shown))
        episodes = tuple(e for e in made if e is not None)
        out.append(UserEpisodes(user.user, user.task, kind, episodes))
        report("pools", done, len(by_user))
    return out


def informed(
    users: Sequence[UserEpisodes],
    known: Classifiers,
    inside: frozenset[str],
    *,
    lent: bool = False,
) -> list[UserEpisodes]:
    """Tell closed sets' features what all users but some answer to such texts.

    Parameters
    ----------
    users
        As they come: of no closed set is anything known yet.
    inside
        Users left out; nobody's features know their own answers either.
    lent
        Tell them only what a device would lend to sets the base has never seen.
    """
    of = known.lent if lent else known.for_user

    def told(episode: Episode, classifier: Classifier) -> Episode:
        if episode.past is None:
            return episode
        raw = episode.raw.copy()
        raw[:, CLOSED_COLUMNS] = closed_features(episode.past, episode.query, classifier)
        return replace(episode, raw=raw)

    out = []
    for user in users:
        episodes, classifier = user.episodes, of(user.task, user.user, inside)
        if classifier is not None:
            episodes = tuple(told(episode, classifier) for episode in episodes)
        out.append(replace(user, episodes=episodes))
    return out


@dataclass(frozen=True, eq=False)
class Maps:
    """Learned bilinear maps ``(P q) * (P' x)``: ``query`` and ``other``, both ``(k, dim)``."""

    query: Float2d
    other: Float2d

    @property
    def k(self) -> int:
        """Number of learned features a side."""
        return len(self.query)

    def of(self, episode: Episode) -> Float2d:
        """Return an episode's learned features, shape ``(m, k * sides)``, unscaled."""
        asked = self.query @ episode.query
        return np.hstack([(side @ self.other.T) * asked for side in episode.sides])


def raw_features(episode: Episode, maps: Maps | None) -> Float2d:
    """Return an episode's features, learned ones last, unscaled."""
    return episode.raw if maps is None else np.hstack((episode.raw, maps.of(episode)))


def labelled(users: Sequence[UserEpisodes], maps: Maps | None) -> list[Labelled]:
    """Turn episodes into what priors are fitted on: unscaled features and utilities."""
    return [
        Labelled(
            u.user, u.task, u.kind, tuple((raw_features(e, maps), e.utilities) for e in u.episodes)
        )
        for u in users
    ]
