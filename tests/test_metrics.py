import math

import numpy as np
import pytest
from scipy import stats

from gdacli.metrics import (
    balanced_error,
    class_errors,
    error_rate,
    estimate,
    frechet_distance,
    macro_f1,
    paired_difference,
)

LABELS = np.array([0, 0, 0, 0, 1, 1])
GUESSES = np.array([0, 0, 0, 1, 1, 0])


def test_errors_by_hand():
    assert error_rate(GUESSES, LABELS) == pytest.approx(100 / 3)
    assert class_errors(GUESSES, LABELS, 3)[:2] == [25, 50]
    assert math.isnan(class_errors(GUESSES, LABELS, 3)[2])
    assert balanced_error(GUESSES, LABELS) == pytest.approx(37.5)
    assert macro_f1(GUESSES, LABELS) == pytest.approx(100 * (0.75 + 0.5) / 2)


def test_balanced_figures_count_only_classes_that_have_images():
    with_a_stranger = np.where(GUESSES == 1, 2, GUESSES)
    assert balanced_error(with_a_stranger, LABELS) == pytest.approx((25 + 100) / 2)
    assert macro_f1(np.zeros(4, int), np.zeros(4, int)) == 100


def test_the_interval_is_students():
    values = [4.0, 4.5, 5.3]
    result = estimate(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (result.mean, result.sd, result.low, result.high, result.num) == pytest.approx(
        (np.mean(values), np.std(values, ddof=1), low, high, 3)
    )
    alone = estimate([4.0])
    assert (alone.mean, alone.sd, alone.low, alone.high) == (4.0, None, None, None)


def test_the_interval_of_a_percentage_ends_at_0_and_100_and_of_a_difference_does_not():
    values, reference = [0.1, 0.2, 1.4], [0.0, 0.0, 0.2]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert low < 0
    assert (estimate(values).low, estimate(values).high) == (0, pytest.approx(high))
    turned = estimate([100 - value for value in values])
    assert (turned.low, turned.high) == (pytest.approx(100 - high), 100)
    assert (paired_difference(values, reference).low or 0) < 0
    assert math.isnan(estimate([math.nan, math.nan]).mean)
    for wrong in ([-0.1, 1], [1, 100.1]):
        with pytest.raises(ValueError, match="needs percentages"):
            estimate(wrong)


def test_the_paired_difference_is_scipys():
    arm, reference = [4.0, 4.5, 5.3], [4.4, 4.6, 5.9]
    result = paired_difference(arm, reference)
    test = stats.ttest_rel(arm, reference)
    assert result.p_value == pytest.approx(test.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(test.confidence_interval()))
    assert not result.significant
    assert paired_difference([1, 2, 3], [2.1, 3, 4]).significant


def test_differences_that_do_not_vary_have_no_p_value():
    for arm, reference in (([1, 2], [1, 2]), ([2.2, 2.3, 2.4], [2.3, 2.4, 2.5]), ([20, 22, 25], [21, 23, 26])):
        same = paired_difference(arm, reference)
        assert (same.sd, same.low, same.p_value, same.significant) == (0, None, None, False)
    assert estimate([3.0, 3.0]).low is None
    with pytest.raises(ValueError, match="shape"):
        paired_difference([1, 2], [1, 2, 3])


def test_a_difference_is_called_as_often_as_promised_when_there_is_none():
    rng = np.random.default_rng(0)
    called = [paired_difference(*rng.normal(5, 0.3, (2, 3))).significant for _ in range(2000)]
    assert 0.035 < np.mean(called) < 0.065


def with_moments(mean: np.ndarray, covariance: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Make features [num, D] that have exactly this mean and covariance."""
    noise = np.random.default_rng(seed).standard_normal((num, len(mean)))
    noise -= noise.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(noise.T)), noise.T)
    return (np.linalg.cholesky(covariance) @ white).T + mean


def test_the_frechet_distance_of_known_gaussians():
    a = with_moments(np.array([1.0, 2, 3]), np.diag([1.0, 4, 9]), 40, seed=0)
    b = with_moments(np.array([1.0, 0, 3]), np.diag([4.0, 4, 1]), 60, seed=1)
    assert frechet_distance(a, b) == pytest.approx(2**2 + (2 - 1) ** 2 + 0 + (1 - 3) ** 2)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(9)


@pytest.mark.parametrize(
    ("num_a", "num_b", "width"), [(200, 150, 16), (80, 70, 64), (20, 300, 48), (10, 12, 40), (2, 2, 5)]
)
def test_the_frechet_distance_is_the_one_by_the_matrix_root(num_a, num_b, width):
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(num_a)
    a = (rng.standard_normal((num_a, width)) @ rng.standard_normal((width, width))).astype(np.float32)
    b = (rng.standard_normal((num_b, width)) @ rng.standard_normal((width, width)) + 1).astype(np.float32)
    double_a, double_b = a.astype(float), b.astype(float)
    cov_a, cov_b = np.cov(double_a.T), np.cov(double_b.T)
    if min(num_a, num_b) > width:
        trace = np.trace(sqrtm(cov_a @ cov_b)).real
    else:  # sqrtm of a singular matrix is inexact; of a symmetric one eigenvalues are exact, if noise is left out
        values, vectors = np.linalg.eigh(cov_a)
        root_a = vectors * np.sqrt(values.clip(0)) @ vectors.T
        squares = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
        trace = np.sqrt(squares[squares > 1e-10 * squares.max()]).sum()
    expected = ((double_a.mean(0) - double_b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-9 * np.trace(cov_a))


def test_features_that_cannot_be_compared_are_refused():
    good = np.ones((4, 3))
    for wrong in (np.ones((4, 2)), np.ones((1, 3)), np.ones(3)):
        with pytest.raises(ValueError, match="needs \\[N, D\\]"):
            frechet_distance(good, wrong)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(good, good * np.nan)
