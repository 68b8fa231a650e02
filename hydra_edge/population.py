"""What a base knows of people: how they weigh features, and what heads did for them.

It serves whoever has taught nothing yet, and is where every head of one's own begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hydra_edge.bundle import Bundle
from hydra_edge.features import is_within
from hydra_edge.heads import PopulationGain, Prior, posterior_gain
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Role, Switch

# The feature that alone orders things as a system without hydra-edge would.
BASELINE_FEATURE: dict[Role, str] = {"reranker": "bm25_rank", "adapter": "greedy"}
# Orders what that leaves equal: where the first answer of a closed set could not be used, the
# votes of the others count.
_TIE_FEATURE = "votes"
_TIE = 1e-3


def prior_for(bundle: Bundle, task: TaskSpec, role: Role) -> Prior:
    """Return the population prior: the task's own if the base has one, else its kind's."""
    return _prior(bundle, f"{role}.prior.{_group(bundle, task, role)}")


def _group(bundle: Bundle, task: TaskSpec, role: Role) -> str:
    """Return whose arrays serve a task: its own, or its kind's.

    Ratings on another scale than the base knows of their task are answers it has never seen.
    """
    known = bundle.manifest.closed_sets.get(task.name)
    other = role == "adapter" and known is not None and not is_within(task, known)
    own = f"{role}.prior.{task.name}.mean" in bundle.maps and not other
    return task.name if own else task.kind


@lru_cache(maxsize=64)
def _prior(bundle: Bundle, key: str) -> Prior:
    """Read and check a prior once: every query asks for it."""
    return Prior(
        mean=bundle.array(f"{key}.mean").astype(np.float64),
        precision=bundle.array(f"{key}.precision").astype(np.float64),
        tau=float(bundle.array(f"{key}.tau")[0]),
    )


@dataclass(frozen=True, slots=True)
class PopulationGains:
    """What the population gained by the shared head over the baseline, and by its own over it."""

    shared_over_baseline: PopulationGain
    personal_over_shared: PopulationGain


def gains_for(bundle: Bundle, task: TaskSpec, role: Role) -> PopulationGains | None:
    """Return what a task's (else its kind's) training users gained; None if the base is silent."""
    key = f"{role}.gain.{_group(bundle, task, role)}"
    if key not in bundle.maps:
        return None
    shared, personal = bundle.array(key).tolist()
    return PopulationGains(PopulationGain(*shared), PopulationGain(*personal))


# Where it is known what the shared head does for people, it serves whom it is expected to help:
# no more confidence is asked of it than of the baseline. The personal head must earn its place.
SHARED_CONFIDENCE = 0.5


def unjudged_switch(prior: Prior) -> Switch:
    """Say what serves where nobody knows what the shared head gains.

    Shared, unless the base was taught nothing of such answers: weights of 0 would choose whatever
    comes first.
    """
    return "shared" if prior.mean.any() else "baseline"


def unfitted_switch(bundle: Bundle, task: TaskSpec, role: Role) -> Switch:
    """Say what serves a user of whom nothing is known: shared, unless others were not helped."""
    gains = gains_for(bundle, task, role)
    if gains is None:
        return unjudged_switch(prior_for(bundle, task, role))
    known = posterior_gain([], gains.shared_over_baseline, SHARED_CONFIDENCE)
    return "shared" if known.low > 0.0 else "baseline"


def zero_shot_share(bundle: Bundle, task: TaskSpec) -> float:
    """Return the share of a task's (else its kind's) pools that is best drawn without records."""
    key = f"adapter.zero_shot.{_group(bundle, task, 'adapter')}"
    return float(bundle.array(key)[0]) if key in bundle.maps else 0.0


def baseline_weight(names: tuple[str, ...], role: Role) -> Float1d:
    """Return the weights of the baseline, shape ``(d,)``: 1 on its one feature.

    An adapter's has next to nothing on the votes, which decide where there is no first answer.
    """
    weight = np.zeros(len(names), dtype=np.float32)
    weight[names.index(BASELINE_FEATURE[role])] = 1.0
    if role == "adapter":
        weight[names.index(_TIE_FEATURE)] = _TIE
    return weight
