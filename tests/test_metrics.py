import math

import numpy as np
import pytest
from scipy import stats

from gdacli.metrics import (
    balanced_error,
    class_errors,
    error_rate,
    estimate,
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
    none = estimate([math.nan, math.nan])
    assert math.isnan(none.mean)
    assert (none.sd, none.low, none.high) == (None, None, None), "of no images there is no interval from 0 to 100"
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
