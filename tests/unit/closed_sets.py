"""Closed sets of a few answers, what everyone answers in them, and one user's past."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hydra_edge.features import Pool
from hydra_edge.features.closed import CLOSED_FEATURES, Classifier, ClosedPast
from hydra_edge.history import History
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import Candidate, Record

LABELS = TaskSpec("mood", "label", labels=("calm", "wild", "odd"), instruction="", max_tokens=4)
STARS = BUILTIN["film_rating"]
# Everyone answers "calm" along the first axis and "wild" along the second.
KNOWN = Classifier(
    ("calm", "wild"),
    np.array([[2, 0, 0, 0], [0, 2, 0, 0]], dtype=np.float32),
    np.array([0, 0], dtype=np.float32),
)
THUMBS = Classifier(
    ("1", "2", "3"),
    np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0]], dtype=np.float32),
    np.zeros(3, dtype=np.float32),
)
E = np.eye(4, dtype=np.float32)


def past_of(task: TaskSpec, answers: list[str], rows: list[tuple[int, str]]) -> ClosedPast:
    records = [Record(f"in {i}", out, task.name, id=f"r{i}") for i, (_, out) in enumerate(rows)]
    inputs = E[[axis for axis, _ in rows]] if rows else np.zeros((0, 4), dtype=np.float32)
    history = History.build(task, records, inputs, np.zeros_like(inputs))
    return ClosedPast.of(history, answers)


def column(out: np.ndarray, name: str) -> np.ndarray:
    return out[:, CLOSED_FEATURES.index(name)]


def pool_of(texts: Sequence[str], vectors: np.ndarray) -> Pool:
    """Make the pool of a query along the first axis that was shown no record."""
    return Pool(
        "in", E[0], tuple(Candidate(t) for t in texts), vectors, (), E[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
