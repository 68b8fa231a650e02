"""Vectors in the store: by text and base, damaged, dropped."""

from __future__ import annotations

import math

import numpy as np
import pytest
import store_items
from filled_store import cached_vectors

from hydra_edge.errors import ShapeError
from hydra_edge.store import Store
from hydra_edge.types import (
    text_hash,
)
from hydra_edge.vectors import CachedEncoder

store = store_items.store


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
