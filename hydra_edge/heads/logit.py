"""One user's head: a conditional logit with a Gaussian population prior (docs/adr/0002).

Owns fitting, the online update, scoring and abstention. Refuses to choose its own prior
strength (``loo``) or to say whether it helps (``evaluate`` does, on held-out history).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError
from hydra_edge.heads.checks import checked_scale
from hydra_edge.heads.groups import Groups, Prior
from hydra_edge.heads.objective import Problem, Solution, minimise, solve_positive
from hydra_edge.matrices import checked, symmetric
from hydra_edge.types import Double1d, Double2d

# How many standard deviations the best candidate must lead the answer by that the user would have
# had anyway. Count a harm twice as much as a help: replacing that answer pays when
# P(better) = Phi(z) exceeds 2/3, that is z = 0.43, rounded up.
ABSTAIN_Z = 0.5
# A precision may come back from storage as float32.
_STORED_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Lead:
    """How far one candidate leads another, in score.

    ``std`` is that of the difference under the Laplace posterior of the weights.
    """

    difference: float
    std: float


class ConditionalLogit:
    """Linear scores whose softmax over a query's candidates follows their utility.

    Until fitted it is the shared head: ``weight_`` is the prior's mean. Methods that learn
    from part of the evidence return a new head, ``fit`` replaces what was learned.

    Parameters
    ----------
    prior
        What the population does, and how much its users differ.
    prior_scale
        Factor on the prior's precision; more than 1 keeps the head nearer to the population.

    Attributes
    ----------
    weight_
        Shape ``(d,)``, float64; the MAP estimate.
    precision_
        Shape ``(d, d)``, float64; the Hessian there (Laplace, Bishop 2006, section 4.4).

    Examples
    --------
    The user prefers candidates with a high first feature; ten queries say so:

    >>> prior = Prior(np.zeros(2), np.eye(2), tau=0.5)
    >>> query = (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]))
    >>> head = ConditionalLogit(prior).fit(Groups.stack([query] * 10, dim=2))
    >>> head.weight_.round(2)
    array([ 0.72, -0.72])
    >>> int(head.scores(np.array([[0.2, 0.1], [0.9, 0.1]])).argmax())
    1
    """

    weight_: Double1d
    precision_: Double2d

    def __init__(self, prior: Prior, *, prior_scale: float = 1.0) -> None:
        self.prior = prior
        self.prior_scale = checked_scale(prior_scale)
        self._reset()

    def _reset(self) -> None:
        self.weight_ = self.prior.mean
        self.precision_ = self.prior.precision * self.prior_scale

    @classmethod
    def from_state(
        cls,
        weight: npt.ArrayLike,
        precision: npt.ArrayLike,
        prior: Prior,
        *,
        prior_scale: float = 1.0,
    ) -> Self:
        """Rebuild a head from what was stored of it (float32 will do).

        Parameters
        ----------
        weight
            Shape ``(d,)``.
        precision
            Shape ``(d, d)``, symmetric positive definite but for rounding.
        prior
            The prior it was fitted under.
        prior_scale
            The scale it was fitted with.

        Raises
        ------
        ShapeError
            If shapes disagree with the prior, or values cannot be a head's.
        """
        head = cls(prior, prior_scale=prior_scale)
        head.weight_ = checked("Head weights", weight, (prior.dim,)).copy()
        head.precision_ = symmetric("Head precision", precision, prior.dim, lift=_STORED_ROUNDING)
        return head

    def fit(self, groups: Groups) -> Self:
        """Fit to a user's queries by damped Newton from the prior's mean.

        Parameters
        ----------
        groups
            Queries with candidates; none at all gives the prior back.

        Returns
        -------
        Self
            ``weight_`` and ``precision_`` set; what was learned before is dropped.

        Raises
        ------
        ShapeError
            If the groups have another number of features than the prior.
        """
        require_dim(groups, self.prior)
        if groups.n_groups == 0:
            self._reset()
            return self
        problem = Problem.of(self.prior, groups)
        return self.take(problem, minimise(problem, self.prior_scale))

    def take(self, problem: Problem, solution: Solution) -> Self:
        """Take over what minimising a problem at this head's prior scale has found."""
        data = problem.root @ solution.hessian @ problem.root.T
        self.weight_ = problem.to_weight(solution.v)
        self.precision_ = self.prior.precision * self.prior_scale + (data + data.T) / 2.0
        return self

    def update(self, features: npt.ArrayLike, target: npt.ArrayLike) -> Self:
        """Learn one new query by one Newton step on the stored Laplace posterior.

        With g and H of the new query's cross-entropy at the present weights, the new
        precision is precision + H and the weights move by -inv(precision + H) g.

        Parameters
        ----------
        features
            Shape ``(m, d)``, one row a candidate.
        target
            Shape ``(m,)``, >= 0, sums to 1; one-hot for a pick.

        Returns
        -------
        Self
            A new head; this one is unchanged.

        Raises
        ------
        ShapeError
            If shapes disagree, or the target is not a distribution.
        """
        goal = np.asarray(target, dtype=np.float64)
        # Utilities play no part where targets are given.
        one = Groups.stack([(self._rows(features), goal)], self.prior.dim, targets=[goal])
        head = type(self)(self.prior, prior_scale=self.prior_scale)
        centred = one.features - one.features.mean(axis=0)
        scores = centred @ self.weight_
        p = np.exp(scores - scores.max())
        p /= p.sum()
        spread = np.sqrt(p)[:, None] * (centred - p @ centred)
        head.precision_ = self.precision_ + spread.T @ spread
        gradient = (p - goal) @ centred
        head.weight_ = self.weight_ - solve_positive(head.precision_, gradient)
        return head

    def scores(self, features: npt.ArrayLike) -> Double1d:
        """Score candidates of one query; higher is better, only differences mean anything.

        Parameters
        ----------
        features
            Shape ``(m, d)``.

        Returns
        -------
        Double1d
            Shape ``(m,)``, nats: ``features @ weight_``.

        Raises
        ------
        ShapeError
            If the features have another width than the head.
        """
        result: Double1d = self._rows(features) @ self.weight_
        return result

    def lead(self, features: npt.ArrayLike, first: int, second: int) -> Lead:
        """Compare two candidates of one query.

        Parameters
        ----------
        features
            Shape ``(m, d)``.
        first, second
            Their rows.

        Raises
        ------
        ShapeError
            If there are no such rows, or the width is not the head's.
        """
        rows = self._candidates(features, first, second)
        apart = rows[first] - rows[second]
        return Lead(float(apart @ self.weight_), float(self.stds(apart[None, :])[0]))

    def stds(self, apart: Double2d) -> Double1d:
        """Say how unsure the head is of leads.

        Parameters
        ----------
        apart
            Shape ``(n, d)``; each one candidate's features less another's.

        Returns
        -------
        Double1d
            Shape ``(n,)``; standard deviations under the Laplace posterior of the weights.
        """
        variances = np.einsum("ij,ji->i", apart, solve_positive(self.precision_, apart.T))
        return np.asarray(np.sqrt(np.maximum(variances, 0.0)))

    def abstains(self, features: npt.ArrayLike, *, standing: int) -> bool:
        """Say whether to let another answer stand although this head's best scores higher.

        True if the best candidate's lead over that answer is within ``ABSTAIN_Z`` standard
        deviations of the Laplace posterior. False if that answer is itself the best.

        Parameters
        ----------
        features
            Shape ``(m, d)``.
        standing
            Row of the answer that would be given without this head.

        Raises
        ------
        ShapeError
            If there is no such row, or the width is not the head's.
        """
        rows = self._candidates(features, standing)
        best = int(np.argmax(rows @ self.weight_))
        lead = self.lead(rows, best, standing)
        return best != standing and lead.difference <= ABSTAIN_Z * lead.std

    def _rows(self, features: npt.ArrayLike) -> Double2d:
        return checked("Features", features, (None, self.prior.dim))

    def _candidates(self, features: npt.ArrayLike, *wanted: int) -> Double2d:
        rows = self._rows(features)
        if rows.shape[0] == 0:
            raise ShapeError(
                "Candidates cannot be compared: got none; expected at least one row of "
                "features. Answer without a head if the pool is empty."
            )
        if missing := [row for row in wanted if not 0 <= row < rows.shape[0]]:
            raise ShapeError(
                f"Candidate does not exist: got row {missing[0]}; expected 0 to "
                f"{rows.shape[0] - 1}. Pass its row among these features."
            )
        return rows


def require_dim(groups: Groups, prior: Prior) -> None:
    """Refuse groups whose features are not the prior's.

    Raises
    ------
    ShapeError
        If the widths differ.
    """
    if groups.dim != prior.dim:
        raise ShapeError(
            f"Groups do not fit the prior: got {groups.dim} features; expected {prior.dim}. "
            "Compute them with the base the prior came with."
        )
