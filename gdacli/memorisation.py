"""Whether a generator repeats its train images: how near samples are to them, against how near new real images are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

NUM_NEIGHBOURS = 50
"""Train images that an image's nearest one is compared with; fewer where there are fewer."""

_QUANTILE = 0.01
_SURE = 1e-3
_SIDE = 16  # pixels
_ROWS, _TRAIN_ROWS = 1024, 16_384


@dataclass(frozen=True)
class Nearest:
    """The nearest train image of each of N images."""

    relative_distances: np.ndarray
    """float64 [N]: distance to it over the mean distance to the next nearest ones; 0 = a copy, 1 = as near as those."""
    rows: np.ndarray
    """int64 [N], which train image it is."""


@dataclass(frozen=True)
class Memorisation:
    """How many samples are suspiciously near to a train image."""

    threshold: float
    """1 % of the real images, but at least one, are at most so far, as relative distances go."""
    share: float
    """Share of the samples that are nearer; for a model that repeats nothing about that of the real images."""
    p_value: float
    """Of so many or more, if samples were as real images are."""

    @property
    def suspect(self) -> bool:
        """Say if that is more than chance: p below 0.001."""
        return self.p_value < _SURE


def coarse_pixels(images: np.ndarray) -> np.ndarray:
    """Reduce images to what is compared of their pixels: uint8 [N, 3, H, W] => float32 [N, 3 x 16 x 16] at most."""
    height, width = images.shape[2:]
    size = (min(height, _SIDE), min(width, _SIDE))
    parts = [
        F.adaptive_avg_pool2d(torch.from_numpy(images[first : first + _ROWS]).float(), size).flatten(1)
        for first in range(0, len(images), _ROWS)
    ]
    return torch.cat(parts).numpy()


def nearest_train_images(views: Sequence[np.ndarray], train: np.ndarray, without: np.ndarray | None = None) -> Nearest:
    """Find the train image that each image is, relatively, nearest to.

    Relatively: a smooth image is near to all images, which says nothing; so its distance to the nearest one is divided
    by the mean distance to the next nearest ones.

    Args:
        views: each float [N, D], of the same images, as they are and mirrored, say; the nearest view counts.
        train: float [M, D], M >= 3.
        without: int64 [N], for images that are train images themselves: the row of each, which does not count.

    Raises:
        ValueError: fewer than 3 train images.

    Source: Carlini et al. 2023, "Extracting training data from diffusion models", section 5.1 (the mean distance to the
    50 nearest train images as the measure of "near"); there the nearest one is among the 50.
    """
    if len(train) < 3:
        raise ValueError(f"found {len(train)} train images, needs 3 or more")
    num = min(NUM_NEIGHBOURS + 1, len(train) - (without is not None))
    center = train.mean(0, dtype=np.float64)
    known = torch.from_numpy(np.subtract(train, center, dtype=np.float32, casting="same_kind"))
    best, rows = np.full(len(views[0]), np.inf), np.zeros(len(views[0]), np.int64)
    for view in views:
        wanted = torch.from_numpy(np.subtract(view, center, dtype=np.float32, casting="same_kind"))
        for first in range(0, len(view), _ROWS):
            block = wanted[first : first + _ROWS]
            left_out = None if without is None else torch.from_numpy(without[first : first + _ROWS])
            distances, places = _nearest(block, known, num, left_out)
            relative = distances[:, 0] / distances[:, 1:].mean(1).clamp(min=1e-12)
            better = relative.numpy() < best[first : first + _ROWS]
            best[first : first + _ROWS][better] = relative.numpy()[better]
            rows[first : first + _ROWS][better] = places[:, 0].numpy()[better]
    return Nearest(best, rows)


def _nearest(
    block: torch.Tensor, train: torch.Tensor, num: int, without: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distances [n, num] to the nearest rows, ascending and exact, and which rows they are."""
    kept, places = block.new_empty(len(block), 0), torch.empty(len(block), 0, dtype=torch.int64)
    for first in range(0, len(train), _TRAIN_ROWS):
        distances = torch.cdist(block, train[first : first + _TRAIN_ROWS])
        if without is not None:
            inside = ((without >= first) & (without < first + distances.shape[1])).nonzero()[:, 0]
            distances[inside, without[inside] - first] = torch.inf
        values, found = distances.topk(min(num, distances.shape[1]), dim=1, largest=False)
        kept, places = torch.cat([kept, values], 1), torch.cat([places, found + first], 1)
        kept, order = kept.topk(min(num, kept.shape[1]), dim=1, largest=False)
        places = places.gather(1, order)
    # products of large numbers lose the digits of a small distance: that of a copy
    exact = torch.stack([(block - train[column]).square().sum(1).sqrt() for column in places.T], 1)
    exact, order = exact.double().sort(dim=1)
    return exact, places.gather(1, order)


def memorisation(samples: np.ndarray, real: np.ndarray) -> Memorisation:
    """Compare relative distances of samples to their nearest train images with those of real images to theirs.

    Args:
        samples: float [N].
        real: float [M], of real images that the model was not trained on, or of train images to other ones.

    Source: the precedence test: of exchangeable values, the number of samples below the r-th smallest of M real ones is
    beta-binomial (n, r, M - r + 1).
    """
    from scipy.stats import betabinom

    rank = max(1, int(_QUANTILE * len(real)))
    threshold = float(np.sort(real)[rank - 1])
    below = int((samples < threshold).sum())
    p_value = float(betabinom(len(samples), rank, len(real) - rank + 1).sf(below - 1))
    return Memorisation(threshold, below / len(samples), p_value)
