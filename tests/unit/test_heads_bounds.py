"""The gate's lower bound against scipy, collapsed heads, and the docstrings' examples."""

import doctest
import importlib

import numpy as np
import pytest
from scipy import stats

from hydra_edge.errors import ShapeError
from hydra_edge.heads import (
    PopulationGain,
    is_collapsed,
    one_sided_low,
    posterior_gain,
    student_t_quantile,
)


@pytest.mark.parametrize("level", [0.55, 0.8, 0.95, 0.999, 0.2, 0.5])
def test_student_t_quantile_equals_scipy(level):
    dfs = [*range(1, 201), 1000, 9999, 100_000]
    ours = [student_t_quantile(level, df) for df in dfs]
    np.testing.assert_allclose(ours, stats.t.ppf(level, dfs), atol=1e-9, rtol=1e-8)


@pytest.mark.parametrize(("level", "df"), [(0.0, 3), (1.0, 3), (np.nan, 3), (0.8, 0)])
def test_student_t_quantile_that_does_not_exist_is_refused(level, df):
    with pytest.raises(ShapeError, match="t quantile does not exist"):
        student_t_quantile(level, df)


def test_one_sided_low_equals_scipy_interval():
    values = np.random.default_rng(40).normal(0.1, 1.0, 17)
    low, _ = stats.t.interval(0.6, 16, loc=values.mean(), scale=stats.sem(values))
    assert one_sided_low(values, 0.8) == pytest.approx(low, abs=1e-9)


def test_one_sided_low_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(41)
    below = [one_sided_low(rng.normal(0.3, 1.0, 8), 0.8) <= 0.3 for _ in range(2000)]
    assert np.mean(below) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("values", [[], [0.4]])
def test_one_sided_low_with_too_few_is_minus_infinity(values):
    assert one_sided_low(values, 0.8) == float("-inf")


def test_one_sided_low_of_equal_differences_is_their_value():
    assert one_sided_low([0.0, 0.0, 0.0], 0.8) == 0.0


def test_one_sided_low_with_nan_is_refused():
    with pytest.raises(ShapeError, match="Differences cannot be used: got 1 values"):
        one_sided_low([0.1, np.nan], 0.8)


@pytest.mark.parametrize(
    ("scores", "offsets", "expected"),
    [
        ([5.0, 5.0, -2.0, -2.0], [0, 2, 4], True),  # differs between queries only
        ([5.0, 5.0, -2.0, -2.1], [0, 2, 4], False),
        ([1.0, 1.0 + 1e-5], [0, 2], True),
        ([0.0, 1e-3] * 50, [*range(0, 101, 2)], True),  # many queries do not add up to a spread
        ([0.0, 2e-3] * 50, [*range(0, 101, 2)], False),
        ([1.0, 2.0], [0, 1, 2], True),  # no query with a choice
        ([], [0], True),
    ],
)
def test_is_collapsed_looks_within_queries_only(scores, offsets, expected):
    assert is_collapsed(scores, offsets) is expected


@pytest.mark.parametrize("module", ["groups", "logit", "loo", "bounds"])
def test_docstring_examples_of_heads_run(module):
    result = doctest.testmod(importlib.import_module(f"hydra_edge.heads.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


OTHERS = PopulationGain(mean=0.04, spread=0.03, noise=0.2)


def test_posterior_gain_without_queries_is_the_population() -> None:
    found = posterior_gain([], OTHERS, 0.8)
    assert found.mean == pytest.approx(0.04)
    assert found.low == pytest.approx(0.04 - 0.8416 * 0.03, abs=1e-4)


def test_posterior_gain_few_noisy_queries_do_not_overrule_others() -> None:
    rng = np.random.default_rng(0)
    assert posterior_gain(rng.normal(-0.02, 0.2, 8), OTHERS, 0.8).low > 0.0


def test_posterior_gain_many_queries_overrule_others() -> None:
    rng = np.random.default_rng(0)
    harmed = posterior_gain(rng.normal(-0.1, 0.1, 200), OTHERS, 0.8)
    assert harmed.low < harmed.mean < 0.0
    helped = posterior_gain(rng.normal(0.1, 0.1, 200), PopulationGain(-0.02, 0.05, 0.1), 0.8)
    assert helped.low > 0.05


def test_posterior_gain_is_the_normal_posterior() -> None:
    """With the noise known the answer is that of a conjugate normal model."""
    values = np.array([0.1, 0.1, 0.1, 0.1])
    noise = 0.2 * np.sqrt(8 / 11)  # eight pseudo-observations of .2, three of none
    certain, own = 1 / 0.03**2, 4 / noise**2
    expected = (certain * 0.04 + own * 0.1) / (certain + own)
    assert posterior_gain(values, OTHERS, 0.8).mean == pytest.approx(expected)


def test_posterior_gain_bound_is_the_normal_posteriors() -> None:
    noise = 0.2 * np.sqrt(8 / 11)  # eight pseudo-observations of .2, three of none
    certain, own = 1 / 0.03**2, 4 / noise**2
    found = posterior_gain(np.full(4, 0.1), OTHERS, 0.8)
    assert found.mean - found.low == pytest.approx(0.84162 / np.sqrt(certain + own), abs=1e-4)
