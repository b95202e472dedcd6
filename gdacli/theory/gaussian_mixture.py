"""The Gaussian mixture with generated points (bGMM): a linear classifier, and a generator fitted on the same points.

Two balanced classes with means y mu, mu = (1 / sqrt d) 1 of length 1, and variance sigma^2 in every coordinate. With
z = y x the model is the mean of all z, and its losses hang on the means and scatters of four groups alone: the two
classes of the real points and of the generated ones. Those of normal points are independent, normal and chi-square, so
they are drawn in place of points: the same distribution exactly, at a cost that does not grow with their number.

Shapes: R repeats, 2 classes, d dimensions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

_BLOCK = 500_000
"""Numbers drawn at once, so that memory does not grow with the repeats."""


@dataclass(frozen=True)
class Groups:
    """What matters of the points of the two classes, as z = y x."""

    counts: NDArray[np.int64]
    """[2]: points of each class."""
    offsets: Array
    """[R, 2, d]: the mean of z in each class, less mu. Of a class without points it is any number."""
    scatters: Array
    """[R, 2, d]: sum of squares of z about that mean."""


@dataclass(frozen=True)
class Losses:
    """Of the fitted model, all [..., R]."""

    train_loss: Array
    """Mean of ||x - y theta||^2 / (2 sigma^2) over all points trained on, generated ones included."""
    test_loss: Array
    """Its expectation over the true distribution, exact."""
    test_error: Array
    """Probability that sign(theta . x) is not y under the true distribution, exact, 0 to 1."""

    @property
    def gap(self) -> Array:
        """Return the generalisation gap, test loss - train loss."""
        return self.test_loss - self.train_loss


_NAMES = [field.name for field in fields(Losses)]


def class_counts(num: int) -> NDArray[np.int64]:
    """Return how many of `num` points each class has; the first has one more of an odd number.

    Source: scikit-learn's make_blobs, with which the published code draws real and generated points alike.
    """
    return np.array([num - num // 2, num // 2])


def draw_groups(
    rng: np.random.Generator, normals: Array, counts: NDArray[np.int64], centres: Array | float, variance: Array | float
) -> Groups:
    """Draw what matters of normal points: means of variance / n about their centres, scatters of n - 1 degrees.

    Args:
        rng: source of the scatters.
        normals: [R, 2, d] standard normal numbers, which the means are made of: the same ones for other counts give
            means that move together, so that differences between them are sharp.
        counts: [2], 0 or more.
        centres: [R, 2, d] or a number: expectation of z less mu.
        variance: of a coordinate of z; a number or [R, 1, d].
    """
    some = np.maximum(counts, 1)[:, None]
    chi_squares = 2 * rng.standard_gamma(np.broadcast_to((some - 1) / 2, normals.shape))
    return Groups(
        counts, centres + np.sqrt(variance / some) * normals, np.where(counts[:, None], variance, 0) * chi_squares
    )


def fitted_variance(real: Groups) -> Array:
    """Return the generator's variance of each coordinate, [R, 1, d], shared by the classes.

    Source: the classes' sample variances (ddof 1) weighted by their shares; the published code adds 1e-9 to each.
    """
    shares = real.counts / real.counts.sum()
    weights = shares / (real.counts - 1)
    return np.asarray(np.einsum("k,rkd->rd", weights, real.scatters)[:, None])


def fit_and_test(parts: Sequence[Groups], sigma: float) -> Losses:
    """Train the linear model on groups of points together and return its losses, [R].

    Source: theta = mean of y x; the loss of (x, y) is ||x - y theta||^2 / (2 sigma^2) = ||z - theta||^2 / (2 sigma^2).
    So the train loss is the scatter of all z about theta over 2 m_T sigma^2, the expected test loss
    (d sigma^2 + ||mu - theta||^2) / (2 sigma^2), and the test error Phi(-theta . mu / (sigma ||theta||)).
    (The published code takes the last two from 10,000 sampled points.)
    """
    total = sum(int(part.counts.sum()) for part in parts)
    offset = sum(np.einsum("k,rkd->rd", part.counts / total, part.offsets) for part in parts)
    squares = sum(
        part.scatters.sum((1, 2)) + np.einsum("k,rkd,rkd->r", part.counts, part.offsets, part.offsets) for part in parts
    )
    distance = np.einsum("rd,rd->r", offset, offset)  # ||theta - mu||^2
    dimension = offset.shape[1]
    moved = offset.sum(1) / math.sqrt(dimension)  # (theta - mu) . mu
    aside = np.maximum(distance - moved**2, 0)  # squared; exactly 0 in one dimension
    cosine = (1 + moved) / np.sqrt((1 + moved) ** 2 + aside)
    return Losses(
        train_loss=(squares / total - distance) / (2 * sigma**2),
        test_loss=(dimension + distance / sigma**2) / 2,
        test_error=ndtr(-cosine / sigma),
    )


def num_generated(gamma: float, num_train: int) -> int:
    """Return m_G, the whole number nearest to gamma m (the published code rounds down; its gammas are whole)."""
    return round(gamma * num_train)


def simulate(
    seed: int,
    *,
    dimension: int,
    num_train: int,
    gammas: Sequence[float],
    sigma: float,
    repeats: int,
    advance: Callable[[int], object],
) -> Losses:
    """Train with gamma m generated points over repeats; returns losses [gammas, repeats].

    A repeat's real points are the same for every gamma, and its generated means come from the same normal numbers, so
    that gammas are compared pairwise. What one gamma gives does not hang on the others, and the gap not on sigma.

    Args:
        seed: of all that is random.
        dimension: d.
        num_train: m, both classes together, at least 4: a variance needs two points a class.
        gammas: generated points for each real one, 0 or more.
        sigma: standard deviation of a coordinate.
        repeats: R.
        advance: called with the number of repeats done.

    Source: the abstract's bGMM simulation, with classes of equal size among real and generated points as the published
    code has them.
    """
    block = max(1, _BLOCK // (2 * dimension))
    found = []
    for start in range(0, repeats, block):
        size = min(block, repeats - start)
        found.append(_simulate_block([seed, dimension, num_train, start], size, dimension, num_train, gammas, sigma))
        advance(size)
    return Losses(*(np.concatenate([getattr(each, name) for each in found], 1) for name in _NAMES))


def _simulate_block(
    seed: list[int], size: int, dimension: int, num_train: int, gammas: Sequence[float], sigma: float
) -> Losses:
    rng, shape = np.random.default_rng(seed), (size, 2, dimension)
    real = draw_groups(rng, rng.standard_normal(shape), class_counts(num_train), 0.0, sigma**2)
    variance, normals = fitted_variance(real), rng.standard_normal(shape)
    found = []
    for num in (num_generated(gamma, num_train) for gamma in gammas):
        scatters = np.random.default_rng([*seed, num])
        added = [draw_groups(scatters, normals, class_counts(num), real.offsets, variance)] if num else []
        found.append(fit_and_test([real, *added], sigma))
    return Losses(*(np.stack([getattr(each, name) for each in found]) for name in _NAMES))
