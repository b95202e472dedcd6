"""A training run once more, to measure its gradients on the way."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gdacli.console import progress, say
from gdacli.gradient_variance import minibatch_gradient_moments
from gdacli.pretrained import read_tensors
from gdacli.rng import derive_seed
from gdacli.training import Epoch
from gdacli.training_store import TrainingStore
from gdacli.trainings import Training, fit

_VERSION = 1

_MEASURED = ("batch_size", "balance", "label_smoothing", "dtype", "augmentations")


@dataclass(frozen=True)
class GradientRow:
    """What the gradients of mini-batches were after an epoch; see `gradient_variance.gradient_moments`."""

    epoch: int
    """0 is before the first."""
    updates: int
    gradient_variance: float
    gradient_norm_sq: float
    """Unbiased, so that it can be below 0 where the mean gradient is short."""


def gradient_rows(
    name: str, store: TrainingStore, checkpoint: Path, num_batches: int, start: Callable[[], Training]
) -> list[GradientRow]:
    """Return the gradient variance before the first and after each epoch of a training.

    They are taken from the work directory if they were measured before. Otherwise the training is replayed, which
    costs as much as the training did and the gradients of `num_batches` batches an epoch; a line says so if the weights
    that it ends with are not those of the checkpoint, as on another device.

    Args:
        name: of the training, for the progress.
        store: of the training; it need not hold it.
        checkpoint: folder of the training's `model.safetensors`.
        num_batches: an epoch, at least 2.
        start: puts the training together.

    Raises:
        GdaError: what `trainings.open_training` and `training.train_classifier` raise.

    Source: Figure 7 of the targeted-augmentation paper, which does not say how it drew the batches.
    """
    kept_as = f"gradient-variance-{_VERSION}-{num_batches}"
    with store.locked():
        figures = store.figures(kept_as)
        if figures is None:
            rows, same = _replay(name, start(), num_batches, checkpoint)
            figures = {"rows": [asdict(row) for row in rows], "same_weights": same}
            store.keep_figures(kept_as, figures)
    if not figures["same_weights"]:
        say_others(name, "gradient variance", checkpoint)
    return [GradientRow(**row) for row in figures["rows"]]


def _replay(name: str, training: Training, num_batches: int, checkpoint: Path) -> tuple[list[GradientRow], bool]:
    epochs = -(-training.updates // training.per_epoch)
    rows: list[GradientRow] = []
    with progress(f"replay {name}", training.updates + num_batches * (epochs + 1), "batches") as advance:

        def measure(epoch: int, updates: int) -> None:
            variance, norm_sq = minibatch_gradient_moments(
                training.model,
                training.images,
                training.labels,
                training.repeats,
                num_batches=num_batches,
                epoch=max(epoch, 1),
                num_classes=training.num_classes,
                seed=derive_seed(training.seed, "gradient_variance", epoch),
                on_batch=advance,
                **{option: training.loop[option] for option in _MEASURED},
            )
            rows.append(GradientRow(epoch, updates, variance, norm_sq))

        def on_epoch(done: Epoch) -> None:
            measure(done.epoch, done.updates)

        measure(0, 0)
        fit(training, on_epoch=on_epoch, on_update=lambda update, count: advance())
    return rows, ends_as(training, checkpoint)


def say_others(name: str, what: str, checkpoint: Path) -> None:
    """Say that a replay for `what` ended with other weights than the training."""
    say(
        f"note: {name}: replayed for its {what} it ended with other weights than {checkpoint} holds, as on another "
        "device or in several processes: the figures are of a training like it"
    )


def ends_as(training: Training, checkpoint: Path) -> bool:
    """Say if a training has ended with the weights of a checkpoint, the folder of a `model.safetensors`."""
    found = read_tensors(checkpoint / "model.safetensors", "checkpoint")
    weights = training.model.net.state_dict()
    return found.keys() == weights.keys() and all(torch.equal(found[key], weights[key].cpu()) for key in weights)
