"""What a text itself says of a closed set's members: to people at large, and to this user.

A base knows, for the closed sets it was trained on, how everyone answers such a text: a linear
classifier of its vector. How this user's answers differ is learned on the device, in closed form
from cached vectors: first by what the user answers where everyone answers what (a transfer),
then by kernel ridge regression on what that left unexplained. A set the base has never seen
borrows the classifier of one that is like it, or labels speak by the meaning of their names; where
neither is to be had, the user's records speak alone. Nothing of it needs an LLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hydra_edge.closedset import answer_key
from hydra_edge.history import History
from hydra_edge.spelling import fold_label, number, rating_value
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Double1d, Double2d, Float1d, Float2d, Int1d, Kind
from hydra_edge.utility import agreement_matrix

CLOSED_FEATURES = (
    "known_fit",  # agreement to expect, by how all users answer such a text
    "log_known_fit",  # log of the answer's own probability by the same
    "own_fit",  # the same two, moved by what this user answered to texts like it
    "log_own_fit",
)
RECENT = 300  # records whose answers are learned from: the cost grows with their cube
# How strongly a user's own map is held to what it starts from (ridge), and how many records the
# belief is worth that the user answers as everyone does. Ratings vary more around what is usual.
_HELD: Mapping[Kind, float] = {"label": 0.5, "rating": 3.0}
_AS_EVERYONE: Mapping[Kind, float] = {"label": 5.0, "rating": 20.0}
_BORROWED = 2.0  # records the same is worth of a classifier that was not fitted to the set
# How far such a one is doubted: of a set that is like it, and of the names of labels alone.
_DOUBT_LIKE, _DOUBT_NAMES = 0.3, 0.5
_NAMES = 0.05  # temperature of a text's likeness to the names of labels, in cosine
_LEAST_NAMED = 0.5  # of a set's labels another set must name to lend its classifier
_KNOWN_FLOOR, _OWN_FLOOR = 0.003, 0.02  # added inside logarithms


@dataclass(frozen=True, eq=False)
class Classifier:
    """A base's multinomial logistic regression for one closed set.

    ``labels`` (l of them) are as ``fold_label`` has them; ``weight`` (l, dim) and ``bias`` (l,) are
    in their order. ``doubt`` [0, 1] is how little it may have to do with the set it is asked about:
    0 if it was fitted to that very set.
    """

    labels: tuple[str, ...]
    weight: Float2d
    bias: Float1d
    doubt: float = 0.0

    def probabilities(self, vectors: Float2d) -> Double2d:
        """Return how probable each of its own labels is: ``(n, l)`` for ``(n, dim)``."""
        scores = (vectors @ self.weight.T + self.bias).astype(np.float64)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def reading(self, answers: Sequence[str]) -> Double2d:
        """Say which of ``m`` answers each label means, ``(l, m)``: by name; of unknown ones 0."""
        place: dict[str | float | None, int] = {}
        for i, label in enumerate(self.labels):
            place[label] = i
            place.setdefault(number(label), i)  # 4.0 is the 4 it knows
        place.pop(None, None)
        out = np.zeros((len(self.labels), len(answers)))
        for column, answer in enumerate(answers):
            row = place.get(fold_label(answer), place.get(number(answer)))
            if row is not None:
                out[row, column] = 1.0
        return out

    def shares(self, vectors: Float2d, answers: Sequence[str]) -> Float2d:
        """Return how probable each answer is: ``(n, m)`` for ``(n, dim)``; unknown ones 0."""
        return np.asarray(self.probabilities(vectors) @ self.reading(answers), dtype=np.float32)


def _on_scale(labels: Sequence[str], answers: Sequence[str]) -> Double2d:
    """Place the ratings of one scale between those of another, ``(l, m)``, rows adding up to 1.

    The lowest means the lowest and the highest the highest, whatever the numbers are.
    """
    value, wanted = (np.array([rating_value(x) for x in of]) for of in (labels, answers))
    place, order = (value - value.min()) / (np.ptp(value) or 1.0), np.argsort(wanted)
    known = ((wanted - wanted.min()) / (np.ptp(wanted) or 1.0))[order]
    columns = [np.interp(place, known, at) for at in np.eye(len(answers))]
    out = np.zeros((len(labels), len(answers)))
    out[:, order] = np.stack(columns, axis=1)
    return out


def is_within(task: TaskSpec, labels: Sequence[str]) -> bool:
    """Say whether a base that knows these labels of a task knows what its answers mean.

    A rating beyond their range is on another scale, whatever the task is called: 4 of 10 is not 4
    of 5. A label beyond them is one more.
    """
    if task.kind != "rating":
        return True
    known = [n for n in map(number, labels) if n is not None]
    given = [n for n in map(number, task.labels) if n is not None]
    return bool(known) and all(min(known) <= n <= max(known) for n in given)


def borrow(known: Mapping[str, Classifier], task: TaskSpec) -> Classifier | None:
    """Find the classifier of the known set that is most like one the base has never seen.

    A rating borrows another rating's, whose scale has the nearest number of members; a label task
    that of the set which names most of its labels, if that is at least half of them.

    Returns
    -------
    Classifier or None
        With doubt; None if no known set is like it.
    """
    likeness: dict[str, float] = {}
    for name in sorted(known):
        labels = known[name].labels
        is_rating = all(number(label) is not None for label in labels)
        if not task.labels or is_rating != (task.kind == "rating"):
            continue
        if is_rating:
            likeness[name] = -abs(len(labels) - len(task.labels))
        else:
            named = float(known[name].reading(task.labels).sum()) / len(task.labels)
            if named >= _LEAST_NAMED:
                likeness[name] = named
    if not likeness:
        return None
    return replace(known[max(likeness, key=likeness.__getitem__)], doubt=_DOUBT_LIKE)


def by_names(labels: Sequence[str], vectors: Float2d) -> Classifier:
    """Take a text for the label whose name, of vectors ``(m, dim)``, is most like it."""
    names = tuple(map(fold_label, labels))
    bias = np.zeros(len(names), dtype=np.float32)
    return Classifier(names, vectors / np.float32(_NAMES), bias, _DOUBT_NAMES)


@dataclass(frozen=True, eq=False)
class ClosedPast:
    """What the user answered of ``m`` possible answers: the latest ``n`` records, oldest first.

    ``inputs`` (n, dim); ``answered`` (n,) which answer each record's output is; ``recency`` (n,)
    their weights by age among each other; ``agreement`` (m, m) of the answers with each other.
    """

    kind: Kind
    answers: tuple[str, ...]
    agreement: Float2d
    inputs: Float2d
    answered: Int1d
    recency: Float1d

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
            kind=kind,
            answers=tuple(answers),
            agreement=agreement_matrix(answers, history.task),
            inputs=inputs if len(kept) == len(inputs) else inputs[kept],
            answered=answered[kept],
            recency=history.recency[len(history) - len(kept) :],
        )


def _transfer(past: ClosedPast, classifier: Classifier, at_past: Double2d) -> Double2d:
    """Learn what this user answers where everyone answers what: ``(l, m)``, rows adding up to 1.

    A row counts the user's records by how probable its label was, ``at_past`` (n, l), after
    records imagined before the first: answered as everyone does, or by the user's habit.
    """
    if classifier.doubt and past.kind == "rating":
        meant = _on_scale(classifier.labels, past.answers)
    else:
        meant = classifier.reading(past.answers)
    given = np.eye(len(past.answers))[past.answered] * past.recency[:, None]
    habit = _habit(past)
    weight = _BORROWED if classifier.doubt else _AS_EVERYONE[past.kind]
    sure = (1.0 - classifier.doubt) * meant
    imagined = sure + (1.0 - sure.sum(axis=1, keepdims=True)) * habit
    counted = at_past.T @ given + weight * imagined
    return np.asarray(counted / counted.sum(axis=1, keepdims=True))


def _habit(past: ClosedPast) -> Double1d:
    """Return how often the user gave each answer of late, ``(m,)``."""
    count = np.bincount(past.answered, past.recency, minlength=len(past.answers)) + 0.5
    return np.asarray(count / count.sum())


def _moved(past: ClosedPast, query: Float1d, at_query: Double1d, at_past: Double2d) -> Double1d:
    """Move probabilities ``(m,)`` by what the past's ``(n, m)`` left unexplained."""
    if not len(past.inputs):
        return at_query
    given = past.inputs.astype(np.float64)
    left = np.eye(len(past.answers))[past.answered] - at_past
    gram = given @ given.T
    gram[np.diag_indices_from(gram)] += _HELD[past.kind] / past.recency
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
        What is known of this set or may have to do with it. Where there is doubt, the first two
        features are 0; None: the user's own map starts from how often each answer was given.

    Returns
    -------
    Float2d
        Shape ``(m, len(CLOSED_FEATURES))``, float32, unscaled.
    """
    m = len(past.answers)
    out = np.zeros((m, len(CLOSED_FEATURES)), dtype=np.float32)
    if classifier is None:
        known = _habit(past)
        own = _moved(past, query, known, np.broadcast_to(known, (len(past.answered), m)))
    else:
        at_query = classifier.probabilities(query[None])
        at_past = classifier.probabilities(past.inputs)
        if not classifier.doubt:
            shares = (at_query @ classifier.reading(past.answers))[0]
            out[:, 0] = past.agreement @ shares
            out[:, 1] = np.log(shares + _KNOWN_FLOOR)
        transfer = _transfer(past, classifier, at_past)
        own = _moved(past, query, (at_query @ transfer)[0], at_past @ transfer)
    out[:, 2] = past.agreement @ own
    out[:, 3] = np.log(own + _OWN_FLOOR)
    return out
