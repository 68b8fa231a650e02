"""Which weights are in force for one user, task and role, and what they say of features.

Baseline, shared and personal are three weight vectors of one linear model: the gate only
chooses between them, and every score can be explained the same way.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from hydra_edge.bundle import Bundle
from hydra_edge.errors import BaseMismatchError, ConfigError, ShapeError
from hydra_edge.features import FeatureMap
from hydra_edge.headreport import kind_of, name_of, reason_of, shared_helps
from hydra_edge.heads import ConditionalLogit, Prior
from hydra_edge.population import baseline_weight, prior_for, unfitted_switch
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Float2d, HeadInfo, HeadState, Int1d, Switch

# Why the population's weights serve whoever has none of their own.
NO_HEAD = "no head of your own yet"


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
    if name_of(state.report, state.task) != state.task:
        return "was fitted under another name of its task"
    if kind and kind_of(state.report, kind) != kind:
        return "was fitted to another kind of answers"
    return ""


def without(state: HeadState, unfitted: Switch) -> Switch:
    """Say what would serve if a stored head of one's own did not, by the evidence it came with.

    ``unfitted`` is what serves whom nothing is known of; it counts where no evidence is told.
    """
    helps = shared_helps(state.report)
    if helps is None:
        return unfitted
    return "shared" if helps else "baseline"


def is_ahead(state: HeadState, bundle: Bundle, began: float) -> bool:
    """Tell whether another program has stored a head since this one began, with another base.

    ``began`` is in unix seconds. A head from the future tells of a wrong clock only.
    """
    return state.base_id != bundle.base_id and began < state.created <= time.time()


def idle_notes(*heads: HeadInfo) -> tuple[str, ...]:
    """Return why heads of one's own do not serve; nothing of a head that never was."""
    idle = (h.reason for h in heads if h.version is None and h.reason not in ("", NO_HEAD))
    return tuple(dict.fromkeys(idle))


@dataclass(frozen=True, eq=False)
class ActiveHead:
    """The weights in force, ready to score and explain.

    ``posterior`` carries the personal head's uncertainty; None while another serves: where it is
    not sure of an answer of its own, what would serve otherwise has the word. ``state`` is
    the stored head whose switch says which does; None where there is none that may.
    """

    info: HeadInfo
    features: FeatureMap
    weight: Float1d
    posterior: ConditionalLogit | None
    state: HeadState | None = None

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        task: TaskSpec,
        features: FeatureMap,
        state: HeadState | None,
        *,
        began: float = math.inf,
    ) -> ActiveHead:
        """Choose the weights the gate allows; a head of another base never serves.

        ``began`` is when the base was chosen, in unix seconds: of a head that is ahead of it, see
        ``is_ahead``, the reason says so.
        """
        role = features.role
        prior = prior_for(bundle, task, role)
        switch = unfitted_switch(bundle, task, role)
        reason = NO_HEAD
        if state is not None and (why := outdated(state, bundle, task.kind)):
            reason = f"your own head {why} and does not serve; run hydra-edge fit-head"
            if is_ahead(state, bundle, began):
                reason = f"this program began before your own head {why}; start it anew"
            state = None
        posterior = None
        weight = prior.mean.astype(np.float32)
        otherwise = switch
        if state is not None:
            otherwise = without(state, switch) if state.switch == "personal" else state.switch
            switch, reason = state.switch, str(reason_of(state.report))
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
            otherwise=otherwise,
        )
        return cls(info, features, weight, posterior, state)

    @classmethod
    def shared(cls, bundle: Bundle, task: TaskSpec, features: FeatureMap) -> ActiveHead:
        """Return the population's weights, whether they would serve or not."""
        prior = prior_for(bundle, task, features.role)
        info = HeadInfo(
            task.name, features.role, "shared", None, bundle.base_id, otherwise="shared"
        )
        return cls(info, features, prior.mean.astype(np.float32), None)

    def scores(self, phi: Float2d) -> Float1d:
        """Score scaled features, shape ``(m, d)``, relative to the group's mean: ``(m,)``."""
        return np.asarray((phi - phi.mean(axis=0)) @ self.weight, dtype=np.float32)

    @property
    def otherwise(self) -> Float1d:
        """The weights that would serve if a personal head did not: shape ``(d,)``."""
        if self.posterior is not None and self.info.otherwise == "shared":
            return self.posterior.prior.mean.astype(np.float32)
        return baseline_weight(self.features.names, self.info.role)

    def standing(self, phi: Float2d) -> int | None:
        """Return the row of the answer that stands as a personal head is not sure of a better one.

        None where it is sure, or no personal head serves. ``phi`` has shape ``(m, d)``, scaled.
        """
        if self.posterior is None:
            return None
        row = int(np.argmax(phi @ self.otherwise))
        unsure = self.posterior.abstains(phi.astype(np.float64), standing=row)
        return row if unsure else None

    def contributions(self, phi: Float2d, rows: Int1d | None = None) -> list[dict[str, float]]:
        """Split the scores of all or some rows over features, exactly; without those of 0."""
        chosen = phi if rows is None else phi[rows]
        parts = (chosen - phi.mean(axis=0)) * self.weight
        names = self.features.names
        return [
            {name: part for name, part in zip(names, row, strict=True) if part}
            for row in parts.tolist()
        ]
