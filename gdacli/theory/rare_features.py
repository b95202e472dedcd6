"""Data with common and rare features, and a quadratic two-layer network, over many repeats at once.

Shapes: R repeats, N examples, 3 patches, J filters (half of them per class), d dimensions. Everything is float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gdacli.theory.cubic_network import Array

Indices = NDArray[np.int64]
NUM_FEATURES = 4
"""The unit vectors along the first axes: the common feature of y = 1 and of y = -1, then the rare one of each."""


@dataclass(frozen=True)
class Patches:
    """R data sets of N examples of three patches: a feature, a feature of either class as noise, and plain noise."""

    labels: Array
    """[R, N], 1 or -1."""
    is_rare: NDArray[np.bool_]
    """[N]: whether its feature is the rare one; the same rows in every repeat."""
    feature: Indices
    """[R, N], 0 to 3: the feature of the first patch."""
    distractor: Indices
    """[R, N], 0 or 1: the common feature of the second patch."""
    distractor_strength: float
    noise: Array
    """[R, N, d - 4] of the third patch, in the other axes."""
    order: Indices
    """[R, N, 3]: which of the three stands first, second and third in the example."""


def draw_patches(
    rng: np.random.Generator,
    *,
    repeats: int,
    num_examples: int,
    dimension: int,
    rare_share: float,
    distractor: float,
    noise_sd: float,
    aligned: bool,
) -> Patches:
    """Draw data sets in which round(rare_share N) examples, the last rows, have a rare feature.

    Args:
        rng: source of all that is random.
        repeats: R.
        num_examples: N.
        dimension: d, above 4.
        rare_share: share of the examples whose feature is the rare one of their class, 0 to 1.
        distractor: strength of the feature noise: a common feature, of a class drawn at random.
        noise_sd: expected root mean square length of the noise patch.
        aligned: leave the patches in one order, so that the features of two examples stand at the same place;
            otherwise each example has its own order.

    Source: our own setting, after the abstract of Zou et al. 2023 (The Benefits of Mixup for Feature Learning): a
    feature-noise model with features that are common and features that are rare. The details are ours.
    """
    labels = rng.choice(np.array([-1.0, 1.0]), (repeats, num_examples))
    is_rare = np.arange(num_examples) >= num_examples - round(rare_share * num_examples)
    noise = rng.standard_normal((repeats, num_examples, dimension - NUM_FEATURES))
    other = rng.integers(0, 2, (repeats, num_examples))
    order = np.argsort(rng.random((repeats, num_examples, 3)), axis=2)
    return Patches(
        labels,
        is_rare,
        2 * is_rare + (labels < 0),
        other,
        distractor,
        noise * (noise_sd / np.sqrt(dimension - NUM_FEATURES)),
        np.broadcast_to(np.arange(3), order.shape) if aligned else order,
    )


def draw_filters(rng: np.random.Generator, repeats: int, num_filters: int, dimension: int, sd: float) -> Array:
    """Draw first weights [R, J, d], normal with standard deviation sd; the first half votes for y = 1."""
    return rng.standard_normal((repeats, num_filters, dimension)) * sd


def votes(num_filters: int) -> Array:
    """Return [J]: 1 for the filters of y = 1, -1 for those of y = -1."""
    return np.repeat([1.0, -1.0], num_filters // 2)


def responses(weights: Array, patches: Patches) -> Array:
    """Return <w_j, x^(p)> as [R, N, 3, J], the patches as they stand in the example.

    Args:
        weights: [R, J, d].
        patches: N examples.
    """
    of_features = weights[:, :, :NUM_FEATURES].transpose(0, 2, 1)
    repeat = np.arange(len(weights))[:, None]
    parts = (
        of_features[repeat, patches.feature],
        of_features[repeat, patches.distractor] * patches.distractor_strength,
        patches.noise @ weights[:, :, NUM_FEATURES:].transpose(0, 2, 1),
    )
    return np.take_along_axis(np.stack(parts, 2), patches.order[..., None], 2)


def pulled_back(of_responses: Array, patches: Patches) -> Array:
    """Return the derivative with respect to the weights, [R, J, d], from that with respect to the responses.

    It is the transpose of `responses`.

    Args:
        of_responses: [R, N, 3, J].
        patches: N examples.
    """
    parts = np.take_along_axis(of_responses, np.argsort(patches.order, axis=2)[..., None], 2)
    kinds = np.arange(NUM_FEATURES)
    feature = (patches.feature[..., None] == kinds).astype(float)
    distractor = (patches.distractor[..., None] == kinds) * patches.distractor_strength
    on_features = parts[:, :, 0].transpose(0, 2, 1) @ feature + parts[:, :, 1].transpose(0, 2, 1) @ distractor
    return np.concatenate([on_features, parts[:, :, 2].transpose(0, 2, 1) @ patches.noise], 2)


def outputs(of_patches: Array) -> Array:
    """Return f = F_1 - F_-1 as [R, N] from responses [R, N, 3, J]: F_k sums the squares of its filters' responses."""
    return np.asarray((of_patches * of_patches).sum(2) @ votes(of_patches.shape[3]))


def feature_alignments(weights: Array) -> Array:
    """Return how far the common and the rare features are learned, [R, 2].

    It is the largest |<w_j, feature>| among the filters of the feature's own class, mean over both classes.
    """
    half = weights.shape[1] // 2
    own = [np.abs(weights[:, :half, [0, 2]]).max(1), np.abs(weights[:, half:, [1, 3]]).max(1)]
    return np.asarray((own[0] + own[1]) / 2)
