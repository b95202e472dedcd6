"""Train the embedded generator of a preset on given data and say how fast it went and how good its samples are.

    python benchmarks/fit.py --source /data/cifar10 --preset cifar10 --seconds 480 --device cuda -o fit-cifar10

Runs `prepare`, `probe` and `fit` in a folder that is kept, with a share of the train images held out. `--seconds` first
times some updates and then sets `fit.updates` from that: the time decides how long the fit is, not what it computes.
Says images/s of training, Fréchet distance, that of real images, nearest train images, and where the
sample sheets are. Small settings for a CPU: `--preset cpu --seconds 60`.
"""

import argparse
import contextlib
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from gdacli.cli import app
from gdacli.compute import set_up
from gdacli.generators import class_conditional
from gdacli.params import Params, load_params
from gdacli.paths import FIT_NEAREST, FIT_SAMPLES, METRICS, PLOTS, SOURCE
from gdacli.prepared import read_prepared
from gdacli.presets import preset_values
from gdacli.stages.init import params_text

WARM_UP, TIMED = 20, 50


def write_project(folder: Path, arguments: argparse.Namespace) -> None:
    """Write the params.yaml of a preset, with a validation split and the fit's overrides."""
    values = {**preset_values(arguments.preset), "source": arguments.source, "versions": {}}
    if values["image_size"] is None:
        values["image_size"] = arguments.image_size
    params = yaml.safe_load(params_text(values))
    del params["versions"]
    params["data"] |= {"validation_fraction": arguments.validation_fraction, "train_fraction": arguments.train_fraction}
    params["compute"] = {"device": arguments.device, "threads": arguments.threads}
    params["generate"]["batch_size"] = 16 * arguments.threads
    params["fit"] |= {"patience": None}
    for override in arguments.set:
        key, _, value = override.partition("=")
        params["fit"][key] = yaml.safe_load(value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run(folder: Path, command: str, *overrides: str) -> float:
    """Run a command of gdacli; returns its seconds."""
    start = time.perf_counter()
    options = [part for override in overrides for part in ("-S", override)]
    with contextlib.redirect_stdout(sys.stderr):
        app([command, "-C", str(folder), *options], standalone_mode=False)
    return time.perf_counter() - start


def seconds_per_update(folder: Path, params: Params) -> tuple[float, float]:
    """Time some updates without checks; returns seconds an update, and of what comes first (the compiler)."""
    device = set_up(params.compute.device, params.compute.threads)
    prepared = read_prepared(folder / SOURCE)
    _, labels, images = prepared.load("train")
    fast = params.fit.dtype == "bfloat16" or (params.fit.dtype == "auto" and device.type == "cuda")
    marks: list[float] = []

    class Clock:
        """Notes the time before each update; never due."""

        def due(self) -> bool:
            if device.type == "cuda" and len(marks) in (WARM_UP, WARM_UP + TIMED):
                torch.cuda.synchronize()
            marks.append(time.perf_counter())
            return False

        def save(self, state: dict[str, Any]) -> None:
            raise AssertionError("it is never due")

    start = time.perf_counter()
    settings = {
        **params.fit.of_training("class_conditional"),
        "updates": WARM_UP + TIMED + 1,
        "check_every": None,
        "patience": None,
    }
    class_conditional.fit(
        torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device), num_classes=prepared.num_classes,
        folder=folder / "timed", on_update=lambda update, loss: None,
        dtype=torch.bfloat16 if fast else torch.float32, keeper=Clock(), **settings,
    )  # fmt: skip
    return (marks[WARM_UP + TIMED] - marks[WARM_UP]) / TIMED, marks[WARM_UP] - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="digits", help="as data.source")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--image-size", type=int, default=None, help="where the preset names none")
    parser.add_argument("--train-fraction", type=float, default=1.0)
    parser.add_argument("--validation-fraction", type=float, default=0.1, help="held out, to measure against")
    parser.add_argument("--updates", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None, help="of the fit, checks included, start-up not")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the section fit")
    parser.add_argument("-o", "--output", type=Path, default=Path("fit-benchmark"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    write_project(folder, arguments)
    seconds = {name: round(run(folder, name), 1) for name in ("prepare", "probe")}
    params = load_params(folder)
    each, before = seconds_per_update(folder, params)
    updates = arguments.updates or params.fit.updates
    if arguments.seconds is not None:
        updates = max(1, int(arguments.seconds / each / 1.1))  # about a tenth goes to checks and saved states
    every = max(1, min(params.fit.check_every or updates, -(-updates // 4)))
    seconds["fit"] = round(run(folder, "fit", f"fit.updates={updates}", f"fit.check_every={every}"), 1)
    with (folder / PLOTS / "fit_quality.csv").open(newline="") as file:
        curve = [[int(row["updates"]), float(row["frechet_distance"])] for row in csv.DictReader(file)]
    result: dict[str, Any] = {
        "preset": arguments.preset,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{arguments.threads} CPU threads",
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else None,
        "images_per_second": round(params.fit.batch_size / each, 1),
        "seconds_before_the_first_timed_update": round(before, 1),
        "seconds": seconds,
        "curve": curve,
        "quality": json.loads((folder / METRICS / "fit.json").read_text(encoding="utf-8")),
        "sheets": [str(folder / FIT_SAMPLES), str(folder / FIT_NEAREST)],
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    quality = result["quality"]
    print(f"{result['preset']} on {result['device']}: {result['images_per_second']} images/s, {updates} updates")
    print(f"Fréchet distance {quality['frechet_distance']} to {quality['num_samples']} held-out images", end=" ")
    print(f"(other real images: {quality['real_frechet_distance']}); after updates: {curve}")
    print(f"nearest train images: {quality['memorisation']}\nseconds: {seconds}\nsheets: {result['sheets']}")


if __name__ == "__main__":
    main()
