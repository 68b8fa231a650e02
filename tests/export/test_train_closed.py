"""Training with closed sets: a base that knows them, and figures of users it has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from conftest import HashEncoder
from neutral_base import DIM, neutral_base

from export.classify import Classifiers
from export.data import UserHistory
from export.labels import PoolLabel
from export.metalearn import Recipe
from export.pack import Card, pack
from export.train import FOLDS, TrainedMaps, train_maps
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.features import FeatureMap
from hydra_edge.features.closed import Classifier
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

RECORDS = 14
TASK = "film_rating"
WORDS = {"dull": "1", "dry": "2", "mild": "3", "fine": "4", "grand": "5"}
USERS = [f"u{i:02}" for i in range(12)]


def reviewer(name: str, *, told: bool, task: str = TASK) -> UserHistory:
    """Make a user whose stars a word of the text tells; or whom only the text's own words do."""
    rng = np.random.default_rng(int(name[1:]))
    records = []
    for i in range(RECORDS):
        word = str(rng.choice(list(WORDS)))
        text = f"a {word} film" if told else f"{name} wrote the words {name}x{i} {name}y{i}"
        records.append(Record(text, WORDS[word], task, id=f"{name}-{i}", time=float(i)))
    return UserHistory(name, task, tuple(records))


def headliner(name: str) -> UserHistory:
    records = tuple(
        Record(f"the news of {i}", f"News {i}", "news_headline", id=f"{name}h{i}", time=float(i))
        for i in range(RECORDS)
    )
    return UserHistory(name, "news_headline", records)


def pools(user: UserHistory) -> list[PoolLabel]:
    """Let an LLM guess: always the same, whatever the text."""
    texts = ("1", "3", "5") if user.task != "news_headline" else ("News 1", "Old 2")
    answers = tuple(Completion(t, greedy=i == 0) for i, t in enumerate(texts))
    return [
        PoolLabel("llm", user.user, record.id, i, (user.records[i - 1].id,), answers, user.task)
        for i, record in enumerate(user.records)
        if i >= 6
    ]


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    return neutral_base(tmp_path)


def passing(task: str) -> list[UserHistory]:
    """Three users with one record each: no past, yet their answers count among everyone's."""
    return [
        UserHistory(f"passing{i}", task, (Record("a rare film", "3", task, id="r"),))
        for i in range(3 if task == TASK else 0)
    ]


def train(base: Bundle, users: list[UserHistory]) -> TrainedMaps:
    by_task: dict[str, list[UserHistory]] = {}
    for user in users:
        by_task.setdefault(user.task, []).append(user)
    return train_maps(
        bundle=base, encoder=HashEncoder(base.base_id, DIM), users_by_task=by_task,
        everyone={task: [*of, *passing(task)] for task, of in by_task.items()},
        pools=[pool for user in users for pool in pools(user)], seed=0,
        report=lambda *_: None, recipe=Recipe(k=2, steps=2, users=3, queries=6),
    )  # fmt: skip


def test_train_of_closed_sets_makes_a_base_that_knows_them(base: Bundle, tmp_path: Path) -> None:
    users = [reviewer(name, told=True) for name in USERS]
    made = train(base, [*users, *map(headliner, USERS[:8])])
    assert made.closed_sets == {TASK: ("1", "2", "3", "4", "5")}
    assert made.quality["classifiers"][TASK]["accuracy"] == 1.0
    assert made.quality["classifiers"][TASK]["users"] == len(USERS) + 3
    figures = made.quality["adapter"][TASK]["utility"]
    assert figures["shared"] > 0.99 > figures["baseline"]
    packed = pack(
        tmp_path / "out", encoder=base.encoder_path, tokenizer=base.tokenizer_path,
        card=Card(DIM, "mean", 16, {}, {}), maps=made.arrays, features=made.features,
        closed_sets=made.closed_sets,
    )  # fmt: skip
    features = FeatureMap(load_bundle(packed.path), "adapter")
    known = features.classifier(BUILTIN[TASK])
    assert known is not None
    vectors = HashEncoder(base.base_id, DIM).encode([f"a {word} film" for word in WORDS])
    shares = known.shares(vectors, list(WORDS.values()))
    assert (np.diag(shares) > 0.8).all()
    rare = known.shares(HashEncoder(base.base_id, DIM).encode(["rare"]), list(WORDS.values()))
    assert rare.argmax() == 2, "people without a past teach what everyone answers"
    assert features.classifier(BUILTIN["news_headline"]) is None


def leaky_for_user(
    known: Classifiers, task: str, _user: str, _inside: frozenset[str]
) -> Classifier | None:
    """Give what everyone answers, the user and all who are left out among them."""
    return None if task not in known.labels else known.without(task, frozenset())


def test_train_knows_no_answers_of_who_is_left_out(
    base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text has words of its own, which tell its stars only to who has seen that record."""

    def found() -> tuple[float, float]:
        made = train(base, [reviewer(name, told=False) for name in USERS])
        assert made.quality["classifiers"][TASK]["accuracy"] < 0.4
        place = made.features["adapter"].index("log_known_fit")
        weight = float(made.arrays[f"adapter.prior.{TASK}.mean"].ravel()[place])
        return weight, made.quality["adapter"][TASK]["utility"]["shared"]

    weight, utility = found()
    assert abs(weight) < 0.15
    assert utility < 0.7
    # What these figures would be if anybody's answers leaked.
    monkeypatch.setattr(Classifiers, "for_user", leaky_for_user)
    weight, utility = found()
    assert weight > 0.25
    assert utility > 0.75


def test_train_judges_each_fold_by_features_that_know_none_of_it(
    base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[frozenset[str], set[str]] = {}
    real = Classifiers.for_user

    def heard(of: Classifiers, task: str, user: str, inside: frozenset[str]) -> Classifier | None:
        told.setdefault(inside, set()).add(user)
        return real(of, task, user, inside)

    monkeypatch.setattr(Classifiers, "for_user", heard)
    train(base, [reviewer(name, told=True) for name in USERS])
    folds = [inside for inside in told if inside]
    assert len(folds) == FOLDS
    assert sorted(user for fold in folds for user in fold) == USERS
    # Those of the fold too: learning alone would only look at the others.
    assert all(users == set(USERS) for users in told.values())


def test_train_lends_to_ratings_never_seen_nothing_of_who_is_left_out(
    base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def utility() -> float:
        made = train(base, [reviewer(name, told=False) for name in USERS])
        return float(made.quality["adapter"]["rating"]["utility"]["shared"])

    assert utility() < 0.7
    monkeypatch.setattr(Classifiers, "lent", leaky_for_user)
    assert utility() > 0.75


def test_train_takes_no_answer_from_a_single_user(base: Bundle) -> None:
    users = [reviewer(name, told=True, task="mood") for name in USERS]
    secret = replace(
        users[0],
        records=(*users[0].records[:-1], replace(users[0].records[-1], output="2.5")),
    )
    made = train(base, [secret, *users[1:]])
    assert made.closed_sets == {"mood": ("1", "2", "3", "4", "5")}
    assert made.arrays["adapter.classifier.mood.weight"].shape == (5, DIM)
