"""Vectors, pools, heads, choices and log of the store."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from filled_store import cached_vectors

from hydra_edge.errors import ShapeError, StoreError
from hydra_edge.store import Store, StoredPool, choices
from hydra_edge.types import (
    Candidate,
    Completion,
    Generation,
    HeadInfo,
    HeadState,
    RankedRecord,
    Record,
    Role,
    Usage,
    text_hash,
)
from hydra_edge.vectors import CachedEncoder


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.in_memory() as opened:
        yield opened


# Vectors


def test_vectors_come_back_as_float16_by_hash_and_base(store: Store) -> None:
    rng = np.random.default_rng(0)
    made = {text_hash(str(i)): rng.standard_normal(384).astype(np.float32) for i in range(3)}
    store.put_vectors("base", made)
    store.put_vectors("other", {text_hash("0"): np.zeros(8, dtype=np.float16)})
    read = cached_vectors(store, [*made, text_hash("unknown")], "base")
    assert read.keys() == made.keys()
    for key, vector in read.items():
        assert vector.dtype == np.float16
        np.testing.assert_array_equal(vector, made[key].astype(np.float16))
    assert (store.vector_count("base"), store.vector_count("other")) == (3, 1)
    assert cached_vectors(store, [text_hash("0")], "none") == {}
    assert cached_vectors(store, [], "base") == {}


def test_vectors_of_a_hundred_thousand_hashes_are_looked_up(store: Store) -> None:
    known = {text_hash(str(i)): np.full(2, i % 7, dtype=np.float32) for i in range(0, 100_000, 9)}
    store.put_vectors("base", known)
    read = cached_vectors(store, [text_hash(str(i)) for i in range(100_000)], "base")
    assert read.keys() == known.keys()


@pytest.mark.parametrize("asked", [3, 400])
def test_few_vectors_are_sought_and_most_are_read_in_one_look_alike(
    store: Store, asked: int
) -> None:
    keys = [text_hash(str(i)) for i in range(400)]
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 6)).astype(np.float16)
    store.put_vectors("base", dict(zip(keys, vectors, strict=True)))
    store.put_vectors("other", dict.fromkeys(keys, np.zeros(6)))
    statements: list[str] = []
    store._db.connection.set_trace_callback(statements.append)
    out = np.full((500, 6), 7, dtype=np.float32)
    rows = {key: row + 50 for row, key in enumerate(keys[:asked])} | {text_hash("no"): 499}
    found = store.fill_vectors(out, rows, "base")
    store._db.connection.set_trace_callback(None)
    assert any("hash IN" in text for text in statements) == (asked == 3)
    assert np.flatnonzero(found).tolist() == list(range(50, 50 + asked))
    np.testing.assert_array_equal(out[found], vectors[:asked])
    assert (out[~found] == 7).all()


def test_put_vectors_again_replaces(store: Store) -> None:
    store.put_vectors("base", {"h": np.zeros(2, dtype=np.float32)})
    store.put_vectors("base", {"h": np.ones(2, dtype=np.float32)})
    assert cached_vectors(store, ["h"], "base")["h"].tolist() == [1.0, 1.0]
    assert store.vector_count("base") == 1


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        (np.zeros((2, 2)), r"got shape \(2, 2\); expected \(d,\)"),
        (np.array([math.nan]), "not finite"),
        (np.array([1e9]), "not finite in float16"),
    ],
)
def test_put_vectors_unusable_array_is_refused(
    store: Store, vector: np.ndarray, match: str
) -> None:
    with pytest.raises(ShapeError, match=match):
        store.put_vectors("base", {"h": vector})
    assert store.vector_count("base") == 0


@pytest.mark.parametrize(
    "damage",
    [
        "substr(vector, 1, 6)",
        "substr(vector, 1, 3)",
        "vector || x'0000'",
        "x''",
        "'text'",
        "7",
        "CAST(x'007e' || substr(vector, 3) AS BLOB)",
        "CAST(x'007c' || substr(vector, 3) AS BLOB)",
    ],
)
def test_damaged_vector_is_told_and_counts_as_missing_until_put_again(
    store: Store, damage: str
) -> None:
    made = {text_hash(str(i)): np.full(4, i, dtype=np.float16) for i in range(5)}
    store.put_vectors("base", made)
    store.put_vectors("wider", {text_hash(str(i)): np.zeros(9) for i in range(5)})
    assert store.check() == []
    store._db.connection.execute(
        f"UPDATE vectors SET vector = {damage} WHERE hash = ? AND base = 1",
        (bytes.fromhex(text_hash("3")),),
    )
    assert cached_vectors(store, list(made), "base").keys() == made.keys() - {text_hash("3")}
    assert cached_vectors(store, [text_hash("3")], "base") == {}
    assert len(cached_vectors(store, list(made), "wider")) == 5
    assert store.check() == [
        "Damaged vectors: 1. They are left out, and made anew when next needed."
    ]
    store.put_vectors("base", {text_hash("3"): made[text_hash("3")]})
    assert cached_vectors(store, list(made), "base").keys() == made.keys()
    assert store.check() == []


def test_shortened_one_of_two_vectors_is_the_damaged_one(store: Store) -> None:
    store.put_vectors("base", {"whole": np.ones(4), "cut": np.ones(4)})
    store._db.connection.execute("UPDATE vectors SET vector = x'003c' WHERE hash = x'637574'")
    assert cached_vectors(store, ["whole", "cut"], "base").keys() == {"whole"}


def test_damaged_vector_is_embedded_again_by_a_cached_encoder(store: Store, hash_encoder) -> None:
    encoder = CachedEncoder(hash_encoder, store)
    before = encoder.encode(["a", "b", "c"])
    store._db.connection.execute(
        "UPDATE vectors SET vector = substr(vector, 1, 10) WHERE hash = ?",
        (bytes.fromhex(text_hash("b")),),
    )
    np.testing.assert_array_equal(encoder.encode(["a", "b", "c"]), before)
    assert hash_encoder.encoded == ["a", "b", "c", "b"]
    assert store.check() == []


def test_drop_other_vectors_keeps_one_base(store: Store) -> None:
    for base in ("a", "b", "c"):
        store.put_vectors(base, {"h": np.zeros(2), "i": np.zeros(2)})
    assert store.drop_other_vectors("b") == 4
    assert [store.vector_count(base) for base in "abc"] == [0, 2, 0]


# Pools

COMPLETIONS = (
    Completion("first \ud800\x00", greedy=True, tokens=3, logprob=-0.5),
    Completion("second 日本", tokens=2, finish="length"),
)


def test_pool_comes_back_as_it_was(store: Store) -> None:
    store.put_pool(
        "k", task="t", model="m", query_id="q", record_ids=["a", "b"], completions=COMPLETIONS
    )
    assert store.pool("k") == COMPLETIONS
    assert store.pool("other") is None
    assert store.pools() == [StoredPool("k", "t", "m", "pool", "q", ("a", "b"), COMPLETIONS)]


def test_pools_are_found_by_task_model_and_purpose(store: Store) -> None:
    for key, task, model, purpose in (
        ("1", "t", "m", "pool"),
        ("2", "t", "m", "rag"),
        ("3", "t", "n", "pool"),
        ("4", "u", "m", "pool"),
    ):
        store.put_pool(
            key, task=task, model=model, query_id="", record_ids=(), completions=(), purpose=purpose
        )
    assert [p.key for p in store.pools("t")] == ["1", "2", "3"]
    assert [p.key for p in store.pools("t", model="m")] == ["1", "2"]
    assert [p.key for p in store.pools("t", model="m", purpose="rag")] == ["2"]
    assert [p.key for p in store.pools(purpose="pool")] == ["1", "3", "4"]
    assert store.pools("x") == []


def test_put_pool_under_the_same_key_replaces(store: Store) -> None:
    for text in ("old", "new"):
        store.put_pool(
            "k", task="t", model="m", query_id="", record_ids=(), completions=[Completion(text)]
        )
    assert store.pool("k") == (Completion("new"),)
    assert len(store.pools()) == 1


# Heads


def make_head(task: str = "t", role: Role = "adapter", d: int = 3, seed: int = 0) -> HeadState:
    rng = np.random.default_rng(seed)
    return HeadState(
        task=task,
        role=role,
        base_id="base",
        features=tuple(f"f{i}" for i in range(d)),
        weight=rng.standard_normal(d).astype(np.float32),
        precision=rng.standard_normal((d, d)).astype(np.float32),
        switch="shared",
        n_queries=7,
        prior_scale=1.5,
        report={"rows": [{"name": "mine", "utility": None}], "π": 3.14},
    )


def same_head(a: HeadState, b: HeadState) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name))
        if isinstance(getattr(a, f.name), np.ndarray)
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(HeadState)
    )


def test_save_head_numbers_versions_and_makes_the_newest_current(store: Store) -> None:
    state = make_head()
    saved = [store.save_head(replace(state, n_queries=i)) for i in range(3)]
    assert [s.version for s in saved] == [1, 2, 3]
    assert state.version == 0
    current = store.head("t", "adapter")
    assert current is not None
    assert same_head(current, saved[2])
    assert current.weight.dtype == current.precision.dtype == np.float32
    assert store.save_head(make_head(role="reranker")).version == 1
    assert store.head("t", "reranker") is not None
    assert store.head("u", "adapter") is None
    assert [(h.role, h.version) for h in store.heads("t")] == [
        ("adapter", 1), ("adapter", 2), ("adapter", 3), ("reranker", 1),
    ]  # fmt: skip
    assert store.heads("u") == []


def test_rollback_head_goes_back_and_forward_and_saving_goes_on_from_the_last(
    store: Store,
) -> None:
    for i in range(3):
        store.save_head(make_head(seed=i))
    assert store.rollback_head("t", "adapter").version == 2
    assert store.rollback_head("t", "adapter").version == 1
    assert store.rollback_head("t", "adapter") is None
    assert store.head("t", "adapter") is None
    assert [h.version for h in store.heads("t")] == [1, 2, 3]
    with pytest.raises(StoreError, match=r"no earlier version .*in use: none; kept: 1, 2, 3"):
        store.rollback_head("t", "adapter")
    assert store.rollback_head("t", "adapter", 3).version == 3
    store.rollback_head("t", "adapter", 1)
    current = store.head("t", "adapter")
    assert current is not None
    assert current.version == 1
    assert store.save_head(make_head()).version == 4
    with pytest.raises(StoreError, match=r"version 9 .*in use: 4; kept: 1, 2, 3, 4"):
        store.rollback_head("t", "adapter", 9)
    with pytest.raises(StoreError, match=r"in use: none; kept: none"):
        store.rollback_head("nothing", "adapter")


def test_save_head_keeps_the_last_twenty_versions(store: Store) -> None:
    for i in range(25):
        store.save_head(make_head(seed=i))
    store.save_head(make_head("u"))
    assert [h.version for h in store.heads("t")] == list(range(6, 26))


def test_save_head_keeps_twenty_fitted_versions_beside_twenty_steps(store: Store) -> None:
    def step() -> None:
        store.save_head(replace(make_head(), report={"choice": "g"}))

    store.save_head(make_head())
    for _ in range(25):
        step()
    assert [h.version for h in store.heads("t")] == [1, *range(7, 27)]
    for _ in range(25):
        store.save_head(make_head())
    assert [h.version for h in store.heads("t")] == [*range(7, 27), *range(32, 52)]
    for _ in range(19):  # the last that was fitted is what is left when all steps are taken back
        step()
    assert [store.rollback_head("t", "adapter") for _ in range(19)][-1].version == 51


def test_drop_stale_heads_keeps_only_what_learned_from_nothing_forgotten(store: Store) -> None:
    store.save_head(replace(make_head("t"), stale=True))
    store.save_head(make_head("t"))
    store.save_head(replace(make_head("u"), stale=True))
    store.save_head(replace(make_head("gone"), stale=True))
    store.add([Record("in", "out", task=task) for task in ("t", "u")])
    assert store.drop_stale_heads("t") == 2
    assert [(h.task, h.version) for h in store.heads()] == [("t", 2), ("u", 1)]
    assert store.drop_stale_heads("u") == 1
    assert store.head("u", make_head("u").role) is None


def test_drop_stale_heads_of_the_one_in_use_goes_back_to_the_newest_left(store: Store) -> None:
    for seed in range(2):
        store.save_head(make_head(seed=seed))
    store.save_head(replace(make_head(), stale=True))
    store.save_head(make_head(role="reranker"))
    store.save_head(make_head(role="reranker"))
    store.save_head(replace(make_head("gone", role="reranker"), stale=True))
    store.rollback_head("t", "reranker")
    assert store.drop_stale_heads("t") == 2
    current = {role: store.head("t", role) for role in ("adapter", "reranker")}
    assert {role: head and head.version for role, head in current.items()} == {
        "adapter": 2, "reranker": 1,
    }  # fmt: skip
    assert store.head("gone", "reranker") is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": np.zeros(2, dtype=np.float32)}, r"weight: got shape \(2,\); expected \(3,\)"),
        ({"precision": np.zeros((3, 2), dtype=np.float32)}, r"expected \(3, 3\)"),
        ({"weight": np.full(3, np.nan, dtype=np.float32)}, "not finite"),
        ({"prior_scale": math.inf}, "prior scale is inf"),
    ],
)
def test_save_head_that_does_not_fit_is_refused(
    store: Store, change: dict[str, object], match: str
) -> None:
    with pytest.raises(ShapeError, match=match):
        store.save_head(replace(make_head(), **change))
    assert store.heads() == []


def test_save_head_with_a_report_that_is_not_json_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="report is not JSON"):
        store.save_head(replace(make_head(), report={"x": object()}))


# Log and choices

CANDIDATES = (
    Candidate("greedy one", 3, True, -0.25, 1.5, {"consensus": 1.0}),
    Candidate("other \ud800", 0, False, None, -1.0),
)
KEPT = tuple(replace(c, contributions={}) for c in CANDIDATES)


def make_generation(id_: str = "g1", task: str = "t", text: str = "greedy one") -> Generation:
    info = HeadInfo(task, "adapter", "shared", None, "base")
    shown = Record("shown input", "shown output", id="r1")
    return Generation(
        id=id_,
        query="the query",
        task=task,
        text=text,
        candidates=CANDIDATES,
        records=(RankedRecord(shown, 1.0, {}), RankedRecord(replace(shown, id="r2"), 0.5, {})),
        head=info,
        reranker=info,
        usage=Usage(llm_calls=1, prompt_tokens=20, latency_ms=3.5),
    )


def test_log_generation_comes_back_without_texts_of_records(store: Store) -> None:
    store.log_generation(make_generation(), "model-x")
    logged = store.generation("g1")
    assert logged is not None
    assert asdict(logged) | {"time": 0} == {
        "id": "g1", "task": "t", "query": "the query", "text": "greedy one", "model": "model-x",
        "candidates": tuple(asdict(c) for c in KEPT), "record_ids": ("r1", "r2"),
        "usage": asdict(Usage(llm_calls=1, prompt_tokens=20, latency_ms=3.5)), "time": 0,
    }  # fmt: skip
    assert "shown" not in "\n".join(map(str, store._db.connection.iterdump()))
    assert store.generation("g2") is None


def test_last_generation_is_the_newest_of_its_task(store: Store) -> None:
    assert store.last_generation() is None
    for id_, task in (("1", "t"), ("2", "u"), ("3", "t")):
        store.log_generation(make_generation(id_, task), "m")
    found = [store.last_generation(), store.last_generation("u"), store.last_generation("x")]
    assert [f and f.id for f in found] == ["3", "2", None]


def test_clear_log_empties_it_and_keeps_the_rest(store: Store) -> None:
    store.add([Record("a", "b")])
    for i in range(3):
        store.log_generation(make_generation(str(i)), "m")
    assert store.clear_log() == 3
    assert store.last_generation() is None
    assert store.clear_log() == 0
    assert store.count() == 1


@pytest.fixture
def _ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that never says the same twice."""
    monkeypatch.setattr(time, "time", itertools.count(1.0).__next__)


@pytest.mark.usefixtures("_ticking")
def test_clear_log_with_choices_marks_the_heads_stored_since_their_answers(store: Store) -> None:
    store.save_head(make_head())
    store.save_head(make_head("u"))
    for task in ("t", "u"):
        store.log_generation(make_generation(task, task), "m")
    store.put_choice("t", "t", "q", CANDIDATES, [], 0, "first thought", None)
    store.save_head(make_head())  # learned from the first
    store.put_choice("t", "t", "q", CANDIDATES, [], 1, "second thought", None)
    store.save_head(make_head())
    store.put_choice("u", "u", "q", CANDIDATES, [], 0, "kept", "r1")
    store.save_head(make_head("u"))
    assert store.clear_log(choices=True) == 3
    assert [(h.task, h.version) for h in store.heads() if h.stale] == [("t", 2), ("t", 3)]


@pytest.mark.usefixtures("_ticking")
def test_clear_log_with_choices_whose_answers_are_not_logged_marks_every_head(
    store: Store,
) -> None:
    store.save_head(make_head())
    store.log_generation(make_generation(), "m")
    store.put_choice("g1", "t", "q", CANDIDATES, [], 0, "taken", None)
    store.clear_log()
    assert store.clear_log(choices=True) == 1
    assert [h.stale for h in store.heads()] == [True]


def test_clear_log_with_choices_marks_by_what_came_first_whatever_the_clock_said(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes backwards: what comes later has the earlier time."""
    monkeypatch.setattr(time, "time", itertools.count(1e9, -1.0).__next__)
    store.save_head(make_head())
    store.log_generation(make_generation("g1", "t"), "m")
    store.put_choice("g1", "t", "q", CANDIDATES, [], 0, "first thought", None)
    store.save_head(make_head())
    store.save_head(make_head(role="reranker"))
    store.put_choice("g1", "t", "q", CANDIDATES, [], 1, "second thought", None)
    store.clear_log(choices=True)
    stale = [(h.role, h.version, h.stale) for h in store.heads()]
    assert stale == [("adapter", 1, False), ("adapter", 2, True), ("reranker", 1, True)]


def test_clear_log_with_choices_leaves_heads_stored_before_though_the_log_was_cleared(
    store: Store,
) -> None:
    for i in range(3):
        store.log_generation(make_generation(str(i), "t"), "m")
    store.save_head(make_head())
    store.clear_log()
    store.log_generation(make_generation("g1", "t"), "m")
    store.put_choice("g1", "t", "q", CANDIDATES, [], 0, "taken", None)
    assert store.clear_log(choices=True) == 2
    assert [h.stale for h in store.heads()] == [False]


@pytest.mark.usefixtures("_ticking")
@pytest.mark.parametrize("report", ["{}", '{"seen": "damaged"}'])
def test_clear_log_with_choices_marks_heads_of_an_earlier_release_by_their_time(
    store: Store, report: str
) -> None:
    store.save_head(make_head())
    store.log_generation(make_generation("g1", "t"), "m")
    store.put_choice("g1", "t", "q", CANDIDATES, [], 0, "taken", None)
    store.save_head(make_head())
    with store._db.writing() as connection:
        connection.execute("UPDATE heads SET report = ?", (report,))
    store.clear_log(choices=True)
    assert [h.stale for h in store.heads()] == [False, True]


@pytest.mark.usefixtures("_ticking")
def test_clear_log_before_a_moment_leaves_what_is_as_old_as_it_or_younger(store: Store) -> None:
    for id_ in "abc":
        store.log_generation(make_generation(id_), "m")
        store.put_choice(id_, "t", "q", CANDIDATES, ["r1"], 0, "taken", None)
    store.put_choice("kept", "t", "q", CANDIDATES, ["r1"], 0, "taken", "r1", moment=0.0)
    assert store.helped_counts("t") == {"r1": (4, 4)}
    middle = store.generation("b")
    assert middle is not None
    assert store.clear_log(before=middle.time) == 1
    assert store.clear_log(before=middle.time) == 0
    assert [store.generation(id_) is not None for id_ in "abc"] == [False, True, True]
    assert len(store.choices()) == 4
    assert store.clear_log(choices=True, before=middle.time) == 1
    assert {choice.generation_id for choice in store.choices()} == {"b", "c", "kept"}
    assert store.helped_counts("t") == {"r1": (3, 3)}
    last = store.last_generation()
    assert (last and last.id, store.last_is_missing()) == ("c", False)


@pytest.mark.usefixtures("_ticking")
def test_clear_log_before_a_moment_marks_the_heads_stored_since_the_answers_that_went(
    store: Store,
) -> None:
    store.save_head(make_head())
    for id_, task in (("a", "t"), ("b", "u")):
        store.log_generation(make_generation(id_, task), "m")
        store.put_choice(id_, task, "q", CANDIDATES, [], 0, "taken", None)
        store.save_head(make_head(task))
    younger = store.generation("b")
    assert younger is not None
    assert store.clear_log(choices=True, before=younger.time) == 2
    assert [(h.task, h.version) for h in store.heads() if h.stale] == [("t", 2)]
    assert store.revision().rewrites == 1
    store.clear_log(choices=True, before=younger.time)
    assert store.revision().rewrites == 1, "no choice went"


def test_clear_log_before_a_moment_that_takes_the_newest_has_no_other_taken_for_the_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back between the two: the newest answer has the earlier time."""
    monkeypatch.setattr(time, "time", iter([2000.0, 1000.0, 3000.0]).__next__)
    for id_ in ("first", "newest"):
        store.log_generation(make_generation(id_), "m")
    assert store.clear_log(before=1500.0) == 1
    assert store.generation("first") is not None
    assert store.last_is_missing()
    store.log_generation(make_generation("next"), "m")
    assert not store.last_is_missing()


def test_clear_log_before_a_moment_leaves_an_answer_unlogged_that_was(store: Store) -> None:
    store.log_generation(make_generation("a"), "m")
    store.mark_unlogged()
    store.clear_log(before=1.0)
    assert store.last_is_missing()


def test_clear_log_counts_as_a_rewrite_only_where_choices_went(store: Store) -> None:
    store.log_generation(make_generation("g1", "t"), "m")
    store.clear_log(choices=True)
    store.put_choice("g1", "t", "q", CANDIDATES, [], 0, "taken", None)
    store.clear_log()
    assert store.revision().rewrites == 0
    store.clear_log(choices=True)
    assert store.revision().rewrites == 1


def test_choice_said_again_keeps_its_number_and_another_gets_a_higher_one(store: Store) -> None:
    def put(text: str, moment: float) -> int:
        return store.put_choice("g1", "t", "q", CANDIDATES, [], None, text, None, moment=moment).seq

    first = put("a", 5.0)
    assert put("a", 5.0) == first
    assert put("b", 3.0) > first


def test_choices_come_back_oldest_first_by_task(store: Store) -> None:
    store.put_choice("g1", "t", "q1", CANDIDATES, ["r1"], 0, "greedy one", "new")
    store.put_choice("g2", "u", "q2", CANDIDATES, [], None, "my own \x00", None)
    first, second = store.choices()
    assert (first.generation_id, first.task, first.query) == ("g1", "t", "q1")
    assert (first.candidates, first.record_ids) == (KEPT, ("r1",))
    assert (first.picked, first.text, first.record_id) == (0, "greedy one", "new")
    assert (second.picked, second.text, second.record_id) == (None, "my own \x00", None)
    assert store.choices("u") == [second]


def test_put_choice_returns_what_it_stored_whatever_came_after(store: Store) -> None:
    put = store.put_choice("g1", "t", "q1", CANDIDATES, ["r1"], 0, "greedy one", "new")
    later = store.put_choice("g2", "t", "q2", CANDIDATES, [], None, "later", None)
    assert store.choices() == [put, later]
    assert (put.text, put.candidates, put.record_ids) == ("greedy one", KEPT, ("r1",))


def test_put_choice_again_for_a_generation_replaces_the_first(store: Store) -> None:
    for text in ("first thought", "second thought"):
        store.put_choice("g1", "t", "q", CANDIDATES, [], None, text, None)
        store.put_choice("", "t", "q", CANDIDATES, [], None, text, None)
    assert [(c.generation_id, c.text) for c in store.choices()] == [
        ("", "first thought"), ("g1", "second thought"), ("", "second thought"),
    ]  # fmt: skip


def test_helped_counts_are_of_shown_records_and_candidates_taken_as_they_were(
    store: Store,
) -> None:
    store.put_choice("1", "t", "q", CANDIDATES, ["a", "b", "a"], 0, "x", None)
    store.put_choice("2", "t", "q", CANDIDATES, ["a"], None, "x", None)
    store.put_choice("3", "t", "q", CANDIDATES, ["a"], 1, "x", None)
    store.put_choice("4", "u", "q", CANDIDATES, ["b"], 1, "x", None)
    assert store.helped_counts("t") == {"a": (3, 2), "b": (1, 1)}
    assert store.helped_counts("none") == {}


def recounted(store: Store, task: str) -> dict[str, tuple[int, int]]:
    """Count by hand, from all choices."""
    counts: dict[str, tuple[int, int]] = {}
    for choice in store.choices(task):
        for record_id in set(choice.record_ids):
            shown, helped = counts.get(record_id, (0, 0))
            counts[record_id] = shown + 1, helped + (choice.picked is not None)
    return counts


def test_helped_counts_stay_true_whatever_is_put_replaced_and_forgotten(tmp_path: Path) -> None:
    rng = random.Random(5)
    ids = [f"r{i}" for i in range(6)] + ["nul\x00", "lone \ud800"]
    with Store.open(tmp_path / "u.db") as store, Store.open(tmp_path / "u.db") as other:
        store.add([Record(f"text {i}", "out", id=i) for i in ids])
        for step in range(120):
            by = rng.choice([store, other])
            shown, picked = rng.choices(ids, k=3), rng.choice([0, None])
            # Few names: many of these replace an earlier choice, often the last one.
            name, task = f"g{rng.randrange(12)}", rng.choice("tu")
            by.put_choice(name, task, "q", CANDIDATES, shown, picked, "x", None)
            if step % 17 == 16:
                by.forget([gone := rng.choice(ids)])
                by.add([Record("text again", "out", id=gone)])
            if rng.random() < 0.6:
                assert store.helped_counts("t") == recounted(store, "t")
                assert store.helped_counts("u") == recounted(store, "u")


def test_helped_counts_read_a_choice_once(store: Store) -> None:
    for i in range(50):
        store.put_choice(f"g{i}", "t", "q", CANDIDATES, ["a", "b"], 0, "x", None)
    counted = store.helped_counts("t")
    counted["a"] = (7, 7)  # what was given out is the caller's
    with parsed_ids(store) as read:
        assert store.helped_counts("t") == {"a": (50, 50), "b": (50, 50)}
        store.put_choice("new", "t", "q", CANDIDATES, ["a"], None, "x", None)
        read.clear()
        assert store.helped_counts("t")["a"] == (51, 50)
    assert read == ['["a"]']


@contextmanager
def parsed_ids(store: Store) -> Iterator[list[str]]:
    """Collect the lists of record ids that are parsed."""
    parsed: list[str] = []
    original = choices.texts_from_json

    def noted(value: str) -> tuple[str, ...]:
        parsed.append(value)
        return original(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "texts_from_json", noted)
        yield parsed
