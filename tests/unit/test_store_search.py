"""Search and BM25 in the store, against a scan by hand."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hydra_edge.errors import RecordNotFoundError, StoreError
from hydra_edge.store import Store, bm25
from hydra_edge.store.bm25 import Bm25
from hydra_edge.types import Record
from hydra_edge.utility import tokens


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.in_memory() as opened:
        yield opened


def by_hand(records: Sequence[Record], query: str) -> dict[str, float]:
    """BM25 with k1 = 1.5, b = 0.75 and Lucene's idf over the inputs; a query word counts once."""
    words = {r.id: tokens(r.input, None) for r in records}
    mean = sum(map(len, words.values())) / len(words)
    scores: Counter[str] = Counter()
    for word in set(tokens(query, None)):
        holders = [i for i, ws in words.items() if word in ws]
        idf = math.log(1 + (len(words) - len(holders) + 0.5) / (len(holders) + 0.5))
        for i in holders:
            times = words[i].count(word)
            length = 1 - 0.75 + 0.75 * len(words[i]) / mean
            scores[i] += idf * times * 2.5 / (times + 1.5 * length)
    return dict(scores)


def zipf(n: int, seed: int, *, task: str = "t", length: int = 30) -> list[Record]:
    """Make records whose words are as unevenly frequent as in a language."""
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(2000)]
    weights = [1 / (i + 2) for i in range(2000)]
    return [
        Record(
            " ".join(rng.choices(words, weights, k=rng.randint(1, length))),
            "answer " + rng.choice(words),
            task=task,
            id=f"{task}{i}",
            time=float(rng.randrange(1000)),
        )
        for i in range(n)
    ]


def test_search_wants_all_words_in_input_and_output_together(store: Store) -> None:
    store.add(
        [
            Record("Fix the parser", "bug", id="both"),
            Record("parser", "docs", id="one"),
            Record("bug", "bug", id="other"),
        ]
    )
    assert [r.id for r in store.search("PARSER bug!")] == ["both"]


def test_search_without_a_full_match_takes_any_word(store: Store) -> None:
    store.add([Record("red fish", "x", id="a"), Record("blue bird", "x", id="b")])
    assert {r.id for r in store.search("red bird unicorn")} == {"a", "b"}
    assert store.search("unicorn") == []


def test_search_in_task_and_limit_are_respected(store: Store) -> None:
    store.add([Record(f"same {i}", "x", task="t" if i % 2 else "u") for i in range(10)])
    assert {r.task for r in store.search("same", task="t")} == {"t"}
    assert len(store.search("same", limit=3)) == 3
    assert store.search("same", limit=0) == []
    assert store.search("same", task="none") == []


@pytest.mark.parametrize(
    "query", ['"', "a AND", "NEAR(", "input:", "*", "^a", "a OR OR", "-", "(((", "\x00", "\ud800"]
)
def test_search_any_input_is_words_not_operators(store: Store, query: str) -> None:
    store.add([Record("nothing of this", "x")])
    assert store.search(query) == []
    assert store.bm25(query, "general", 5) == []


def test_search_signs_without_words_are_sought_as_they_stand(store: Store) -> None:
    store.add(
        [Record("party 🎉 time", "x", id="a", time=1.0), Record("no", "🎉", id="b", time=2.0)]
    )
    assert [r.id for r in store.search("🎉")] == ["b", "a"]
    assert [r.id for r in store.search(" 🎉 ", limit=1)] == ["b"]
    assert store.search("  \n ") == []


@pytest.mark.parametrize("query", ["common word", "word", "✓"])
def test_search_of_public_records_finds_them_behind_any_number_of_private_ones(
    store: Store, query: str
) -> None:
    public = [Record("a word", "x ✓", id="p1"), Record("other", "y", id="p2")]
    store.add(public)
    alone = [record.id for record in store.search(query, public_only=True)]
    hidden = [Record(f"common word {i} ✓", "z", id=f"h{i}", private=True) for i in range(30)]
    store.add(hidden)
    again = [record.id for record in store.search(query, limit=1, public_only=True)]
    assert again == alone == ["p1"]
    assert any(record.private for record in store.search(query))


def test_search_cjk_characters_are_words(store: Store) -> None:
    store.add([Record("日本語のテスト", "x", id="a"), Record("中国语", "x", id="b")])
    assert [r.id for r in store.search("日本")] == ["a"]
    assert [i for i, _ in store.bm25("国", "general", 5)] == ["b"]


def test_search_query_of_many_words_is_answered(store: Store) -> None:
    store.add([Record("w3", "x", id="a")])
    assert [r.id for r in store.search(" ".join(f"w{i}" for i in range(5000)))] == ["a"]


def test_bm25_equals_a_scan_of_that_tasks_inputs(store: Store) -> None:
    mine = zipf(150, 1)
    store.add(mine + zipf(100, 2, task="other"))
    for query in [r.input for r in mine[:10]] + ["w0 w0 w1", "w0 unknown"]:
        expected = by_hand(mine, query)
        found = store.bm25(query, "t", 1000)
        assert dict(found) == pytest.approx(expected)
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
        assert all(score > 0 for _, score in found)


def test_bm25_ignores_outputs(store: Store) -> None:
    store.add([Record("a", "needle", id="a"), Record("needle", "b " * 50, id="b")])
    assert [i for i, _ in store.bm25("needle", "general", 5)] == ["b"]


def test_bm25_among_equals_the_newest_record_comes_first(store: Store) -> None:
    store.add([Record("same words", str(i), id=str(i)) for i in range(5)])
    assert [i for i, _ in store.bm25("same", "general", 3)] == ["4", "3", "2"]


def test_bm25_before_a_record_sees_only_earlier_ones_and_counts_only_them(store: Store) -> None:
    records = zipf(120, 3)
    store.add(records)
    ordered = store.records()
    for place in (0, 1, 40, 119):
        query = ordered[place]
        found = store.bm25(query.input, "t", 1000, before=query.id)
        earlier = ordered[:place]
        assert dict(found) == pytest.approx(by_hand(earlier, query.input) if earlier else {})
    with pytest.raises(RecordNotFoundError, match="'nobody'"):
        store.bm25("w1", "t", 5, before="nobody")


def test_bm25_before_a_record_of_the_same_time_goes_by_order_of_adding(store: Store) -> None:
    store.add([Record("same", str(i), id=str(i), time=7.0) for i in range(4)])
    assert [i for i, _ in store.bm25("same", "general", 9, before="2")] == ["1", "0"]


def test_bm25_of_an_empty_history_or_wordless_records_is_empty(store: Store) -> None:
    assert store.bm25("word", "t", 5) == []
    store.add([Record("...", "x", task="t")])
    assert store.bm25("word", "t", 5) == []
    assert store.bm25("...", "t", 5) == []


def test_bm25_over_budget_takes_rare_words_and_orders_by_all(store: Store) -> None:
    filler = [Record(f"{('common', 'plain')[i % 2]} filler{i}", "x") for i in range(300)]
    rare = [
        Record("rare zebra quagga", "x", id="rare"),
        Record("rare common common", "x", id="rare-common"),
    ]
    store.add(filler + rare)
    found = store.bm25("common rare", "general", 500, postings=10)
    assert [i for i, _ in found] == ["rare-common", "rare"]
    exact = by_hand(store.records(), "common rare")
    # How many records hold the frequent word is estimated from a part of the file.
    assert dict(found) == pytest.approx({i: exact[i] for i, _ in found}, rel=0.02)


def test_bm25_of_frequent_words_only_falls_back_to_the_newest_records(store: Store) -> None:
    store.add([Record(f"common filler{i}", "x", id=f"c{i}") for i in range(50)])
    found = store.bm25("common", "general", 5, postings=10)
    assert [i for i, _ in found] == ["c49", "c48", "c47", "c46", "c45"]
    assert all(score > 0 for _, score in found)


@pytest.mark.parametrize("postings", [10, 30, 100])
def test_bm25_of_a_word_frequent_elsewhere_finds_the_records_of_a_small_task(
    store: Store, postings: int
) -> None:
    """Whether the small task is larger than the budget, or smaller."""
    store.add([Record(f"fix b{i}", "x", task="b", id=f"b{i}") for i in range(25)])
    store.add([Record(f"fix a{i}", "x", task="a", id=f"a{i}") for i in range(300)])
    assert [i for i, _ in store.bm25("fix", "b", 50, postings=postings)] == [
        f"b{i}" for i in reversed(range(25))
    ]
    assert [i for i, _ in store.bm25("fix", "b", 4, before="b7", postings=postings)] == [
        "b6", "b5", "b4", "b3",
    ]  # fmt: skip
    assert len(store.bm25("fix", "a", 50, before="a120", postings=postings)) == 50
    assert len(store.bm25("fix", "a", 50, before="a7", postings=postings)) == 7


def test_bm25_of_a_word_frequent_in_a_strewn_task_finds_its_newest(store: Store) -> None:
    """Most of the file has to be passed over on the way."""
    store.add(
        Record("fix", str(i), task="b" if i % 40 == 0 else "a", id=f"r{i}") for i in range(4000)
    )
    for postings in (20, 200):
        found = store.bm25("fix", "b", 50, postings=postings)
        assert [i for i, _ in found] == [f"r{i}" for i in range(3960, 1960, -40)]
        found = store.bm25("fix", "b", 50, before="r401", postings=postings)
        assert [i for i, _ in found] == [f"r{i}" for i in range(400, -1, -40)]


@pytest.mark.parametrize("postings", [10, 100])
def test_bm25_where_rare_words_find_nothing_in_a_task_tries_the_frequent_ones(
    store: Store, postings: int
) -> None:
    store.add([Record(f"the mail b{i}", "x", task="b", id=f"b{i}") for i in range(20)])
    store.add([Record(f"fix the a{i}", "x", task="a") for i in range(300)])
    for query in ("the", "fix the", "a7 the", "a7 fix the"):
        found = store.bm25(query, "b", 3, postings=postings)
        assert [i for i, _ in found] == ["b19", "b18", "b17"]
    assert store.bm25("fix", "b", 3, postings=postings) == []


def test_bm25_remembers_no_more_than_it_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25, "_KEPT_WORDS", 50)
    monkeypatch.setattr(bm25, "_KEPT", 2000)
    records = zipf(200, 11)
    store.add(records + zipf(50, 12, task="other"))
    for i, record in enumerate(records):
        unknown = " ".join(f"unknown{i}x{j}" for j in range(20))
        store.bm25(f"{record.input} {unknown}", "other", 5, postings=40, before=record.id)
        store.bm25(f"{record.input} {unknown}", "t", 5, postings=40, before=record.id)
        store.bm25(record.input, f"no such task {i}", 5)
    memory = store._bm25._memory
    assert memory is not None
    assert len(memory.counts) <= 50
    assert len(memory.read) <= 60  # words of one query
    assert len(memory.postings) + len(memory.latest) <= 2000 // bm25._ENTRY
    assert sum(len(p.place) for p in memory.postings.values()) <= 2000
    assert memory.orders.keys() == {"t", "other"}
    assert len(memory.ids) <= 250


def test_bm25_budget_bounds_the_postings_read(store: Store) -> None:
    store.add(zipf(400, 5))
    steps = {}
    for budget in (50, 500, 10**6):
        count = [0]

        def tick(count: list[int] = count) -> int:
            count[0] += 1
            return 0

        store._bm25 = Bm25()  # which remembers nothing of a search before
        store._db.connection.set_progress_handler(tick, 100)
        store.bm25(" ".join(f"w{i}" for i in range(200)), "t", 10, postings=budget)
        steps[budget] = count[0]
    store._db.connection.set_progress_handler(None, 0)
    assert steps[50] < steps[500] < steps[10**6]


def test_bm25_default_budget_keeps_the_true_best_of_a_larger_history(store: Store) -> None:
    records = zipf(1500, 6, length=60)
    store.add(records)
    kept = 0
    for record in records[:20]:
        exact = [i for i, _ in store.bm25(record.input, "t", 5, postings=10**9)]
        cheap = [i for i, _ in store.bm25(record.input, "t", 5, postings=2000)]
        kept += len(set(exact) & set(cheap))
    assert kept >= 90


def test_index_is_rebuilt_when_words_are_split_differently(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra_edge.store import schema

    store.add([Record("alpha beta", "x", id="a"), Record("gamma", "x", id="b")])
    monkeypatch.setattr(schema, "words_mark", lambda: "another release")
    schema.prepare(store._db.connection, "x")
    assert [r.id for r in store.search("beta")] == ["a"]
    store.forget(["a"])
    assert store.search("alpha") == []
    assert store.check() == []


def test_search_finds_words_with_marks_in_either_form(store: Store) -> None:
    store.add(
        [
            Record("วันนี้ธนาคารประชุม", "x", id="thai"),
            Record("हिन्दी की किताब", "x", id="hindi"),
            Record("fu\u0308r alle", "x", id="german"),
        ]
    )
    assert [r.id for r in store.search("ธนาคาร")] == ["thai"]
    assert [r.id for r in store.search("किताब")] == ["hindi"]
    assert [r.id for r in store.search("f\u00fcr")] == ["german"]
    assert store.search("कताब") == []


def test_index_of_words_split_at_their_marks_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra_edge.store import schema

    def split_at_marks(text: str, limit: int | None) -> list[str]:
        cjk = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
        return re.findall(rf"[{cjk}]|[^\W_{cjk}]+", text.lower())

    with monkeypatch.context() as old:
        old.setattr(schema, "tokens", split_at_marks)
        schema.spaced_words.cache_clear()
        schema.words_mark.cache_clear()
        with Store.open(tmp_path / "me.db") as store:
            store.add([Record("วันนี้ธนาคารประชุม", "हिन्दी", id="a")])
            assert [r.id for r in store.search("हिन्दी")] == ["a"]
    schema.spaced_words.cache_clear()
    schema.words_mark.cache_clear()
    with Store.open(tmp_path / "me.db") as store:
        assert [r.id for r in store.search("ธนาคาร")] == ["a"]
        assert [r.id for r in store.search("हिन्दी")] == ["a"]
        assert store.check() == []
        store.forget(["a"])
        assert store.check() == []


def pieces(store: Store) -> int:
    """Count the pieces of the word index that a search has to look into."""
    rows = store._db.connection.execute("SELECT COUNT(DISTINCT segid) FROM records_fts_idx")
    return int(rows.fetchone()[0])


def test_index_is_one_piece_after_an_import_and_small_changes_leave_it(store: Store) -> None:
    store.add(zipf(1200, 7))
    assert pieces(store) == 1
    for record in zipf(3, 8, task="later"):
        store.add([record])
    assert pieces(store) == 4
    store.add(zipf(1300, 9, task="much"))
    assert pieces(store) == 1
    assert store.check() == []
    found = dict(store.bm25("w1 w7", "t", 10))
    exact = by_hand(zipf(1200, 7), "w1 w7")
    assert found == pytest.approx({i: exact[i] for i in found})


def test_records_are_added_even_where_their_index_cannot_be_merged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("hydra_edge.store.adding._merge_index", full)
    assert store.add(zipf(600, 10)).added == 600
    assert pieces(store) > 1
    assert len(store.bm25("w1", "t", 5)) == 5
