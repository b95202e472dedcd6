"""What is known exactly of the Gaussian mixture with generated points, and the bound of the paper.

Notation: n_k real and g_k generated points of class k, m = n_1 + n_2, m_G = g_1 + g_2, m_T = m + m_G, sigma = 1 (gap
and excess test loss do not hang on it).
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.integrate import quad
from scipy.stats import ncx2

from gdacli.theory.gaussian_mixture import Array, class_counts


def expected_test_loss(dimension: int, num_train: int, num_generated: int) -> float:
    """Return the expectation of the test loss, d (1 + A) / 2.

    A is the variance of a coordinate of theta. The mean of the real z of class k weighs w_k = (n_k + g_k) / m_T, for
    the generated ones are centred on it, and has variance 1 / n_k; the generated points' own noise adds m_G / m_T^2,
    for their variance is right in expectation. A = sum_k w_k^2 / n_k + m_G / m_T^2, with classes of equal size
    (1 / m) (1 + gamma / (1 + gamma)^2). It is never below 1 / m, its value without generated points: weights of
    n_k / m make the first term least, and they give that.
    """
    return dimension * (1 + _variance(num_train, num_generated)) / 2


def expected_gap(dimension: int, num_train: int, num_generated: int) -> float:
    """Return the expectation of test loss - train loss, d (A - sum_k g_k / n_k / (2 m_T)).

    A as in `expected_test_loss`. A generated point is 1 + 1 / n_k from mu in mean square, a real one 1, and the train
    loss is what of this is left about theta: ((m_T + sum_k g_k / n_k) / m_T - A) d / 2. With classes of equal size
    the gap is (d / m) (1 + 2 gamma) / (1 + gamma)^2: d / m without generated points, and none in the limit.
    """
    real, generated = class_counts(num_train), class_counts(num_generated)
    total = num_train + num_generated
    return float(dimension * (_variance(num_train, num_generated) - (generated / real).sum() / (2 * total)))


def mean_abs_gap(dimension: int, num_train: int) -> float:
    """Return E|gap| without generated points.

    The gap is (d + U / m - V / m) / 2 with U and V chi-square of d and d (m - 1) degrees: theta's distance from mu,
    and the scatter.
    """

    def log_characteristic(t: float) -> complex:
        return -dimension / 2 * np.log1p(-1j * t / num_train) - dimension * (num_train - 1) / 2 * np.log1p(
            1j * t / num_train
        )

    return _mean_abs(dimension, log_characteristic, dimension * num_train / (2 * num_train**2))


def mean_abs_gap_limit(dimension: int, num_train: int) -> float:
    """Return the limit of E|gap| as gamma grows.

    Then theta is the mean of the two classes' means and the train loss the generator's: half of v plus the squared
    half distance of the means, summed over coordinates. With a_k the offsets of the means, of variance 1 / n_k, and
    v = sum_k (n_k / m) chi^2_(n_k - 1) / (n_k - 1), the gap is (d + sum over coordinates of a_1 a_2 - v) / 2: what is
    left are the errors of a fit to m points, which more generated points only copy.
    """
    real = class_counts(num_train)
    product, degrees = float(real.prod()), real - 1
    scales = real / num_train / degrees

    def log_characteristic(t: float) -> complex:
        of_product = -np.log1p(t * t / 4 / product) / 2
        return dimension * (of_product - (degrees / 2 * np.log1p(1j * t * scales)).sum())

    variance = dimension * (1 / product + (2 * scales**2 * degrees).sum()) / 4
    return _mean_abs(dimension, log_characteristic, variance)


def expected_test_error(dimension: int, num_train: int, sigma: float) -> float:
    """Return the expected test error with real points alone, 0 to 1.

    theta . x < 0 is ||a theta + x|| < ||a theta - x|| for any a > 0. With a = sqrt m both sums have independent
    coordinates of variance 2 sigma^2: two independent noncentral chi-squares of d degrees, with noncentralities
    (sqrt m +- 1)^2 / (2 sigma^2), and the error is the probability that the first is the smaller one.
    """
    near, far = ((math.sqrt(num_train) + sign) ** 2 / (2 * sigma**2) for sign in (-1, 1))
    # In the root of the second: its density is smooth there, and about normal with a standard deviation of 1 at most.
    centre = math.sqrt(dimension + near)
    places, weights = _quadrature()
    low, high = max(0.0, centre - 9), centre + 9
    roots = low + (high - low) * (places + 1) / 2
    density = ncx2.pdf(roots**2, dimension, near) * 2 * roots
    return float((weights * density * ncx2.cdf(roots**2, dimension, far)).sum() * (high - low) / 2)


def bound(dimension: int, num_train: int, gamma: float) -> float:
    """Return the paper's bound of the gap in orders only, all constants 1: its course over gamma, not its height.

    Source: the published code's curve. M = d + ln m, beta = M / m_T; TV and tau, the divergences of the learned from
    the true distribution, are 1 for d > 2, else sqrt(d / m ln d) and sqrt(gamma d / m) ln(m d).
    """
    d, m = dimension, num_train
    size = d + math.log(m)
    beta = size / ((1 + gamma) * m)
    if d > 2:
        tv = tau = 1.0
    else:
        tv = math.sqrt(d / m * math.log(d))
        tau = math.sqrt(gamma * d / m) * math.log(m * d)
    logs = math.log(m) + (math.log(gamma * m) if gamma > 0 else 0)
    of_divergence = gamma * size * tv + math.log(m) * size * tau
    of_sampling = size * (1 + math.sqrt(gamma)) / math.sqrt(m) + beta * (math.sqrt(gamma * m) + logs)
    return (of_divergence + of_sampling) / (1 + gamma)


def _variance(num_train: int, num_generated: int) -> float:
    real, total = class_counts(num_train), num_train + num_generated
    weights = (real + class_counts(num_generated)) / total
    return float((weights**2 / real).sum() + num_generated / total**2)


@cache
def _quadrature() -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(160)


def _mean_abs(dimension: int, log_characteristic: Callable[[float], complex], variance: float) -> float:
    """Return E|X| of X = d / 2 + Y from the characteristic function of Y.

    Source: E|X| = 2 / pi times the integral of (1 - Re phi(t)) / t^2 over t > 0; t is in units of 1 / sd here.
    """
    sd = math.sqrt(variance)

    def integrand(u: float) -> float:
        t = u / sd
        return float((1 - np.exp(0.5j * dimension * t + log_characteristic(t)).real) / u**2)

    return 2 / math.pi * sd * float(quad(integrand, 0, math.inf, limit=400)[0])
