"""Which weights are in force for one user, task and role, and what they say of features.

Baseline, shared and personal are three weight vectors of one linear model: the gate only
chooses between them, and every score can be explained the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hydra_edge.bundle import Bundle
from hydra_edge.errors import BaseMismatchError, ConfigError, ShapeError
from hydra_edge.features import FeatureMap, is_within
from hydra_edge.heads import ConditionalLogit, PopulationGain, Prior, posterior_gain
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Float2d, HeadInfo, HeadState, Int1d, Role, Switch

# The feature that alone orders things as a system without hydra-edge would.
BASELINE_FEATURE: dict[Role, str] = {"reranker": "bm25_rank", "adapter": "greedy"}
# Orders what that leaves equal: where the first answer of a closed set could not be used, the
# votes of the others count.
_TIE_FEATURE = "votes"
_TIE = 1e-3
# Why the population's weights serve whoever has none of their own.
NO_HEAD = "no head of your own yet"


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


def check_base(state: HeadState, bundle: Bundle) -> None:
    """Refuse a head fitted on another base.

    Raises
    ------
    BaseMismatchError
        With the command that fits it again.
    """
    if state.base_id != bundle.base_id:
        raise BaseMismatchError(
            f"The {state.role} head for {state.task} belongs to base {state.base_id[:12]}; this "
            f"base is {bundle.base_id[:12]}. Records and answers are kept. Fit it again with: "
            f"hydra-edge fit-head --task {state.task}"
        )


def check_usable(state: HeadState, bundle: Bundle) -> None:
    """Refuse a head from elsewhere that no answer could be given with.

    Raises
    ------
    BaseMismatchError
        If it belongs to another base.
    ConfigError
        If it is of other features, or its numbers cannot be a head's.
    """
    check_base(state, bundle)
    d = len(state.features)
    try:
        if state.features != bundle.features(state.role):
            raise ShapeError(f"it has {d} features, not those of this base.")
        neutral = Prior(np.zeros(d), np.eye(d), 1.0)
        ConditionalLogit.from_state(
            state.weight, state.precision, neutral, prior_scale=state.prior_scale
        )
    except ShapeError as err:
        raise ConfigError(
            f"The {state.role} head for {state.task} cannot be used: {err} Export it again."
        ) from err


def outdated(state: HeadState, bundle: Bundle | None, kind: str = "") -> str:
    """Say what keeps a stored head from serving; empty if nothing does.

    Without a base, or the kind of its task's answers, what only these can tell is left out.
    """
    if bundle is not None and state.base_id != bundle.base_id:
        return "was fitted with another base"
    if state.stale:
        return "learned from something that was forgotten"
    if bundle is not None and state.features != bundle.features(state.role):
        return "was fitted on other features"
    if kind and state.report.get("kind", kind) != kind:
        return "was fitted to another kind of answers"
    return ""


def idle_notes(*heads: HeadInfo) -> tuple[str, ...]:
    """Return why heads of one's own do not serve; nothing of a head that never was."""
    idle = (h.reason for h in heads if h.version is None and h.reason not in ("", NO_HEAD))
    return tuple(dict.fromkeys(idle))


@dataclass(frozen=True, eq=False)
class ActiveHead:
    """The weights in force, ready to score and explain.

    ``posterior`` carries the personal head's uncertainty; None while another serves. ``state`` is
    the stored head whose switch says which does; None where there is none that may.
    """

    info: HeadInfo
    features: FeatureMap
    weight: Float1d
    posterior: ConditionalLogit | None
    state: HeadState | None = None

    @classmethod
    def of(
        cls, bundle: Bundle, task: TaskSpec, features: FeatureMap, state: HeadState | None
    ) -> ActiveHead:
        """Choose the weights the gate allows; a head of another base never serves."""
        role = features.role
        prior = prior_for(bundle, task, role)
        switch = unfitted_switch(bundle, task, role)
        reason = NO_HEAD
        if state is not None and (why := outdated(state, bundle, task.kind)):
            state = None
            reason = f"your own head {why} and does not serve; run hydra-edge fit-head"
        posterior = None
        weight = prior.mean.astype(np.float32)
        if state is not None:
            switch, reason = state.switch, str(state.report.get("reason", ""))
        if switch == "baseline":
            weight = baseline_weight(features.names, role)
        elif switch == "personal" and state is not None:
            weight = state.weight
            posterior = ConditionalLogit.from_state(state.weight, state.precision, prior)
        info = HeadInfo(
            task=task.name,
            role=role,
            switch=switch,
            version=None if state is None else state.version,
            base_id=bundle.base_id,
            n_queries=0 if state is None else state.n_queries,
            reason=reason,
        )
        return cls(info, features, weight, posterior, state)

    @classmethod
    def shared(cls, bundle: Bundle, task: TaskSpec, features: FeatureMap) -> ActiveHead:
        """Return the population's weights, whether they would serve or not."""
        prior = prior_for(bundle, task, features.role)
        info = HeadInfo(task.name, features.role, "shared", None, bundle.base_id)
        return cls(info, features, prior.mean.astype(np.float32), None)

    def scores(self, phi: Float2d) -> Float1d:
        """Score scaled features, shape ``(m, d)``, relative to the group's mean: ``(m,)``."""
        return np.asarray((phi - phi.mean(axis=0)) @ self.weight, dtype=np.float32)

    def contributions(self, phi: Float2d, rows: Int1d | None = None) -> list[dict[str, float]]:
        """Split the scores of all or some rows over features, exactly; without those of 0."""
        chosen = phi if rows is None else phi[rows]
        parts = (chosen - phi.mean(axis=0)) * self.weight
        names = self.features.names
        return [
            {name: part for name, part in zip(names, row, strict=True) if part}
            for row in parts.tolist()
        ]
