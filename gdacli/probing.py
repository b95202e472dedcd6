"""A short training on the original images, and what it says of each of them after every epoch."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from gdacli.batches import batch_bounds
from gdacli.console import progress, say
from gdacli.dynamics import describe, slowdown
from gdacli.errors import GdaError
from gdacli.loading import ImageSource
from gdacli.models import Classifier
from gdacli.training import Epoch, predict, train_classifier


@dataclass(frozen=True)
class Probed:
    """N images at the E epochs that were trained, the separation epoch among them."""

    quantities: np.ndarray
    """float32 [E, N, 5], the `dynamics.QUANTITIES`."""
    curve: list[list[float]]
    """[E, 5]: epoch, updates, loss (nats) and error (%) on the images as they are, error on the epoch's batches."""
    separation_epoch: int


def run_probe(
    model: Classifier,
    images: ImageSource,
    labels: torch.Tensor,
    *,
    num_classes: int,
    epochs: int,
    auto: bool,
    separation_epoch: int | None,
    seed: int,
    loop: Mapping[str, Any],
    at_separation: Callable[[], None],
) -> Probed:
    """Train on all images with a constant learning rate, and record them after every epoch.

    Args:
        model: on its device, with its first weights; it is trained in place.
        images: N of them, on that device.
        labels: int64 [N], on the CPU.
        num_classes: C.
        epochs: to train, at most.
        auto: stop where the fall of the training error has slowed down (`dynamics.slowdown`).
        separation_epoch: that selection looks at; None is the last.
        seed: of the order and of the augmentations.
        loop: `Optimisation.of_loop`.
        at_separation: called once, when the model is that of the separation epoch.

    Raises:
        GdaError: the logits are no longer numbers.
    """
    guess = 100 * (1 - int(torch.bincount(labels).max()) / len(labels))
    recorded: list[np.ndarray] = []
    curve: list[list[float]] = []
    with progress("probe", epochs, "epochs") as advance:

        def on_epoch(epoch: Epoch) -> bool:
            quantities = record(model, images, labels)
            recorded.append(quantities)
            loss, error = float(quantities[:, 0].mean()), 100 * (1 - float(quantities[:, 1].mean()))
            curve.append([epoch.epoch, epoch.updates, loss, error, epoch.error])
            advance(note=f"train error {error:.1f} %")
            found = auto and slowdown([row[4] for row in curve], guess)
            if found or epoch.epoch == (separation_epoch or epochs):
                at_separation()
            return bool(found)

        every = torch.ones(len(labels), dtype=torch.int64)
        train_probe(model, images, labels, every, num_classes, epochs, "constant", seed, loop, on_epoch)
        if auto and not slowdown([row[4] for row in curve], guess):
            say(f"warning: the fall of the training error did not slow in {epochs} epochs: the last one counts")
    return Probed(np.stack(recorded), curve, separation_epoch or len(curve))


def train_probe(
    model: Classifier,
    images: ImageSource,
    labels: torch.Tensor,
    repeats: torch.Tensor,
    num_classes: int,
    epochs: int,
    schedule: str,
    seed: int,
    loop: Mapping[str, Any],
    on_epoch: Callable[[Epoch], bool | None],
) -> None:
    """Train on the rows whose `repeats`, int64 [N], are not 0; see `training.train_classifier`."""
    train_classifier(
        model,
        images,
        labels,
        repeats,
        num_classes=num_classes,
        updates=epochs * len(batch_bounds(int(repeats.sum()), loop["batch_size"])),
        schedule=schedule,
        warmup=0.0,
        ema_decay=None,
        seed=seed,
        on_epoch=on_epoch,
        **loop,
    )


def record(model: Classifier, images: ImageSource, labels: torch.Tensor) -> np.ndarray:
    """Return the QUANTITIES of all images, float32 [N, 5]; they are computed where the model is, batch by batch."""
    rows, first = [], 0
    for batch in images.in_order():
        of_batch = labels[first : first + len(batch)].to(batch.device)
        first += len(batch)
        rows.append(predict(model, [batch], output=partial(_describe, labels=of_batch)))
    quantities = torch.cat(rows).numpy()
    if not np.isfinite(quantities).all():
        raise GdaError("probe: the logits are no longer numbers: lower probe.lr")
    return quantities


def logits_and_features(model: Classifier, images: ImageSource) -> Iterator[np.ndarray]:
    """Yield both of all images, side by side, float32 [B, C + D], a batch at a time."""
    for batch in images.in_order():
        yield predict(model, [batch], output=_both).numpy()


def _describe(model: Classifier, x_NCHW: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return describe(model(x_NCHW), labels)


def _both(model: Classifier, x_NCHW: torch.Tensor) -> torch.Tensor:
    return torch.cat(model.logits_and_features(x_NCHW), dim=1)
