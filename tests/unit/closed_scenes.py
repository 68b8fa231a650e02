"""Closed sets with a history and records shown, whose answers come one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from conftest import HashEncoder

from hydra_edge.active import ActiveHead
from hydra_edge.adapter import choose, merge
from hydra_edge.bundle import Bundle
from hydra_edge.engine import Engine
from hydra_edge.features import Pool
from hydra_edge.features.adapter import ADAPTER_FEATURES
from hydra_edge.history import History
from hydra_edge.store import Store
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Record

COLOURS = ("amber", "blue", "crimson", "dun")
STARS = ("1", "2", "3", "4", "5")
TASKS = {
    "colour": TaskSpec("colour", "label", labels=COLOURS),
    "stars": TaskSpec("stars", "rating", labels=STARS),
}


def records(task: str) -> list[Record]:
    labels = TASKS[task].labels
    return [
        Record(
            f"a note about thing {i % 7} of kind {i % 3}", labels[(i * i) % len(labels)], task,
            id=f"r{i}", time=float(i),
        )
        for i in range(24)
    ]  # fmt: skip


def answers(labels: Sequence[str], *, greedy: int = 0) -> list[Completion]:
    """Make answers as a server gives them: without log-probabilities."""
    return [Completion(label, greedy=i == greedy) for i, label in enumerate(labels)]


@dataclass(eq=False)
class Scene:
    """A closed set with a history, records shown, and the shared head."""

    head: ActiveHead
    pool: Pool
    history: History

    def choice(self, head: ActiveHead, completions: Sequence[Completion]) -> str:
        candidates = merge(completions, self.history.task)
        return choose(head, replace(self.pool, candidates=candidates), self.history).text


@pytest.fixture(scope="module")
def scenes(bundle: Bundle) -> Iterator[dict[str, Scene]]:
    made = {}
    hash_encoder = HashEncoder(bundle.base_id)
    stores = []
    for name, task in TASKS.items():
        store = Store.in_memory()
        stores.append(store)
        store.add(records(name))
        engine = Engine(store, bundle, hash_encoder, TASKS)
        history = engine.history(engine.task(name))
        query = "a note about thing 3 of kind 1"
        vector = engine.encode_query(query)
        shown = list(history.records[:3])
        pool = engine.pool(query, vector, merge((), task), shown, history, engine.lexical(history))
        made[name] = Scene(engine.shared(task, "adapter"), pool, history)
    yield made
    for store in stores:
        store.close()


def with_votes_weighing(head: ActiveHead, weights: Sequence[float]) -> ActiveHead:
    """Return the head with other weights of what votes move, whatever their sign."""
    weight = head.weight.copy()
    for name, value in zip(("consensus", "votes", "log_votes"), weights, strict=True):
        weight[ADAPTER_FEATURES.index(name)] = value
    return replace(head, weight=weight)
