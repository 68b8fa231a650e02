"""A base that an organisation trained on its own tasks: what it knows, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from hydra_edge.adapter import choose, merge
from hydra_edge.bundle import Bundle
from hydra_edge.engine import Engine
from hydra_edge.evaluate import judge
from hydra_edge.heads import Groups, Prior
from hydra_edge.population import unfitted_switch
from hydra_edge.store import Store
from hydra_edge.tasks import CustomTasks, TaskSpec
from hydra_edge.types import Completion, Record, Role

TICKETS = ("disk full", "login", "printer", "other")


@pytest.fixture
def text_only(bundle: Bundle) -> Bundle:
    """Return a base that was taught no label: weights of 0, and nobody's gains."""
    maps = {name: array for name, array in bundle.maps.items() if "movie_tag" not in name}
    for role in ("reranker", "adapter"):
        name = f"{role}.prior.label.mean"
        maps[name] = np.zeros_like(maps[name])
        maps.pop(f"{role}.gain.label", None)
    return replace(bundle, maps=maps, manifest=replace(bundle.manifest, closed_sets={}))


def tags(n: int = 12) -> list[Record]:
    return [
        Record(f"a story {i}", ("comedy", "sci-fi")[i % 2], "movie_tag", f"r{i}", float(i))
        for i in range(n)
    ]


def test_a_base_that_knows_no_labels_leaves_them_to_the_llm(
    text_only: Bundle,
    hash_encoder,
) -> None:
    with Store.in_memory() as store:
        store.add(tags())
        engine = Engine(store, text_only, hash_encoder)
        task = engine.task("movie_tag")
        history = engine.history(task)
        for role in ("reranker", "adapter"):
            assert unfitted_switch(text_only, task, role) == "baseline"
        votes = merge([Completion("comedy", greedy=i == 0) for i in range(8)], task)
        vector = engine.encode_query("two friends")
        pool = engine.pool("two friends", vector, votes, [], history, engine.lexical(history))
        choice = choose(engine.active(task, "adapter"), pool, history)
        assert choice.text == "comedy"


def test_the_shipped_base_serves_labels_by_its_own_head(bundle: Bundle) -> None:
    task = TaskSpec("mood", "label", labels=("calm", "wild"))
    roles: tuple[Role, ...] = ("reranker", "adapter")
    assert [unfitted_switch(bundle, task, role) for role in roles] != ["baseline"] * 2


def test_few_queries_judge_no_head_that_was_taught_nothing() -> None:
    features = np.array([[0.0], [1.0]] * 3)
    groups = Groups.stack(
        [(features[i : i + 2], np.array([0.0, 1.0], np.float32)) for i in (0, 2, 4)], dim=1,
        targets=[np.array([0.0, 1.0])] * 3,
    )  # fmt: skip
    for mean, serves in ((0.0, "baseline"), (1.0, "shared")):
        prior = Prior(np.array([mean]), np.eye(1), 0.1)
        verdict = judge(groups, prior, np.ones(1, np.float32), top=1)
        assert verdict.switch == serves


def knowing(bundle: Bundle) -> Bundle:
    """Add two sets, about which the base has nothing to say."""
    sets, maps = dict(bundle.manifest.closed_sets), dict(bundle.maps)
    for name, labels in (("ticket", TICKETS), ("points", ("1", "2"))):
        sets[name] = labels
        for part in ("weight", "bias"):
            like = maps[f"adapter.classifier.news_category.{part}"]
            size = tuple(len(labels) if n == len(sets["news_category"]) else n for n in like.shape)
            maps[f"adapter.classifier.{name}.{part}"] = np.zeros(size, np.float32)
    manifest = replace(bundle.manifest, closed_sets=MappingProxyType(sets))
    return replace(bundle, maps=maps, manifest=manifest)


def test_a_set_the_base_knows_is_closed_from_the_first_record(
    bundle: Bundle,
    hash_encoder,
) -> None:
    with Store.in_memory() as store:
        store.add([Record("it is full", "disk full", "ticket", "a", 1.0)])
        store.add([Record("it was good", "3", "points", "b", 1.0)])
        engine = Engine(store, knowing(bundle), hash_encoder)
        assert (engine.task("ticket").kind, set(engine.task("ticket").labels)) == (
            "label", set(TICKETS),
        )  # fmt: skip
        assert engine.task("points").labels == ("1", "2", "3")
        assert engine.task("points").kind == "rating"
        assert engine.shown_task(engine.task("ticket"), []).labels == engine.task("ticket").labels
        plain = Engine(store, bundle, hash_encoder)
        assert plain.task("ticket").kind == "text"


def test_a_task_of_the_users_own_wins_over_what_the_base_knows(
    bundle: Bundle,
    hash_encoder,
) -> None:
    mine = TaskSpec("ticket", "text", instruction="Answer the ticket.")
    with Store.in_memory() as store:
        store.add([Record("it is full", "Delete something.", "ticket", "a", 1.0)])
        engine = Engine(store, knowing(bundle), hash_encoder, CustomTasks({"ticket": mine}, {}))
        assert engine.task("ticket") == mine
