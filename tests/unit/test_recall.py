"""Records in memory stay in step with their file, and are read again only as far as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filled_store import cached_vectors

from hydra_edge.errors import ClosedError, StoreError, UnknownTaskError
from hydra_edge.history import History
from hydra_edge.recall import Recall
from hydra_edge.store import Store, schema
from hydra_edge.types import Record, text_hash
from hydra_edge.vectors import CachedEncoder

TASK = "paper_title"


def record(i: int, **fields: object) -> Record:
    given = {"id": f"r{i}", "time": float(i), "task": TASK} | fields
    return Record(f"text {i} of parsers", f"title {i}", **given)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "me.db") as opened:
        opened.add([record(i) for i in range(5)])
        yield opened


@pytest.fixture
def recall(store: Store, hash_encoder) -> Recall:
    return Recall(store, CachedEncoder(hash_encoder, store), {})


@pytest.fixture
def read_ids(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each reading of the store returned."""
    counts: list[int] = []
    original: Callable[..., list[Record]] = Store.records

    def counted(self: Store, **which: object) -> list[Record]:
        found = original(self, **which)
        counts.append(len(found))
        return found

    monkeypatch.setattr(Store, "records", counted)
    return counts


def same(a: History, b: History) -> None:
    assert a.records == b.records
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.outputs, b.outputs)
    assert a.described.text == b.described.text
    np.testing.assert_array_equal(a.described.length[:], b.described.length[:])
    np.testing.assert_array_equal(a.described.style[:], b.described.style[:])
    np.testing.assert_array_equal(a.profile.centroid, b.profile.centroid)


def fresh(store: Store, hash_encoder) -> History:
    anew = Recall(store, CachedEncoder(hash_encoder, store), {})
    return anew.history(anew.task(TASK))


def test_history_unchanged_is_the_same_object_and_read_once(recall: Recall, read_ids: list[int]):
    first = recall.history(recall.task(TASK))

    assert recall.history(recall.task(TASK)) is first
    assert recall.lexical(first) is recall.lexical(first)
    assert read_ids == [5]


def test_history_added_records_alone_are_read_and_encoded(
    store: Store, recall: Recall, read_ids: list[int], hash_encoder
):
    before = recall.history(recall.task(TASK))
    vectors = before.inputs.copy()
    hash_encoder.encoded.clear()
    for i in range(5, 90):  # beyond the room kept
        store.add([record(i)])
        recall.history(recall.task(TASK))
    after = recall.history(recall.task(TASK))

    assert read_ids == [5] + [2] * 85  # the last one known, and the new one
    assert len(hash_encoder.encoded) == 2 * 85
    same(after, fresh(store, hash_encoder))
    assert len(before) == 5
    np.testing.assert_array_equal(before.inputs, vectors)


def test_history_of_a_record_put_in_between_is_read_anew(
    store: Store, recall: Recall, hash_encoder
):
    recall.history(recall.task(TASK))
    store.add([record(77, time=1.5)])
    after = recall.history(recall.task(TASK))

    assert [r.id for r in after.records] == ["r0", "r1", "r77", "r2", "r3", "r4"]
    same(after, fresh(store, hash_encoder))


def test_names_without_records_are_not_kept(store: Store, recall: Recall):
    for i in range(9):
        with pytest.raises(UnknownTaskError):
            recall.task(f"name {i}")
        assert recall.records(f"name {i}") == ()
    recall.history(recall.task("email_subject"))
    recall.history(recall.task(TASK))
    assert list(recall._kept) == [TASK]

    store.forget([f"r{i}" for i in range(5)])
    assert recall.records(TASK) == ()
    assert not recall._kept


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.forget(["r4"]),
        lambda store: store.set_private(["r2"], True),
        lambda store: store.add([Record("other", "words", TASK, id="r4")]),
        lambda store: store.add([record(3, private=True)]),
    ],
    ids=["forgotten", "private", "replaced", "added again as private"],
)
def test_history_of_changed_records_is_read_anew(
    store: Store, recall: Recall, hash_encoder, change: Callable[[Store], object]
):
    before = recall.history(recall.task(TASK))
    change(store)
    after = recall.history(recall.task(TASK))

    assert after.records == tuple(store.records(task=TASK)) != before.records
    same(after, fresh(store, hash_encoder))


def test_public_history_is_as_if_private_records_were_not_there(
    store: Store, recall: Recall, hash_encoder
):
    whole = recall.history(recall.task(TASK))
    assert recall.public(whole) is whole

    store.set_private(["r1", "r4"], True)
    whole = recall.history(recall.task(TASK))
    hash_encoder.encoded.clear()
    public = recall.public(whole)

    assert not hash_encoder.encoded
    assert recall.public(whole) is public
    assert recall.public(public) is public
    assert recall.lexical(public) is recall.lexical(public) is not recall.lexical(whole)
    with Store.open(None) as other:
        other.add([record(i) for i in (0, 2, 3)])
        alone = fresh(other, hash_encoder)
    np.testing.assert_array_equal(public.inputs[:], alone.inputs)
    np.testing.assert_array_equal(public.outputs[:], alone.outputs)
    assert public.records == alone.records
    assert public.task == alone.task
    assert public.described.opening[:].tolist() == alone.described.opening[:].tolist()
    np.testing.assert_array_equal(public.described.style[:], alone.described.style[:])
    np.testing.assert_array_equal(public.profile.centroid, alone.profile.centroid)
    np.testing.assert_array_equal(public.cosines(alone.inputs[0]), alone.cosines(alone.inputs[0]))

    store.add([record(5)])
    grown = recall.public(recall.history(recall.task(TASK)))
    assert [r.id for r in grown.records] == ["r0", "r2", "r3", "r5"]


@pytest.mark.parametrize(
    ("answers", "kind", "labels"),
    [
        (["FOOD"] * 7, "label", ("Food", "sport")),  # of its spellings the user's public one
        ([f"a long answer of its own {i}" for i in range(9)], "label", ("Food", "sport")),
    ],
    ids=["spelling", "kind"],
)
def test_public_task_is_known_from_public_records_only(
    store: Store, recall: Recall, answers: list[str], kind: str, labels: tuple[str, ...]
):
    public = [Record(f"t{i}", ("Food", "sport")[i % 2], "topic", f"t{i}") for i in range(12)]
    private = [Record(f"s{i}", a, "topic", f"s{i}", private=True) for i, a in enumerate(answers)]
    store.add([*public, *private])
    whole = recall.history(recall.task("topic"))
    task = recall.public(whole).task

    assert whole.task != task
    assert (task.kind, task.labels) == (kind, labels)


def test_public_history_of_private_records_only_is_empty(store: Store, recall: Recall):
    store.add(Record(f"t{i}", f"secret{i % 2}", "topic", f"t{i}", private=True) for i in range(12))
    whole = recall.history(recall.task("topic"))
    public = recall.public(whole)

    assert (len(whole), len(public), public.task.labels) == (12, 0, ())
    assert not public.profile.centroid.any()


def test_history_changed_by_another_connection_is_noticed(store: Store, recall: Recall):
    recall.history(recall.task(TASK))
    assert store.path is not None
    with Store.open(store.path) as other:
        other.add([record(9)])

    assert recall.history(recall.task(TASK)).records[-1].id == "r9"


def test_history_survives_what_changes_no_record(store: Store, recall: Recall, read_ids: list[int]):
    first = recall.history(recall.task(TASK))
    store.put_vectors("other", {"h": np.zeros(2)})
    store.add([record(1)])  # there already

    assert recall.history(recall.task(TASK)) is first
    assert read_ids == [5]


def test_task_closed_set_learns_of_an_answer_added(store: Store, recall: Recall):
    store.add([Record("a film", "noir", "movie_tag", id=f"m{i}") for i in range(2)])
    assert "noir" in recall.task("movie_tag").labels
    before = recall.history(recall.task("movie_tag"))
    store.add([Record("one more film", "western", "movie_tag", id="m9")])

    assert "western" in recall.task("movie_tag").labels
    assert recall.history(recall.task("movie_tag")).task.labels != before.task.labels


def test_bm25_finds_what_was_added_and_not_what_was_forgotten(store: Store):
    assert dict(store.bm25("parsers", TASK, 9)).keys() == {f"r{i}" for i in range(5)}
    store.add([record(6)])
    assert "r6" in dict(store.bm25("parsers", TASK, 9))
    store.forget(["r0"])
    assert "r0" not in dict(store.bm25("parsers", TASK, 9))


def test_bm25_scores_are_the_same_from_memory(store: Store, monkeypatch: pytest.MonkeyPatch):
    from hydra_edge.store import bm25

    queries = ["text 3 of parsers", "of 1 2", "parsers parsers", "title"]
    first = [store.bm25(q, TASK, 9, postings=4) for q in queries]
    assert [store.bm25(q, TASK, 9, postings=4) for q in queries] == first
    monkeypatch.setattr(bm25, "_KEPT", 1)  # nothing can be kept
    monkeypatch.setattr(bm25, "_KEPT_RECORDS", 1)
    store._bm25 = bm25.Bm25()
    assert [store.bm25(q, TASK, 9, postings=4) for q in queries] == first


def test_encoder_passing_vector_is_stored_once_its_text_becomes_a_record(
    store: Store, hash_encoder
):
    encoder = CachedEncoder(hash_encoder, store)
    passing = encoder.encode(["a query"], keep=False)
    assert store.vector_count(encoder.base_id) == 0
    again = encoder.encode(["a query", "another", "a query"])

    assert store.vector_count(encoder.base_id) == 2
    assert hash_encoder.encoded == ["a query", "another"]
    np.testing.assert_array_equal(again[0], passing[0])
    np.testing.assert_array_equal(again[0], again[2])


@pytest.mark.parametrize("passing", [False, True])
def test_encoder_whose_cache_cannot_be_written_still_encodes_but_ends_a_fit(
    store: Store, hash_encoder, passing: bool
):
    encoder = CachedEncoder(hash_encoder, store)
    if passing:
        encoder.encode(["a text"], keep=False)
    connection = store._db.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    texts = ["a text", *map(str, range(300))]
    out = encoder.encode(texts)

    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1.0, atol=1e-2)
    assert store.vector_count(encoder.base_id) < len(texts)
    with (
        encoder.fitting(store.revision().rewrites),
        pytest.raises(StoreError, match="no space is left"),
    ):
        encoder.encode(texts)
    np.testing.assert_array_equal(encoder.encode(texts), out)


def test_encoder_long_texts_are_kept_in_smaller_portions(store: Store, hash_encoder):
    """A beginner's history of long notes gets further each time it is broken off."""
    encoder, told = CachedEncoder(hash_encoder, store), []
    texts = [f"{i} " + "word " * 1000 for i in range(40)]
    encoder.encode(texts, progress=lambda *at: told.append(at))

    assert told == [("embed", 16, 40), ("embed", 32, 40), ("embed", 40, 40)]
    assert store.vector_count(encoder.base_id) == 40
    encoder.encode([f"short {i}" for i in range(256)], progress=lambda *at: told.append(at))
    assert told[3:] == [("embed", 256, 256)]


def test_encoder_told_to_stop_keeps_the_portions_it_made(store: Store, hash_encoder):
    def check() -> None:
        if store.vector_count(hash_encoder.base_id):
            raise ClosedError("enough")

    encoder = CachedEncoder(hash_encoder, store, check)
    with pytest.raises(ClosedError, match="enough"):
        encoder.encode([f"{i} " + "word " * 1000 for i in range(40)])

    assert store.vector_count(encoder.base_id) == 16


def test_encoder_keeps_no_more_passing_vectors_than_it_says(store: Store, hash_encoder):
    from hydra_edge.vectors import PASSING

    encoder = CachedEncoder(hash_encoder, store)
    for i in range(PASSING + 3):
        encoder.encode([f"query {i}"], keep=False)

    assert len(encoder._passing) == PASSING
    encoder.encode(["query 0", f"query {PASSING}"], keep=False)
    assert hash_encoder.encoded[-1] == "query 0"


def test_vectors_of_the_first_schema_survive_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    vector, key = np.arange(4, dtype=np.float16), text_hash("some text")
    whole = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", whole[:1])
    with Store.open(tmp_path / "old.db") as store:
        store._db.connection.execute(
            "INSERT INTO vectors VALUES (?, 'base', ?)", (key, vector.tobytes())
        )
    monkeypatch.setattr(schema, "MIGRATIONS", whole)
    with Store.open(tmp_path / "old.db") as store:
        np.testing.assert_array_equal(cached_vectors(store, [key], "base")[key], vector)
        assert store.check() == []


def test_vectors_of_two_bases_of_the_first_schema_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key, whole = text_hash("some text"), schema.MIGRATIONS
    vectors = {base: np.full(4, i, dtype=np.float16) for i, base in enumerate(("one", "two"), 1)}
    monkeypatch.setattr(schema, "MIGRATIONS", whole[:1])
    with Store.open(tmp_path / "old.db") as store:
        for base, vector in vectors.items():
            store._db.connection.execute(
                "INSERT INTO vectors VALUES (?, ?, ?)", (key, base, vector.tobytes())
            )
    monkeypatch.setattr(schema, "MIGRATIONS", whole)
    with Store.open(tmp_path / "old.db") as store:
        for base, vector in vectors.items():
            np.testing.assert_array_equal(cached_vectors(store, [key], base)[key], vector)
