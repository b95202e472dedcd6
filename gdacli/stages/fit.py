"""`gdacli fit`: train the embedded generator on the train split alone."""

from typing import Any

import torch

from gdacli.artifacts import new_directory
from gdacli.compute import set_up
from gdacli.console import progress
from gdacli.generators import backend
from gdacli.params import Params
from gdacli.paths import GENERATOR, PLOTS, SOURCE
from gdacli.prepared import read_prepared
from gdacli.tables import write_csv

VERSION = 1


def run(params: Params) -> dict[str, Any]:
    """Write `data/generator/<backend>`; returns the loss over the last tenth of the updates."""
    prepared = read_prepared(SOURCE)
    prepared.square_size()
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


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    output = GENERATOR / result["backend"]
    return f"{result['backend']}: {result['updates']} updates, last loss {result['loss']:.4f} -> {output}"
