"""Figures of merit and their statistics; errors in percent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds, in percent. With one seed there is no spread: `sd`, `low` and `high` are None.

    Equal values leave an interval of no width, which says nothing about chance: `low` and `high` are then None too.
    """

    mean: float
    sd: float | None
    """Standard deviation over seeds (n - 1)."""
    low: float | None
    """Lower end of the 95 % t-interval of the mean, over training seeds only (the test images are fixed).

    Of a percentage clipped to [0, 100], of a `Difference` not.
    """
    high: float | None
    num: int


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference over seeds, this arm minus the reference: negative errors are better."""

    p_value: float | None
    """Two-sided paired t-test; None with one seed or when the differences do not vary."""

    @property
    def significant(self) -> bool:
        """True if the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def error_rate(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the error in % of predictions [N] against labels [N]; NaN for no image."""
    return float(100 * (predictions != labels).mean()) if len(labels) else math.nan


def class_errors(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> list[float]:
    """Return the error in % of each class; NaN for a class without an image."""
    return [error_rate(predictions[labels == label], labels[labels == label]) for label in range(num_classes)]


def balanced_error(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of the class errors in %, over the classes that have images."""
    from sklearn.metrics import recall_score

    present = np.unique(labels)
    return float(100 * (1 - recall_score(labels, predictions, labels=present, average="macro", zero_division=0)))


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the unweighted mean of the classes' F1 scores in %, over the classes that have images."""
    from sklearn.metrics import f1_score

    present = np.unique(labels)
    return float(100 * f1_score(labels, predictions, labels=present, average="macro", zero_division=0))


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Return mean, standard deviation and 95 % t-interval, clipped to [0, 100], of one percentage per seed.

    Raises:
        ValueError: a value below 0 or above 100.
    """
    percentages = np.asarray(values, float)
    if ((percentages < 0) | (percentages > 100)).any():
        raise ValueError(f"found {percentages.min():g} to {percentages.max():g}, needs percentages from 0 to 100")
    mean, sd, low, high = _interval(percentages)
    if low is None or high is None:
        return Estimate(mean, sd, None, None, len(percentages))
    return Estimate(mean, sd, max(0.0, low), min(100.0, high), len(percentages))


def paired_difference(values: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> Difference:
    """Compare one value per seed with the reference's of the same seeds, in the same order.

    Raises:
        ValueError: the numbers of seeds differ.
    """
    differences = np.subtract(np.asarray(values, float), np.asarray(reference, float))
    mean, sd, low, high = _interval(differences)
    p_value = None
    if low is not None:
        from scipy.stats import ttest_rel

        p_value = float(ttest_rel(values, reference).pvalue)
    return Difference(mean, sd, low, high, len(differences), p_value)


def _interval(values: np.ndarray) -> tuple[float, float | None, float | None, float | None]:
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None, None
    from scipy.stats import t

    sd = float(values.std(ddof=1))
    if math.isnan(sd):  # of no images
        return mean, None, None, None
    if sd <= 1e-9 * max(1.0, abs(mean)):  # equal but for rounding
        return mean, 0.0, None, None
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return mean, sd, mean - half, mean + half
