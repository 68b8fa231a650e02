"""Classifiers of closed sets: what everyone answers, without whoever must be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from export.classify import (
    RIDGES,
    Classifiers,
    ClosedSet,
    fit_classifier,
    log_softmax,
)
from export.data import LEAST_USERS, UserHistory
from export.episodes import Episode, UserEpisodes, informed
from hydra_edge.adapter import merge
from hydra_edge.features import ADAPTER_FEATURES, Pool, adapter_features
from hydra_edge.features.adapter import CLOSED_COLUMNS
from hydra_edge.features.closed import ClosedPast, borrow
from hydra_edge.history import History
from hydra_edge.tasks import BUILTIN, TaskSpec
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


def test_no_small_step_away_from_a_fit_loses_less() -> None:
    """Against the loss written out anew: log-likelihood and ridge, the bias all but free."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 3)).astype(np.float32), rng.integers(0, 3, 30)

    def loss(weight: np.ndarray) -> float:
        total = 0.5 * 0.4 * float((weight[:3] ** 2).sum()) + 0.5e-3 * float((weight[3] ** 2).sum())
        for row, answer in zip(x, y, strict=True):
            scores = row @ weight[:3] + weight[3]
            total += float(np.log(np.exp(scores).sum()) - scores[answer])
        return total

    found = fit_classifier(x, y, 3, 0.4)
    least = loss(found)
    for place in np.ndindex(found.shape):
        for step in (-0.02, 0.02):
            moved = found.copy()
            moved[place] += step
            assert loss(moved) > least


def test_what_can_be_told_apart_is_learned_for_texts_not_seen() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 120)
    x = (2 * np.eye(3)[y] + 0.3 * rng.standard_normal((120, 3))).astype(np.float32)
    weight = fit_classifier(x[:60], y[:60], 4, 0.1)
    scores = x[60:] @ weight[:-1] + weight[-1]
    assert (scores.argmax(axis=1) == y[60:]).all()
    assert (np.exp(log_softmax(scores))[:, 3] < 0.02).all(), "nobody ever gave it"


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


def test_answers_are_named_from_as_many_users_on_however_often_they_gave_them() -> None:
    for n in (LEAST_USERS - 1, LEAST_USERS):
        users = [usual(f"u{i}") for i in range(4)]
        users += [user(f"v{i}", [(2, "4.5")] * 20) for i in range(n)]
        found = ClosedSet.of(TASK, users, Axes())
        assert ("4.5" in found.labels) == (n == LEAST_USERS)
        assert len(found.users) == 4 * 8 + 20 * (n if n == LEAST_USERS else 0)


def test_an_answer_written_in_several_ways_is_one_and_as_the_task_declares_it() -> None:
    users = [usual(f"u{i}") for i in range(5)]
    users += [user(f"v{i}", [(1, odd)]) for i, odd in enumerate(("5.000", "5.0", " 5"))]
    both = ClosedSet.of(TASK, users, Axes())
    assert both.labels == ("1", "2", "3", "4", "5"), "how one user writes it is nobody's business"
    assert both.answered.tolist() == [0, 4] * 20 + [4] * 3
    known = Classifiers({TASK: both}, [frozenset({"u0"}), frozenset({"u1"})])
    shares = known.without(TASK, frozenset()).shares(np.eye(DIM, dtype=np.float32)[1:2], ["5"])
    assert shares[0, 0] > 0.9


def test_labels_that_differ_in_case_are_one_as_a_manifest_demands() -> None:
    rows = [(0, "Fine"), (1, "bad"), (0, "fine"), (0, " FINE")]
    users = [user(f"u{i}", rows, "their_own_labels") for i in range(4)]
    found = ClosedSet.of("their_own_labels", users, Axes())
    folded = [label.casefold() for label in found.labels]
    assert sorted(folded) == ["bad", "fine"]
    row = dict(zip(folded, range(2), strict=True))
    assert found.answered.tolist() == [row[a] for a in ("fine", "bad", "fine", "fine")] * 4


def test_the_ridge_and_its_figures_are_judged_on_users_left_out() -> None:
    """To each text every user answers another thing: nobody else's answers tell theirs."""
    users = [user(f"u{i}", [(a, str((i + a) % 5 + 1)) for a in range(5)] * 9) for i in range(5)]
    folds = [frozenset({f"u{i}"}) for i in range(5)]
    known = Classifiers({TASK: ClosedSet.of(TASK, users, Axes())}, folds)
    assert known.report[TASK] == {
        "answers": 5, "records": 225, "users": 5, "left_out": 225, "accuracy": 0.0,
        "ridge": max(RIDGES),
    }  # fmt: skip
    alike = [usual(f"u{i}") for i in range(5)]
    learned = Classifiers({TASK: ClosedSet.of(TASK, alike, Axes())}, folds)
    assert learned.report[TASK]["accuracy"] == 1.0
    assert learned.report[TASK]["ridge"] == min(RIDGES)


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
        "rating", answers, np.eye(2, dtype=np.float32), np.zeros((0, DIM), np.float32),
        np.zeros(0, np.int64), np.zeros(0, np.float32),
    )  # fmt: skip
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


def asked(task: TaskSpec) -> tuple[Classifiers, Pool, History, UserEpisodes]:
    """Ask u0, one of four usual users, about axis 1, in a task they answer as films."""
    users = [usual(f"u{i}") for i in range(4)]
    of = ClosedSet.of(TASK, users, Axes())
    axes = np.eye(DIM, dtype=np.float32)
    records = [replace(record, task=task.name) for record in users[0].records]
    history = History.build(task, records, of.inputs[:8], of.inputs[:8])
    pool = Pool(
        "1 of u0", axes[1], merge((), task), axes[:5], (), axes[:0],
        np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32),
    )  # fmt: skip
    past = ClosedPast.of(history, [c.text for c in pool.candidates])
    raw = adapter_features(pool, history)
    made = Episode(8, raw, np.zeros(5, np.float32), axes[1], (axes[:5],), past)
    known = Classifiers({TASK: of}, [frozenset({"u0"}), frozenset({"u1"})])
    return known, pool, history, UserEpisodes("u0", TASK, "rating", (made,))


def test_informed_is_what_a_device_would_compute_on_that_base() -> None:
    known, pool, history, of_user = asked(BUILTIN[TASK])
    told = informed([of_user], known, frozenset({"u1"}))
    without = known.without(TASK, frozenset({"u0", "u1"}))
    np.testing.assert_array_equal(
        told[0].episodes[0].raw, adapter_features(pool, history, without)
    )  # fmt: skip
    full = adapter_features(pool, history, known.without(TASK, frozenset({"u1"})))
    assert not np.array_equal(told[0].episodes[0].raw, full), "the user's own answers tell"


def test_lent_is_what_a_device_would_borrow_for_a_rating_never_seen() -> None:
    other = TaskSpec("mood", kind="rating", labels=BUILTIN[TASK].labels)
    known, pool, history, of_user = asked(other)
    lent = informed([of_user], known, frozenset({"u1"}), lent=True)
    without = known.without(TASK, frozenset({"u0", "u1"}))
    device = adapter_features(pool, history, borrow({TASK: without}, other))
    np.testing.assert_array_equal(lent[0].episodes[0].raw, device)
    assert not device[:, CLOSED_COLUMNS][:, :2].any(), "what is borrowed is not known"
    raw = of_user.episodes[0].raw
    assert not np.array_equal(device, raw), "yet it says something"


def test_labels_and_texts_are_lent_nothing() -> None:
    users = [user(f"u{i}", [(0, "dull"), (1, "grand")] * 4, task="movie_tag") for i in range(4)]
    known = Classifiers({"movie_tag": ClosedSet.of("movie_tag", users, Axes())}, [frozenset()])
    assert known.for_user("movie_tag", "u0", frozenset()) is not None
    assert known.lent("movie_tag", "u0", frozenset()) is None
    assert known.lent("paper_title", "u0", frozenset()) is None


@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_a_stronger_ridge_is_less_sure(ridge: float) -> None:
    x = np.eye(2, dtype=np.float32)[[0, 1] * 5]
    y = np.array([0, 1] * 5)
    weight = fit_classifier(x, y, 2, ridge)
    p = np.exp(log_softmax(np.array([[1.0, 0.0, 1.0]]) @ weight))[0, 0]
    assert (p > 0.9) if ridge < 1 else (0.5 < p < 0.8)
