"""Metrics of the measurement, against scikit-learn and rouge-score."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, root_mean_squared_error

from bench.metrics import accuracy, macro_f1, mae, metrics_of, rmse, rouge_1, rouge_l
from hydra_edge.tasks import BUILTIN

RNG = np.random.default_rng(0)
LABELS = [str(x) for x in RNG.integers(0, 5, 200)]
SAID = [str(x) for x in RNG.integers(0, 6, 200)]
WEIGHTS = RNG.random(200).tolist()
WORDS = ("sea", "of", "light", "on", "a", "hill", "2024", "sea-side")


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_label_metrics_equal_scikit_learn(weights: list[float] | None) -> None:
    assert accuracy(SAID, LABELS, weights) == pytest.approx(
        accuracy_score(LABELS, SAID, sample_weight=weights)
    )
    assert macro_f1(SAID, LABELS, weights) == pytest.approx(
        f1_score(LABELS, SAID, average="macro", sample_weight=weights, zero_division=0.0)
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_rating_metrics_equal_scikit_learn(weights: list[float] | None) -> None:
    said, true = [float(x) for x in SAID], [float(x) for x in LABELS]
    assert mae(SAID, LABELS, 5.0, weights) == pytest.approx(
        mean_absolute_error(true, said, sample_weight=weights)
    )
    assert rmse(SAID, LABELS, 5.0, weights) == pytest.approx(
        root_mean_squared_error(true, said, sample_weight=weights)
    )


def test_macro_f1_leaves_out_labels_without_weight() -> None:
    """A random choice has weights of 0, too: what is never chosen is no label of its own."""
    assert macro_f1(["a", "b"], ["a", "c"], [1.0, 0.0]) == 1.0


def test_rating_metrics_answer_without_a_number_errs_by_the_span() -> None:
    assert mae(["very good", "2"], ["5", "3"], 4.0) == 2.5
    assert rmse(["very good"], ["5"], 4.0) == 4.0


def test_accuracy_ignores_case_and_outer_space() -> None:
    assert accuracy([" Travel"], ["TRAVEL"]) == 1.0


def test_rouge_equals_rouge_score_on_ascii_text() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rouge_score.rouge_scorer import RougeScorer
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    for _ in range(100):
        a = " ".join(RNG.choice(WORDS, RNG.integers(1, 9)))
        b = " ".join(RNG.choice(WORDS, RNG.integers(1, 9)))
        expected = scorer.score(b, a)
        assert rouge_1(a, b) == pytest.approx(expected["rouge1"].fmeasure)
        assert rouge_l(a, b) == pytest.approx(expected["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("movie_tag", {"accuracy", "macro_f1"}),
        ("film_rating", {"mae", "rmse"}),
        ("paper_title", {"rouge_1", "rouge_l"}),
    ],
)
def test_metrics_of_a_task_are_those_of_its_kind(name: str, keys: set[str]) -> None:
    assert set(metrics_of(["1", "2"], ["1", "3"], [1.0, 1.0], BUILTIN[name])) == keys


def test_metrics_of_a_random_answer_are_its_expectation() -> None:
    found = metrics_of(["a b", "c d"], ["a b", "a b"], [0.25, 0.75], BUILTIN["paper_title"])
    assert found["rouge_1"] == pytest.approx(0.25)
