"""The gate: a head serves only where the user's own held-out history says it helps.

Personal weights are judged leave-one-query-out on the later half of the user's queries,
against the shared head; the shared head against the baseline. Where the base knows what other
users gained, that counts as evidence too: a few noisy queries then neither switch a good
shared head off nor a lucky personal one on, and the shared head serves whom it is expected to
help, where the personal one must be better with confidence.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import numpy as np

from hydra_edge import headreport
from hydra_edge.heads import (
    ABSTAIN_Z,
    ConditionalLogit,
    Groups,
    PopulationGain,
    Prior,
    choose_prior_scale,
    is_collapsed,
    one_sided_low,
    posterior_gain,
)
from hydra_edge.population import SHARED_CONFIDENCE, PopulationGains, unjudged_switch
from hydra_edge.types import Double1d, Float1d, Gain, Int1d, JsonDict, Switch

CONFIDENCE = 0.8  # one-sided
# Fewer held-out queries decide nothing: the population's evidence (the shared head) stands, and
# no head of one's own serves, whatever others gained by theirs.
MIN_HELD_OUT = 8


@dataclass(frozen=True, eq=False)
class Verdict:
    """A fitted head, what the gate allows, and the evidence.

    ``baseline``, ``shared``, ``personal`` have shape ``(n_groups,)``: the utility each would
    have had on every query (personal leave-one-out, and as it would serve); ``held_out`` the
    groups judged.
    """

    head: ConditionalLogit
    switch: Switch
    reason: str
    baseline: Double1d
    shared: Double1d
    personal: Double1d
    held_out: slice
    shared_over_baseline: Gain | None
    personal_over_shared: Gain | None

    def mean(self, name: str) -> float | None:
        """Mean utility on the held-out queries of ``baseline``, ``shared`` or ``personal``."""
        values: Double1d = getattr(self, name)[self.held_out]
        return float(values.mean()) if len(values) else None

    def elsewhere(self, groups: Groups) -> tuple[Double1d, Double1d]:
        """Return what the shared and the personal head would have had on queries never learned.

        Each of shape ``(n_groups,)``; of its own best answers, whether it would be sure or not.
        """
        head = self.head
        shared = top_utility(groups.features @ head.prior.mean, groups, 1)
        return shared, top_utility(head.scores(groups.features), groups, 1)

    def report(self) -> JsonDict:
        """Return the evidence as stored with the head."""
        gains = {
            name: None if gain is None else asdict(gain)
            for name, gain in (
                (headreport.SHARED_OVER_BASELINE, self.shared_over_baseline),
                (headreport.PERSONAL_OVER_SHARED, self.personal_over_shared),
            )
        }
        rows = {name: self.mean(name) for name in ("baseline", "shared", "personal")}
        held_out = len(self.baseline[self.held_out])
        return {
            headreport.REASON: self.reason,
            headreport.HELD_OUT: held_out,
            headreport.UTILITY: rows,
            **gains,
        }


def top_utility(scores: Double1d, groups: Groups, top: int) -> Double1d:
    """Return the mean utility of each query's ``top`` best-scored pairs: ``(n_groups,)``."""
    bounds, sizes = groups.offsets, groups.sizes
    if sizes.size and np.all(sizes == sizes[0]):  # as one table: no loop over queries
        table = scores.reshape(len(sizes), -1)
        best = np.argsort(-table, axis=1, kind="stable")[:, :top]
        worth = np.take_along_axis(groups.utilities.reshape(table.shape), best, axis=1)
        return np.asarray(worth.mean(axis=1))
    out = np.zeros(len(bounds) - 1)
    for g, (start, end) in enumerate(itertools.pairwise(bounds)):
        best = np.argsort(-scores[start:end], kind="stable")[:top]
        out[g] = groups.utilities[start:end][best].mean()
    return out


def _best(scores: Double1d, groups: Groups) -> Int1d:
    """Return each query's best-scored pair: ``(n_groups,)``."""
    bounds = itertools.pairwise(groups.offsets.tolist())
    return np.array([a + int(np.argmax(scores[a:b])) for a, b in bounds], dtype=np.int64)


def served_utility(
    head: ConditionalLogit, scores: Double1d, standing: Double1d, groups: Groups
) -> Double1d:
    """Return what each query would have had of a head that lets another's answer stand if unsure.

    Parameters
    ----------
    head
        Says how unsure leads are.
    scores
        Shape ``(n_pairs,)``; the head's, of weights that have not seen the query.
    standing
        Shape ``(n_pairs,)``; those of the weights that would serve otherwise.
    """
    best, kept = _best(scores, groups), _best(standing, groups)
    stds = head.stds(groups.features[best] - groups.features[kept])
    sure = scores[best] - scores[kept] > ABSTAIN_Z * stds
    return groups.utilities[np.where(sure, best, kept)]


def _gain(
    ours: Double1d,
    theirs: Double1d,
    population: PopulationGain | None,
    confidence: float = CONFIDENCE,
) -> Gain:
    difference = ours - theirs
    n = len(difference)
    if population is not None:
        estimate = posterior_gain(difference, population, confidence)
        return Gain(estimate.mean, estimate.low, n, confidence)
    return Gain(float(difference.mean()), one_sided_low(difference, CONFIDENCE), n)


def _decide(
    over_shared: Gain,
    over_baseline: Gain,
    shared: Gain,
    *,
    collapsed: bool,
    unjudged: Switch | None,
) -> tuple[Switch, str]:
    """Choose; ``unjudged`` serves until there is enough to judge by, None if that is known."""
    n = shared.n
    if n < MIN_HELD_OUT and unjudged is not None:
        return unjudged, (
            f"only {n} held-out queries; {MIN_HELD_OUT} are needed before the shared head is judged"
        )
    if collapsed:
        personal, why = False, "the personal head scores every choice alike"
    else:
        # Over shared, and not below the baseline that would serve if shared does not.
        better = over_shared.low > 0.0 and (shared.low > 0.0 or over_baseline.low > 0.0)
        personal = better and n >= MIN_HELD_OUT
        why = f"personal {over_shared.mean:+.4f} over shared (lower bound {over_shared.low:+.4f})"
        if better and not personal:
            why += f", but of {n} held-out queries only; {MIN_HELD_OUT} are needed"
    if personal:
        return "personal", why
    sure = (
        "expected, counting what other users gained"
        if shared.confidence == SHARED_CONFIDENCE  # its bound is the mean itself
        else f"lower bound {shared.low:+.4f}"
    )
    against = f"shared {shared.mean:+.4f} over baseline ({sure})"
    return ("shared" if shared.low > 0.0 else "baseline"), f"{why}; {against}"


def judge(
    groups: Groups,
    prior: Prior,
    baseline: Float1d,
    *,
    top: int,
    gains: PopulationGains | None = None,
    abstaining: bool = False,
) -> Verdict:
    """Fit a head, choose its prior's strength, and decide what serves.

    Parameters
    ----------
    groups
        The user's queries, oldest first; those whose candidates are all worth the same teach the
        head nothing and are judged without being fitted on.
    prior
        The population's.
    baseline
        Weights of the baseline, shape ``(d,)``.
    top
        How many of a query's best pairs count (records shown; 1 for answers).
    gains
        What the base's training users gained; None if it does not say.
    abstaining
        Whether the personal head, where it is not sure, lets the answer stand that would be given
        without it, as one of the adapter's does where it serves (``ActiveHead.standing``).
    """
    n_groups = groups.n_groups
    kept = groups.teaches()
    choice = choose_prior_scale(prior, groups if kept.all() else groups.take(kept))
    head = choice.head
    personal_scores = head.scores(groups.features)
    personal_scores[np.repeat(kept, groups.sizes)] = choice.scores
    baseline_scores = groups.features @ baseline.astype(np.float64)
    shared_scores = groups.features @ prior.mean
    baseline_u = top_utility(baseline_scores, groups, top)
    shared_u = top_utility(shared_scores, groups, top)
    personal_u = top_utility(personal_scores, groups, top)
    held_out = slice(n_groups // 2, n_groups)
    n = n_groups - n_groups // 2
    if n == 0:
        return Verdict(
            head, unjudged_switch(prior), "no held-out queries yet", baseline_u, shared_u,
            personal_u, held_out, None, None,
        )  # fmt: skip
    known = (
        (None, None) if gains is None else (gains.personal_over_shared, gains.shared_over_baseline)
    )
    shared = _gain(shared_u[held_out], baseline_u[held_out], known[1], SHARED_CONFIDENCE)
    if abstaining:
        standing = shared_scores if shared.low > 0.0 else baseline_scores
        personal_u = served_utility(head, personal_scores, standing, groups)
    over_shared = _gain(personal_u[held_out], shared_u[held_out], known[0])
    over_baseline = _gain(personal_u[held_out], baseline_u[held_out], None)
    collapsed = is_collapsed(personal_scores, groups.offsets)
    switch, reason = _decide(
        over_shared, over_baseline, shared, collapsed=collapsed,
        unjudged=unjudged_switch(prior) if gains is None else None,
    )  # fmt: skip
    return Verdict(
        head, switch, reason, baseline_u, shared_u, personal_u, held_out, shared, over_shared
    )
