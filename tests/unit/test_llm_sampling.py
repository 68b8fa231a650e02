"""Choosing tokens: against plain references, and in proportion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.llm.sampling import draw, generator, log_total, probabilities, top_tokens


@given(st.integers(1, 4000), st.integers(1, 60), st.integers(0, 2**32))
def test_top_tokens_equals_a_full_sort(size, k, seed):
    logits = np.random.default_rng(seed).normal(0, 5, size).astype(np.float32)
    assert top_tokens(logits, k).tolist() == np.argsort(-logits, kind="stable")[:k].tolist()


def test_log_total_matches_logsumexp_where_exp_overflows():
    logits = np.array([1000.0, 1001.0, -1000.0], dtype=np.float32)
    assert log_total(logits) == pytest.approx(1001.0 + np.log1p(np.exp(-1.0)), abs=1e-4)


@pytest.mark.parametrize("temperature", [1e-300, 0.5, 1.0, 50.0])
def test_probabilities_at_any_temperature_sum_to_one(temperature):
    p = probabilities(np.array([3.0, 1.0, -2.0], dtype=np.float32), temperature)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1.0)
    assert (np.diff(p) <= 0).all()


@pytest.mark.parametrize(("temperature", "rng"), [(0.0, generator(1)), (1.0, None)])
def test_draw_without_chance_takes_the_best(temperature, rng):
    assert draw(np.array([0.0, 2.0, 1.0], dtype=np.float32), temperature, rng) == 1


def test_draw_follows_the_probabilities():
    logits = np.array([2.0, 1.0, 0.0, -1.0], dtype=np.float32)
    rng = generator(7)
    counts = np.bincount([draw(logits, 0.8, rng) for _ in range(20_000)], minlength=4)
    # Four standard errors of a share at n = 20,000 are below 0.0142.
    assert np.abs(counts / 20_000 - probabilities(logits, 0.8)).max() < 0.0142


@given(st.integers(-(2**70), 2**70))
def test_generator_takes_any_integer_and_repeats(seed):
    assert generator(seed).random() == generator(seed).random()
