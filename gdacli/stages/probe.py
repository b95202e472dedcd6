"""`gdacli probe`: train a few epochs on the original images, record what the model says of each after every epoch."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.artifacts import new_directory, write_json
from gdacli.batches import batch_bounds
from gdacli.compute import set_up
from gdacli.console import progress, say
from gdacli.dynamics import QUANTITIES, describe, slowdown
from gdacli.errors import GdaError
from gdacli.label_errors import assign_folds
from gdacli.loading import AS_THEY_ARE, ImageSource, open_images
from gdacli.models import Classifier, create_model, freeze, save_weights, timm_config
from gdacli.params import Params
from gdacli.paths import PLOTS, PROBE, SOURCE
from gdacli.prepared import read_prepared
from gdacli.row_files import new_rows
from gdacli.tables import write_csv, write_table
from gdacli.training import Epoch, predict, train_classifier
from gdacli.training_sections import Probe

VERSION = 3


def run(params: Params) -> dict[str, Any]:
    """Write `data/probe`; returns the curve and the state at the separation epoch."""
    probe = params.probe
    prepared = read_prepared(SOURCE)
    size = prepared.training_size(probe.image_size, "probe.image_size")
    for train in {str(each): each for each in map(params.train_of, params.compare.arms)}.values():
        # A mistake in a model is better found now than after the generation.
        trained = create_model(
            train.model,
            prepared.num_classes,
            train.model_args,
            seed=0,
            image_size=prepared.training_size(train.image_size, "train.image_size"),
            pretrained=train.pretrained,
        )
        freeze(trained, train.freeze)
        if train.checkpoint == "best":
            prepared.require_validation("train.checkpoint: found best")
    device = set_up(params.compute.device, params.compute.threads)
    keys, labels = prepared.keys("train"), prepared.labels("train")
    of_class = torch.from_numpy(labels)
    images = open_images(
        prepared.references("train"), image_size=size, device=device, seed=probe.seed, **probe.of_loading()
    )
    model = _model(probe, prepared.num_classes, size, device)
    guess = 100 * (1 - np.bincount(labels).max() / len(labels))
    last = probe.last_epoch()
    recorded: list[np.ndarray] = []
    curve: list[list[float]] = []
    with new_directory(PROBE) as folder:
        with progress("probe", last, "epochs") as advance:

            def on_epoch(epoch: Epoch) -> bool:
                quantities = _record(model, images, of_class)
                recorded.append(quantities)
                loss, error = float(quantities[:, 0].mean()), 100 * (1 - float(quantities[:, 1].mean()))
                curve.append([epoch.epoch, epoch.updates, loss, error, epoch.error])
                advance(note=f"train error {error:.1f} %")
                found = probe.epochs == "auto" and slowdown([row[4] for row in curve], guess)
                if found or epoch.epoch == (probe.separation_epoch or last):
                    _save(folder, model, images, prepared.num_classes)
                return bool(found)

            every = torch.ones(len(keys), dtype=torch.int64)
            _train(probe, model, images, of_class, every, prepared.num_classes, last, "constant", on_epoch)
            if probe.epochs == "auto" and not slowdown([row[4] for row in curve], guess):
                say(f"warning: the fall of the training error did not slow in {last} epochs: the last one counts")
        separation = probe.separation_epoch or len(curve)
        write_table(folder / "images.parquet", {"key": keys, "label": labels})
        quantities = dict(zip(QUANTITIES, np.stack(recorded).transpose(2, 0, 1), strict=True))
        np.savez(
            folder / "dynamics.npz",
            **(quantities | {"correct": quantities["correct"].astype(bool)}),
            separation_epoch=separation,
        )
        config = timm_config(probe.model, model, prepared.class_names)
        write_json(folder / "config.json", config)
        header = ["epoch", "updates", "loss", "error", "batch_error"]
        write_csv(folder / "curve.csv", header, curve)
        if probe.folds:
            folds = assign_folds(keys, labels, probe.folds, probe.seed)
            _predict_out_of_fold(folder, probe, images, folds, of_class, prepared.num_classes, size, device, len(curve))
    write_csv(PLOTS / "probe.csv", header, curve)
    _, updates, loss, error, _ = curve[separation - 1]
    return {"separation_epoch": separation, "updates": updates, "train_loss": loss, "train_error": error}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    return (
        f"after epoch {result['separation_epoch']} ({result['updates']} updates): train error "
        f"{result['train_error']:.1f} %, loss {result['train_loss']:.3f} -> {PROBE}"
    )


def _model(probe: Probe, num_classes: int, size: int, device: torch.device) -> Classifier:
    model = create_model(
        probe.model, num_classes, probe.model_args, probe.seed, image_size=size, pretrained=probe.pretrained
    )
    freeze(model, probe.freeze)
    return model.to(device)


def _train(
    probe: Probe,
    model: Classifier,
    images: ImageSource,
    labels: torch.Tensor,
    repeats: torch.Tensor,
    num_classes: int,
    epochs: int,
    schedule: str,
    on_epoch: Callable[[Epoch], bool | None],
) -> None:
    """Train on the rows whose `repeats`, int64 [N], are not 0."""
    train_classifier(
        model,
        images,
        labels,
        repeats,
        num_classes=num_classes,
        updates=epochs * len(batch_bounds(int(repeats.sum()), probe.batch_size)),
        schedule=schedule,
        warmup=0.0,
        ema_decay=None,
        seed=probe.seed,
        on_epoch=on_epoch,
        **probe.of_loop(),
    )


def _record(model: Classifier, images: ImageSource, labels: torch.Tensor) -> np.ndarray:
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


def _describe(model: Classifier, x_NCHW: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return describe(model(x_NCHW), labels)


def _save(folder: Path, model: Classifier, images: ImageSource, num_classes: int) -> None:
    """Write the model, and its logits and features of all images, a batch at a time."""
    save_weights(model, folder / "model.safetensors")
    row = 0
    with contextlib.ExitStack() as files:
        for batch in images.in_order():
            both = predict(model, [batch], output=_logits_and_features).numpy()
            if row == 0:
                num_features = both.shape[1] - num_classes
                logits = files.enter_context(new_rows(folder / "logits.npy", (len(images), num_classes), np.float32))
                features = files.enter_context(
                    new_rows(folder / "features.npy", (len(images), num_features), np.float16)
                )
            rows = np.arange(row, row + len(both))
            logits.write(rows, both[:, :num_classes])
            features.write(rows, both[:, num_classes:])
            row += len(both)


def _logits_and_features(model: Classifier, x_NCHW: torch.Tensor) -> torch.Tensor:
    return torch.cat(model.logits_and_features(x_NCHW), dim=1)


def _predict_out_of_fold(
    folder: Path,
    probe: Probe,
    images: ImageSource,
    folds: np.ndarray,
    labels: torch.Tensor,
    num_classes: int,
    size: int,
    device: torch.device,
    epochs: int,
) -> None:
    """Write the probabilities of each image from a training on the other folds, for as many epochs as the probe's.

    Here the learning rate falls along a cosine: these models must be right, not show what is learned when.
    """
    alone = int((torch.bincount(labels) == 1).sum())
    if alone:
        say(f"warning: {alone} classes have one image, whose label no other fold can judge")
    num_folds = int(folds.max()) + 1
    with (
        new_rows(folder / "out_of_fold.npy", (len(images), num_classes), np.float32) as file,
        progress("probe: folds", num_folds * epochs, "epochs") as advance,
    ):
        for fold in range(num_folds):
            model = _model(probe, num_classes, size, device)
            others = torch.from_numpy(folds != fold).long()
            _train(probe, model, images, labels, others, num_classes, epochs, "cosine", lambda epoch: advance())
            held_out = np.flatnonzero(folds == fold)
            bounds = [(first, min(first + 256, len(held_out))) for first in range(0, len(held_out), 256)]
            batches = images.batches(AS_THEY_ARE, torch.from_numpy(held_out), bounds)
            for (first, end), batch in zip(bounds, batches, strict=True):
                file.write(held_out[first:end], predict(model, [batch]).softmax(1).numpy())
