"""How everyone answers a text: a linear classifier for each closed set, from records alone.

Multinomial logistic regression on the inputs' vectors, over every record of every training
user; no LLM is asked. The device adds its probabilities as features and corrects them by the
user's own answers (``hydra_edge.features.closed``). Users are left out, never records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.data import LEAST_USERS, UserHistory, shared_labels
from hydra_edge.closedset import answer_key
from hydra_edge.encoder import TextEncoder
from hydra_edge.features.closed import Classifier, borrow
from hydra_edge.spelling import fold_label, number
from hydra_edge.tasks import TaskSpec, find_task
from hydra_edge.types import Double2d, Float2d, Int1d, JsonDict

RIDGES = (0.03, 0.1, 0.3, 1.0)  # strengths of the penalty, chosen by users left out
LEAST_LABELS = 2  # between fewer nothing is to be told apart, and no manifest may name them
_STEPS = 200
_BIAS_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class ClosedSet:
    """All training records of a closed set.

    ``labels`` are the answers; ``inputs`` (n, dim) and ``answered`` (n,) (which label) are all
    users' records, ``users`` (n,) whose.
    """

    task: str
    labels: tuple[str, ...]
    inputs: Float2d
    answered: Int1d
    users: tuple[str, ...]

    @classmethod
    def of(cls, task: str, users: Sequence[UserHistory], encoder: TextEncoder) -> ClosedSet:
        """Collect a task's records; those with an answer that hardly anybody gives are left."""
        records = [(user.user, record) for user in users for record in user.records]
        spec = find_task(task, outputs=[record.output for _, record in records])
        kind, labels = spec.kind, shared_labels(spec, users)
        place = {answer_key(label, kind): i for i, label in enumerate(labels)}
        kept = [(u, r) for u, r in records if answer_key(r.output, kind) in place]
        return cls(
            task=task,
            labels=labels,
            inputs=encoder.encode([r.input for _, r in kept]),
            answered=np.array([place[answer_key(r.output, kind)] for _, r in kept], dtype=np.int64),
            users=tuple(u for u, _ in kept),
        )

    @property
    def is_shared(self) -> bool:
        """Whether there is something to be told apart, and no few people are told of by it."""
        return len(self.labels) >= LEAST_LABELS and len(set(self.users)) >= LEAST_USERS

    def rows(self, users: Iterable[str]) -> Int1d:
        """Return where these users' records are."""
        return np.flatnonzero(np.isin(np.array(self.users), sorted(users)))


def fit_classifier(inputs: Float2d, answered: Int1d, labels: int, ridge: float) -> Double2d:
    """Fit multinomial logistic regression.

    Returns
    -------
    Double2d
        Shape ``(dim + 1, labels)``, the bias last.
    """
    from scipy.optimize import minimize

    x = np.hstack((inputs, np.ones((len(inputs), 1)))).astype(np.float64)
    target = np.eye(labels)[answered]
    held = np.full((x.shape[1], 1), ridge)
    held[-1] = _BIAS_RIDGE

    def loss(flat: Double2d) -> tuple[float, Double2d]:
        weight = flat.reshape(x.shape[1], labels)
        log_p = log_softmax(x @ weight)
        value = 0.5 * float((held * weight**2).sum()) - float((target * log_p).sum())
        return value, (x.T @ (np.exp(log_p) - target) + held * weight).ravel()

    start = np.zeros(x.shape[1] * labels)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return np.asarray(found.x.reshape(x.shape[1], labels))


def log_softmax(scores: Double2d) -> Double2d:
    """Return log-probabilities by row."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


class Classifiers:
    """Classifiers of all closed sets, each fitted without whoever must be left out.

    Parameters
    ----------
    sets
        Closed sets by task, of ``LEAST_LABELS`` labels or more.
    folds
        Users who may have to be left out together.
    """

    def __init__(self, sets: Mapping[str, ClosedSet], folds: Sequence[frozenset[str]]) -> None:
        self._sets = sets
        self._fold_of = {user: fold for fold in folds for user in fold}
        self._made: dict[tuple[str, frozenset[str]], Classifier] = {}
        self.report: JsonDict = {}
        self._ridge = {task: self._choose(task, folds) for task in sorted(sets)}

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The answers of each closed set, in the order of a classifier's rows."""
        return {task: of.labels for task, of in self._sets.items()}

    def without(self, task: str, left: frozenset[str]) -> Classifier:
        """Return the classifier of a task that has seen none of these users."""
        key = (task, left)
        if key not in self._made:
            of, ridge = self._sets[task], self._ridge[task]
            rows = np.setdiff1d(np.arange(len(of.users)), of.rows(left))
            weight = fit_classifier(of.inputs[rows], of.answered[rows], len(of.labels), ridge)
            self._made[key] = Classifier(
                tuple(map(fold_label, of.labels)),
                weight[:-1].T.astype(np.float32),
                weight[-1].astype(np.float32),
            )
        return self._made[key]

    def for_user(self, task: str, user: str, inside: frozenset[str]) -> Classifier | None:
        """Return what a fold may know of a user's answers: neither theirs nor its left-out ones'.

        None for free text and for sets that are left out.
        """
        if task not in self._sets:
            return None
        return self.without(task, inside | self._fold_of.get(user, frozenset()))

    def lent(self, task: str, user: str, inside: frozenset[str]) -> Classifier | None:
        """Return what a device would borrow for such a set if the base had never seen it.

        A rating borrows one that is like it: with one rating to learn from, that same one,
        doubted. None for free text, and for labels, which speak by their own names.
        """
        of = self._sets.get(task)
        if of is None or any(number(label) is None for label in of.labels):
            return None
        known = self.without(task, inside | self._fold_of.get(user, frozenset()))
        return borrow({task: known}, TaskSpec(task, kind="rating", labels=of.labels))

    def _choose(self, task: str, folds: Sequence[frozenset[str]]) -> float:
        """Choose a set's ridge by what users left out would lose."""
        of = self._sets[task]
        losses = dict.fromkeys(RIDGES, 0.0)
        right = dict.fromkeys(RIDGES, 0)
        count = 0
        for fold in folds:
            test = of.rows(fold)
            if not len(test):
                continue
            rest = np.setdiff1d(np.arange(len(of.users)), test)
            count += len(test)
            for ridge in RIDGES:
                weight = fit_classifier(of.inputs[rest], of.answered[rest], len(of.labels), ridge)
                log_p = log_softmax(of.inputs[test] @ weight[:-1] + weight[-1])
                losses[ridge] -= float(log_p[np.arange(len(test)), of.answered[test]].sum())
                right[ridge] += int((log_p.argmax(axis=1) == of.answered[test]).sum())
        best = min(losses, key=losses.__getitem__)
        self.report[task] = {
            "answers": len(of.labels), "records": len(of.users), "users": len(set(of.users)),
            "ridge": best, "left_out": count,
            "accuracy": round(right[best] / max(count, 1), 4),
        }  # fmt: skip
        return best
