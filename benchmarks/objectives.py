"""Cost of a step of each training objective, relative to cross-entropy alone, interleaved in one run.

A step is one of `train_classifier` on 64 real images of 32 x 32; the others add 64 of a small convolutional generator
(for real_consistency stored ones), of two views where they compare, and mgr 64 validation images. Costs are ratios of
the fastest rounds, of the time of the processor where one thread runs: what disturbs a shared machine counts least so.

finite_differences_to_exact: seconds of a step of mgr with the one over those with the other; the paper's trainings took
5.79 and 6.55 hours, 0.88 (meta-generative-regularization paper, Table 4)
"""

import argparse
import json
import os
import statistics
import sys
import time
from functools import partial
from typing import Any

from gdacli.invocation import WAIT_BRIEFLY

os.environ.setdefault(*WAIT_BRIEFLY)  # as the command line does, before torch is imported

import torch
from augment import CROP_AND_FLIP, random_images
from torch import nn

from gdacli.compute import set_up
from gdacli.distributed import World
from gdacli.finder import Finder
from gdacli.loading import InMemory
from gdacli.models import create_model
from gdacli.objectives import OBJECTIVES, SyntheticObjective
from gdacli.pseudo_sampling import PseudoSampling
from gdacli.synthetic_images import Generated, Stored
from gdacli.training import train_classifier

BATCH, CLASSES, LATENT = 64, 10, 64
MODELS = {"cpu": {"preact_resnet18": 16, "convnet": 16}, "cuda": {"preact_resnet18": 64, "convnet": 64}}
"""Device -> architecture: its width."""
EXACT = "mgr, exact"
NAMES = ["cross_entropy", *OBJECTIVES, EXACT]
WEIGHT = 0.01
SETTINGS: dict[str, Any] = {
    "num_classes": CLASSES, "batch_size": BATCH, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": True,
    "weight_decay": 5e-4, "sam": None, "schedule": "piecewise", "warmup": 0.0, "label_smoothing": 0.0,
    "clip_norm": None, "ema_decay": None, "balance": "none", "augmentations": CROP_AND_FLIP, "seed": 0,
    "on_epoch": lambda epoch: None,
}  # fmt: skip


class Deconvolutions(nn.Module):
    """A small conditional generator of 32 x 32 images, with random weights."""

    latent_dim = LATENT
    conditional = True

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, LATENT)
        self.net = nn.Sequential(
            nn.Linear(LATENT, width * 4 * 16), nn.Unflatten(1, (width * 4, 4, 4)), nn.ReLU(),
            nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(width * 2, width, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.requires_grad_(False)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.net(z + self.embedding(labels))


def make_objective(name: str, images: torch.Tensor, num_features: int) -> SyntheticObjective | None:
    """Put an objective together as `gdacli.trainings` does, with the paper's settings."""
    if name == "cross_entropy":
        return None
    device, exact, name = images.device, name == EXACT, name.partition(",")[0]
    term, head = OBJECTIVES[name].term, None
    if name == "gda_multi_head":
        head = nn.Linear(num_features, CLASSES).to(device)
        term = partial(term, head=head)
    if name == "gda_ssl":
        term = partial(term, temperature=0.4, confidence=0.8)
    strong = None if name in ("gda", "gda_multi_head", "gda_mps") else {"num_ops": 2, "magnitude": 9}
    shared: dict[str, Any] = {"batch_size": BATCH, "strong": strong, "seed": 0, "world": World()}
    labels = torch.arange(len(images)) % CLASSES
    supply: Any
    if name == "real_consistency":
        supply = Stored(InMemory(images), labels, augmentations=CROP_AND_FLIP, **shared)
    else:
        supply = Generated(
            Deconvolutions().to(device), num_classes=CLASSES, image_size=32, latent_noise=0.0, dtype="float32",
            device=device, **shared,
        )  # fmt: skip
    if name in ("mgr", "gda_mps"):
        validation = Stored(InMemory(images), labels, augmentations={}, **{**shared, "strong": None})
        supply = PseudoSampling(
            supply, term, weight=WEIGHT, finder=Finder(LATENT, "residual_mlp", None, 0).to(device),
            validation=validation, criterion=None, lr=1e-4, kl_weight=0.01, kl_reduction="mean",
            gradient="exact" if exact else "finite_differences", epsilon=0.01, inner_lr=None,
        )  # fmt: skip
    return SyntheticObjective(term, supply, weight=WEIGHT, head=head)


def seconds_of_a_step(name: str, architecture: str, width: int, images: torch.Tensor, updates: int, **more: Any) -> Any:
    """Return seconds of an update, the first one not counted, and on a GPU the peak memory in MiB."""
    model = create_model(architecture, CLASSES, {"width": width}, 0).to(images.device)
    objective = make_objective(name, images, model.num_features())
    marks: list[float] = []
    gpu = images.device.type == "cuda"
    clock = time.perf_counter if gpu or torch.get_num_threads() > 1 else time.process_time

    def mark(update: int, count: int) -> None:
        if gpu:
            torch.cuda.synchronize()
        marks.append(clock())

    if gpu:
        torch.cuda.reset_peak_memory_stats()
    labels = torch.arange(len(images)) % CLASSES
    repeats = torch.ones(len(images), dtype=torch.int64)
    given = {**SETTINGS, "updates": updates + 1, "on_update": mark, "objective": objective, **more}
    train_classifier(model, InMemory(images), labels, repeats, **given)
    memory = torch.cuda.max_memory_allocated() / 2**20 if gpu else None
    return (marks[-1] - marks[0]) / updates, memory


def measure(
    architecture: str, width: int, device: str, rounds: int, updates: int, dtype: str, compile: bool
) -> dict[str, Any]:
    """Return seconds, costs relative to cross-entropy, and what finite differences save, of one architecture."""
    images = random_images(BATCH * 4, 32).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    memory: dict[str, float | None] = {}
    for number in range(rounds + 1):  # the first round warms up
        for name in NAMES:
            taken, memory[name] = seconds_of_a_step(
                name, architecture, width, images, updates, dtype=dtype, compile=compile
            )
            if number:
                seconds[name].append(taken)
    fastest = {name: min(each) for name, each in seconds.items()}
    return {
        "width": width,
        "costs": {name: each / fastest["cross_entropy"] for name, each in fastest.items()},
        "finite_differences_to_exact": fastest["mgr"] / fastest[EXACT],
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        **({"memory_mib": memory} if device == "cuda" else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--models", nargs="+", choices=list(MODELS["cpu"]), default=list(MODELS["cpu"]))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=3, help="of a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    set_up(arguments.device, arguments.threads)  # as the commands do
    chosen = {name: MODELS[arguments.device][name] for name in arguments.models}
    how = (arguments.device, arguments.rounds, arguments.updates, arguments.dtype, arguments.compile)
    result = {name: measure(name, width, *how) for name, width in chosen.items()}
    if arguments.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    for name, found in result.items():
        print(f"{name} of width {found['width']}: cost of a step, cross_entropy = 1")
        print("  " + ", ".join(f"{objective} {cost:.2f}" for objective, cost in found["costs"].items()))
        print(f"  finite differences to exact gradients: {found['finite_differences_to_exact']:.2f}")


if __name__ == "__main__":
    main()
