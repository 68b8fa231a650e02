from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from progress import quiet

pytest.importorskip("onnx")
from export.agreement import LIMITS, Sampled, compare, draw_sample, kendall
from export.data import UserHistory
from export.labels import PoolLabel
from export.pack import Card, neutral_maps, pack
from export.parity import check, limits
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import BundleError
from hydra_edge.features import feature_names
from hydra_edge.types import Completion, Float2d, Progress, Record, Role

pytestmark = pytest.mark.export

TOPICS = ("parser", "speech", "vision", "music")
PLACES = ("harbour", "bridge", "garden", "station", "market", "tower")
DIM = 384


def history(user: str, task: str = "paper_title", n: int = 10, shift: int = 0) -> UserHistory:
    records = []
    for i in range(n):
        topic, place = TOPICS[(i + shift) % 4], PLACES[(i * 5 + shift) % 6]
        text = f"text on {topic} in the {place} {i} {user}"
        records.append(
            Record(text, f"a study of {topic} at the {place}", task, f"{user}-{i}", time=float(i))
        )
    return UserHistory(user, task, tuple(records))


def pool(user: UserHistory, position: int) -> PoolLabel:
    answers = [f"a study of {topic} at the {place}" for topic in TOPICS for place in PLACES[:2]]
    return PoolLabel(
        "small", user.user, user.records[position].id, position,
        tuple(r.id for r in user.records[:position][-4:]),
        tuple(Completion(text, greedy=i == 0) for i, text in enumerate(answers)), user.task,
    )  # fmt: skip


def sampled(n: int = 4) -> list[Sampled]:
    users = [history(f"u{i}", shift=i) for i in range(n)]
    return [Sampled(user, (pool(user, 8), pool(user, 9))) for user in users]


@pytest.fixture
def meaning(tmp_path: Path) -> Bundle:
    """Make a base whose heads go by meaning alone; the encoder is given beside it."""
    (tmp_path / "graph").write_bytes(b"a graph")
    (tmp_path / "tokenizer").write_bytes(b"{}")
    features: dict[Role, tuple[str, ...]] = {role: feature_names(role) for role in get_args(Role)}
    maps = neutral_maps(features)
    for role, name in (("reranker", "cos_input"), ("adapter", "cos_query")):
        maps[f"{role}.prior.text.mean"][feature_names(role).index(name)] = 1.0
    return pack(
        tmp_path / "base", encoder=tmp_path / "graph", tokenizer=tmp_path / "tokenizer",
        card=Card(DIM, "mean", 16, {}, {}), maps=maps, features=features,
    )  # fmt: skip


class Noised:
    """An encoder whose every text is moved, the same way each time it is asked for."""

    def __init__(self, inner: TextEncoder, size: float) -> None:
        self.inner, self.size = inner, size
        self.dim, self.base_id = inner.dim, inner.base_id

    def encode(self, texts: list[str], *, progress: Progress | None = None) -> Float2d:
        noise = [
            np.random.default_rng(list(text.encode())).standard_normal(self.dim) for text in texts
        ]
        rows = self.inner.encode(texts) + self.size * np.array(noise) / np.sqrt(self.dim)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_compare_of_an_encoder_with_itself_finds_no_difference(
    meaning: Bundle, hash_encoder
) -> None:
    bars: set[str] = set()
    figures = compare(
        meaning,
        hash_encoder,
        hash_encoder,
        sampled(),
        progress=lambda stage, _done, _total: bars.add(stage),
    )
    check(figures, LIMITS)
    for role in get_args(Role):
        assert figures[f"{role}_kendall"] == 1
        assert figures[f"{role}_utility_change"] == 0
        assert figures[f"{role}_utility_differs"] == 0
        assert 0 < figures[f"{role}_utility_float32"] == figures[f"{role}_utility_int8"]
    assert figures["users"] == 4
    assert figures["adapter_queries"] == 8
    assert figures["reranker_queries"] == 4 * 8  # the first two records have too short a past
    assert figures["by_task"]["paper_title"]["adapter"]["queries"] == 8
    assert bars == {"agreement: reranker", "agreement: adapter"}


def test_compare_tells_little_noise_from_much(meaning: Bundle, hash_encoder) -> None:
    found = [
        compare(meaning, hash_encoder, Noised(hash_encoder, size), sampled(), progress=quiet)
        for size in (0.001, 0.1, 10.0)
    ]
    for role in get_args(Role):
        taus = [figures[f"{role}_kendall"] for figures in found]
        assert taus[0] > taus[1] > taus[2]
        assert taus[0] > 0.97
        assert taus[2] < 0.5


def test_check_names_what_an_encoder_of_noise_orders_otherwise(
    meaning: Bundle, hash_encoder
) -> None:
    figures = compare(meaning, hash_encoder, Noised(hash_encoder, 10.0), sampled(), progress=quiet)
    with pytest.raises(BundleError, match=r"kendall = .*expected 0\.9\d to 1\.0"):
        check(figures, LIMITS)


def test_compare_measures_the_change_by_what_is_chosen(meaning: Bundle, hash_encoder) -> None:
    """Turn every text round: the best becomes the worst, and the change says by how much."""

    class Turned(Noised):
        def encode(self, texts: list[str], *, progress: Progress | None = None) -> Float2d:
            rows = self.inner.encode(texts)
            queries = np.array([text.startswith("text on") for text in texts])
            return np.where(queries[:, None], -rows, rows)

    figures = compare(meaning, hash_encoder, Turned(hash_encoder, 0), sampled(), progress=quiet)
    assert figures["adapter_kendall"] == -1
    before, after = figures["adapter_utility_float32"], figures["adapter_utility_int8"]
    assert after < before
    assert figures["adapter_utility_change"] == pytest.approx(after / before - 1, abs=1e-3)
    assert figures["adapter_utility_differs"] == 1


def test_kendall_counts_pairs_as_by_hand() -> None:
    first = {"a": 3.0, "b": 2.0, "c": 1.0, "only first": 0.0}
    assert kendall(first, {"a": 9.0, "b": 5.0, "c": 1.0}) == pytest.approx(1)
    assert kendall(first, {"a": 2.0, "b": 3.0, "c": 1.0, "other": 4.0}) == pytest.approx(1 / 3)
    assert kendall(first, {"a": 1.0, "b": 2.0, "c": 3.0}) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 2.0}, 1.0),
        ({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 3.0}, 0.0),
        ({"a": 1.0, "b": 2.0, "c": 2.0}, {"a": 1.0, "b": 2.0, "c": 2.0}, 1.0),
        ({"a": 1.0, "b": 2.0}, {"a": 1.0}, None),
        ({"a": 1.0}, {"b": 1.0}, None),
    ],
)
def test_kendall_of_ties_and_of_too_few(
    first: dict[str, float], second: dict[str, float], expected: float | None
) -> None:
    found = kendall(first, second)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_sample_is_of_every_task_within_its_share_of_texts_and_seeded() -> None:
    users = {
        task: [history(f"{task[0]}{i}", task, shift=i) for i in range(9)]
        for task in ("news_headline", "paper_title")
    }
    answered = [pool(u, p) for task in users for u in users[task][:8] for p in (9, 8)]
    drawn = draw_sample(users, answered, seed=0, texts=200)
    names = [(one.user.task, one.user.user) for one in drawn]
    for task in users:
        of_task = [one for one in drawn if one.user.task == task]
        assert 1 < len(of_task) < 8
        assert sum(len(one.texts) for one in of_task) <= 100
        assert all([p.position for p in one.pools] == [8, 9] for one in of_task)
    assert not {user for _, user in names} & {"n8", "p8"}, "nobody answered these"
    again = draw_sample(users, answered[::-1], seed=0, texts=200)
    assert [(one.user.task, one.user.user) for one in again] == names
    other = draw_sample(users, answered, seed=1, texts=200)
    assert [(one.user.task, one.user.user) for one in other] != names
    assert len(draw_sample(users, answered, seed=0, texts=2)) == 2, "one of each task at least"


def test_sample_without_an_answered_pool_says_what_is_needed() -> None:
    with pytest.raises(BundleError, match="found no answered pool"):
        draw_sample({"paper_title": [history("u")]}, [], seed=0)


def test_shipped_base_was_gated_on_the_agreement_in_force(bundle: Bundle) -> None:
    assert bundle.manifest.parity["agreement"]["limits"] == limits(LIMITS)
    check(bundle.manifest.parity["agreement"], LIMITS)
