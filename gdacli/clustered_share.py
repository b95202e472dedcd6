"""A share of images, with an interval that knows which of them hang together."""

from dataclasses import dataclass

import numpy as np

from gdacli.metrics import CONFIDENCE


@dataclass(frozen=True)
class Share:
    """A share in percent, and its 95 % interval."""

    value: float
    low: float
    high: float
    num_images: int
    num_groups: int
    """How many of them are independent of each other: sources, say."""


def clustered_share(counted: np.ndarray, groups: np.ndarray, inflation: float = 1.0) -> Share:
    """Return the share of images that are counted, of images that come in groups, such as the variants of a source.

    Images of a group may all be counted or none, so that they say less than as many independent ones would. The
    interval is Wilson's for the effective number of images: that at which independent images would give the variance
    that is seen between groups. They are never taken for more than there are; where nothing varies between groups,
    each group counts once.

    Args:
        counted: bool [N], N >= 1.
        groups: int [N], images of the same number hang together.
        inflation: of the variance, for what the groups do not show.

    Raises:
        ValueError: no image, or another shape.

    Source: the linearised variance of a ratio over clusters (Cochran, Sampling Techniques, 1977, section 9.5), in
    Wilson's score interval with an effective sample size as Korn and Graubard (Survey Methodology 24, 1998) and
    Student's t with groups - 1 degrees of freedom in place of the normal.
    """
    counted, groups = np.asarray(counted), np.asarray(groups)
    if counted.dtype != bool or counted.ndim != 1 or counted.shape != groups.shape or not len(counted):
        raise ValueError(f"found {counted.dtype} {list(counted.shape)} in groups {list(groups.shape)}, needs bool [N]")
    _, of_group = np.unique(groups, return_inverse=True)
    sizes, hits = np.bincount(of_group), np.bincount(of_group, counted)
    num, num_groups, share = len(counted), len(sizes), float(counted.mean())
    if num_groups == 1:
        return Share(100 * share, 0.0, 100.0, num, 1)
    from scipy.stats import t

    variance = num_groups / (num_groups - 1) * float(((hits - share * sizes) ** 2).sum()) / num**2
    effective = num_groups if variance == 0 else min(share * (1 - share) / variance, num)
    low, high = _wilson(share, effective / inflation, float(t.ppf(0.5 + CONFIDENCE / 2, num_groups - 1)))
    return Share(100 * share, 100 * low, 100 * high, num, num_groups)


def _wilson(share: float, num: float, quantile: float) -> tuple[float, float]:
    square = quantile**2 / num
    centre, half = share + square / 2, quantile * np.sqrt(share * (1 - share) / num + square / num / 4)
    return max(0.0, float((centre - half) / (1 + square))), min(1.0, float((centre + half) / (1 + square)))


def difference_interval(a: Share, b: Share) -> tuple[float, float]:
    """Return the 95 % interval of a - b, two shares of independent images, in points.

    Source: Newcombe, Statistics in Medicine 17 (1998), method 10: from the ends of the two intervals.
    """
    low = a.value - b.value - float(np.hypot(a.value - a.low, b.high - b.value))
    return low, a.value - b.value + float(np.hypot(a.high - a.value, b.value - b.low))
