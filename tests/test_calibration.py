import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from gdacli.calibration import confusion_matrix, expected_calibration_error, reliability_curve


def test_the_curve_and_its_error_by_hand():
    confidence = np.array([0.0, 0.2, 0.5, 0.6, 0.8, 1.0])  # edges belong to the bin below them, 0 to the first
    correct = np.array([False, True, True, False, True, True])
    curve = reliability_curve(confidence, correct, num_bins=2)
    assert curve.count.tolist() == [3, 3]
    assert curve.confidence == pytest.approx([0.7 / 3, 0.8])
    assert curve.accuracy == pytest.approx([2 / 3, 2 / 3])
    expected = 100 * ((2 - 0.7) / 3 * 0.5 + (0.8 - 2 / 3) * 0.5)
    assert expected_calibration_error(confidence, correct, num_bins=2) == pytest.approx(expected)


def test_edges_belong_to_the_bin_below():
    for num_bins in (3, 10, 15):
        edges = np.arange(1, num_bins + 1) / num_bins
        assert (reliability_curve(edges, np.ones(num_bins, bool), num_bins).count == 1).all()


def test_empty_bins_are_nan_and_cost_nothing():
    confidence, correct = np.full(4, 0.7), np.array([True, True, True, False])
    curve = reliability_curve(confidence, correct)
    assert (curve.count > 0).sum() == 1
    assert (np.isnan(curve.accuracy) == (curve.count == 0)).all()
    assert expected_calibration_error(confidence, correct) == pytest.approx(5)
    assert math.isnan(expected_calibration_error(np.empty(0), np.empty(0, bool)))


def test_the_error_of_a_known_overconfidence():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 200_000)
    calibrated = rng.random(200_000) < confidence
    assert expected_calibration_error(confidence, calibrated) < 0.5
    overconfident = rng.random(200_000) < confidence - 0.2  # the gap is 20 points in every bin
    assert expected_calibration_error(confidence, overconfident) == pytest.approx(20, abs=0.5)
    assert expected_calibration_error(np.ones(5), np.zeros(5, bool)) == 100


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_every_image_is_counted_once_and_coarser_bins_never_cost_more(rows, num_bins):
    confidence = np.array([row[0] for row in rows])
    correct = np.array([row[1] for row in rows])
    curve = reliability_curve(confidence, correct, num_bins)
    assert curve.count.sum() == len(rows)
    assert np.nansum(curve.accuracy * curve.count) == pytest.approx(correct.sum())
    assert np.nansum(curve.confidence * curve.count) == pytest.approx(confidence.sum())
    one_bin = 100 * abs(correct.mean() - confidence.mean())
    assert one_bin - 1e-9 <= expected_calibration_error(confidence, correct, num_bins) <= 100 + 1e-9


@pytest.mark.parametrize(
    ("confidence", "correct", "num_bins", "message"),
    [
        ([0.5, 0.5], [True], 15, "needs float"),
        ([0.5], [1], 15, "needs float"),
        ([1.1], [True], 15, "outside"),
        ([math.nan], [True], 15, "outside"),
        ([0.5], [True], 0, "at least 1"),
    ],
)
def test_what_is_no_confidence_is_refused(confidence, correct, num_bins, message):
    with pytest.raises(ValueError, match=message):
        reliability_curve(np.array(confidence), np.array(correct), num_bins)


def test_the_confusion_matrix_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 4, 100), rng.integers(0, 6, 100)  # no image of two classes
    ours = confusion_matrix(predictions, labels, 6)
    assert (ours == sklearn_metrics.confusion_matrix(labels, predictions, labels=range(6))).all()
    assert ours.dtype == np.int64
    assert (ours.sum(1) == np.bincount(labels, minlength=6)).all()
    assert not confusion_matrix(np.empty(0, int), np.empty(0, int), 3).any()
    for strange, known in (([0, 3], [0, 1]), ([0, 1], [-1, 1])):
        with pytest.raises(ValueError, match="needs 0 to 2"):
            confusion_matrix(np.array(strange), np.array(known), 3)
    with pytest.raises(ValueError, match="needs two"):
        confusion_matrix(np.zeros(2, int), np.zeros(3, int), 3)
