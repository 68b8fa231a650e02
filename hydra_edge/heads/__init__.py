"""The head: one user's linear weights, fitted as a conditional logit under a population prior.

Owns the numerics of choosing: what a head is fitted on (``groups``), the
objective and its Newton step (``objective``), the head itself (``logit``), leave-one-query-out
and what is chosen by it (``loo``), and the bounds the gate rests on (``bounds``).
Refuses to know texts, tasks, feature names or files: arrays in, arrays out.
"""

from hydra_edge.heads.bounds import (
    PopulationGain,
    is_collapsed,
    one_sided_low,
    posterior_gain,
    student_t_quantile,
)
from hydra_edge.heads.groups import Groups, Prior, target_distribution
from hydra_edge.heads.logit import ABSTAIN_Z, ConditionalLogit
from hydra_edge.heads.loo import PRIOR_SCALES, choose_prior_scale, choose_span

__all__ = [
    "ABSTAIN_Z",
    "PRIOR_SCALES",
    "ConditionalLogit",
    "Groups",
    "PopulationGain",
    "Prior",
    "choose_prior_scale",
    "choose_span",
    "is_collapsed",
    "one_sided_low",
    "posterior_gain",
    "student_t_quantile",
    "target_distribution",
]
