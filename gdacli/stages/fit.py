"""`gdacli fit`: train the embedded generator on the train split alone, or pin a pretrained one."""

from typing import Any

import torch

from gdacli.artifacts import new_directory, write_json
from gdacli.compute import set_up
from gdacli.console import progress
from gdacli.generators import backend
from gdacli.params import Params
from gdacli.paths import GENERATOR, PLOTS, SOURCE
from gdacli.prepared import read_prepared
from gdacli.tables import write_csv
from gdacli.weights import PIN, PIPELINE, locate, weights_digest

VERSION = 1


def run(params: Params) -> dict[str, Any]:
    """Write `data/generator/<backend>`; returns the loss over the last tenth of the updates, or what was pinned."""
    prepared = read_prepared(SOURCE)
    prepared.square_size()
    if params.generate.backend == "text_to_image":
        return _pin(params)
    device = set_up(params.compute.device, params.compute.threads)
    _, labels, arrays = prepared.load("train")
    curve: list[list[float]] = []
    output = GENERATOR / params.generate.backend
    with new_directory(output) as folder, progress("fit", params.fit.updates, "updates") as advance:
        done = 0

        def on_update(updates: int, loss: float) -> None:
            nonlocal done
            curve.append([updates, loss])
            advance(updates - done, note=f"loss {loss:.4f}")
            done = updates

        backend(params.generate.backend).fit(
            torch.from_numpy(arrays).to(device),
            torch.from_numpy(labels).to(device),
            num_classes=prepared.num_classes,
            folder=folder,
            on_update=on_update,
            **params.fit.model_dump(),
        )
    write_csv(PLOTS / "fit.csv", ["updates", "loss"], curve)
    tail = [loss for _, loss in curve[-max(1, len(curve) // 10) :]]
    return {"backend": params.generate.backend, "updates": params.fit.updates, "loss": sum(tail) / len(tail)}


def _pin(params: Params) -> dict[str, Any]:
    """Write down which weights a pretrained model has: there is nothing to fit, and `generate` notices other ones."""
    generate = params.generate
    folder = locate(generate.model or "", generate.revision, "generate.model", PIPELINE)
    commit = folder.name if folder.parent.name == "snapshots" else None
    pin = {
        "model": generate.model,
        "revision": generate.revision,
        "commit": commit,
        "sha256": weights_digest(folder, PIPELINE),
    }
    with new_directory(GENERATOR / generate.backend) as output:
        write_json(output / PIN, pin)
    write_csv(PLOTS / "fit.csv", ["updates", "loss"], [])
    return {"backend": generate.backend, "updates": 0, **pin}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    output = GENERATOR / result["backend"]
    if "model" in result:
        at = f" at {result['commit']}" if result["commit"] else ""
        return (
            f"{result['backend']}: {result['model']}{at}, nothing to fit; weights {result['sha256'][:16]} -> {output}"
        )
    return f"{result['backend']}: {result['updates']} updates, last loss {result['loss']:.4f} -> {output}"
