"""Real images that a generator's samples are measured against: the Fréchet distance between their features."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gdacli.errors import GdaError
from gdacli.frechet import GaussianStatistics, frechet_distance

Embed = Callable[[np.ndarray], np.ndarray]
"""Images uint8 [N, 3, H, W] -> features float [N, D]."""

_LEAST = 2


@dataclass(frozen=True)
class HeldOut:
    """n real images, and how far as many other real images are from them."""

    split: str
    """`validation`, or `train` where there are no validation images."""
    rows: np.ndarray
    """int64 [n], of the split, ascending."""
    images: np.ndarray
    """uint8 [n, 3, H, W]."""
    labels: np.ndarray
    """int64 [n]."""
    statistics: GaussianStatistics
    """Of their features."""
    real_distance: float
    """Fréchet distance of n train images that are none of them: what a perfect generator would have, about."""

    def distance(self, features: np.ndarray) -> float:
        """Return the Fréchet distance of samples, of which there should be n; lower = nearer."""
        return frechet_distance(GaussianStatistics.of(features), self.statistics)


def hold_out(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    embed: Embed,
    *,
    num_images: int,
    seed: int,
) -> HeldOut:
    """Choose the images to measure against, and as many others for the reference.

    The distance falls as the number of images grows; so it is n against n everywhere. The test split stays out.

    Args:
        train: labels int64 [N] and images uint8 [N, 3, H, W].
        validation: the same; with fewer than 2 images it is the train images that are measured against.
        embed: makes features of images.
        num_images: n at most; less where there are fewer.
        seed: of the choice.

    Raises:
        GdaError: fewer than 4 train images.
    """
    num_train, num_held = len(train[0]), len(validation[0])
    if num_train < 2 * _LEAST:
        raise GdaError(f"fit: found {num_train} train images, needs 4 or more to measure samples against")
    order = np.random.default_rng(seed)
    train_rows = order.permutation(num_train)
    if num_held >= _LEAST:
        split, (labels, images) = "validation", validation
        count = min(num_images, num_held, num_train)
        rows, others = np.sort(order.permutation(num_held)[:count]), train_rows[:count]
    else:
        split, (labels, images) = "train", train
        count = min(num_images, num_train // 2)
        rows, others = np.sort(train_rows[:count]), train_rows[count : 2 * count]
    statistics = GaussianStatistics.of(embed(images[rows]))
    reference = GaussianStatistics.of(embed(train[1][np.sort(others)]))
    return HeldOut(split, rows, images[rows], labels[rows], statistics, frechet_distance(reference, statistics))
