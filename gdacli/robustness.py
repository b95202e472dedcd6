"""How models do on corrupted test images: error per corruption and severity, clean apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gdacli.console import progress
from gdacli.corruptions import CORRUPTIONS, SEVERITIES, SMALLEST_SIDE, corrupt_batch
from gdacli.errors import GdaError
from gdacli.loading import AS_THEY_ARE, ImageSource
from gdacli.models import Classifier
from gdacli.rng import derive_seed, uniform
from gdacli.training import predict

Run = tuple[str, int]
"""Arm and seed."""


@dataclass(frozen=True)
class Robustness:
    """The errors of one model, in %."""

    arm: str
    seed: int
    num_images: int
    clean: float
    """On the same images as they are."""
    errors: np.ndarray
    """float64 [15, 5], by CORRUPTIONS and SEVERITIES."""

    @property
    def mean(self) -> float:
        """Mean over the 15 x 5, without clean.

        Not Hendrycks and Dietterich's mCE, which divides each corruption's error by AlexNet's before the mean; of
        CIFAR-10-C, for which there is no such divisor, papers call this one mCE too.
        """
        return float(self.errors.mean())

    def to_json(self) -> dict[str, Any]:
        """Return what a report shows."""
        return {
            "arm": self.arm,
            "seed": self.seed,
            "num_images": self.num_images,
            "clean": self.clean,
            "mean": self.mean,
            "errors": {name: row.tolist() for name, row in zip(CORRUPTIONS, self.errors, strict=True)},
        }


def choose_images(keys: Sequence[str], labels: np.ndarray, num_images: int, seed: int) -> np.ndarray:
    """Choose images, as many of each class as possible; returns rows int64, ascending.

    Each class is ordered by a hash of seed and key, and the classes are gone round in turn until there are enough: more
    images are these and further ones, and other images in the set change little.

    Args:
        keys: [N].
        labels: int64 [N].
        num_images: how many; N and more take all.
        seed: of the order.
    """
    place = np.array([uniform("corruption_images", seed, key) for key in keys])
    by_class = np.lexsort((place, labels))
    sorted_labels = labels[by_class]
    turn = np.empty(len(keys), np.int64)
    turn[by_class] = np.arange(len(keys)) - np.searchsorted(sorted_labels, sorted_labels)
    return np.sort(np.lexsort((place, turn))[:num_images])


def measure_robustness(
    models: Mapping[Run, Classifier],
    images: Callable[[int | None], ImageSource],
    keys: Sequence[str],
    labels: np.ndarray,
    *,
    rows: np.ndarray,
    seed: int,
    batch_size: int = 256,
) -> list[Robustness]:
    """Show all models the 15 corruptions at 5 severities.

    Each corrupted batch is made once and shown to all models of one image size. What an image becomes hangs on seed,
    key, corruption and severity alone (and on the size), not on the batch or on the other images.

    Args:
        models: on one device, all at once.
        images: opens the N test images at a model's `image_size`.
        keys: [N].
        labels: int64 [N].
        rows: int64 [n], the images to show, of `choose_images`.
        seed: of the corruptions.
        batch_size: images that are corrupted and shown at a time.

    Returns:
        one per model, in their order.

    Raises:
        GdaError: no images, or smaller ones than can be corrupted.

    Source: Hendrycks and Dietterich 2019; see `corruptions` for what deviates.
    """
    if not len(rows):
        raise GdaError("evaluate.corruption_images: found no test images to corrupt; allowed: at least 1")
    sizes: dict[int | None, list[Run]] = {}
    for run, model in models.items():
        sizes.setdefault(model.image_size, []).append(run)
    wrong = {run: np.zeros((len(CORRUPTIONS), len(SEVERITIES)), np.int64) for run in models}
    wrong_clean = dict.fromkeys(models, 0)
    order = torch.from_numpy(rows)
    bounds = [(first, min(first + batch_size, len(rows))) for first in range(0, len(rows), batch_size)]
    total = len(sizes) * len(rows) * len(CORRUPTIONS) * len(SEVERITIES)

    with progress("corruptions", total, "images") as advance:
        for size, runs in sizes.items():
            batches = images(size).batches(AS_THEY_ARE, order, bounds)
            for (first, end), batch in zip(bounds, batches, strict=True):
                shown = rows[first:end]
                pixels = _checked(batch)
                for run in runs:
                    wrong_clean[run] += _num_wrong(models[run], batch, labels[shown])
                for row, name in enumerate(CORRUPTIONS):
                    for column, severity in enumerate(SEVERITIES):
                        rngs = [_generator(seed, keys[each], name, severity) for each in shown.tolist()]
                        corrupted = torch.from_numpy(corrupt_batch(pixels, name, severity, rngs)).to(batch.device)
                        for run in runs:
                            wrong[run][row, column] += _num_wrong(models[run], corrupted, labels[shown])
                        advance(len(shown), note=name)
    percent = 100 / len(rows)
    return [
        Robustness(arm, number, len(rows), wrong_clean[arm, number] * percent, wrong[arm, number] * percent)
        for arm, number in models
    ]


def _checked(batch: torch.Tensor) -> np.ndarray:
    if batch.shape[3] < SMALLEST_SIDE:
        raise GdaError(
            f"evaluate.corruption_images: found images of {batch.shape[3]} x {batch.shape[3]} pixels; allowed: from "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE}: set it to 0, or train.image_size higher"
        )
    return batch.cpu().numpy()


def _generator(seed: int, key: str, name: str, severity: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed("corrupt", seed, key, name, severity))


def _num_wrong(model: Classifier, batch: torch.Tensor, labels: np.ndarray) -> int:
    return int((predict(model, [batch]).argmax(1).numpy() != labels).sum())
