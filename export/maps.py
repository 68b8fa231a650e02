"""From training histories to the maps of a base: scaling and head priors, in two stages.

Each stage is resumable: vectors are cheap to make again, and every answer of the LLM is kept
in a cache that a later run starts from. Deterministic given the seed and the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.data import UserHistory, read_users, sample_users
from export.priors import (
    Labelled,
    Report,
    fit_scale,
    label_adapter,
    label_reranker,
    priors_of_role,
    scaled,
    with_maps,
)
from hydra_edge.active import BASELINE_FEATURE
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.features import feature_names
from hydra_edge.features.scaling import LIMIT
from hydra_edge.llm import LLM
from hydra_edge.types import Float2d, JsonDict, Role

LEAST_RECORDS = 12


@dataclass(frozen=True)
class Plan:
    """How much is labelled: users a task and queries a user, for each role."""

    reranker_users: int = 40
    reranker_queries: int = 40
    adapter_users: int = 24
    adapter_queries: int = 3
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Maps:
    """Arrays for ``maps.safetensors``, and what they were measured to be worth."""

    arrays: dict[str, Float2d]
    quality: JsonDict


def _by_task(paths: Sequence[Path], n: int, seed: int) -> list[UserHistory]:
    everyone = read_users(paths)
    return [
        user
        for task in sorted({u.task for u in everyone})
        for user in sample_users(
            [u for u in everyone if u.task == task], n, least=LEAST_RECORDS, seed=seed
        )
    ]


def _role_maps(role: Role, labelled: Sequence[Labelled]) -> Maps:
    """Fit one role's scaling and priors from raw (neutrally scaled) features."""
    names = feature_names(role)
    mean, std = fit_scale(labelled, len(names))
    ready = scaled(labelled, mean, std, LIMIT)
    arrays, report = priors_of_role(ready, role, names, BASELINE_FEATURE[role])
    arrays[f"{role}.scale.mean"] = mean
    arrays[f"{role}.scale.std"] = std
    return Maps(arrays, report)


def fingerprint(paths: Sequence[Path]) -> dict[str, str]:
    """Return each input's sha256, cut to 16 digits: what a base was trained on."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in sorted(paths)}


def build_maps(
    neutral: Bundle,
    encoder: TextEncoder,
    llm: LLM,
    paths: Sequence[Path],
    plan: Plan,
    report: Report,
) -> Maps:
    """Label, and fit both roles.

    Parameters
    ----------
    neutral
        A bundle of the encoder with neutral maps for this release's features.
    llm
        Whose candidates the adapter learns to choose from; best wrapped in a cache.
    paths
        Training files; none of their users may be used for measuring.
    """
    users = _by_task(paths, plan.reranker_users, plan.seed)
    pairs = label_reranker(users, neutral, encoder, plan.reranker_queries, report)
    reranker = _role_maps("reranker", pairs)
    ranked = with_maps(neutral, reranker.arrays)
    users = _by_task(paths, plan.adapter_users, plan.seed)
    pools = label_adapter(users, ranked, encoder, llm, plan.adapter_queries, report)
    adapter = _role_maps("adapter", pools)
    quality: JsonDict = {
        "reranker": reranker.quality,
        "adapter": adapter.quality,
        "llm": llm.name,
        "plan": vars(plan),
        "trained_on": fingerprint(paths),
    }
    return Maps({**reranker.arrays, **adapter.arrays}, quality)


def as_float32(arrays: dict[str, Float2d]) -> dict[str, Float2d]:
    """Return the arrays as they are stored."""
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in arrays.items()}
