"""Users whose places are asked for, and a workshop as small as the ladder can do with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")


from export.data import UserHistory
from export.labels import PoolLabel
from export.ladder.material import Answers
from export.ladder.run import Climb, Size
from export.pack import Card, neutral_maps, pack
from hydra_edge.bundle import Bundle
from hydra_edge.features import feature_names
from hydra_edge.types import Completion, Record, Role

PLACES = ("harbour", "bridge", "garden", "station", "market", "tower", "river")


def history(user: str, task: str = "paper_title", n: int = 9) -> UserHistory:
    seed = int(user[1:])
    records = tuple(
        Record(
            f"what is at the {PLACES[(i * 3 + seed) % 7]} {i}",
            PLACES[(i + seed) % 3] if task == "movie_tag" else f"the {PLACES[(i + seed) % 7]}",
            task, id=f"{user}-{i}", time=float(i),
        )
        for i in range(n)
    )  # fmt: skip
    return UserHistory(user, task, records)


@pytest.fixture(scope="module")
def neutral(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A base that knows nothing of people."""
    from hydra_edge.bundle import load_bundle

    shipped = load_bundle()
    features: dict[Role, tuple[str, ...]] = {
        "reranker": feature_names("reranker"), "adapter": feature_names("adapter"),
    }  # fmt: skip
    return pack(
        tmp_path_factory.mktemp("base") / "neutral",
        encoder=shipped.encoder_path, tokenizer=shipped.tokenizer_path,
        card=Card(384, "mean", 128, {}, {}), maps=neutral_maps(features), features=features,
    )  # fmt: skip


@dataclass(frozen=True)
class Shop:
    """As much of a workshop as the ladder looks at."""

    neutral: Bundle
    encoder: object


def material(neutral: Bundle, encoder: object, users: Sequence[UserHistory]) -> Climb:
    pools = []
    for user in users:
        for position in range(4, 9):
            shown = tuple(r.id for r in user.records[position - 2 : position])
            texts = ("the harbour", user.records[position].output, "the tower of the river")
            answers = tuple(Completion(t, greedy=i == 0) for i, t in enumerate(texts))
            record = user.records[position]
            pools.append(
                PoolLabel("llm", user.user, record.id, position, shown, answers, user.task)
            )
    by_place = {(u.task, u.user): u for u in users}
    closed = [u for u in users if u.task == "movie_tag"]
    return Climb(Shop(neutral, encoder), list(users), Answers(pools, by_place, closed, 4, {}))


SIZE = Size(folds=2, dims=(2,), reranker_queries=5, closed_queries=4, tuned_users=3, tuned_left=3)


def everyone() -> list[UserHistory]:
    return [history(f"u{i}", task) for task in ("movie_tag", "paper_title") for i in range(8)]
