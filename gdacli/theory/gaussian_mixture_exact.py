"""What is known exactly of the Gaussian mixture with generated points, and the bound of the paper.

Notation: n_k real and g_k generated points of class k, m = n_1 + n_2, m_G = g_1 + g_2, m_T = m + m_G, sigma = 1 (gap
and excess test loss do not hang on it).
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

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
    return _mean_abs(dimension / 2, [0.5 / num_train, -0.5 / num_train], [dimension, dimension * (num_train - 1)])


def mean_abs_gap_limit(dimension: int, num_train: int) -> float:
    """Return the limit of E|gap| as gamma grows.

    Then theta is the mean of the two classes' means and the train loss the generator's: half of v plus the squared
    half distance of the means, summed over coordinates. With a_k the offsets of the means, of variance 1 / n_k, and
    v = sum_k (n_k / m) chi^2_(n_k - 1) / (n_k - 1), the gap is (d + sum over coordinates of a_1 a_2 - v) / 2: what is
    left are the errors of a fit to m points, which more generated points only copy. The products are differences of
    two chi-squares: 2 a_1 a_2 = ((a_1 + a_2)^2 - (a_1 - a_2)^2) / 2 where both are scaled to one variance.
    """
    real = class_counts(num_train)
    product, degrees = 0.25 / math.sqrt(real.prod()), real - 1
    scales = [product, -product, *(-0.5 * real / num_train / degrees)]
    return _mean_abs(dimension / 2, scales, [dimension, dimension, *(dimension * degrees)])


def expected_test_error(dimension: int, num_train: int, sigma: float) -> float:
    """Return the expected test error with real points alone, 0 to 1.

    In units of sigma / sqrt m, theta is a normal number about sqrt m / sigma along mu, and a chi of d - 1 degrees
    across. The error Phi(-cosine / sigma) is integrated over both; the quadrature is exact to 1e-12.
    """
    centre = math.sqrt(num_train) / sigma
    forward, weights = _positive_nodes(centre)
    backward, others = _positive_nodes(-centre)
    along = np.concatenate([forward, -backward])
    of_along = np.concatenate([weights, others]) * np.exp(-((along - centre) ** 2) / 2)
    across, of_across = np.zeros(1), np.ones(1)
    if dimension > 1:
        across, of_across = _positive_nodes(math.sqrt(dimension - 2))
        logs = (dimension - 2) * np.log(across) - across**2 / 2
        of_across = of_across * np.exp(logs - logs.max())
    errors = ndtr(-along[:, None] / np.hypot(along[:, None], across) / sigma)
    return float(of_along @ errors @ of_across / of_along.sum() / of_across.sum())


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


def _positive_nodes(centre: float) -> tuple[Array, Array]:
    """Return nodes and weights to integrate over the positive numbers within 9 of a centre, denser at the lower end.

    Where that end is 0, the angle of theta changes fast there.
    """
    low, high = max(0.0, centre - 9), max(1.0, centre + 9)
    places, weights = _quadrature()
    return low + (high - low) * places**3, weights * (high - low) * 3 * places**2


@cache
def _quadrature() -> tuple[Array, Array]:
    """Return Gauss-Legendre nodes and weights on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(150)
    return (places + 1) / 2, weights / 2


def _mean_abs(constant: float, scales: Sequence[float], degrees: Sequence[int]) -> float:
    """Return E|X| of X = constant + sum of scales times independent chi-squares of such degrees.

    Source: E|X| = 2 / pi times the integral over t > 0 of (1 - Re phi(t)) / t^2, phi being the characteristic function
    (that of a chi-square is (1 - 2 i t)^(-degrees / 2)). In units of 1 / sd, and from 1 on over 1 / t.
    """
    a, half = np.asarray(scales, float), np.asarray(degrees, float) / 2
    sd = math.sqrt((4 * a**2 * half).sum())

    def modulus_and_phase(u: float) -> tuple[float, float]:
        x = 2 * a * u / sd
        return -(half * np.log1p(x**2)).sum() / 2, constant * u / sd + (half * np.arctan(x)).sum()

    def near(u: float) -> float:  # 1 - e^r cos(p), without cancellation
        r, p = modulus_and_phase(u)
        return float((2 * math.exp(r) * math.sin(p / 2) ** 2 - math.expm1(r)) / u**2)

    def far(v: float) -> float:
        r, p = modulus_and_phase(1 / v)
        return math.exp(r) * math.cos(p)

    return 2 / math.pi * sd * float(quad(near, 0, 1)[0] + 1 - quad(far, 0, 1, limit=200)[0])
