"""One contract for both lexical indexes: the store's FTS5 and rank-bm25 in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hydra_edge.history import History
from hydra_edge.retrieval import LexicalIndex, OkapiIndex, StoreIndex, first_stage
from hydra_edge.store import Store
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record
from hydra_edge.utility import tokens

TASK = BUILTIN["paper_title"]
WORDS = [
    "parser",
    "tree",
    "model",
    "speech",
    "graph",
    "neural",
    "token",
    "search",
    "image",
    "ranking",
    "user",
    "query",
]
Make = Callable[[list[str]], tuple[LexicalIndex, History]]


def history_of(texts: list[str]) -> History:
    records = [Record(t, f"out {i}", TASK.name, id=f"r{i}", time=i) for i, t in enumerate(texts)]
    rng = np.random.default_rng(len(texts))
    vectors = rng.standard_normal((2, len(texts), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return History.build(TASK, records, vectors[0], vectors[1])


@pytest.fixture(params=["store", "okapi"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    stores: list[Store] = []

    def build(texts: list[str]) -> tuple[LexicalIndex, History]:
        history = history_of(texts)
        if request.param == "okapi":
            return OkapiIndex(texts), history
        store = Store.open(tmp_path / f"{len(stores)}.db")
        stores.append(store)
        store.add(history.records)
        return StoreIndex(store, history), history

    yield build
    for store in stores:
        store.close()


def test_search_finds_the_text_with_the_rare_word_first(make: Make) -> None:
    index, _ = make(["a common parser", "a common thing", "common again", "zebra common"])
    found, scores = index.search("common zebra", 10, 4)
    assert found[0] == 3
    assert (np.diff(scores) <= 0).all()
    assert (scores > 0).all()


def test_search_a_word_in_every_text_still_scores_above_nothing(make: Make) -> None:
    index, _ = make(["common", "common"])
    found, scores = index.search("common", 10, 2)
    assert sorted(found.tolist()) == [0, 1]
    assert (scores > 0).all()


def test_search_sees_only_earlier_records(make: Make) -> None:
    index, _ = make(["zebra one", "zebra two", "zebra three"])
    assert sorted(index.search("zebra", 10, 2)[0].tolist()) == [0, 1]
    assert len(index.search("zebra", 10, 0)[0]) == 0


def test_search_in_a_history_of_one_record_finds_it(make: Make) -> None:
    index, _ = make(["zebra one", "zebra two"])
    assert index.search("zebra", 10, 1)[0].tolist() == [0]


def test_search_in_a_history_that_was_cut_spends_its_limit_on_what_is_left(
    tmp_path: Path,
) -> None:
    history = history_of([f"zebra {i}" for i in range(60)])
    with Store.open(tmp_path / "u.db") as store:
        store.add(history.records)
        past = history.before(5)
        found, _ = StoreIndex(store, past).search("zebra", 5, 5)
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]


def test_search_of_nothing_finds_nothing(make: Make) -> None:
    index, _ = make([])
    assert len(index.search("zebra", 10, 0)[0]) == 0
    index, _ = make(["👍", "!!"])
    assert len(index.search("zebra", 10, 2)[0]) == 0
    index, _ = make(["zebra"])
    assert len(index.search('"; DROP TABLE records; --', 10, 1)[0]) == 0
    assert len(index.search("", 10, 1)[0]) == 0


def test_search_finds_texts_without_spaces(make: Make) -> None:
    index, _ = make(["修复解析器", "改进搜索", "unrelated"])
    assert index.search("解析", 5, 3)[0][0] == 0


def test_search_honours_its_limit(make: Make) -> None:
    index, _ = make([f"zebra {i}" for i in range(30)])
    assert len(index.search("zebra", 7, 30)[0]) == 7


def test_both_indexes_agree_on_what_matters(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, 8)) + f" only{i % 17}" for i in range(120)]
    history = history_of(texts)
    with Store.open(tmp_path / "u.db") as store:
        store.add(history.records)
        stored, memory = StoreIndex(store, history), OkapiIndex(texts)
        overlap = []
        for i in range(40):
            query = " ".join(rng.choice(WORDS, 3)) + f" only{i % 17}"
            a, _ = stored.search(query, 5, 120)
            b, _ = memory.search(query, 5, 120)
            overlap.append(len(set(a.tolist()) & set(b.tolist())) / 5)
    assert np.mean(overlap) > 0.8


def test_both_indexes_score_a_query_of_repeated_words_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 14))) for _ in range(90)]
    history = history_of(texts)
    with Store.open(tmp_path / "u.db") as store:
        store.add(history.records)
        for query in ("parser", "graph graph model", "tree " * 9 + "user Query query unknown"):
            scores = [
                dict(zip(*map(np.ndarray.tolist, index.search(query, 90, 90)), strict=True))
                for index in (StoreIndex(store, history), OkapiIndex(texts))
            ]
            assert scores[0] == pytest.approx(scores[1], rel=1e-5)
            assert scores[0]


def test_okapi_in_memory_equals_rank_bm25_with_the_same_idf() -> None:
    from rank_bm25 import BM25Okapi

    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 14))) for _ in range(90)]
    words = [tokens(text) for text in texts]
    reference = BM25Okapi(words)
    n = len(texts)
    holders = {word: sum(word in text for text in words) for word in WORDS}
    reference.idf = {w: math.log(1.0 + (n - k + 0.5) / (k + 0.5)) for w, k in holders.items()}
    index = OkapiIndex(texts)
    for query in ("parser", "graph neural unknown graph", " ".join(WORDS)):
        for before in (1, 37, n):
            asked = sorted(set(tokens(query)))
            scores = np.asarray(reference.get_batch_scores(asked, list(range(before))))
            order = np.argsort(-scores, kind="stable")[:20]
            order = order[scores[order] > 0]
            found, merits = index.search(query, 20, before)
            np.testing.assert_array_equal(found, order)
            np.testing.assert_array_equal(merits, scores[order].astype(np.float32))


def test_first_stage_unites_both_lists_without_repeats(make: Make) -> None:
    index, history = make([f"word{i} zebra" if i % 3 == 0 else f"word{i}" for i in range(60)])
    shortlist = first_stage("zebra", history.inputs[7], history, index, limit=10)
    assert len(set(shortlist.index.tolist())) == len(shortlist)
    assert 7 in shortlist.index, "the nearest by cosine is listed"
    assert (shortlist.bm25 > 0).sum() == 10
    assert shortlist.bm25.max() == 1.0
    np.testing.assert_allclose(
        shortlist.cosine, history.inputs[shortlist.index] @ history.inputs[7], atol=1e-6
    )


def test_first_stage_takes_the_nearest_and_of_equals_the_earliest(make: Make) -> None:
    index, history = make(["other words"] * 30)
    history.inputs[:] = history.inputs[0]
    history.inputs[25] = -history.inputs[0]
    query = history.inputs[0]
    assert first_stage("zebra", query, history, index, limit=4).index.tolist() == [0, 1, 2, 3]
    shortlist = first_stage("zebra", -query, history, index, limit=1)
    assert shortlist.index.tolist() == [25]


def test_first_stage_before_a_query_sees_no_later_record(make: Make) -> None:
    index, history = make([f"zebra {i}" for i in range(30)])
    shortlist = first_stage("zebra", history.inputs[20], history, index, before=20)
    assert shortlist.index.max() < 20


def test_first_stage_of_an_empty_history_is_empty(make: Make) -> None:
    index, history = make([])
    assert len(first_stage("zebra", np.ones(8, dtype=np.float32), history, index)) == 0


@pytest.mark.parametrize("near", [0, 40, 50, 300])
def test_search_in_some_records_of_a_file_spends_its_limit_on_them(
    tmp_path: Path, near: int
) -> None:
    history = history_of(["zebra"] * near + [f"zebra and word{i}" for i in range(60)])
    some = history.only(np.arange(near, near + 60), TASK)
    with Store.open(tmp_path / "u.db") as store:
        store.add(history.records)
        index = StoreIndex(store, some)
        assert len(index.search("zebra", 50, 60)[0]) == 50
        assert sorted(index.search("zebra", 99, 60)[0].tolist()) == list(range(60))
        assert sorted(index.search("zebra", 50, 7)[0].tolist()) == list(range(7))
        shortlist = first_stage("zebra", history.inputs[-1], some, index)
    assert shortlist.bm25.max() == shortlist.bm25_rank.max() == 1.0


@pytest.mark.parametrize("near", [0, 40, 49, 50, 120])
def test_first_stage_hidden_records_take_no_place(make: Make, near: int) -> None:
    index, history = make(["zebra"] * near + [f"zebra and word{i}" for i in range(25)])
    history.inputs[:near] = history.inputs[-1]  # nearest by both lists
    hidden = np.arange(near + 25) < near
    shortlist = first_stage("zebra", history.inputs[-1], history, index, hidden=hidden)
    assert sorted(shortlist.index.tolist()) == list(range(near, near + 25))
    assert shortlist.bm25.max() == shortlist.bm25_rank.max() == 1.0
    assert np.isfinite(shortlist.cosine).all()
