"""Probes and trainings on arrays: `gdacli probe` and `gdacli train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.api.arrays import as_found, checked, class_numbers, computing, names_of, refuse, square
from gdacli.errors import GdaError

if TYPE_CHECKING:
    import torch

    from gdacli.dynamics import Dynamics
    from gdacli.loading import InMemory
    from gdacli.models import Classifier
    from gdacli.training import Epoch

_OF_FILES = ("loading", "loader_workers")
_OF_PROJECTS = (*_OF_FILES, "save_seconds", "trackers", "budget", "seed")

Labelled = tuple[Any, Any]
"""Images, uint8 [N, H, W, 3] or [N, 3, H, W], and their labels, int [N]."""


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and the course of its training."""

    model: Classifier
    """On the CPU, in eval mode; float [N, 3, H, W] in [0, 1] => logits [N, C]."""
    architecture: str
    class_names: list[str]
    history: dict[str, list[Any]]
    """The columns of `history.csv` (epoch, updates, loss, error...), a value per epoch."""

    def predict(self, images: Any, *, device: str = "auto", threads: int = 2) -> np.ndarray:
        """Return the probabilities, float32 [N, C], as `gdacli evaluate` takes them.

        Args:
            images: uint8 [N, H, W, 3] or [N, 3, H, W], of the size that it was trained on.
            device, threads: of section `compute`.
        """
        from gdacli.training import predict

        array, size = square(images), self.model.image_size
        if size is not None and array.shape[2] != size:
            raise GdaError(f"images: found {array.shape[2]} pixels a side, allowed: {size}, as it was trained on")
        with computing(device, threads) as where:
            try:
                logits = predict(self.model.to(where), _in_memory(array, where).in_order())
            finally:
                self.model.cpu()
        return logits.softmax(1).numpy()

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors`, `config.json` and `history.csv`, as `gdacli train` does; returns the folder."""
        from gdacli.artifacts import new_directory
        from gdacli.trainings import write_classifier

        with new_directory(Path(folder)) as temporary:
            write_classifier(temporary, self.model, self.architecture, self.class_names, self.history)
        return Path(folder)


def load_classifier(folder: str | Path) -> TrainedClassifier:
    """Load what `gdacli train` or `TrainedClassifier.save` wrote.

    Raises:
        GdaError: a file is missing or damaged.
    """
    from gdacli.artifacts import read_json
    from gdacli.histories import read_history
    from gdacli.models import load_checkpoint

    folder = Path(folder)
    with as_found():
        model = load_checkpoint(folder)
    config = read_json(folder / "config.json")
    read = read_history(folder / "history.csv")
    counts = ("epoch", "updates", "images")
    history: dict[str, list[Any]] = {name: [*map(int, row)] if name in counts else row for name, row in read.items()}
    return TrainedClassifier(model.eval(), config["architecture"], config["label_names"], history)


def probe(
    images: Any,
    labels: Any,
    *,
    model: str = "convnet",
    num_classes: int | None = None,
    device: str = "auto",
    threads: int = 2,
    **settings: Any,
) -> Dynamics:
    """Train for a few epochs and record what the model says of each image after every one, as `gdacli probe` does.

    Args:
        images: uint8 [N, H, W, 3] or [N, 3, H, W], square: those of the train split, without others.
        labels: int [N] in [0, C).
        model: the architecture, `probe.model`.
        num_classes: C; None is the highest label and one.
        device, threads: of section `compute`.
        settings: the other keys of section `probe` (epochs, batch_size, lr, seed...); those that speak of files or
            folds have no say here.

    Returns:
        the dynamics of the N images at the epochs up to the separation epoch, for `select`.

    Raises:
        GdaError: a setting is wrong, the model does not fit, or the logits are no longer numbers.
    """
    from gdacli.dynamics import of_quantities
    from gdacli.models import start_model
    from gdacli.probing import logits_and_features, run_probe
    from gdacli.training_sections import Probe

    refuse(settings, (*_OF_FILES, "folds"), "probe")
    own = checked(Probe, "probe", {"model": model, **settings})
    array = square(images)
    _refuse_sizes(own, array.shape[2], "probe")
    numbers = class_numbers(labels, len(array), num_classes)
    num_classes = num_classes or int(numbers.max()) + 1
    logits: list[np.ndarray] = []
    with computing(device, threads) as where:
        import torch

        network = start_model(own.model_dump(), num_classes, own.seed, image_size=array.shape[2], device=where)
        source = _in_memory(array, where)

        def keep() -> None:
            logits.extend(both[:, :num_classes] for both in logits_and_features(network, source))

        probed = run_probe(
            network,
            source,
            torch.from_numpy(numbers),
            num_classes=num_classes,
            epochs=own.last_epoch(),
            auto=own.epochs == "auto",
            separation_epoch=own.separation_epoch,
            seed=own.seed,
            loop=own.of_loop(),
            at_separation=keep,
        )
    return of_quantities(probed.quantities[: probed.separation_epoch], np.concatenate(logits))


def train(
    images: Any,
    labels: Any,
    *,
    synthetic: Labelled | None = None,
    repeats: Any = None,
    validation: Labelled | None = None,
    class_names: Sequence[str] | None = None,
    model: str = "convnet",
    epochs: int | None = None,
    updates: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 2,
    **settings: Any,
) -> TrainedClassifier:
    """Train a classifier on real and synthetic images, as `gdacli train` does on an arm's mix.

    Args:
        images: the real ones, uint8 [N, H, W, 3] or [N, 3, H, W], square.
        labels: int [N] in [0, C).
        synthetic: images and labels that are added to an epoch; with an objective other than cross_entropy, what that
            is taken of. None for none.
        repeats: int [N], how often an epoch shows each real image (the arm `upsample`); None is once.
        validation: images and labels to look at after each epoch; `checkpoint: best` needs them.
        class_names: C of them; None numbers the classes up to the highest label.
        model: the architecture, `train.model`.
        epochs, updates: how long: either of `train.budget`.
        seed: of the weights, the order and the augmentations.
        device, threads: of section `compute`.
        settings: the other keys of section `train` (lr, batch_size, optimizer, augment...).

    Raises:
        GdaError: a setting is wrong, shapes do not fit, or the loss is no longer a number.
    """
    from gdacli.training_progress import training_progress
    from gdacli.training_sections import Train
    from gdacli.trainings import assemble_training, fit, history_columns

    refuse(settings, _OF_PROJECTS, "train")
    budget = {"epochs": epochs, "updates": updates}
    own = checked(Train, "train", {"model": model, "budget": budget, **settings})
    array = square(images)
    size = array.shape[2]
    _refuse_sizes(own, size, "train")
    numbers = class_numbers(labels, len(array), None if class_names is None else len(class_names))
    names = names_of(class_names, numbers)
    shown = np.ones(len(array), np.int64) if repeats is None else np.asarray(repeats)
    whole = np.issubdtype(shown.dtype, np.integer)
    if shown.shape != numbers.shape or not whole or shown.min() < 0 or not shown.any():
        found = f"{shown.dtype} {list(shown.shape)}"
        raise GdaError(f"repeats: found {found}, allowed: integers [{len(array)}] from 0, not all of them 0")
    shown = shown.astype(np.int64)
    added = None if synthetic is None else _pair(synthetic, size, len(names), "synthetic")
    held_out = None if validation is None else _pair(validation, size, len(names), "validation")
    _check_objective(own, added, held_out)
    if added is not None and own.objective == "cross_entropy":
        array, numbers = np.concatenate([array, added[0]]), np.concatenate([numbers, added[1]])
        shown, added = np.concatenate([shown, np.ones(len(added[1]), np.int64)]), None
    history: list[Epoch] = []
    with computing(device, threads) as where:
        import torch

        def opened(pair: tuple[np.ndarray, np.ndarray]) -> tuple[InMemory, torch.Tensor]:
            return _in_memory(pair[0], where), torch.from_numpy(pair[1])

        training = assemble_training(
            opened((array, numbers)),
            torch.from_numpy(shown),
            num_classes=len(names),
            image_size=size,
            seed=seed,
            device=where,
            settings=own.of_weights(),
            loop=own.of_loop(),
            stored=None if added is None else opened(added),
            validation=None if held_out is None else opened(held_out),
        )
        with training_progress(f"seed {seed}", training.updates, training.per_epoch) as (show, on_update):

            def on_epoch(epoch: Epoch) -> None:
                history.append(epoch)
                show(epoch)

            fit(training, on_epoch=on_epoch, on_update=on_update)
    return TrainedClassifier(training.model.cpu().eval(), own.model, names, history_columns(history))


def _in_memory(images: np.ndarray, device: torch.device) -> InMemory:
    import torch

    from gdacli.loading import InMemory

    return InMemory(torch.from_numpy(images).to(device))


def _pair(pair: Labelled, size: int, num_classes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Check images and labels that go with others."""
    images = square(pair[0], name)
    if images.shape[2] != size:
        raise GdaError(f"{name}: found {images.shape[2]} pixels a side, allowed: {size}, as the other images have")
    return images, class_numbers(pair[1], len(images), num_classes, f"the labels of {name}")


def _refuse_sizes(own: Any, size: int, section: str) -> None:
    """Refuse what would resize images that are stored, which arrays no longer are."""
    if own.image_size not in (None, size):
        raise GdaError(
            f"{section}.image_size: found {own.image_size}, the images have {size} pixels a side: resize them, or "
            "leave it out"
        )
    if own.augment.random_resized_crop is not None:
        raise GdaError(
            f"{section}.augment.random_resized_crop: needs the stored images at their own sizes: take crop, or a "
            "Project"
        )


def _check_objective(own: Any, added: object, held_out: object) -> None:
    if own.checkpoint == "best" and held_out is None:
        raise GdaError("train.checkpoint: found best, which needs validation=(images, labels)")
    if own.objective == "real_consistency" and added is not None:
        raise GdaError("train.objective: real_consistency compares real images alone: leave synthetic out")
    if own.objective not in ("cross_entropy", "real_consistency") and added is None:
        raise GdaError(
            f"train.objective: {own.objective} needs synthetic=(images, labels); objectives that make images while "
            "they train need a Project"
        )
