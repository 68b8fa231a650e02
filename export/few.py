"""How far few records are believed: chosen as for users who have just begun.

Training users have long histories, and weights learned there take one record at its word. Here
their pools are chosen from again as if only their latest records were known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from export.adapter_priors import (
    RIDGES,
    TAUS,
    Settings,
    make_view,
    shared_utility,
    shared_weights,
    split_users,
)
from export.data import UserHistory
from export.episodes import UserEpisodes, count_users, pool_episodes, with_answers
from export.labels import PoolLabel
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.features import draw_in, feature_names
from hydra_edge.types import JsonDict, Progress

KNOWN = (1, 4, None)  # records that a user has; None: all of them
HALF_AT = (0.0, 1.0, 3.0, 6.0, 12.0)


def _believed(users: Sequence[UserEpisodes], half_at: float) -> list[UserEpisodes]:
    return [
        replace(
            user,
            episodes=tuple(
                replace(e, raw=draw_in(e.raw, e.position, half_at)) for e in user.episodes
            ),
        )
        for user in users
    ]


def choose_half_at(
    pools: Sequence[PoolLabel],
    users: Mapping[tuple[str, str], UserHistory],
    bundle: Bundle,
    encoder: TextEncoder,
    report: Progress,
    shares: Mapping[str, float],
) -> tuple[float, JsonDict]:
    """Choose how many records it takes until half of what they say of a free text is believed.

    Judged by what shared weights of whole histories choose for users left out who have 1, 4 and
    all of their records, without learned maps; the mean over tasks and these.

    Parameters
    ----------
    shares
        By task, how much of a pool is drawn with no record shown.

    Returns
    -------
    tuple of float and JsonDict
        The number, and the utility of each that was tried, by the records known.
    """
    texts = [p for p in pools if p.plain]
    names, how = feature_names("adapter"), Settings(tau=TAUS[-1], ridge=RIDGES[0], maps=False)
    seen = {
        known: with_answers(pool_episodes(texts, users, bundle, encoder, report, shares, known))
        for known in KNOWN
    }
    if count_users(seen[None]) < 2:
        return 0.0, {}  # nobody is left to judge it on
    tasks = sorted({user.task for user in seen[None]})
    folds = split_users(seen[None])
    views = [make_view(seen[None], [], None, fold) for fold in folds]
    weights = {task: shared_weights(views, {task}, names, how) for task in tasks}
    found: dict[float, dict[int | None, float]] = {}
    for half_at in HALF_AT:
        found[half_at] = {}
        for known, answered in seen.items():
            drawn = _believed(answered, half_at)
            judged = [make_view(drawn, [], None, v.inside, v.scale) for v in views]
            of = [shared_utility(judged, {task}, weights[task]) for task in tasks]
            found[half_at][known] = float(np.mean(of))
    best = max(HALF_AT, key=lambda half_at: float(np.mean([*found[half_at].values()])))
    tried = {
        f"{half_at:g}": {"all" if n is None else str(n): round(u, 4) for n, u in by.items()}
        for half_at, by in found.items()
    }
    return best, {"half_at": best, "utility": tried}
