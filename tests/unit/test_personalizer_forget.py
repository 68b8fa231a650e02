"""Forgetting through the facade: the heads that learned from it are fitted again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from title_writer import Make, people

from hydra_edge.errors import ConfigError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Completion


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


def test_forget_task_leaves_nothing_of_it_to_fit(person: Make) -> None:
    p = person()
    p.generate("a text about speech")
    p.choose(pick=2, keep=False)
    p.fit_head(use_llm=False)
    would = p.store.would_forget(task="paper_title")
    receipt = p.forget(task="Paper-Title")
    assert receipt == would
    assert (receipt.records, receipt.choices, receipt.heads) == (40, 1, 3)  # the step is one
    assert (p.store.heads(), p.store.choices(), p.store.count()) == ([], [], 0)


def test_forget_takes_a_source_or_a_task_and_not_both(person: Make) -> None:
    p = person()
    before = p.store.count()
    with pytest.raises(ConfigError, match="a source and a task; expected one"):
        p.forget(source="add", task="paper_title")
    assert p.store.count() == before
    assert p.store.would_forget(task="Paper-Title").records == before


def test_forget_tells_of_the_fits_that_follow(person: Make) -> None:
    p = person()
    p.generate("a text about speech")
    p.choose(pick=2, keep=False)
    p.fit_head(use_llm=False)
    told: list[tuple[str, int, int]] = []
    p.forget(["r39"], progress=lambda *so_far: told.append(so_far))
    assert "choices" in {stage for stage, _, _ in told}


def answered_by_two(p: Personalizer) -> None:
    """Keep candidates of an LLM that was used before, and of the one in use."""
    for i in range(10, 30):
        p.store.put_pool(
            f"k{i}", task="paper_title", model="scripted" if i >= 24 else "before",
            query_id=f"r{i}", record_ids=("r1",),
            completions=(Completion("A Study"), Completion("speech: study 7")),
        )  # fmt: skip


def taught_by(p: Personalizer) -> int:
    adapter = p.store.head("paper_title", "adapter")
    assert adapter is not None
    assert not adapter.stale
    return adapter.n_queries


def test_forget_fits_again_on_the_answers_of_the_same_llm(person: Make) -> None:
    p = person()
    answered_by_two(p)
    p.fit_head(calls=0)
    assert taught_by(p) == 6
    for gone, left in (("r39", 6), ("r38", 6), ("r29", 5)):  # the last was answered itself
        p.forget([gone])
        assert taught_by(p) == left


def test_forget_after_a_fit_that_asked_no_llm_fits_again_on_the_same_answers(person: Make) -> None:
    p = person()
    answered_by_two(p)
    p.fit_head(use_llm=False)
    assert taught_by(p) == 6
    p.forget(["r39"])
    assert taught_by(p) == 6


def test_forget_fits_a_head_that_names_no_llm_again_on_the_answers_of_all(person: Make) -> None:
    """Earlier releases fitted such heads."""
    p = person()
    answered_by_two(p)
    p.fit_head(use_llm=False)
    adapter = p.store.head("paper_title", "adapter")
    assert adapter is not None
    report = {name: told for name, told in adapter.report.items() if name != "model"}
    p.store.save_head(replace(adapter, report=report))
    p.forget(["r39"])
    assert taught_by(p) == 20


def test_clear_log_with_choices_fits_again_on_the_answers_of_the_same_llm(person: Make) -> None:
    p = person()
    answered_by_two(p)
    p.generate("about speech")
    p.choose(pick=2, keep=False)
    p.fit_head(calls=0)
    assert taught_by(p) == 7
    p.clear_log(choices=True)
    assert taught_by(p) == 6


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


def test_clear_log_before_a_moment_fits_the_heads_again_without_what_is_older(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    start = time.time()
    for day in range(4):
        monkeypatch.setattr(time, "time", lambda day=day: start + 86_400.0 * day)
        p.generate(f"a text about speech {day}")
        p.choose(pick=2, keep=False)
    p.fit_head(use_llm=False)
    oldest = p.store.choices()[0].generation_id
    border = start + 86_400.0 * 2
    assert p.clear_log(before=border) == 2
    assert taught_by(p) == 4
    assert p.clear_log(choices=True, before=border) == 2
    assert taught_by(p) == 2
    with pytest.raises(ConfigError, match="There is no answer"):
        p.choose(generation_id=oldest, pick=1)
    assert p.choose(pick=1, keep=False).head_version is not None, "the last answer is there"


def test_clear_log_with_choices_leaves_a_head_imported_before_them(person: Make) -> None:
    p, q = person(), person([])
    p.fit_head(use_llm=False)
    q.import_head(p.export_head("paper_title", "reranker"))
    q.generate("about speech", task="paper_title")
    assert q.choose(pick=2, keep=False).head_version == 1
    assert q.clear_log(choices=True) == 2
    assert [(h.role, h.version, h.stale) for h in q.store.heads()] == [("reranker", 1, False)]
    assert q.rank("speech", task="paper_title").head.version == 1
