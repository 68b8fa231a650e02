"""Classifiers of closed sets: what everyone answers, without whoever must be left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from export.classify import RIDGES, Classifiers, ClosedSet, fit_classifier, log_softmax
from export.data import UserHistory
from export.episodes import Episode, UserEpisodes, informed
from hydra_edge.features import ADAPTER_FEATURES
from hydra_edge.features.adapter import CLOSED_COLUMNS
from hydra_edge.features.closed import ClosedPast
from hydra_edge.types import Float2d, Progress, Record

TASK = "film_rating"
DIM = 6


class Axes:
    """An encoder whose texts name the axis they lie on."""

    dim = DIM
    base_id = "axes"

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        return np.eye(DIM, dtype=np.float32)[[int(text.split()[0]) for text in texts]]


def user(name: str, rows: Sequence[tuple[int, str]], task: str = TASK) -> UserHistory:
    records = [
        Record(f"{axis} of {name}", answer, task, id=f"{name}{i}")
        for i, (axis, answer) in enumerate(rows)
    ]
    return UserHistory(name, task, tuple(records))


def usual(name: str, n: int = 4) -> UserHistory:
    """Somebody who gives 1 star to axis 0 and 5 to axis 1."""
    return user(name, [(0, "1"), (1, "5")] * n)


def test_a_fit_is_where_the_loss_has_no_slope() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 3, 40)
    weight = fit_classifier(x.astype(np.float32), y, 3, 0.5)
    wide = np.hstack((x.astype(np.float32), np.ones((40, 1))))
    held = np.array([[0.5], [0.5], [0.5], [1e-3]])
    slope = wide.T @ (np.exp(log_softmax(wide @ weight)) - np.eye(3)[y]) + held * weight
    assert np.abs(slope).max() < 1e-3


def test_answers_hardly_anybody_gave_are_not_named() -> None:
    users = [user(f"u{i}", [(0, "fine"), (1, "bad")]) for i in range(3)]
    users += [user("secret", [(0, "my neighbour")] * 9), user("pair", [(0, "rare")] * 9)]
    users += [user("pair2", [(0, "RARE ")] * 9)]
    found = ClosedSet.of("their_own_labels", [replace_task(u) for u in users], Axes())
    assert {label.casefold() for label in found.labels} == {"fine", "bad"}
    assert set(found.users) == {"u0", "u1", "u2"}


def replace_task(of: UserHistory) -> UserHistory:
    rows = [(int(r.input.split()[0]), r.output) for r in of.records]
    return user(of.user, rows, "their_own_labels")


def test_declared_answers_are_named_though_nobody_gave_them() -> None:
    found = ClosedSet.of(TASK, [usual("a")], Axes())
    assert found.labels == ("1", "2", "3", "4", "5")


def test_without_knows_the_others_only() -> None:
    odd = user("odd", [(2, "3")] * 12)
    users = [*(usual(f"u{i}") for i in range(4)), odd]
    both = ClosedSet.of(TASK, users, Axes())
    known = Classifiers({TASK: both}, [frozenset({"odd"}), frozenset({"u0", "u1"})])
    found = known.without(TASK, frozenset({"odd"}))
    alone = Classifiers({TASK: ClosedSet.of(TASK, users[:-1], Axes())}, [frozenset({"u0", "u1"})])
    ridge = known.report[TASK]["ridge"]
    assert ridge in RIDGES
    rest = both.rows(f"u{i}" for i in range(4))
    again = fit_classifier(both.inputs[rest], both.answered[rest], 5, ridge)
    np.testing.assert_allclose(found.weight, again[:-1].T, atol=1e-5)
    assert alone.report[TASK]["users"] == 4


def test_nobodys_features_know_the_answers_of_their_own_fold() -> None:
    leak = np.eye(DIM, dtype=np.float32)[2:3]
    folds = [frozenset({"odd", "u0"}), frozenset({"u1", "u2"}), frozenset({"u3"})]
    users = [*(usual(f"u{i}") for i in range(4)), user("odd", [(2, "3")] * 40)]
    known = Classifiers({TASK: ClosedSet.of(TASK, users, Axes())}, folds)

    def of_three(name: str, inside: frozenset[str]) -> float:
        classifier = known.for_user(TASK, name, inside)
        assert classifier is not None
        return float(classifier.shares(leak, ["3"])[0, 0])

    assert of_three("odd", frozenset()) < 0.1
    assert of_three("u0", frozenset()) < 0.1, "nor of those who are left out with them"
    assert of_three("u1", folds[0]) < 0.1, "nor of the users left out of the fold"
    assert of_three("u1", frozenset()) > 0.5, "the plant is found where nobody is left out"
    assert known.for_user("paper_title", "odd", frozenset()) is None


def test_informed_fills_closed_sets_and_leaves_what_it_was_given() -> None:
    users = [usual(f"u{i}") for i in range(4)]
    known = Classifiers(
        {TASK: ClosedSet.of(TASK, users, Axes())}, [frozenset({"u0"}), frozenset({"u1"})]
    )
    answers = ("1", "5")
    past = ClosedPast(
        answers, np.eye(2, dtype=np.float32), np.zeros((0, DIM), np.float32), np.zeros(0, np.int64)
    )
    raw = np.zeros((2, len(ADAPTER_FEATURES)), dtype=np.float32)
    query = np.eye(DIM, dtype=np.float32)[1]
    sides = (np.zeros((2, DIM), np.float32),)
    worth = np.array([0, 1], np.float32)
    closed = UserEpisodes("u0", TASK, "rating", (Episode(3, raw, worth, query, sides, past),))
    text = UserEpisodes("u0", "paper_title", "text", (Episode(3, raw, worth, query, sides),))
    told, same = informed([closed, text], known, frozenset())
    assert not raw.any()
    known_fit = told.episodes[0].raw[:, CLOSED_COLUMNS][:, 0]
    assert known_fit[1] > 0.5 > known_fit[0]
    assert same.episodes[0].raw is raw


@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_a_stronger_ridge_is_less_sure(ridge: float) -> None:
    x = np.eye(2, dtype=np.float32)[[0, 1] * 5]
    y = np.array([0, 1] * 5)
    weight = fit_classifier(x, y, 2, ridge)
    p = np.exp(log_softmax(np.array([[1.0, 0.0, 1.0]]) @ weight))[0, 0]
    assert (p > 0.9) if ridge < 1 else (0.5 < p < 0.8)
