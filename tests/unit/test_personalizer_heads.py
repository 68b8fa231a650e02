"""Heads of one's own: which serve, and what is exported and imported."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from title_writer import Make, history, people, titles

from hydra_edge.bundle import Bundle
from hydra_edge.errors import BaseMismatchError, ConfigError
from hydra_edge.types import HeadState


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_head_of_another_base_does_not_serve(person: Make, bundle: Bundle) -> None:
    p = person()
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    p.store.save_head(replace(state, base_id="f" * 64))
    info = p.rank("speech").head
    assert info.version is None
    assert "another base" in info.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base_id": "f" * 64}, "was fitted with another base"),
        ({"stale": True}, "learned from something that was forgotten"),
        ({"features": ("x",), "weight": np.ones(1, np.float32),
          "precision": np.ones((1, 1), np.float32)}, "was fitted on other features"),
        ({"report": {"kind": "rating"}}, "was fitted to another kind of answers"),
    ],
)  # fmt: skip
def test_generate_own_head_that_does_not_serve_is_told_until_it_is_fitted_again(
    person: Make, change: dict[str, Any], why: str
) -> None:
    p = person()
    assert p.generate("about speech").notes == (), "nobody misses a head that never was"
    p.fit_head(calls=30)
    assert p.generate("about speech").notes == ()
    p.engine.began = math.inf  # what is stored now was stored before
    for state in p.store.heads():
        p.store.save_head(replace(state, **change))
    note = f"your own head {why} and does not serve; run hydra-edge fit-head"
    assert p.generate("about speech").notes == (note,)
    p.fit_head(use_llm=False)
    assert p.generate("about speech").notes == ()


def test_import_head_with_nothing_to_fit_on_stays_until_it_is_taken_back(person: Make) -> None:
    p, q = person(), person(history(1))
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    p.store.save_head(replace(state, switch="personal"))
    q.import_head(p.export_head("paper_title", "reranker"))
    report = q.fit_head("paper_title", use_llm=False).roles[0]
    assert report.switch == q.rank("speech", task="paper_title").head.switch == "personal"
    assert report.reason == "fewer than three records; your head v1 stays"
    assert q.store.rollback_head("paper_title", "reranker") is None
    head = q.rank("speech", task="paper_title").head
    assert (head.switch, head.version) == ("shared", None)


def test_fit_head_that_cannot_replace_one_of_another_base_says_that_it_does_not_serve(
    person: Make,
) -> None:
    p, q = person(), person(history(1))
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    q.engine.began = math.inf  # what is stored now was stored before
    q.store.save_head(replace(state, base_id="f" * 64))
    report = q.fit_head("paper_title", use_llm=False).roles[0]
    assert report.reason == (
        "fewer than three records; your head v1 was fitted with another base and does not serve"
    )


def test_export_and_import_head_round_trip(person: Make) -> None:
    p, q = person(), person()
    p.fit_head(use_llm=False)
    text = p.export_head("paper_title", "reranker")
    assert "study" not in text
    imported: HeadState = q.import_head(text)
    original = p.store.head("paper_title", "reranker")
    assert original is not None
    np.testing.assert_array_equal(imported.weight, original.weight)
    np.testing.assert_array_equal(imported.precision, original.precision)
    with pytest.raises(BaseMismatchError, match="hydra-edge fit-head --task paper_title"):
        q.import_head(text.replace(original.base_id, "0" * 64))
    with pytest.raises(ConfigError, match="No adapter head for paper_title"):
        p.export_head("paper_title", "adapter")


def test_exported_head_does_not_say_which_llm_taught_it(person: Make) -> None:
    p = person()
    p.fit_head(calls=30)
    kept = p.store.head("paper_title", "adapter")
    assert kept is not None
    assert kept.report["model"] == p.llm.name
    assert p.llm.name not in p.export_head("paper_title", "adapter")


def test_answer_of_another_llm_than_the_head_was_fitted_on_says_so(person: Make, scripted) -> None:
    p = person()
    p.fit_head(calls=30)
    fitted = p.generate("about speech").head
    assert fitted.version == 1
    assert "another LLM" not in fitted.reason
    llm = scripted(titles)
    llm.name = "other"
    q = person(llm=llm)
    q.store.save_head(p.store.head("paper_title", "adapter"))
    assert q.generate("about speech").head == replace(
        fitted, reason=f"{fitted.reason}; fitted on another LLM's answers"
    )
    q.fit_head(calls=30)
    assert "another LLM" not in q.generate("about speech").head.reason


def test_head_fitted_on_choices_alone_is_of_no_llm(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    made = [p.generate(f"about speech {i}") for i in range(3)]
    for one in made:
        p.choose(generation_id=one.id, pick=1, keep=False)
    writer, llm.name = llm.name, "other"
    p.fit_head("paper_title", calls=0)
    head = p.store.head("paper_title", "adapter")
    assert (head.report["model"], head.n_queries) == ("other", 3)
    for name in (writer, "other"):
        llm.name = name
        assert "another LLM" not in p.generate("about speech").head.reason


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode("ascii")


def _lopsided(d: int) -> np.ndarray:
    precision = np.eye(d)
    precision[0, 1] = 0.5
    return precision


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {"precision": _packed(_lopsided(d))},
        lambda d: {"precision": _packed(-np.eye(d))},
        lambda d: {"weight": _packed(np.full(d, 3e35))},
        lambda d: {"n_queries": float("inf")},
        lambda d: {"n_queries": 10**30},
        lambda d: {"n_queries": -1},
        lambda d: {"prior_scale": 0.0},
        lambda d: {"task": ""},
        lambda d: {"task": "\x1b[31mevil"},
        lambda d: {"task": "x" * 5000},
        lambda d: {"features": ["a", "b", "c"], "weight": _packed(np.zeros(3)),
                   "precision": _packed(np.eye(3))},
        lambda d: {"features": [], "weight": "", "precision": ""},
    ],
)  # fmt: skip
def test_import_head_refuses_what_no_answer_could_be_given_with(
    person: Make, change: Callable[[int], dict[str, Any]]
) -> None:
    p, q = person(), person()
    p.fit_head(use_llm=False)
    raw = json.loads(p.export_head("paper_title", "reranker"))
    with pytest.raises(ConfigError):
        q.import_head(json.dumps(raw | change(len(raw["features"]))))
    assert q.store.heads() == []
    q.import_head(json.dumps(raw))


def test_export_head_that_learned_from_what_was_forgotten_is_refused(person: Make) -> None:
    p = person()
    p.fit_head(use_llm=False)
    state = p.store.head("paper_title", "reranker")
    assert state is not None
    p.store.save_head(replace(state, stale=True))
    with pytest.raises(ConfigError, match="fit-head --task paper_title"):
        p.export_head("paper_title", "reranker")
