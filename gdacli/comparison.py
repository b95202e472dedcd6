"""What a paired comparison of arms is worth: chance of images and seeds, effect size, many arms, seeds still needed."""

import math
from collections.abc import Sequence

import numpy as np

from gdacli.metrics import CONFIDENCE, Difference

MAX_SEEDS = 1000
"""Where `seeds_needed` stops looking; it then returns MAX_SEEDS + 1, to be said as "more than 1,000"."""


def bootstrap_error(
    wrong: np.ndarray, rng: np.random.Generator, num_resamples: int = 10_000
) -> tuple[float, float] | None:
    """Return the 95 % interval of an arm's error in % over test images and training seeds.

    It covers the error to expect of another training on other test images from the same source. The t-interval of
    `metrics.estimate` covers other trainings on these very test images, so it is the narrower of the two.

    Args:
        wrong: bool [S, N], True where the model of a seed is wrong on a test image.
        rng: drawn from once per call; the same state gives the same interval.
        num_resamples: draws; at 10,000 the ends are steady to about 1 % of the interval's width.

    Returns:
        Its ends, clipped to [0, 100], or None where the spread is unknown: one image, one seed, or equal errors for all
        (as in `metrics.estimate`).

    Raises:
        ValueError: another shape or type.

    Source: percentiles of the sum of two chances. Images are resampled, as in any bootstrap. Seeds are too few for that
    and are drawn from the t-interval's own distribution, Student's t with S - 1 degrees of freedom times the seeds'
    standard error. Resampling both (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 1 (2), 2007) called
    a difference where there was none in 12 % of comparisons of trained networks at 3 seeds, and in 0.3 to 10.3 % of
    simulated ones, by where the chance came from; this one in 3.5 and 1.9 to 5.6 % (benchmarks/null_experiment.py).
    What an image and a seed do together is in the spread of the seeds' errors already; the images' deviations are
    therefore scaled by the root of their own share of the variance of the images' means (two-way analysis of variance).
    """
    wrong = np.asarray(wrong)
    if wrong.dtype != bool or wrong.ndim != 2:
        raise ValueError(f"found {wrong.dtype} {list(wrong.shape)}, needs bool [seeds, images]")
    interval = _two_level(wrong.astype(np.int8), rng, num_resamples)
    return interval and (max(0.0, interval[0]), min(100.0, interval[1]))


def bootstrap_difference(
    wrong: np.ndarray, reference: np.ndarray, rng: np.random.Generator, num_resamples: int = 10_000
) -> tuple[float, float] | None:
    """Return the 95 % interval of a paired difference of error in %, over test images and training seeds.

    Negative = fewer errors than the reference. Images and seeds are drawn for both arms together. As against the
    interval of `metrics.paired_difference` it also covers the choice of test images: an arm may be surely better on
    this test set and not surely better on the next. `bootstrap_error` says how, and what is returned and raised; the
    ends of a difference are not clipped.

    Args:
        wrong: bool [S, N], True where the arm's model of a seed is wrong on a test image.
        reference: bool [S, N], the reference's of the same seeds and images, in the same order.
        rng: drawn from once per call.
        num_resamples: draws.
    """
    wrong, reference = np.asarray(wrong), np.asarray(reference)
    if wrong.dtype != bool or reference.dtype != bool or wrong.ndim != 2 or wrong.shape != reference.shape:
        raise ValueError(
            f"found {wrong.dtype} {list(wrong.shape)} and {reference.dtype} {list(reference.shape)}, "
            "needs two bool [seeds, images] of one shape"
        )
    return _two_level(wrong.astype(np.int8) - reference.astype(np.int8), rng, num_resamples)


def cohens_d(difference: Difference) -> float | None:
    """Return the mean paired difference in standard deviations of the differences; negative = fewer errors.

    None where the spread is unknown: one seed, or differences that do not vary.

    Source: d_z of Lakens, Frontiers in Psychology 4:863 (2013), Eq. 6, by the mean and sd of the differences.
    """
    return difference.mean / difference.sd if difference.low is not None and difference.sd else None


def hedges_g(difference: Difference) -> float | None:
    """Return `cohens_d` without its upward bias for few seeds; None also with two seeds, where it has no mean.

    Source: Hedges, Journal of Educational Statistics 6 (2), 1981: the exact factor for m = n - 1 degrees of freedom,
    Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)): 0.56 for 3 seeds, 0.80 for 5, 0.91 for 10.
    """
    d = cohens_d(difference)
    if d is None or difference.num < 3:
        return None
    freedom = difference.num - 1
    return d * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def holm(p_values: Sequence[float | None], num: int | None = None) -> list[float | None]:
    """Correct the p-values of several arms against one reference for their number, in their order.

    Calling a difference where the result is <= 0.05 makes one false call or more in at most 5 % of such families,
    however the comparisons hang together (they share the reference). A comparison without a p-value (None) stays None
    and counts as one of the family.

    Args:
        p_values: of the comparisons.
        num: how many make the family, where it has more than are asked for, as when one arm was chosen by its error to
            be the reference: then every pair of arms could have been compared, and all pairs are the family.

    Raises:
        ValueError: a p-value outside [0, 1], or a family of fewer than there are.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.04, 0.09, None, 0.09]

    Source: Holm, Scandinavian Journal of Statistics 6 (2), 1979, step-down. (SciPy corrects the false discovery rate,
    which promises less, and Dunnett's test, which is unpaired.)
    """
    num = len(p_values) if num is None else num
    if num < len(p_values):
        raise ValueError(f"found {len(p_values)} p-values, needs at most num ({num})")
    known = np.array([1.0 if p is None else p for p in p_values], float)
    if not ((known >= 0) & (known <= 1)).all():
        raise ValueError(f"found p-values {list(p_values)}, needs numbers from 0 to 1")
    order = np.argsort(known, kind="stable")
    steps = np.maximum.accumulate(known[order] * np.arange(num, num - len(known), -1))
    corrected = np.empty(len(known))
    corrected[order] = np.minimum(1, steps)
    return [None if p is None else float(each) for p, each in zip(p_values, corrected, strict=True)]


def seeds_needed(difference: Difference, power: float = 0.8, level: float = 0.05) -> int | None:
    """Return how many seeds the two-sided paired t-test would need to tell this difference, were it the true one.

    The smallest number with this power at this level for the observed mean and standard deviation, taken as they are.
    From few seeds both are rough, so the answer is an order of magnitude: plan with it, do not stop by it.

    Returns:
        At least 2; MAX_SEEDS + 1 for any number above MAX_SEEDS; None if the mean is 0 or the spread is unknown.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), section 2; exact by the noncentral t
    with n - 1 degrees of freedom and noncentrality d_z sqrt(n), both tails.
    """
    d = cohens_d(difference)
    if not d:
        return None
    from scipy.stats import nct, norm, t

    known_spread = ((norm.isf(level / 2) + norm.isf(power)) / d) ** 2  # what a z-test needs: never more than a t-test
    for num in range(max(2, math.floor(min(known_spread, MAX_SEEDS + 1))), MAX_SEEDS + 1):
        critical, shift = t.isf(level / 2, num - 1), abs(d) * math.sqrt(num)
        # The lower tail by symmetry: SciPy's cdf is NaN for some far tails.
        if nct.sf(critical, num - 1, shift) + nct.sf(critical, num - 1, -shift) >= power:
            return num
    return MAX_SEEDS + 1


def _two_level(values: np.ndarray, rng: np.random.Generator, num_resamples: int) -> tuple[float, float] | None:
    """Return the interval in % of the mean of small integers [S, N]."""
    num_seeds, num_images = values.shape
    by_seed = values.mean(1)
    if num_images < 2 or len(np.unique(by_seed)) == 1:
        return None
    from scipy.stats import t

    by_image = values.mean(0)
    residual = ((values - by_seed[:, None] - by_image + values.mean()) ** 2).sum() / (num_seeds - 1) / (num_images - 1)
    between = by_image.var(ddof=1)
    share = max(0.0, 1 - residual / num_seeds / between) if between else 0.0
    # Images with the same number of errors are alike: to resample images is to draw how many there are of each number.
    sums, counts = np.unique(values.sum(0, dtype=int), return_counts=True)
    drawn = rng.multinomial(num_images, counts / num_images, size=num_resamples) @ (100 * sums / num_seeds) / num_images
    # Evenly spaced quantiles in place of random draws of t, whose long tails would make the ends unsteady.
    student = t.ppf((np.arange(num_resamples) + 0.5) / num_resamples, num_seeds - 1)
    mean, standard_error = 100 * by_seed.mean(), 100 * by_seed.std(ddof=1) / math.sqrt(num_seeds)
    means = mean + math.sqrt(share) * (drawn - mean) + student * standard_error
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    # The images' chance cannot take the seeds' away, only the rounding of quantiles and draws.
    half = t.ppf(0.5 + CONFIDENCE / 2, num_seeds - 1) * standard_error
    return min(float(low), float(mean - half)), max(float(high), float(mean + half))
