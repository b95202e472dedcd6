"""`gdacli probe`: train a few epochs on the original images, record what the model says of each after every epoch."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.artifacts import new_directory, write_json
from gdacli.compute import set_up
from gdacli.console import progress, say
from gdacli.dynamics import QUANTITIES
from gdacli.label_errors import assign_folds
from gdacli.loading import AS_THEY_ARE, ImageSource, open_images
from gdacli.models import Classifier, create_model, freeze, save_weights, start_model, timm_config
from gdacli.params import Params
from gdacli.paths import PLOTS, PROBE, SOURCE
from gdacli.prepared import read_prepared
from gdacli.probing import logits_and_features, run_probe, train_probe
from gdacli.row_files import new_rows
from gdacli.tables import write_csv, write_table
from gdacli.training import predict
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
    model = start_model(probe.model_dump(), prepared.num_classes, probe.seed, image_size=size, device=device)
    with new_directory(PROBE) as folder:
        probed = run_probe(
            model,
            images,
            of_class,
            num_classes=prepared.num_classes,
            epochs=probe.last_epoch(),
            auto=probe.epochs == "auto",
            separation_epoch=probe.separation_epoch,
            seed=probe.seed,
            loop=probe.of_loop(),
            at_separation=lambda: _save(folder, model, images, prepared.num_classes),
        )
        curve, separation = probed.curve, probed.separation_epoch
        write_table(folder / "images.parquet", {"key": keys, "label": labels})
        quantities = dict(zip(QUANTITIES, probed.quantities.transpose(2, 0, 1), strict=True))
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


def _save(folder: Path, model: Classifier, images: ImageSource, num_classes: int) -> None:
    """Write the model, and its logits and features of all images, a batch at a time."""
    save_weights(model, folder / "model.safetensors")
    row = 0
    with contextlib.ExitStack() as files:
        for both in logits_and_features(model, images):
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
            model = start_model(probe.model_dump(), num_classes, probe.seed, image_size=size, device=device)
            others = torch.from_numpy(folds != fold).long()
            train_probe(
                model,
                images,
                labels,
                others,
                num_classes,
                epochs,
                "cosine",
                probe.seed,
                probe.of_loop(),
                lambda epoch: advance(),
            )
            held_out = np.flatnonzero(folds == fold)
            bounds = [(first, min(first + 256, len(held_out))) for first in range(0, len(held_out), 256)]
            batches = images.batches(AS_THEY_ARE, torch.from_numpy(held_out), bounds)
            for (first, end), batch in zip(bounds, batches, strict=True):
                file.write(held_out[first:end], predict(model, [batch]).softmax(1).numpy())
