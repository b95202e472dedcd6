"""`gdacli probe`: train a few epochs on the original images, record what the model says of each after every epoch."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from gdacli.artifacts import new_directory, write_json
from gdacli.compute import set_up
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.loading import InMemory
from gdacli.models import Classifier, create_model, timm_config
from gdacli.params import Params
from gdacli.paths import PLOTS, PROBE, SOURCE
from gdacli.prepared import read_prepared
from gdacli.tables import write_csv
from gdacli.training import Epoch, batch_bounds, predict, train_classifier

VERSION = 2


def run(params: Params) -> dict[str, Any]:
    """Write `data/probe`; returns the curve and the state at the separation epoch."""
    probe = params.probe
    prepared = read_prepared(SOURCE)
    size = prepared.square_size()
    for train in {str(each): each for each in map(params.train_of, params.compare.arms)}.values():
        # A mistake in a model is better found now than after the generation.
        create_model(train.model, prepared.num_classes, train.model_args, seed=0)
    device = set_up(params.compute.device, params.compute.threads)
    keys, labels, arrays = prepared.load("train")
    of_class = torch.from_numpy(labels)
    images = InMemory(torch.from_numpy(arrays).to(device))
    model = create_model(probe.model, prepared.num_classes, probe.model_args, probe.seed).to(device)
    separation = probe.separation_epoch or probe.epochs
    recorded: list[np.ndarray] = []
    curve: list[list[float]] = []
    with new_directory(PROBE) as folder, progress("probe", probe.epochs, "epochs") as advance:

        def on_epoch(epoch: Epoch) -> None:
            logits = predict(model, images.in_order())
            if not logits.isfinite().all():
                raise GdaError(f"probe: the logits are no longer numbers after epoch {epoch.epoch}: lower probe.lr")
            recorded.append(logits.numpy())
            loss = F.cross_entropy(logits, of_class).item()
            error = 100 * (logits.argmax(1) != of_class).float().mean().item()
            curve.append([epoch.epoch, epoch.updates, loss, error])
            if epoch.epoch == separation:
                save_file(model.net.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
                features = predict(model, images.in_order(), output=Classifier.unit_features)
                np.save(folder / "features.npy", features.numpy().astype(np.float16))
            advance(note=f"train error {error:.1f} %")

        train_classifier(
            model,
            images,
            of_class,
            torch.ones(len(keys), dtype=torch.int64),
            num_classes=prepared.num_classes,
            updates=probe.epochs * len(batch_bounds(len(keys), probe.batch_size)),
            schedule="constant",
            warmup=0.0,
            ema_decay=None,
            seed=probe.seed,
            on_epoch=on_epoch,
            **probe.of_loop(),
        )
        logits = np.stack(recorded)
        np.savez(folder / "outputs.npz", key=np.array(keys), label=labels, logits=logits, separation_epoch=separation)
        config = timm_config(probe.model, model, prepared.class_names, size, probe.model_args)
        write_json(folder / "config.json", config)
        header = ["epoch", "updates", "loss", "error"]
        write_csv(folder / "curve.csv", header, curve)
    write_csv(PLOTS / "probe.csv", header, curve)
    _, updates, loss, error = curve[separation - 1]
    return {"separation_epoch": separation, "updates": updates, "train_loss": loss, "train_error": error}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    return (
        f"after epoch {result['separation_epoch']} ({result['updates']} updates): train error "
        f"{result['train_error']:.1f} %, loss {result['train_loss']:.3f} -> {PROBE}"
    )
