"""`gdacli fit`: train the embedded generator on the train split alone, or pin a pretrained one."""

from typing import Any

import torch

from gdacli.artifacts import new_directory, write_json
from gdacli.compute import set_up
from gdacli.console import progress
from gdacli.generators import EMBEDDED, backend
from gdacli.params import Params
from gdacli.paths import GENERATOR, PLOTS, SOURCE
from gdacli.prepared import read_prepared
from gdacli.tables import write_csv
from gdacli.weights import PIN, pin_files

VERSION = 1


def run(params: Params) -> dict[str, Any]:
    """Write `data/generator/<backend>`; returns the loss over the last tenth of the updates, or what was pinned."""
    prepared = read_prepared(SOURCE)
    prepared.square_size()
    if params.generate.backend != EMBEDDED:
        return _pin(params)
    device = set_up(params.compute.device, params.compute.threads)
    _, labels, arrays = prepared.load("train")
    curve: list[list[float]] = []
    output = GENERATOR / EMBEDDED
    with new_directory(output) as folder, progress("fit", params.fit.updates, "updates") as advance:
        done = 0

        def on_update(updates: int, loss: float) -> None:
            nonlocal done
            curve.append([updates, loss])
            advance(updates - done, note=f"loss {loss:.4f}")
            done = updates

        backend(EMBEDDED, None).fit(
            torch.from_numpy(arrays).to(device),
            torch.from_numpy(labels).to(device),
            num_classes=prepared.num_classes,
            folder=folder,
            on_update=on_update,
            **params.fit.model_dump(),
        )
    write_csv(PLOTS / "fit.csv", ["updates", "loss"], curve)
    tail = [loss for _, loss in curve[-max(1, len(curve) // 10) :]]
    return {"backend": EMBEDDED, "updates": params.fit.updates, "loss": sum(tail) / len(tail)}


def _pin(params: Params) -> dict[str, Any]:
    """Write down which files the settings name: there is nothing to fit, and `generate` notices other ones."""
    generate = params.generate
    pins = pin_files(generate.named_files(), generate.revision, generate.variant, generate.checks_safety())
    with new_directory(GENERATOR / generate.backend) as output:
        write_json(output / PIN, pins)
    write_csv(PLOTS / "fit.csv", ["updates", "loss"], [])
    return {"backend": generate.backend, "updates": 0, "files": pins}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    output = GENERATOR / result["backend"]
    if "files" in result:
        named = [
            f"{pin['name']}{' at ' + pin['commit'] if pin['commit'] else ''} ({pin['sha256'][:16]})"
            for pin in result["files"].values()
        ]
        return f"{result['backend']}: nothing to fit; takes {', '.join(named) or 'no files'} -> {output}"
    return f"{result['backend']}: {result['updates']} updates, last loss {result['loss']:.4f} -> {output}"
