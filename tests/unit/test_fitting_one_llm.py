"""A fit that asks no LLM judges the adapter on the answers of one LLM, not of all together."""

from __future__ import annotations

import pytest
from learned_titles import TASK, put, records, titles
from title_writer import Make, people

from hydra_edge.learning import judged_on
from hydra_edge.llm.oneatatime import OneAtATime


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def test_a_fit_without_an_llm_is_judged_on_the_answers_of_the_one_before(
    person: Make, scripted
) -> None:
    p = person()
    p.fit_head(TASK, calls=200)
    newer = scripted(lambda prompt, n: titles(prompt, n + 1)[1:])
    newer.name = "newer"
    p._resources._llm = OneAtATime(newer)
    first = p.fit_head(TASK, calls=100)
    before = p.store.head(TASK, "adapter")
    again = p.fit_head(TASK, use_llm=False)
    after = p.store.head(TASK, "adapter")

    assert 0 < first.pools_made == again.pools_reused == first.roles[1].n_queries
    assert before.report["model"] == after.report["model"] == "newer"
    assert (before.n_queries, before.switch) == (after.n_queries, after.switch)
    assert first.roles[1].rows == again.roles[1].rows
    assert p.generate("a text about parser", task=TASK).head.reason == after.report["reason"]


def test_the_head_in_use_says_whose_answers_count_whatever_llm_is_used_now(
    person: Make, scripted
) -> None:
    p = person()
    made = p.fit_head(TASK, calls=100).pools_made
    put(p, "r2", "A Study", "r1", model="newer")
    newer = scripted(titles)
    newer.name = "newer"
    p._resources._llm = OneAtATime(newer)
    assert p.fit_head(TASK, use_llm=False).roles[1].n_queries == made
    assert p.store.head(TASK, "adapter").report["model"] == "scripted"
    assert "fitted on another LLM's answers" in p.generate("parser", task=TASK).head.reason


def test_without_a_head_the_llm_given_says_whose_answers_count(person: Make) -> None:
    p = person()
    put(p, "r8", "A Study", "r1")
    for name in ("r9", "r10"):
        put(p, name, "A Study", "r1", model="another")
    assert p.fit_head(TASK, use_llm=False).roles[1].n_queries == 1
    assert p.store.head(TASK, "adapter").report["model"] == "scripted"


def test_without_a_head_or_an_llm_the_one_asked_last_says_whose_answers_count(
    person: Make,
) -> None:
    p = person()
    assert judged_on(p.store, TASK) is None
    put(p, "r9", "A Study", "r1", model="another")
    put(p, "r8", "A Study", "r1")
    assert judged_on(p.store, TASK) == "scripted"
    assert judged_on(p.store, TASK, "given") == "given"
