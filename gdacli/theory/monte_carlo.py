"""Means over repeats, and how sure they are."""

import math
from dataclasses import dataclass

import numpy as np

from gdacli.metrics import CONFIDENCE


@dataclass(frozen=True)
class MonteCarlo:
    """A mean over independent repeats."""

    mean: float
    standard_error: float
    """Standard deviation over repeats (n - 1) over the root of their number."""
    low: float
    """Lower end of the 95 % t-interval of the mean."""
    high: float
    num: int


def monte_carlo(values: np.ndarray) -> MonteCarlo:
    """Return mean, standard error and 95 % t-interval of values [R], R >= 2, of independent repeats.

    Raises:
        ValueError: fewer than two repeats, or values that are not finite.
    """
    from scipy.stats import t

    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"found values {list(values.shape)}, needs [R] finite ones of R >= 2 repeats")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return MonteCarlo(mean, error, mean - half, mean + half, len(values))
