"""A training put together from an arm's mix and its settings, for those who run it: `train`, and replays of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from gdacli.artifacts import write_json
from gdacli.batches import batch_bounds
from gdacli.distributed import World
from gdacli.image_index import References, read_references
from gdacli.live import LiveGenerator
from gdacli.loading import ImageSource, open_images
from gdacli.models import Classifier, save_weights, start_model, timm_config
from gdacli.objective_assembly import Labelled, make_objective
from gdacli.prepared import Prepared
from gdacli.rng import derive_seed
from gdacli.tables import read_columns, write_csv
from gdacli.training import Epoch, Keeper, State, predict, train_classifier
from gdacli.training_step import Objective

HISTORY = (
    "epoch", "updates", "images", "lr", "loss", "error", "validation_error", "validation_loss", "synthetic_loss",
)  # fmt: skip
"""The columns of `history.csv`; the last three where there are such images."""


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
    objective: Objective | None
    """What is minimised beside the cross-entropy of the images."""
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
    live: LiveGenerator | None = None,
    world: World | None = None,
) -> Training:
    """Open the images of an arm's mix and make the model that is to be trained on them.

    With an objective other than cross-entropy the synthetic images of the mix are no training images but the
    objective's; of a mix without any, they come from the generator.

    Args:
        prepared: the real images.
        arm: name.
        mix: its file.
        seed: of the training.
        device: where it is to run.
        settings: `Train.of_weights`.
        loading: `Train.of_loading`.
        loop: `Train.of_loop`.
        live: the generator, of `live.live_for`.
        world: the processes; None is one.

    Raises:
        GdaError: an image is missing or another, the model or the generator does not fit, or there are no validation
            images and the best weights are to be kept or the objective looks ahead.
    """
    size = prepared.training_size(settings["image_size"], "train.image_size")
    reading: dict[str, Any] = {"image_size": size, "device": device, **loading}
    plain = {**reading, "random_resized_crop": None}
    if settings["checkpoint"] == "best":
        prepared.require_validation("train.checkpoint: found best")
    if settings["objective"] != "cross_entropy" and settings.get("finder", {}).get("criterion") == "validation":
        prepared.require_validation("train.objective: the search for latent vectors looks at the validation loss")
    own, added = _rows(mix, settings["objective"])
    references, labels, repeats = _read(mix, arm, own)
    return assemble_training(
        (open_images(references, seed=derive_seed("train", seed), **reading), labels),
        repeats,
        num_classes=prepared.num_classes,
        image_size=size,
        seed=seed,
        device=device,
        settings=settings,
        loop=loop,
        stored=_stored(mix, arm, added, plain),
        live=live,
        validation=_validation(prepared, **plain),
        world=world,
    )


def assemble_training(
    real: Labelled,
    repeats: torch.Tensor,
    *,
    num_classes: int,
    image_size: int,
    seed: int,
    device: torch.device,
    settings: Mapping[str, Any],
    loop: Mapping[str, Any],
    stored: Labelled | None = None,
    live: LiveGenerator | None = None,
    validation: Labelled | None = None,
    world: World | None = None,
) -> Training:
    """Make the model that is to be trained, and the objective.

    Args:
        real: the images to train on, wherever they lie, which shows them on `device`.
        repeats: int64 [N], how often an epoch shows each.
        num_classes: C.
        image_size: side of all images in pixels.
        seed, device, settings, loop, live, world: of `open_training`.
        stored: the synthetic images of an objective other than cross-entropy; None where it has none, or makes them.
        validation: images to look at after each epoch; None for none.

    Raises:
        GdaError: the model or the generator does not fit.
    """
    images, labels = real
    per_epoch = len(batch_bounds(int(repeats.sum()), settings["batch_size"]))
    model = start_model(settings, num_classes, seed, image_size=image_size, device=device)
    objective = None
    if settings["objective"] != "cross_entropy":
        objective = make_objective(
            settings,
            model,
            num_classes,
            device,
            real=real,
            stored=stored,
            live=live,
            validation=validation,
            augmentations=loop["augmentations"],
            seed=derive_seed("train", seed),
            world=world or World(),
        )
    return Training(
        model=model,
        images=images,
        labels=labels,
        repeats=repeats,
        num_classes=num_classes,
        updates=settings["budget"]["updates"] or settings["budget"]["epochs"] * per_epoch,
        per_epoch=per_epoch,
        seed=derive_seed("train", seed),
        loop=loop,
        objective=objective,
        course={
            **{name: settings[name] for name in ("schedule", "milestones", "warmup", "ema_decay")},
            "validate": partial(_validate, *validation) if validation is not None else None,
            "keep_best": settings["checkpoint"] == "best",
        },
    )


def added_images(mix: Path, arm: str) -> References | None:
    """Return what names the synthetic images of an arm's mix; None if it has none."""
    origins = read_columns(mix, ["origin"])["origin"].to_pylist()
    rows = origins.count("source"), len(origins)
    return None if rows[0] == rows[1] else _read(mix, arm, rows)[0]


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
        objective=training.objective,
        **training.course,
        **training.loop,
    )


def history_columns(history: Sequence[Epoch]) -> dict[str, list[Any]]:
    """Return the columns of `history.csv`, a value per epoch; of what was not looked at there is none."""
    return {name: [getattr(row, name) for row in history] for name in HISTORY if getattr(history[-1], name) is not None}


def write_classifier(
    folder: Path, model: Classifier, name: str, class_names: list[str], history: Mapping[str, Sequence[Any]]
) -> None:
    """Write `model.safetensors`, `config.json` in timm's form and `history.csv`.

    Args:
        folder: that gets them.
        model: trained.
        name: of its architecture.
        class_names: C of them.
        history: of `history_columns`.
    """
    save_weights(model, folder / "model.safetensors")
    write_json(folder / "config.json", timm_config(name, model, class_names))
    write_csv(folder / "history.csv", list(history), [list(row) for row in zip(*history.values(), strict=True)])


def _rows(mix: Path, objective: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return which rows of a mix are trained on, and which are the objective's; real images come first."""
    origins = read_columns(mix, ["origin"])["origin"].to_pylist()
    num_real = len(origins) if objective == "cross_entropy" else origins.count("source")
    return (0, num_real), (num_real, len(origins))


def _read(mix: Path, arm: str, rows: tuple[int, int]) -> tuple[References, torch.Tensor, torch.Tensor]:
    """Return references, labels and repeats of some rows of a mix."""
    references = read_references(mix, origin="the mix", command=f"gdacli mix --arm {arm}", rows=rows)
    table = read_columns(mix, ["label", "repeats"]).slice(rows[0], rows[1] - rows[0])
    labels, repeats = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("label", "repeats"))
    return references, labels, repeats


def _stored(mix: Path, arm: str, rows: tuple[int, int], reading: Mapping[str, Any]) -> Labelled | None:
    """Open the synthetic images of a mix; None if it has none."""
    if rows[0] == rows[1]:
        return None
    references, labels, _ = _read(mix, arm, rows)
    return open_images(references, **reading), labels


def _validation(prepared: Prepared, **reading: Any) -> Labelled | None:
    """Open the validation split; None without one."""
    if prepared.splits["validation"].count == 0:
        return None
    labels = torch.from_numpy(prepared.labels("validation").copy())
    return open_images(prepared.references("validation"), **reading), labels


def _validate(images: ImageSource, truth: torch.Tensor, model: Classifier) -> tuple[float, float]:
    """Return a model's error in % and its mean cross-entropy in nats."""
    logits = predict(model, images.in_order())
    error = (logits.argmax(1) != truth).float().mean().item()
    return 100 * error, F.cross_entropy(logits, truth).item()
