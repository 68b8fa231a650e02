"""Histories and profiles: cut in time, recency-weighted, sane when empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hydra_edge.history import HALF_LIFE, History
from hydra_edge.outputs import Outputs, opening_of, style_of
from hydra_edge.spelling import fold_label
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import Record


def make(outputs: list[str], task: TaskSpec = BUILTIN["paper_title"]) -> History:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2, len(outputs), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    records = [Record(f"in {i}", o, task.name, id=str(i)) for i, o in enumerate(outputs)]
    return History.build(task, records, vectors[0], vectors[1])


def test_before_sees_only_what_was_there() -> None:
    whole = make(["Alpha Beta", "gamma.", "delta: x", "Epsilon"])
    past = whole.before(2)
    fresh = make(["Alpha Beta", "gamma."])
    assert len(past) == 2
    assert past.profile.openings == fresh.profile.openings
    assert past.profile.log_length_mean == fresh.profile.log_length_mean
    np.testing.assert_array_equal(past.recency, fresh.recency)
    assert "epsilon" not in past.profile.openings


def test_outputs_are_looked_at_only_where_something_is_asked_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        "hydra_edge.outputs.length_of", lambda text: seen.append(text) or len(text.split())
    )
    words = [" ".join(["word"] * (i + 1)) for i in range(6)]
    whole = make(words)
    past = whole.before(4)
    assert seen == []
    assert past.described.length[np.array([3, 1])].tolist() == [4.0, 2.0]
    assert whole.described.length[1:3].tolist() == [2.0, 3.0]
    assert sorted(seen, key=len) == [words[1], words[2], words[3]], "each once, cut off or not"
    longer = [*words, "a b c"]
    records = [Record(f"in {i}", o, "paper_title", id=str(i)) for i, o in enumerate(longer)]
    rows = np.zeros((7, 8), dtype=np.float32)
    grown = whole.extended(records, rows, rows)
    some = grown.only(np.array([2, 3, 6]), grown.task)
    assert some.described.length[:].tolist() == [3.0, 4.0, 3.0]
    assert seen[3:] == ["a b c"], "what was known before is not asked again"
    assert grown.described.length[:].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 3.0]


@pytest.mark.parametrize("way", ["extended", "only"])
def test_outputs_taken_over_while_another_thread_looks_at_them_are_right(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    texts = ["1", "2", "3"]
    column = Outputs.of(texts).value

    class Looked(np.ndarray):
        """Values that are all asked for the moment after they were copied."""

        def __getitem__(self, rows: Any) -> Any:
            copied = np.array(self.view(np.ndarray)[rows])
            column[:]
            return copied

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def concatenate(self, arrays: Any) -> Any:
            joined = np.concatenate([np.asarray(array) for array in arrays])
            column[:]
            return joined

    if way == "extended":
        monkeypatch.setattr("hydra_edge.outputs.np", Numpy())
        assert column.extended([*texts, "4"])[:].tolist() == [1.0, 2.0, 3.0, 4.0]
    else:
        values = column.values
        values[:] = 7.0  # what is not known may hold anything
        looked = replace(column, values=values.view(Looked))
        column = replace(column, values=values)
        assert looked.only(np.array([0, 2]))[:].tolist() == [1.0, 3.0]


def test_answers_asked_about_are_not_kept() -> None:
    history = make(["Tech", "Sports"], TaskSpec("topic", "label", labels=("Tech", "Sports")))
    index = np.arange(2)
    assert history.agreement(" tech", None, index).tolist() == [1.0, 0.0]
    for i in range(9):
        assert history.agreement(f"never seen {i}", None, index).tolist() == [0.0, 0.0]
    assert history.described.labels("of a record") == 2, "two names are known, and no more"


@pytest.mark.parametrize("beyond", [3, 100])
def test_cosines_compare_a_query_with_each_input(
    beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydra_edge.history._BEYOND_CACHE", beyond)
    history = make([f"o{i}" for i in range(10)])
    rows = np.array([0, 2, 3, 5, 6, 8, 9])
    query = history.inputs[3]
    by_hand = [float(sum(a * b for a, b in zip(row, query, strict=True))) for row in history.inputs]
    found = history.cosines(query)
    np.testing.assert_allclose(found, by_hand, atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(history.cosines(query, 4), history.before(4).cosines(query))
    assert len(history.cosines(query, 0)) == 0
    some = history.only(rows, history.task)
    np.testing.assert_allclose(some.cosines(query), found[rows], atol=1e-6)
    np.testing.assert_array_equal(some.cosines(query, 4), some.cosines(query)[:4])


def test_recency_halves_after_the_half_life() -> None:
    history = make(["x"] * (int(HALF_LIFE) + 1))
    assert history.recency[-1] == 1.0
    assert history.recency[0] == pytest.approx(0.5)


def test_profile_shares_are_recency_weighted_and_sum_to_one() -> None:
    profile = make(["Tech"] * 30 + ["tech ", "SPORTS"], BUILTIN["news_category"]).profile
    assert sum(profile.shares.values()) == pytest.approx(1.0)
    assert set(profile.shares) == {"tech", "sports"}
    assert profile.shares["sports"] > 1 / 32


def test_labels_in_either_unicode_form_are_one() -> None:
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    history = make([composed, apart, "Bar"], TaskSpec("mine", "label"))
    assert set(history.profile.shares) == {fold_label(composed), "bar"}
    assert history.agreement(apart, None, np.arange(3)).tolist() == [1.0, 1.0, 0.0]


def test_profile_of_nothing_is_neutral() -> None:
    profile = make([]).profile
    assert profile.n == 0
    assert not profile.centroid.any()
    assert profile.log_length_std > 0


def test_profile_of_one_record_has_a_spread() -> None:
    assert make(["one two three"]).profile.log_length_std > 0.1


def test_style_of_reads_the_surface() -> None:
    assert style_of("Fix: the Thing 2.") == [1.0, 2 / 3, 1.0, 1.0, 1.0]
    assert style_of("") == [0.0, 0.0, 0.0, 0.0, 0.0]
    assert style_of("修复。")[2] == 1.0


def test_opening_of_keeps_a_prefix_with_its_colon() -> None:
    assert opening_of("refs: fix it") == "refs:"
    assert opening_of("  ") == ""


def test_agreement_folds_each_answer_once_however_often_it_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folded: list[str] = []
    monkeypatch.setattr("hydra_edge.outputs.fold_label", lambda text: folded.append(text) or text)
    history = make(["Tech", "Sports", "Tech"], TaskSpec("topic", "label", labels=("Tech",)))
    folded.clear()
    for _ in range(3):
        assert history.agreement("Tech", None, np.array([0, 1, 2])).tolist() == [1, 0, 1]
    history.before(2).profile.shares  # noqa: B018 - what it costs is what is asked
    assert sorted(folded) == ["Sports", *["Tech"] * 5], "three answers and three questions"


@pytest.mark.parametrize("task", [BUILTIN["film_rating"], BUILTIN["news_category"]])
def test_outputs_compared_at_once_agree_as_one_by_one(task: TaskSpec) -> None:
    history = make(["3", "Tech", "tech ", "5.0", "1", "junk", "3"], task)
    index = np.array([6, 1, 2, 3, 5, 0])
    texts, values = history.described.text, history.described.value[index].tolist()
    one_by_one = [
        history.agreement(texts[i], value, index)
        for i, value in zip(index.tolist(), values, strict=True)
    ]
    np.testing.assert_array_equal(history.agreements(index), np.stack(one_by_one))


def test_profile_shares_are_the_sums_of_weights_in_order_to_the_last_bit() -> None:
    names = ["b", "a", "B ", "c", "a"] * 40
    history = make(names, BUILTIN["news_category"]).before(197)
    by_hand: dict[str, float] = {}
    weight = history.recency / history.recency.sum()
    for name, one in zip(names, weight.tolist(), strict=False):
        by_hand[fold_label(name)] = by_hand.get(fold_label(name), 0.0) + one
    assert list(history.profile.shares.items()) == list(by_hand.items())
    assert make([], BUILTIN["news_category"]).profile.shares == {}


def test_agreement_rating_is_by_distance_and_label_by_name() -> None:
    ratings = make(["1", "5", "junk"], BUILTIN["film_rating"])
    index = np.arange(3)
    np.testing.assert_allclose(ratings.agreement("3", 3.0, index), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(ratings.agreement("good", None, index), [0, 0, 0])
    labels = make(["TECH", "sports", "tech"], BUILTIN["news_category"])
    np.testing.assert_allclose(labels.agreement(" Tech", None, index), [1, 0, 1])
