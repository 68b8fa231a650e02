"""Forgetting through the facade: the heads that learned from it are fitted again."""

from __future__ import annotations

import pytest
from title_writer import Make, people


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_forget_fits_again_without_the_record(person: Make) -> None:
    p = person()
    p.fit_head(calls=60)
    receipt = p.forget(["r39"])
    assert receipt.records == 1
    assert "r39" not in {r.record.id for r in p.rank("number 39", k=40).records}
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    assert state.n_queries == 37
    assert [h.version for h in p.store.heads()] == [2, 2], "what the record taught is gone too"


def test_forget_everything_leaves_no_head_in_force(person: Make) -> None:
    p = person()
    p.fit_head(calls=30)
    p.forget([f"r{i}" for i in range(40)])
    assert p.rank("speech", task="paper_title").head.version is None


def test_clear_log_with_choices_fits_the_heads_again_without_them(person: Make) -> None:
    p = person()
    for i in range(3):
        p.generate(f"a text about speech {i}")
        p.choose(pick=2, keep=i == 0)
    p.fit_head(use_llm=False)
    assert p.clear_log() == 3
    p.generate("about speech")
    p.choose(pick=2, keep=False)
    assert p.clear_log(choices=True) == 4  # one answer, and three choices
    assert p.generate("about speech").notes == ()
    adapter = p.store.head("paper_title", "adapter")
    assert adapter is not None
    assert (adapter.stale, adapter.n_queries) == (False, 1)


def test_clear_log_with_choices_leaves_a_head_imported_before_them(person: Make) -> None:
    p, q = person(), person([])
    p.fit_head(use_llm=False)
    q.import_head(p.export_head("paper_title", "reranker"))
    q.generate("about speech", task="paper_title")
    assert q.choose(pick=2, keep=False).head_version == 1
    assert q.clear_log(choices=True) == 2
    assert [(h.role, h.version, h.stale) for h in q.store.heads()] == [("reranker", 1, False)]
    assert q.rank("speech", task="paper_title").head.version == 1
