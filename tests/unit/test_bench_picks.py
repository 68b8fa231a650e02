"""Simulated picks: a head learns what is taken, and nothing where there is nothing to learn."""

from __future__ import annotations

import numpy as np
import pytest

from bench.picks import AFTER, HABITS, STEPS, Offer, change, learn, simulate, taken
from hydra_edge.heads import Prior


def offers(n: int = 80, m: int = 6, d: int = 5, seed: int = 0) -> list[Offer]:
    """Make offers whose first feature is the length of the text, the others noise."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        lengths = rng.permutation(m) + 1
        features = rng.standard_normal((m, d)).astype(np.float32)
        features[:, 0] = (lengths - lengths.mean()) / 2
        made.append(Offer(tuple(" ".join(["word"] * k) for k in lengths), features))
    return made


def prior(strength: float, d: int = 5) -> Prior:
    return Prior(np.zeros(d), np.eye(d) * strength, 0.1)


def test_taken_is_what_the_person_minds_least() -> None:
    offer = Offer(("Two Words", "one", "three words here"), np.zeros((3, 1), dtype=np.float32))
    assert [taken(offer, HABITS[h]) for h in ("shortest", "longest", "fewest capitals")] == [
        1,
        2,
        1,
    ]


@pytest.mark.parametrize("habit", ["shortest", "longest"])
def test_learn_sees_a_habit_that_a_feature_shows(habit: str) -> None:
    shares = simulate(prior(3.0), offers(), seed=0)[habit]
    assert len(shares) == len(STEPS)
    assert shares[-1] > 0.9 > shares[0]


def test_learn_is_slower_under_a_stronger_prior() -> None:
    weak, strong = (simulate(prior(s), offers(), seed=0)["shortest"] for s in (3.0, 3000.0))
    assert weak[1] > strong[1]


def test_learn_nothing_from_picks_the_features_do_not_show() -> None:
    made = offers()
    rng = np.random.default_rng(1)
    picks = [int(rng.integers(len(o.texts))) for o in made]
    liked = [frozenset({p}) for p in picks]
    assert abs(learn(prior(30.0), made, picks, liked)[-1] - 1 / 6) < 0.15


def test_change_is_followed_by_a_fit_that_chooses_how_far_back() -> None:
    found = change(prior(3.0), offers(), "shortest", "longest", seed=0)
    assert {len(shares) for shares in found.values()} == {len(AFTER)}
    assert max(found["everything"]) < 0.2
    assert min(found["far_back"][1:]) > 0.8


def test_change_of_nothing_loses_nothing() -> None:
    found = change(prior(3.0), offers(), "shortest", "shortest", seed=0)
    assert found["far_back"] == found["everything"]
    assert min(found["everything"]) > 0.9
