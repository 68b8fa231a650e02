"""Forgetting beside a fit, and where fitting fails: nothing is left of what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_runner import call
from cli_runner import records as records_of
from filled_store import cached_vectors

from hydra_edge import fitting
from hydra_edge.config import Config, find_paths
from hydra_edge.errors import BundleError, StoreError
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.types import Completion, HeadState, Record, text_hash
from hydra_edge.vectors import CHUNK, CachedEncoder

TASK = "paper_title"
OTHER = "note_title"
N = CHUNK // 2 + 20  # records have two texts each: more than are encoded in one go
SECRET = Record("vault", "grandma 4711", TASK, id="r20", time=20.0)  # short: encoded at last
Make = Callable[..., Personalizer]


def records(n: int = N, task: str = TASK, name: str = "r") -> list[Record]:
    return [
        Record(
            f"a long text number {i} about thing {i % 13}", f"thing {i % 13}: study {i}", task,
            id=f"{name}{i}", time=float(i),
        )
        for i in range(n)
    ]  # fmt: skip


def with_secret(n: int = N) -> list[Record]:
    return [SECRET if record.id == SECRET.id else record for record in records(n)]


def titles(prompt: Prompt, n: int) -> list[str]:
    return ([f"Study {len(prompt.query)}", "A Study", f"On {prompt.query[-8:]}"] * n)[:n]


@pytest.fixture
def make(tmp_path: Path, hash_encoder, scripted) -> Iterator[Make]:
    made: list[Personalizer] = []

    def one(history: list[Record], llm=None) -> Personalizer:
        store = Store.open(tmp_path / f"{len(made)}.db")
        store.add(history)
        person = Personalizer(
            store, user="me", config=Config(), paths=find_paths(),
            llm=llm or scripted(titles), encoder=hash_encoder,
        )  # fmt: skip
        made.append(person)
        return person

    yield one
    for person in made:
        person.close()


def forget_elsewhere(p: Personalizer, *ids: str) -> None:
    """Forget as another process would: through a connection of its own, and fit nothing."""
    assert p.store.path is not None
    with Store.open(p.store.path) as other:
        other.forget(ids)


def vectors_of(store: Store, base_id: str, *texts: str) -> int:
    return len(cached_vectors(store, [text_hash(text) for text in texts], base_id))


def secrets_left(p: Personalizer) -> int:
    return vectors_of(p.store, p.engine.encoder.base_id, SECRET.input, SECRET.output)


def head_of(p: Personalizer, role: str) -> HeadState:
    return next(h for h in p.store.heads(TASK) if h.role == role)


def clean(make: Make, role: str = "reranker") -> HeadState:
    """Return the head of somebody who never had the record."""
    p = make([record for record in records() if record.id != SECRET.id])
    p.fit_head(TASK, use_llm=False)
    return head_of(p, role)


@pytest.mark.parametrize("stage", ["embed", "pseudo-queries"])
def test_a_fit_forgotten_under_is_the_fit_of_what_is_left(make: Make, stage: str) -> None:
    p, told = make(with_secret()), []

    def progress(at: str, done: int, total: int) -> None:
        if not told and at == stage and (stage == "embed" or done == total):
            told.append((done, total))
            forget_elsewhere(p, SECRET.id)

    report = p.fit_head(TASK, use_llm=False, progress=progress)
    assert told
    assert report.records == N - 1
    assert secrets_left(p) == 0
    left = {text for r in p.store.records() for text in (r.input, r.output)}
    assert p.store.vector_count(p.engine.encoder.base_id) == len(left)
    head, expected = head_of(p, "reranker"), clean(make)
    assert [h.version for h in p.store.heads()] == [report.roles[0].version] == [1]
    assert (head.stale, head.n_queries) == (False, expected.n_queries)
    np.testing.assert_allclose(head.weight, expected.weight, atol=1e-6)


def test_a_fit_forgotten_under_while_the_llm_writes_learns_anew(make: Make, scripted) -> None:
    asked: list[Personalizer] = []

    def answer(prompt: Prompt, n: int) -> list[str]:
        if SECRET.id in {r.id for r in asked[0].store.records()}:
            forget_elsewhere(asked[0], SECRET.id)
        return titles(prompt, n)

    p = make(with_secret(), scripted(answer))
    asked.append(p)
    report = p.fit_head(TASK, calls=1000)
    head = p.store.head(TASK, "reranker")
    assert head is not None
    assert (head.stale, head.version) == (False, report.roles[0].version)
    assert head.n_queries == report.roles[0].n_queries == clean(make).n_queries
    assert not any(h.stale for h in p.store.heads())


def test_an_adapter_forgotten_under_learns_anew(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = make(with_secret())
    for record in with_secret()[18:24]:
        p.store.put_pool(
            record.id, task=TASK, model="scripted", query_id=record.id, record_ids=("r1",),
            completions=(Completion("A Study"), Completion(f"on {record.output}")),
        )  # fmt: skip
    evidence, seen = fitting.adapter_evidence, []

    def forgetting(*args, **options):
        found = evidence(*args, **options)
        seen.append(found.groups.n_groups)
        if len(seen) == 1:
            forget_elsewhere(p, SECRET.id)
        return found

    monkeypatch.setattr(fitting, "adapter_evidence", forgetting)
    report = p.fit_head(TASK, use_llm=False)
    assert seen == [6, 5]
    heads = p.store.heads(TASK)
    assert [(h.role, h.version, h.stale) for h in heads] == [
        ("adapter", 1, False), ("reranker", 2, False),
    ]  # fmt: skip
    assert [r.version for r in report.roles] == [2, 1]
    assert [h.n_queries for h in heads] == [5, clean(make).n_queries]
    assert vectors_of(p.store, p.engine.encoder.base_id, f"on {SECRET.output}") == 0


def test_a_fit_forgotten_under_again_and_again_ends_and_keeps_nothing(make: Make) -> None:
    p, gone = make(with_secret()), iter([SECRET.id, "r1", "r2", "r3", "r4"])

    def progress(at: str, done: int, total: int) -> None:
        if at == "pseudo-queries" and done == total:
            forget_elsewhere(p, next(gone))

    with pytest.raises(StoreError, match=r"was not stored: got records .* Fit again"):
        p.fit_head(TASK, use_llm=False, progress=progress)
    assert next(gone) == f"r{fitting.MAX_ATTEMPTS}"
    assert p.store.heads() == []
    assert secrets_left(p) == 0
    assert p.fit_head(TASK, use_llm=False).records == N - fitting.MAX_ATTEMPTS


def test_a_store_error_with_nothing_forgotten_is_not_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def full(*args: object, **options: object) -> None:
        tried.append(args)
        raise StoreError("the disk is full")

    monkeypatch.setattr(fitting, "reranker_evidence", full)
    with pytest.raises(StoreError, match="the disk is full"):
        make(records(9)).fit_head(TASK, use_llm=False)
    assert len(tried) == 1


# ---- the store and the encoder


def test_put_vectors_and_save_head_of_records_rewritten_since_are_refused(make: Make) -> None:
    p = make(with_secret(30))
    p.fit_head(TASK, use_llm=False)
    before, head = p.store.revision().rewrites, head_of(p, "reranker")
    vector = {text_hash("v"): np.ones(4)}
    assert p.store.put_vectors("b", vector, rewrites=before)
    assert p.store.save_head(head, rewrites=before).version == 2
    p.store.set_private(["r3"], True)
    assert not p.store.put_vectors("c", vector, rewrites=before)
    assert p.store.vector_count("c") == 0
    with pytest.raises(StoreError, match="rewritten or forgotten meanwhile"):
        p.store.save_head(head, rewrites=before)
    assert [h.version for h in p.store.heads()] == [1, 2]
    assert p.store.put_vectors("c", vector)
    assert p.store.save_head(head).version == 3


def test_encoder_keeps_no_vector_of_what_was_forgotten_and_ends_a_fit(
    tmp_path: Path, hash_encoder
) -> None:
    with Store.open(tmp_path / "me.db") as store:
        store.add(with_secret(30))
        encoder = CachedEncoder(hash_encoder, store)
        texts = [text for r in store.records() for text in (r.input, r.output)]
        encoder.encode([SECRET.output], keep=False)
        as_read = store.revision().rewrites
        with Store.open(tmp_path / "me.db") as other:
            other.forget([SECRET.id])
        with encoder.fitting(as_read), pytest.raises(StoreError, match="The fit was given up"):
            encoder.encode(texts)
        assert store.vector_count(encoder.base_id) == 0
        out = encoder.encode(texts)  # read before, asked for after
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1.0, atol=1e-2)
        assert vectors_of(store, encoder.base_id, SECRET.input, SECRET.output) == 0
        assert store.vector_count(encoder.base_id) == len(set(texts)) - 2


def test_rank_while_another_process_forgets_answers_and_leaves_nothing(
    make: Make, hash_encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, encode, encoded = make(with_secret()), hash_encoder.encode, []

    def forgetting(texts, **options):
        if SECRET.input in texts:
            forget_elsewhere(p, SECRET.id)
        encoded.append(len(texts))
        return encode(texts, **options)

    monkeypatch.setattr(hash_encoder, "encode", forgetting)
    assert p.rank("thing 7", task=TASK, k=3).records
    assert len(encoded) > 1
    assert secrets_left(p) == 0
    left = {text for r in p.store.records() for text in (r.input, r.output)}
    assert p.store.vector_count(p.engine.encoder.base_id) == len(left)


# ---- outdated heads


def test_the_next_fit_of_a_task_drops_its_outdated_heads(make: Make) -> None:
    p = make([*with_secret(30), *records(12, OTHER, "n"), *records(5, "chat", "c")])
    for task in (TASK, OTHER, "chat"):
        p.fit_head(task, use_llm=False)
    # As after a kill between erasing and fitting again; of the last task no record is left.
    forget_elsewhere(p, SECRET.id, "n3", *(f"c{i}" for i in range(5)))
    assert all(h.stale for h in p.store.heads())
    p.fit_head(TASK, use_llm=False)
    assert [(h.task, h.version, h.stale) for h in p.store.heads()] == [
        (OTHER, 1, True), (TASK, 2, False),
    ]  # fmt: skip
    p.fit_head(OTHER, use_llm=False)
    assert not any(h.stale for h in p.store.heads())


def test_an_outdated_head_with_too_little_left_to_fit_is_dropped(make: Make) -> None:
    p = make(records(4))
    p.fit_head(TASK, use_llm=False)
    forget_elsewhere(p, "r1", "r2")
    report = p.fit_head(TASK, use_llm=False).roles[0]
    assert p.store.heads() == []
    assert report.reason == "fewer than three records", "nothing of a head that is gone"


def test_rollback_to_an_outdated_version_is_refused(make: Make) -> None:
    p = make(with_secret(30))
    p.fit_head(TASK, use_llm=False)
    forget_elsewhere(p, SECRET.id)
    fresh = p.store.save_head(replace(head_of(p, "reranker"), stale=False))
    for version in (None, 1):
        with pytest.raises(StoreError, match=r"version 1 is outdated.*fit-head --task paper_title"):
            p.store.rollback_head(TASK, "reranker", version)
    head = p.store.head(TASK, "reranker")
    assert head is not None
    assert head.version == fresh.version == 2
    p.store.save_head(fresh)
    assert p.store.rollback_head(TASK, "reranker").version == 2


# ---- forgetting where fitting fails


def test_forget_that_cannot_fit_again_says_what_is_erased(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = make([*with_secret(30), *records(12, OTHER, "n")])
    for task in (TASK, OTHER):
        p.fit_head(task, use_llm=False)
    proxy = fitting.reranker_evidence

    def failing(engine, history, **options):
        if history.task.name == TASK:
            raise BundleError("The base is broken.")
        return proxy(engine, history, **options)

    monkeypatch.setattr(fitting, "reranker_evidence", failing)
    with pytest.raises(BundleError) as told:
        p.forget([SECRET.id, "n3"])
    assert str(told.value) == (
        "The records are erased (2), but the heads of paper_title could not be fitted again: "
        "The base is broken. Then run: hydra-edge fit-head --task paper_title"
    )
    assert told.value.code == "bundle"
    assert p.store.count() == 40
    assert [(h.task, h.version, h.stale) for h in p.store.heads()] == [
        (OTHER, 2, False), (TASK, 1, True),
    ]  # fmt: skip
    assert "forgotten" in p.rank("thing 3", task=TASK).head.reason
    monkeypatch.setattr(fitting, "reranker_evidence", proxy)
    p.fit_head(TASK, use_llm=False)
    assert not any(h.stale for h in p.store.heads())


def test_forget_on_the_command_line_without_a_base_erases_and_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Personalizer.open("me", create=True) as me:
        me.add(with_secret(30))
        me.fit_head(TASK, use_llm=False)
    monkeypatch.setenv("HYDRA_EDGE_BUNDLE", str(home / "nowhere"))
    result = call("forget", SECRET.id, "--user", "me", "--yes")
    assert result.exit_code == 1
    assert "The records are erased (1), but the heads of paper_title" in result.stderr
    assert "Cannot load the base" in result.stderr
    assert SECRET not in records_of()
    back = call("heads", "rollback", "--role", "reranker", "--version", "1", "--user", "me",
                "--task", TASK)  # fmt: skip
    assert back.exit_code == 1
    monkeypatch.delenv("HYDRA_EDGE_BUNDLE")
    assert "outdated" in call("heads", "list", "--user", "me").stdout
    back = call("heads", "rollback", "--role", "reranker", "--version", "1", "--user", "me")
    assert back.exit_code == 1
    assert "version 1 is outdated" in back.stderr
    assert call("fit-head", "--no-llm", "--user", "me", "--task", TASK).exit_code == 0
    listed = call("heads", "list", "--user", "me").stdout
    assert "v2*" in listed
    assert "outdated" not in listed
