"""A build on an organisation's own data: few users, labels of their own, damaged or few files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from conftest import HashEncoder
from neutral_base import DIM, neutral_base

from export.agreement import LIMITS, check_agreement
from export.data import UserHistory
from export.labels import PoolLabel
from export.metalearn import Recipe
from export.pack import Card, pack
from export.priors import Labelled, priors_of_role
from export.stages import INPUTS_FILE, Stage, run_stages
from export.train import TrainedMaps, train_maps
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.errors import BundleError
from hydra_edge.features import feature_names
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, JsonDict, Record, Role

pytestmark = pytest.mark.export

TASK = "their_desk"
ISSUES = ("printer", "network", "password", "screen")


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    return neutral_base(tmp_path)


def clerk(number: int, shared: int) -> UserHistory:
    """Make a user who names desks in a way of their own, but for the first ``shared`` of them."""
    name, records = f"u{number}", []
    for i in range(14):
        which = (i * 3 + number) % 4
        label = ISSUES[which] if which < shared else f"{name} {ISSUES[which]}"
        text = f"the {ISSUES[which]} is broken {i}"
        records.append(Record(text, label, TASK, id=f"{name}-{i}", time=float(i)))
    return UserHistory(name, TASK, tuple(records))


def writer(number: int, task: str = TASK) -> UserHistory:
    """Make a user who answers in free text, each time another."""
    name = f"u{number}"
    records = [
        Record(f"the {ISSUES[i % 4]} is broken {i}",
               f"{ISSUES[(i + number) % 4]} of {name} was broken on day {i}, and it is mended now",
               task, id=f"{name}-{i}", time=float(i))
        for i in range(14)
    ]  # fmt: skip
    return UserHistory(name, task, tuple(records))


def pools(user: UserHistory) -> list[PoolLabel]:
    texts = dict.fromkeys(record.output for record in user.records)
    answers = tuple(Completion(t, greedy=i == 0) for i, t in enumerate(texts))
    return [
        PoolLabel("llm", user.user, r.id, i, (user.records[i - 1].id,), answers, user.task)
        for i, r in enumerate(user.records)
        if i >= 11
    ]


def train(base: Bundle, users: list[UserHistory], asked: list[PoolLabel]) -> TrainedMaps:
    return train_maps(
        bundle=base, encoder=HashEncoder(base.base_id, DIM), users_by_task={TASK: users},
        everyone={TASK: users}, pools=asked, seed=0, report=lambda *_: None,
        recipe=Recipe(k=2, steps=2, users=3, queries=6),
    )  # fmt: skip


@pytest.mark.parametrize(("shared", "known"), [(0, 0), (1, 0), (2, 2)])
def test_set_with_fewer_than_two_shared_labels_has_no_classifier(
    base: Bundle, tmp_path: Path, shared: int, known: int
) -> None:
    users = [clerk(i, shared) for i in range(4)]
    made = train(base, users, [pool for user in users for pool in pools(user)])
    assert {task: len(labels) for task, labels in made.closed_sets.items()} == (
        {TASK: known} if known else {}
    )
    assert (f"adapter.classifier.{TASK}.weight" in made.arrays) == bool(known)
    packed = pack(
        tmp_path / "out", encoder=base.encoder_path, tokenizer=base.tokenizer_path,
        card=Card(DIM, "mean", 16, {}, {}), maps=made.arrays, features=made.features,
        closed_sets=made.closed_sets,
    )  # fmt: skip
    assert f"adapter.prior.{TASK}.mean" in load_bundle(packed.path).maps


def test_train_without_an_answer_says_what_is_needed(base: Bundle) -> None:
    with pytest.raises(BundleError, match=r"found no answered pool.*without --replay.*only label"):
        train(base, [clerk(0, 2)], [])


def test_train_on_answers_of_one_writer_says_what_is_needed(base: Bundle) -> None:
    users = [writer(i) for i in range(2)]
    asked = [replace(pool, plain=pool.completions) for pool in pools(users[0])]
    with pytest.raises(BundleError, match=r"usable answers for 1 users.*two or more"):
        train(base, users, asked)


def test_task_that_one_user_was_asked_about_is_served_by_its_kind(
    base: Bundle, tmp_path: Path
) -> None:
    many, alone = [writer(i) for i in range(4)], writer(4, "lone_text")
    rated = replace(
        clerk(5, 0), task="stars",
        records=tuple(replace(r, output=str(i % 3 + 1), task="stars")
                      for i, r in enumerate(clerk(5, 0).records)),
    )  # fmt: skip
    asked = [
        replace(p, plain=p.completions if p.task != "stars" else ())
        for user in (*many, alone, rated) for p in pools(user)
    ]  # fmt: skip
    of = {TASK: many, "lone_text": [alone], "stars": [rated]}
    made = train_maps(
        bundle=base, encoder=HashEncoder(base.base_id, DIM), users_by_task=of, everyone=of,
        pools=asked, seed=0, report=lambda *_: None,
        recipe=Recipe(k=2, steps=2, users=3, queries=6),
    )  # fmt: skip
    assert set(made.quality["adapter"]) == {TASK, "text"}
    assert set(made.quality["zero_shot"]) == {TASK, "text"}
    assert not [name for name in made.arrays if "lone_text" in name or "stars" in name]
    assert "adapter.gain.rating" not in made.arrays
    pack(
        tmp_path / "out", encoder=base.encoder_path, tokenizer=base.tokenizer_path,
        card=Card(DIM, "mean", 16, {}, {}), maps=made.arrays, features=made.features,
        closed_sets=made.closed_sets,
    )  # fmt: skip


def test_few_users_teach_no_classifier(base: Bundle) -> None:
    tags = tuple(BUILTIN["movie_tag"].labels)
    users = [
        replace(user, task="movie_tag", records=tuple(
            replace(r, output=tags[(i + n) % 3], task="movie_tag")
            for i, r in enumerate(user.records)
        ))
        for n, user in enumerate(clerk(i, 4) for i in range(3))
    ]  # fmt: skip
    for n, known in ((2, set()), (3, {"movie_tag"})):
        of = {"movie_tag": users[:n]}
        made = train_maps(
            bundle=base, encoder=HashEncoder(base.base_id, DIM), users_by_task=of, everyone=of,
            pools=[p for user in users[:n] for p in pools(user)], seed=0, report=lambda *_: None,
            recipe=Recipe(k=2, steps=2, users=3, queries=6),
        )  # fmt: skip
        assert set(made.closed_sets) == known


@pytest.mark.parametrize("shared", [0, 4])
def test_train_on_answers_of_one_user_says_what_is_needed(base: Bundle, shared: int) -> None:
    users = [clerk(i, shared) for i in range(2)]
    with pytest.raises(BundleError, match=r"usable answers for 1 users.*two or more"):
        train(base, users, pools(users[0]))


def test_closed_set_nobody_was_asked_about_teaches_what_everyone_answers(base: Bundle) -> None:
    asked = [clerk(i, 4) for i in range(4)]
    other = [
        replace(user, task="floor", records=tuple(replace(r, task="floor") for r in user.records))
        for user in asked
    ]
    made = train_maps(
        bundle=base, encoder=HashEncoder(base.base_id, DIM), users_by_task={TASK: asked},
        everyone={"floor": other, TASK: asked}, pools=[p for user in asked for p in pools(user)],
        seed=0, report=lambda *_: None, recipe=Recipe(k=2, steps=2, users=3, queries=6),
    )  # fmt: skip
    assert set(made.closed_sets) == {"floor", TASK}
    assert "adapter.classifier.floor.weight" in made.arrays


def test_task_of_a_single_user_is_served_by_its_kind() -> None:
    rng, names = np.random.default_rng(0), feature_names("reranker")

    def of(user: str, task: str, kind: str) -> Labelled:
        items = tuple(
            (rng.standard_normal((5, len(names))).astype(np.float32),
             rng.random(5).astype(np.float32))
            for _ in range(5)
        )  # fmt: skip
        return Labelled(user, task, kind, items)

    users = [of(f"u{i}", "many", "text") for i in range(4)]
    users += [of("alone", "few", "text"), of("alone", "stars", "rating")]
    arrays, report = priors_of_role(users, "reranker", names, names[0])
    assert set(report) == {"many", "text"}, "nor has a kind of a single user one of its own"
    assert report["text"]["users"] == 5, "what is known of them counts for the kind"
    assert {name.split(".")[2] for name in arrays} == {"many", "text"}


class Steps:
    """Two stages, and what was said of them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.said: list[str] = []

    def run(self, *only: str) -> list[str]:
        def write(folder: Path) -> None:
            (folder / "in").mkdir()
            (folder / "in" / "made").write_text("whole")

        stages = [
            Stage("first", write, ("in/made",)),
            Stage("second", write, ("in/made",), after=("first",)),
        ]
        self.said = []
        return run_stages(stages, self.work, only=only, say=self.said.append)


@pytest.mark.parametrize("only", [(), ("first",)])
def test_damaged_output_is_made_again_and_nothing_else(
    tmp_path: Path, only: tuple[str, ...]
) -> None:
    steps = Steps(tmp_path / "work")
    steps.run()
    made = steps.work / "first" / "in" / "made"
    made.write_text("wh")
    assert steps.run(*only) == ["first"]
    assert steps.said[0] == "first: runs, for its outputs are not what it left: in/made"
    assert made.read_text() == "whole"
    assert steps.run() == []


def test_stages_finished_by_earlier_releases_go_on_counting_as_finished(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "work")
    steps.run()
    for name in ("first", "second"):
        path = steps.work / name / INPUTS_FILE
        stated = json.loads(path.read_text())
        del stated["outputs"]
        path.write_text(json.dumps(stated))
    assert steps.run() == []


def figures(change: float, error: float, order: float = 0.98) -> JsonDict:
    found: JsonDict = {limit.figure: order for limit in LIMITS} | {"users": 9}
    for role in get_args(Role):
        found[f"{role}_utility_change"] = change
        found[f"{role}_utility_change_error"] = error
    return found


@pytest.mark.parametrize(
    ("change", "error"), [(0.03, 0.001), (0.3, 0.1), (-0.004, 0.001), (-0.0049, 0.01)]
)
def test_int8_that_gains_or_loses_little_passes(change: float, error: float) -> None:
    check_agreement(figures(change, error))


@pytest.mark.parametrize(
    ("change", "error"), [(-0.006, 0.001), (-0.0051, 0.005), (-0.02, 0.01), (float("nan"), 0.001)]
)
def test_int8_that_loses_is_refused_with_what_to_do(change: float, error: float) -> None:
    with pytest.raises(
        BundleError,
        match=r"reranker_utility_change = .*or more.*more users or records.*--only agree",
    ):
        check_agreement(figures(change, error))


def test_int8_that_orders_otherwise_is_refused_whatever_it_gains() -> None:
    with pytest.raises(BundleError, match=r"reranker_kendall = 0\.96 \(expected 0\.97 to 1\.0"):
        check_agreement(figures(0.1, 0.001, order=0.96))
