"""A training put together from an arm's mix and its settings, for those who run it: `train`, and replays of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gdacli.batches import batch_bounds
from gdacli.distributed import World
from gdacli.image_index import read_references
from gdacli.loading import ImageSource, open_images
from gdacli.models import Classifier, create_model, freeze
from gdacli.prepared import Prepared
from gdacli.rng import derive_seed
from gdacli.tables import read_columns
from gdacli.training import Epoch, Keeper, State, predict, train_classifier


@dataclass(frozen=True)
class Training:
    """One that has not begun; `fit` runs it, and so changes its model."""

    model: Classifier
    """On its device, with its first weights."""
    images: ImageSource
    """N images, those of the mix."""
    labels: torch.Tensor
    """int64 [N], on the CPU."""
    repeats: torch.Tensor
    """int64 [N], how often an epoch shows each image."""
    num_classes: int
    updates: int
    per_epoch: int
    """Updates of a whole epoch."""
    seed: int
    """Of the order and of the augmentations."""
    loop: Mapping[str, Any]
    """`Optimisation.of_loop`: batch size, optimizer, objective, augmentations."""
    course: Mapping[str, Any]
    """What else `training.train_classifier` takes: schedule, moving average, which weights are kept."""


def open_training(
    prepared: Prepared,
    arm: str,
    mix: Path,
    seed: int,
    device: torch.device,
    settings: Mapping[str, Any],
    loading: Mapping[str, Any],
    loop: Mapping[str, Any],
) -> Training:
    """Open the images of an arm's mix and make the model that is to be trained on them.

    Args:
        prepared: the real images.
        arm: name.
        mix: its file.
        seed: of the training.
        device: where it is to run.
        settings: `Train.of_weights`.
        loading: `Train.of_loading`.
        loop: `Train.of_loop`.

    Raises:
        GdaError: an image is missing or another, the model does not fit, or the best weights are to be kept and there
            are no validation images.
    """
    size = prepared.training_size(settings["image_size"], "train.image_size")
    table = read_columns(mix, ["label", "repeats"])
    reading: dict[str, Any] = {"image_size": size, "device": device, **loading}
    references = read_references(mix, origin="the mix", command=f"gdacli mix --arm {arm}")
    images = open_images(references, seed=derive_seed("train", seed), **reading)
    labels, repeats = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("label", "repeats"))
    per_epoch = len(batch_bounds(int(repeats.sum()), settings["batch_size"]))
    model = create_model(
        settings["model"],
        prepared.num_classes,
        settings["model_args"],
        seed,
        image_size=size,
        pretrained=settings["pretrained"],
    ).to(device)
    freeze(model, settings["freeze"])
    validate = _validation(prepared, **{**reading, "random_resized_crop": None})
    best = settings["checkpoint"] == "best"
    if best:
        prepared.require_validation("train.checkpoint: found best")
    return Training(
        model=model,
        images=images,
        labels=labels,
        repeats=repeats,
        num_classes=prepared.num_classes,
        updates=settings["budget"]["updates"] or settings["budget"]["epochs"] * per_epoch,
        per_epoch=per_epoch,
        seed=derive_seed("train", seed),
        loop=loop,
        course={
            **{name: settings[name] for name in ("schedule", "warmup", "ema_decay")},
            "validate": validate,
            "keep_best": best,
        },
    )


def fit(
    training: Training,
    *,
    on_epoch: Callable[[Epoch], bool | None],
    on_update: Callable[[int, int], None],
    state: State | None = None,
    keeper: Keeper | None = None,
    world: World | None = None,
) -> None:
    """Train the model in place; see `training.train_classifier`."""
    train_classifier(
        training.model,
        training.images,
        training.labels,
        training.repeats,
        num_classes=training.num_classes,
        updates=training.updates,
        seed=training.seed,
        on_epoch=on_epoch,
        on_update=on_update,
        state=state,
        keeper=keeper,
        world=world,
        **training.course,
        **training.loop,
    )


def _validation(prepared: Prepared, **reading: Any) -> Callable[[Classifier], float] | None:
    """Return what gives a model's error on the validation split in %, None without one."""
    if prepared.splits["validation"].count == 0:
        return None
    images = open_images(prepared.references("validation"), **reading)
    truth = torch.from_numpy(prepared.labels("validation"))
    return lambda model: 100 * (predict(model, images.in_order()).argmax(1) != truth).float().mean().item()
