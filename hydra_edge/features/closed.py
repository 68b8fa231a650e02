"""What a text itself says of a closed set's members: to people at large, and to this user.

A base knows, for the closed sets it was trained on, how everyone answers such a text: a linear
classifier of its vector. What the user answered otherwise is learned on the device, in closed
form from cached vectors (kernel ridge regression on what the classifier left unexplained), and
for a set the base has never seen from the user's records alone. Neither needs an LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hydra_edge.history import History
from hydra_edge.tasks import answer_key, number
from hydra_edge.types import Float1d, Float2d, Int1d
from hydra_edge.utility import agreement_matrix

CLOSED_FEATURES = (
    "known_fit",  # agreement to expect, by how all users answer such a text
    "log_known_fit",  # log of the answer's own probability by the same
    "own_fit",  # the same two, moved by what this user answered to texts like it
    "log_own_fit",
)
RECENT = 300  # records whose answers are learned from: the cost grows with their cube
_HELD = 1.0  # ridge: how strongly the user's own map is held to the base's
_KNOWN_FLOOR, _OWN_FLOOR = 0.003, 0.02  # added inside logarithms


@dataclass(frozen=True, eq=False)
class Classifier:
    """A base's multinomial logistic regression for one closed set.

    ``labels`` are case-folded; ``weight`` (l, dim) and ``bias`` (l,) are in their order.
    """

    labels: tuple[str, ...]
    weight: Float2d
    bias: Float1d

    def shares(self, vectors: Float2d, answers: Sequence[str]) -> Float2d:
        """Return how probable each answer is: ``(n, m)`` for ``(n, dim)``; unknown ones 0."""
        scores = (vectors @ self.weight.T + self.bias).astype(np.float64)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        place: dict[str | float | None, int] = {}
        for i, label in enumerate(self.labels):
            place[label] = i
            place.setdefault(number(label), i)  # 4.0 is the 4 it knows
        place.pop(None, None)
        out = np.zeros((len(vectors), len(answers)))
        for column, answer in enumerate(answers):
            row = place.get(answer.strip().casefold(), place.get(number(answer)))
            if row is not None:
                out[:, column] = p[:, row]
        return np.asarray(out, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ClosedPast:
    """What the user answered of ``m`` possible answers: the latest ``n`` records, oldest first.

    ``inputs`` (n, dim); ``answered`` (n,) which answer each record's output is; ``agreement``
    (m, m) of the answers with each other.
    """

    answers: tuple[str, ...]
    agreement: Float2d
    inputs: Float2d
    answered: Int1d

    @classmethod
    def of(cls, history: History, answers: Sequence[str]) -> ClosedPast:
        """Look a history's outputs up among the answers; records with others are left out."""
        start = max(0, len(history) - RECENT)
        kind = history.task.kind
        place = {answer_key(answer, kind): i for i, answer in enumerate(answers)}
        found = [place.get(answer_key(r.output, kind), -1) for r in history.records[start:]]
        answered = np.array(found, dtype=np.int64)
        kept = np.flatnonzero(answered >= 0)
        inputs = history.inputs[start:]
        return cls(
            answers=tuple(answers),
            agreement=agreement_matrix(answers, history.task),
            inputs=inputs if len(kept) == len(inputs) else inputs[kept],
            answered=answered[kept],
        )


def _moved(past: ClosedPast, query: Float1d, at_query: Float1d, at_past: Float2d) -> Float1d:
    """Move probabilities ``(m,)`` by what the past's ``(n, m)`` left unexplained."""
    if not len(past.inputs):
        return at_query
    given = past.inputs.astype(np.float64)
    left = np.eye(len(past.answers))[past.answered] - at_past
    gram = given @ given.T
    gram[np.diag_indices_from(gram)] += _HELD
    moved = np.maximum(at_query + (given @ query) @ np.linalg.solve(gram, left), 0.0)
    return np.asarray(moved / max(float(moved.sum()), 1e-9))


def closed_features(past: ClosedPast, query: Float1d, classifier: Classifier | None) -> Float2d:
    """Compute the features of a closed set's answers.

    Parameters
    ----------
    past
        ``m`` answers and who gave them, before the query.
    query
        The query's vector, ``(dim,)``.
    classifier
        What the base knows of this set; None: the first two features are 0, and the user's
        own map starts from how often the user gave each answer.

    Returns
    -------
    Float2d
        Shape ``(m, len(CLOSED_FEATURES))``, float32, unscaled.
    """
    m = len(past.answers)
    out = np.zeros((m, len(CLOSED_FEATURES)), dtype=np.float32)
    if classifier is None:
        count = np.bincount(past.answered, minlength=m) + 0.5
        known = count / count.sum()
        before = np.broadcast_to(known, (len(past.answered), m))
    else:
        known = classifier.shares(query[None], past.answers)[0]
        before = classifier.shares(past.inputs, past.answers)
        out[:, 0] = past.agreement @ known
        out[:, 1] = np.log(known + _KNOWN_FLOOR)
    own = _moved(past, query, known, before)
    out[:, 2] = past.agreement @ own
    out[:, 3] = np.log(own + _OWN_FLOOR)
    return out
