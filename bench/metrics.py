"""Task metrics over answers: accuracy, macro-F1, MAE, RMSE, ROUGE-1, ROUGE-L.

Answers may carry weights, so that the expectation over a random choice is measured without
drawing. Labels are compared as utility compares them; words are split as utility splits them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hydra_edge.spelling import fold_label, number
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Double1d
from hydra_edge.utility import lcs_length, tokens


def _weights(weights: Sequence[float] | None, n: int) -> Double1d:
    return np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)


def _plain(texts: Sequence[str]) -> list[str]:
    return list(map(fold_label, texts))


def accuracy(
    answers: Sequence[str], truths: Sequence[str], weights: Sequence[float] | None = None
) -> float:
    """Return the (weighted) share of answers that are the truth but for case and outer space."""
    right = [a == t for a, t in zip(_plain(answers), _plain(truths), strict=True)]
    return float(np.average(right, weights=_weights(weights, len(right))))


def macro_f1(
    answers: Sequence[str], truths: Sequence[str], weights: Sequence[float] | None = None
) -> float:
    """Return the mean F1 of every label that was answered or true; 0 for one never right."""
    said, true = _plain(answers), _plain(truths)
    weight = _weights(weights, len(true)).tolist()
    hits: dict[str, float] = {}
    total: dict[str, float] = {}
    for a, t, w in zip(said, true, weight, strict=True):
        total[a] = total.get(a, 0.0) + w
        total[t] = total.get(t, 0.0) + w
        if a == t:
            hits[a] = hits.get(a, 0.0) + w
    return float(np.mean([2.0 * hits.get(label, 0.0) / n for label, n in total.items() if n > 0.0]))


def _errors(answers: Sequence[str], truths: Sequence[str], span: float) -> Double1d:
    """Return absolute errors, shape ``(n,)``; ``span`` where either is no number."""
    pairs = [(number(a), number(t)) for a, t in zip(answers, truths, strict=True)]
    return np.array([span if a is None or t is None else abs(a - t) for a, t in pairs])


def mae(
    answers: Sequence[str],
    truths: Sequence[str],
    span: float,
    weights: Sequence[float] | None = None,
) -> float:
    """Return the mean absolute error; an answer that is no number errs by the whole ``span``."""
    return float(np.average(_errors(answers, truths, span), weights=_weights(weights, len(truths))))


def rmse(
    answers: Sequence[str],
    truths: Sequence[str],
    span: float,
    weights: Sequence[float] | None = None,
) -> float:
    """Return the root of the mean squared error; see ``mae``."""
    squares = _errors(answers, truths, span) ** 2
    return float(np.sqrt(np.average(squares, weights=_weights(weights, len(truths)))))


def rouge_1(answer: str, truth: str) -> float:
    """Return the F1 of common words (Lin 2004), without stemming."""
    a, b = tokens(answer), tokens(truth)
    common = (Counter(a) & Counter(b)).total()
    return 2.0 * common / (len(a) + len(b)) if common else 0.0


def rouge_l(answer: str, truth: str) -> float:
    """Return the F1 of the longest common subsequence of words (Lin 2004), without stemming."""
    a, b = tokens(answer), tokens(truth)
    common = lcs_length(a, b)
    return 2.0 * common / (len(a) + len(b)) if common else 0.0


def metrics_of(
    answers: Sequence[str], truths: Sequence[str], weights: Sequence[float], task: TaskSpec
) -> dict[str, float]:
    """Return the metrics of a task's kind by name.

    Parameters
    ----------
    answers, truths, weights
        One entry an answer; the weights of one query's answers add up to 1.
    task
        Its kind chooses the metrics, its span bounds the error of an answer that is no number.
    """
    if task.kind == "label":
        return {
            "accuracy": accuracy(answers, truths, weights),
            "macro_f1": macro_f1(answers, truths, weights),
        }
    if task.kind == "rating":
        return {
            "mae": mae(answers, truths, task.span, weights),
            "rmse": rmse(answers, truths, task.span, weights),
        }
    pairs = list(zip(answers, truths, strict=True))
    return {
        "rouge_1": float(np.average([rouge_1(a, t) for a, t in pairs], weights=weights)),
        "rouge_l": float(np.average([rouge_l(a, t) for a, t in pairs], weights=weights)),
    }
