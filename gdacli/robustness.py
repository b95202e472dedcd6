"""How models do on corrupted test images: error per corruption and severity, clean apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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

_WAYS = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
_BYTES_AT_ONCE = 2**29
"""Of the corrupted images that wait for the models: 256 images of 32 x 32 pixels need a tenth, 47 of 224 x 224 all."""

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


def check_size(side: int) -> None:
    """Check that images of a size can be corrupted.

    Args:
        side: in pixels, at which a model sees them.

    Raises:
        GdaError: they are smaller than the corruptions take.
    """
    if side < SMALLEST_SIDE:
        raise GdaError(
            f"evaluate.corruption_images: found images of {side} x {side} pixels; allowed: from "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE}: set it to 0, or train.image_size higher"
        )


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

    Images are corrupted once, some at a time in all ways, and shown to all models of one image size, of which one alone
    is on the device. What an image becomes hangs on seed, key, corruption and severity alone (and on the size), not on
    the batch or on the other images.

    Args:
        models: on the CPU; each is moved to the images' device while it is asked.
        images: opens the N test images at a model's `image_size`.
        keys: [N].
        labels: int64 [N].
        rows: int64 [n], the images to show, of `choose_images`.
        seed: of the corruptions.
        batch_size: images that are corrupted and shown at a time; fewer where they are large.

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
    wrong = {run: np.zeros(1 + len(_WAYS), np.int64) for run in models}
    num_shown = sum(1 + len(runs) for runs in sizes.values())

    with progress("corruptions", num_shown * len(rows) * len(_WAYS), "images") as advance:
        for size, runs in sizes.items():
            for shown, batch in _batches(images(size), rows, batch_size):
                pixels, variants = batch.cpu().numpy(), [batch]
                for name, severity in _WAYS:
                    rngs = [_generator(seed, keys[row], name, severity) for row in shown.tolist()]
                    variants.append(torch.from_numpy(corrupt_batch(pixels, name, severity, rngs)))
                    advance(len(shown), note=name)
                for run in runs:
                    wrong[run] += _num_wrong(models[run], variants, labels[shown])
                    advance(len(shown) * len(_WAYS), note=f"{run[0]}-{run[1]}")
    percent = 100 / len(rows)
    shape = (len(CORRUPTIONS), len(SEVERITIES))
    return [
        Robustness(arm, number, len(rows), int(counts[0]) * percent, counts[1:].reshape(shape) * percent)
        for (arm, number), counts in wrong.items()
    ]


def _batches(source: ImageSource, rows: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield the images of some rows, and which rows, few enough at a time to hold all that becomes of them."""
    bounds = [(first, min(first + most, len(rows))) for first in range(0, len(rows), most)]
    for (first, end), batch in zip(bounds, source.batches(AS_THEY_ARE, torch.from_numpy(rows), bounds), strict=True):
        check_size(batch.shape[3])
        num = max(1, _BYTES_AT_ONCE // (len(_WAYS) * batch[0].numel()))
        for start in range(0, len(batch), num):
            yield rows[first:end][start : start + num], batch[start : start + num]


def _generator(seed: int, key: str, name: str, severity: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed("corrupt", seed, key, name, severity))


def _num_wrong(model: Classifier, variants: Sequence[torch.Tensor], labels: np.ndarray) -> np.ndarray:
    """Return for each variant of a batch, uint8 [B, 3, H, W], how many of its images get another label; int64.

    The first one lies on the device where the model runs.
    """
    device = variants[0].device
    logits = predict(model.to(device), (variant.to(device) for variant in variants))
    model.to("cpu")  # several large models would not fit beside each other
    return (logits.argmax(1).view(len(variants), -1).numpy() != labels).sum(1)
