"""`gdacli train`: one arm's mix, one seed, from scratch."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from gdacli.artifacts import new_directory, require, sha256_bytes, sha256_file, write_json
from gdacli.compute import set_up
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.images import decode_array
from gdacli.loading import ImageSource, InMemory
from gdacli.models import create_model, timm_config
from gdacli.params import Params
from gdacli.paths import SOURCE, TRAIN, mix_file, run_name
from gdacli.prepared import read_prepared
from gdacli.rng import derive_seed
from gdacli.shards import read_shard
from gdacli.tables import read_table, write_csv
from gdacli.training import Epoch, batch_bounds, predict, train_classifier

VERSION = 1


def run(params: Params, arm: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Write `data/train/<arm>-<seed>`, for every compared arm and seed when none is named; returns their figures."""
    arms = [arm] if arm is not None else params.compare.arms
    seeds = [seed] if seed is not None else params.compare.seeds
    return {"runs": {run_name(name, each): _train(params, name, each) for name in arms for each in seeds}}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per run."""
    return "\n".join(
        f"{name}: {run['updates']} updates, {run['images_seen']} images seen, last train error "
        f"{run['train_error']:.2f} % -> {TRAIN / name}"
        for name, run in result["runs"].items()
    )


def _train(params: Params, arm: str, seed: int) -> dict[str, Any]:
    start = time.monotonic()
    params.arm(arm)
    train = params.train_of(arm)
    prepared = read_prepared(SOURCE)
    size = prepared.square_size()
    mix = read_table(require(mix_file(arm), f"gdacli mix --arm {arm}"))
    images = torch.from_numpy(load_mix(mix, size))
    device = set_up(params.compute.device, params.compute.threads)
    labels = torch.from_numpy(np.array(mix["label"]))
    repeats = torch.from_numpy(np.array(mix["repeats"]))
    per_epoch = len(batch_bounds(int(repeats.sum()), train.batch_size))
    updates = train.budget.updates or (train.budget.epochs or 0) * per_epoch
    model = create_model(train.model, prepared.num_classes, train.model_args, seed).to(device)
    validation = _validation(prepared, device)
    history: list[list[Any]] = []
    epochs = -(-updates // per_epoch)
    name = run_name(arm, seed)
    with new_directory(TRAIN / name) as folder, progress(f"train {name}", epochs, "epochs") as advance:

        def on_epoch(epoch: Epoch) -> None:
            row = [epoch.epoch, epoch.updates, epoch.images, epoch.lr, epoch.loss, epoch.error]
            note = f"loss {epoch.loss:.3f}, train error {epoch.error:.1f} %"
            if validation is not None:
                wrong = predict(model, validation[0].in_order()).argmax(1) != validation[1]
                row.append(100 * wrong.float().mean().item())
                note += f", validation error {row[-1]:.1f} %"
            history.append(row)
            advance(note=note)

        train_classifier(
            model,
            InMemory(images.to(device)),
            labels.to(device),
            repeats,
            num_classes=prepared.num_classes,
            updates=updates,
            batch_size=train.batch_size,
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            schedule=train.schedule,
            augmentations=train.augment.model_dump(exclude_none=True),
            seed=derive_seed("train", seed),
            on_epoch=on_epoch,
        )
        save_file(model.net.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "provenance.json", {"mix_sha256": sha256_file(mix_file(arm))})
        config = timm_config(train.model, model, prepared.class_names, size, train.model_args)
        write_json(folder / "config.json", config)
        header = ["epoch", "updates", "images", "lr", "loss", "error", *(["validation_error"] if validation else [])]
        write_csv(folder / "history.csv", header, history)
    return {
        "updates": updates,
        "epochs": len(history),
        "images_seen": history[-1][2],
        "mix_size": int(repeats.sum()),
        "train_loss": history[-1][4],
        "train_error": history[-1][5],
        "device": device.type,
        "run": {"seconds": round(time.monotonic() - start, 3)},
    }


def load_mix(mix: dict[str, Any], size: int) -> np.ndarray:
    """Read the images of a mix, uint8 [N, 3, size, size], in the order of its rows.

    Raises:
        GdaError: a shard is missing, or an image is not the one that the mix names (by SHA-256).
    """
    images = np.empty((len(mix["key"]), 3, size, size), np.uint8)
    row_of = {(shard, key): row for row, (shard, key) in enumerate(zip(mix["shard"], mix["key"], strict=True))}
    found = 0
    for shard in dict.fromkeys(mix["shard"]):
        for sample in read_shard(Path(shard)):
            row = row_of.get((shard, sample.key))
            if row is None:
                continue
            if sha256_bytes(sample.image) != mix["sha256"][row]:
                raise GdaError(
                    f"{shard}: sample {sample.key!r} is not the image that the mix was made of: run `gdacli mix`, or "
                    f"`dvc checkout --force {Path(shard).parent}`"
                )
            images[row] = decode_array(sample.image)
            found += 1
    if found < len(images):
        raise GdaError(f"the shards hold {found} of the mix's {len(images)} images: run `gdacli mix` again")
    return images


def _validation(prepared: Any, device: torch.device) -> tuple[ImageSource, torch.Tensor] | None:
    if prepared.splits["validation"].count == 0:
        return None
    _, labels, arrays = prepared.load("validation")
    return InMemory(torch.from_numpy(arrays).to(device)), torch.from_numpy(labels)
