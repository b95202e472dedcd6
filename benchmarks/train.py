"""Images per second of training, against what people use today, interleaved in one run.

Rates are medians of the rounds. The ratios of steps are those of the fastest rounds: on a shared machine a longer step
meets more of what disturbs it.

input_pipeline: see augment.py; streaming: see loading.py (the lower ratio of its sizes)
step: `train_classifier` on images in memory against the plain PyTorch script: a DataLoader of PIL images, 2 workers,
  crop and flip, the same network and optimizer; on a ResNet-18 (the ratio) and on a small network (step_small), where
  the input is the limit
sam: seconds of a SAM step over those of an SGD step, of `train_classifier`, by the same ResNet-18; lower is better

`--recipe` instead times epochs of CIFAR-10's recipe on a GPU: 50,000 images of 32 x 32, ResNet-18 of width 64.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from gdacli.invocation import WAIT_BRIEFLY

os.environ.setdefault(*WAIT_BRIEFLY)  # as the command line does, before torch is imported

import torch
import torch.nn.functional as F
from augment import CROP_AND_FLIP, PilImages, measure_input_pipeline, random_images
from loading import measure as measure_streaming
from torchvision import transforms

from gdacli.compute import set_up
from gdacli.loading import InMemory
from gdacli.models import create_model
from gdacli.training import train_classifier

PAPERS_SAM = {"rho": 0.1, "adaptive": False, "m": None, "weight_decay_in_ascent": True, "batch_norm": "both"}
SETTINGS: dict[str, Any] = {
    "num_classes": 10, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4,
    "schedule": "piecewise", "warmup": 0.0, "label_smoothing": 0.0, "clip_norm": None, "ema_decay": None,
    "balance": "none", "compile": False, "augmentations": CROP_AND_FLIP, "seed": 0, "on_epoch": lambda epoch: None,
}  # fmt: skip
MODELS = {"step": ("preact_resnet18", {"width": 64}, 128), "step_small": ("convnet", {"width": 16}, 1536)}
"""Name of the ratio -> architecture, its arguments, images a round on two CPU cores."""


class Ours:
    """A training of this project, taken up again for each round."""

    def __init__(
        self, model: str, args: dict[str, Any], images: torch.Tensor, batch_size: int, sam: bool, **options: Any
    ) -> None:
        self.model = create_model(model, 10, args, 0).to(images.device)
        self.source, self.labels = InMemory(images), torch.arange(len(images)) % 10
        self.settings = {
            **SETTINGS, "batch_size": batch_size, "sam": PAPERS_SAM if sam else None, "dtype": "float32", **options,
        }  # fmt: skip

    def __call__(self, updates: int) -> float:
        """Return the seconds of some updates, the start of a training not counted."""
        marks: list[float] = []

        def mark(update: int, count: int) -> None:
            if self.source_device == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

        repeats = torch.ones(len(self.labels), dtype=torch.int64)
        train_classifier(
            self.model, self.source, self.labels, repeats, updates=updates + 1, on_update=mark, **self.settings
        )
        return marks[-1] - marks[0]

    @property
    def source_device(self) -> str:
        return next(self.model.parameters()).device.type


class Plain:
    """The script that most people start from."""

    def __init__(self, model: str, args: dict[str, Any], images: torch.Tensor, batch_size: int) -> None:
        self.model = create_model(model, 10, args, 0).to(memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, 0.9, weight_decay=5e-4)
        transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )
        arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.loader = torch.utils.data.DataLoader(
            PilImages(arrays, transform), batch_size, shuffle=True, num_workers=2, persistent_workers=True
        )

    def __call__(self, updates: int) -> float:
        self.model.train()
        start, done = 0.0, -1
        while True:
            for images, labels in self.loader:
                loss = F.cross_entropy(self.model(images), labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                done += 1
                if done == 0:  # the first update pays for what starts up
                    start = time.perf_counter()
                if done == updates:
                    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[int], float]], updates: int, rounds: int) -> dict[str, list[float]]:
    """Return seconds per update of each, by round; a round before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            taken = run(updates) / updates
            if number:
                seconds[name].append(taken)
    return seconds


def measure_steps(rounds: int, batch_size: int) -> dict[str, Any]:
    """Return images/s of both scripts on both networks, and of SAM, and the ratios."""
    result: dict[str, Any] = {"images_per_second": {}, "ratios": {}}
    for ratio, (model, args, num_images) in MODELS.items():
        size = min(batch_size, num_images)
        images = random_images(num_images * 4, 32)
        runs: dict[str, Callable[[int], float]] = {
            "ours": Ours(model, args, images, size, sam=False),
            "plain": Plain(model, args, images, size),
        }
        if ratio == "step":
            runs["sam"] = Ours(model, args, images, size, sam=True)
        seconds = interleaved(runs, num_images // size, rounds)
        result["images_per_second"][ratio] = {name: size / statistics.median(each) for name, each in seconds.items()}
        fastest = {name: min(each) for name, each in seconds.items()}
        result["ratios"][ratio] = fastest["plain"] / fastest["ours"]
        if ratio == "step":
            result["ratios"]["sam"] = fastest["sam"] / fastest["ours"]
    return result


def measure_recipe(device: str, dtype: str, compile: bool, epochs: int) -> dict[str, Any]:
    """Return seconds of an epoch of CIFAR-10's recipe with SGD and SAM, and minutes of its 200."""
    images = random_images(50_000, 32).to(device)
    result: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else device}
    for name in ("sgd", "sam"):
        run = Ours("preact_resnet18", {"width": 64}, images, 128, sam=name == "sam", dtype=dtype, compile=compile)
        run(391)  # one epoch warms up
        seconds = run(391 * epochs) / epochs
        result[name] = {
            "seconds_an_epoch": seconds, "minutes_of_200_epochs": 200 * seconds / 60,
            "images_per_second": 391 * 128 / seconds,
        }  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128, help="at most; a slow network takes smaller batches")
    parser.add_argument("--recipe", action="store_true", help="time epochs of CIFAR-10's recipe instead")
    parser.add_argument("--device", default="cuda", help="of --recipe")
    parser.add_argument("--dtype", default="bfloat16", help="of --recipe")
    parser.add_argument("--compile", action="store_true", help="of --recipe")
    parser.add_argument("--epochs", type=int, default=5, help="of --recipe")
    arguments = parser.parse_args()
    set_up(arguments.device if arguments.recipe else "cpu", arguments.threads)  # as the commands do
    if arguments.recipe:
        json.dump(
            measure_recipe(arguments.device, arguments.dtype, arguments.compile, arguments.epochs), sys.stdout, indent=1
        )
        print()
        return
    steps = measure_steps(arguments.rounds, arguments.batch_size)
    torch.set_num_threads(1)  # a thread waits for the DataLoader's workers, which run at the same time, else
    pipeline = measure_input_pipeline(arguments.rounds)
    torch.set_num_threads(arguments.threads)
    streaming = measure_streaming(rounds=arguments.rounds)
    result = {
        "ratios": {
            **steps["ratios"],
            "input_pipeline": pipeline["ratio"],
            "streaming": streaming["ratios"]["streaming"],
        },
        "images_per_second": {
            **steps["images_per_second"],
            "input_pipeline": {name: pipeline[name] for name in ("ours", "dataloader")},
            **{f"streaming_{size}": rates for size, rates in streaming["images_per_second"].items()},
        },
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    for name, rates in result["images_per_second"].items():
        print(f"{name:16}" + "  ".join(f"{tool} {rate:10,.1f} images/s" for tool, rate in rates.items()))
    print("ratios: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in result["ratios"].items()))


if __name__ == "__main__":
    main()
