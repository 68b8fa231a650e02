"""What the ladder is climbed with: labelled queries of both roles, and who asked them.

Owns the two kinds of material and the profile that is known of a user at a query. Everything of
a query is drawn from records before it, by the code of the device; what is fitted on users (the
reranker whose trust an adapter's features rest on) is handed in, fold by fold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from export.data import LeakError, UserHistory
from export.episodes import Episode, UserEpisodes, closed_episodes, pool_episodes
from export.labels import PoolLabel
from export.priors import engine_for
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.features import FeatureMap
from hydra_edge.history import History
from hydra_edge.outputs import STYLE_NAMES
from hydra_edge.reranker import proxy_data
from hydra_edge.retrieval import OkapiIndex
from hydra_edge.types import Float1d, Float2d, Int1d, Progress

# What a profile says beside the two mean vectors.
STATS = (
    "log_records",
    "log_length_mean",
    "log_length_std",
    *STYLE_NAMES,
    "input_coherence",  # length of the mean input vector: 1 if all inputs say the same
    "output_coherence",
    "repetition",  # chance that two outputs are the same
)

Place = tuple[str, str]  # a task and one of its users
Profiles = Mapping[Place, Mapping[int, Float1d]]  # by the position of the query


@dataclass(frozen=True, eq=False)
class Person:
    """One user's labelled queries of one task, oldest first, and what was known at each.

    ``profiles`` has shape ``(n_queries, 2 * dim + len(STATS))``, float32.
    """

    episodes: UserEpisodes
    profiles: Float2d

    @property
    def user(self) -> str:
        """The pseudonym; one person may have queries of several tasks and LLMs."""
        return self.episodes.user


def profile_before(history: History, position: int) -> Float1d:
    """Describe a user as known before one of their records.

    Returns
    -------
    Float1d
        Mean input vector, mean output vector, then ``STATS``: shape ``(2 * dim + 11,)``.
    """
    past = history.before(position)
    asked, written = past.inputs.mean(axis=0), past.outputs.mean(axis=0)
    profile = past.profile
    shares = np.array(list(profile.shares.values()), dtype=np.float32)
    stats = [
        np.log1p(len(past)), profile.log_length_mean, profile.log_length_std, *profile.style,
        np.linalg.norm(asked), np.linalg.norm(written), float((shares**2).sum()),
    ]  # fmt: skip
    return np.concatenate((asked, written, np.array(stats))).astype(np.float32)


class _WholeVectors(FeatureMap):
    """Unscaled features with the records' vectors themselves where learned ones would be."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, "reranker")
        self.d = len(self.names)
        self.names += tuple(f"vector_{i}" for i in range(2 * bundle.manifest.dim))

    def learned(self, query: Float1d, others: Float2d) -> Float2d:
        return others

    def scale(self, raw: Float2d) -> Float2d:
        return raw


class PastIndex:
    """BM25 over the records before a query alone.

    An index of a whole history knows how rare a word is among later records too: little, but
    it is not known yet.
    """

    def __init__(self, history: History) -> None:
        self._inputs = [record.input for record in history.records]

    def search(self, query: str, limit: int, before: int) -> tuple[Int1d, Float1d]:
        """See ``LexicalIndex.search``."""
        return OkapiIndex(self._inputs[:before]).search(query, limit, before)


def reranker_people(
    users: Sequence[UserHistory],
    neutral: Bundle,
    encoder: TextEncoder,
    limit: int,
    report: Progress,
) -> list[Person]:
    """Label records by agreement of their outputs with the query's own, as a device does.

    Parameters
    ----------
    neutral
        A base that knows nothing of people.
    limit
        Each user's latest records that are queries, at most.
    """
    whole, dim, out = _WholeVectors(neutral), neutral.manifest.dim, []
    for done, user in enumerate(users, start=1):
        engine = engine_for(user, neutral, encoder)
        with closing(engine.store):
            history = engine.history(engine.task(user.task))
            data = proxy_data(whole, history, PastIndex(history), limit=limit)
        made = []
        for position, (a, b) in zip(
            data.position.tolist(), itertools.pairwise(data.groups.offsets), strict=True
        ):
            rows = data.groups.features[a:b].astype(np.float32)
            sides = (rows[:, whole.d : whole.d + dim], rows[:, whole.d + dim :])
            worth = data.groups.utilities[a:b].astype(np.float32)
            made.append(
                Episode(position, rows[:, : whole.d], worth, history.inputs[position], sides)
            )
        known = {e.position: profile_before(history, e.position) for e in made}
        of_user = UserEpisodes(user.user, user.task, history.task.kind, tuple(made))
        out += _people([of_user], {(user.task, user.user): known})
        report("ladder: records", done, len(users))
    return out


@dataclass(frozen=True, eq=False)
class Answers:
    """What an adapter learns from: pools that LLMs answered, and users of closed sets.

    ``shares`` is how much of a task's pools is drawn with no record shown.
    """

    pools: Sequence[PoolLabel]
    users: Mapping[Place, UserHistory]
    closed: Sequence[UserHistory]
    closed_queries: int
    shares: Mapping[str, float]

    @property
    def queries(self) -> dict[Place, set[int]]:
        """Every position that is a query, by task and user."""
        out: dict[Place, set[int]] = {}
        for pool in self.pools:
            out.setdefault((pool.task, pool.user), set()).add(pool.position)
        for user in self.closed:
            n = len(user.records)
            places = range(max(2, n - self.closed_queries), n)
            out.setdefault((user.task, user.user), set()).update(places)
        return out


def profiles_of(
    answers: Answers, neutral: Bundle, encoder: TextEncoder, report: Progress
) -> dict[Place, dict[int, Float1d]]:
    """Describe every user of an adapter's material as known at each of their queries."""
    by_place = dict(answers.users) | {(u.task, u.user): u for u in answers.closed}
    out: dict[Place, dict[int, Float1d]] = {}
    wanted = answers.queries
    for done, (place, positions) in enumerate(sorted(wanted.items()), start=1):
        engine = engine_for(by_place[place], neutral, encoder)
        with closing(engine.store):
            history = engine.history(engine.task(place[0]))
            out[place] = {p: profile_before(history, p) for p in sorted(positions)}
        report("ladder: profiles", done, len(wanted))
    return out


def adapter_people(
    answers: Answers, base: Bundle, encoder: TextEncoder, known: Profiles, report: Progress
) -> tuple[list[Person], list[Person]]:
    """Label what LLMs answered, and closed sets without any LLM.

    Parameters
    ----------
    base
        With neutral adapter maps, and a reranker fitted on none who is left out.

    Returns
    -------
    tuple of list
        People of pools, and people of closed sets.
    """
    pools = pool_episodes(answers.pools, answers.users, base, encoder, report, answers.shares)
    closed = closed_episodes(answers.closed, base, encoder, answers.closed_queries, report)
    return _people(pools, known), _people(closed, known)


def _people(users: Iterable[UserEpisodes], known: Profiles) -> list[Person]:
    """Put profiles beside queries; whoever has no query is left away."""
    return [
        Person(u, np.stack([known[u.task, u.user][e.position] for e in u.episodes]))
        for u in users
        if u.episodes
    ]


def refuse_disorder(people: Iterable[Person]) -> None:
    """Refuse queries that are not in the order of time: halves of them would not be either.

    Raises
    ------
    LeakError
        If a query comes after a later one.
    """
    for person in people:
        places = [e.position for e in person.episodes.episodes]
        if any(b <= a for a, b in itertools.pairwise(places)):
            raise LeakError(
                f"Queries of user {person.user!r} are out of order: got positions {places}; "
                "expected rising ones, or a head would be fitted on later records than it is "
                "judged on. Sort them."
            )


def refuse_left_out(people: Iterable[Person], inside: frozenset[str]) -> None:
    """Refuse to train on anyone who is to be judged.

    Raises
    ------
    LeakError
        If a user left out is among them.
    """
    if known := sorted({p.user for p in people} & inside):
        raise LeakError(
            f"A fold would be trained on users it leaves out: got {', '.join(known[:3])}; expected "
            "none of them. Split users, never records."
        )
