"""How far a classifier's confidence can be believed, and which classes it takes for which."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReliabilityCurve:
    """Predictions in bins of equal width by confidence; a calibrated model has accuracy = confidence in each."""

    confidence: np.ndarray
    """float64 [B]: mean confidence of the bin's images; NaN in an empty bin."""
    accuracy: np.ndarray
    """float64 [B]: share of them that are classified correctly; NaN in an empty bin."""
    count: np.ndarray
    """int64 [B]: how many there are."""


def reliability_curve(confidence: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> ReliabilityCurve:
    """Return accuracy against confidence in bins of equal width.

    Args:
        confidence: float [N] in [0, 1], probability of the predicted class.
        correct: bool [N], True where the prediction is the label.
        num_bins: B; bin m of 1..B holds the confidences in ((m - 1) / B, m / B], and the first one 0 too.

    Raises:
        ValueError: other shapes, types or numbers of bins, or a confidence outside [0, 1].

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 2, its bins and Figure 1.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or correct.dtype != bool:
        raise ValueError(
            f"found confidence {list(confidence.shape)} and {correct.dtype} {list(correct.shape)}, "
            "needs float [N] and bool [N]"
        )
    if num_bins < 1:
        raise ValueError(f"found {num_bins} bins, needs at least 1")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("found a confidence outside [0, 1]")
    bins = np.searchsorted(np.arange(1, num_bins + 1) / num_bins, confidence)
    count = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        return ReliabilityCurve(
            np.bincount(bins, confidence, num_bins) / count, np.bincount(bins, correct, num_bins) / count, count
        )


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> float:
    """Return the expected calibration error in %: 0 = confidence is accuracy in every bin, 100 = surely wrong.

    NaN for no image; `reliability_curve` says arguments and errors. It depends on the bins and is biased upwards for
    few images, so compare it only at equal bins and images.

    Source: Guo et al. (2017), Eq. 3: the bins' |accuracy - confidence|, weighted by their counts.
    """
    curve = reliability_curve(confidence, correct, num_bins)
    full = curve.count > 0
    if not full.any():
        return float("nan")
    return float(100 * np.average(np.abs(curve.accuracy - curve.confidence)[full], weights=curve.count[full]))


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the images of each label (row) by predicted class (column): int64 [C, C].

    Args:
        predictions: int [N] in 0..C-1.
        labels: int [N] in 0..C-1; N may be 0, which scikit-learn's function of this name refuses.
        num_classes: C.

    Raises:
        ValueError: other shapes, or a class outside 0..C-1.
    """
    predictions, labels = np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
    if predictions.ndim != 1 or predictions.shape != labels.shape:
        raise ValueError(f"found predictions {list(predictions.shape)} and labels {list(labels.shape)}, needs two [N]")
    classes = np.concatenate([predictions, labels])
    if ((classes < 0) | (classes >= num_classes)).any():
        raise ValueError(f"found classes {classes.min()} to {classes.max()}, needs 0 to {num_classes - 1}")
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)
