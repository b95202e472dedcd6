"""Images per second of the input pipeline and of each augmentation, beside torchvision's, interleaved in one run.

input_pipeline: from uint8 images in memory, shuffled, to augmented float batches of 128: crop and flip.
  ours: `loading.InMemory` and `augment`, in this process
  theirs: a torchvision dataset of PIL images, RandomCrop(32, padding=4), RandomHorizontalFlip and ToTensor in a
    DataLoader with 2 persistent workers
augmentations: each of ours on batches of 128, bytes to floats included; torchvision's on one image at a time, as a
  loader calls it (PIL), and where there is none per image (mixup, CutMix) its batch transform on floats, which draws
  once for the batch.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from gdacli.augment import augment
from gdacli.loading import InMemory

CROP_AND_FLIP: dict[str, dict[str, Any]] = {"crop": {"padding": 4}, "flip": {"probability": 0.5}}
NUM_CLASSES = 10


class PilImages(torch.utils.data.Dataset):
    """What torchvision's CIFAR10 does: an array in memory, a PIL image per call, then the transforms."""

    def __init__(self, arrays: np.ndarray, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self._arrays, self._transform = arrays, transform

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._arrays[row])), row % NUM_CLASSES


def random_images(num_images: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8)


def our_epoch(source: InMemory, labels: torch.Tensor, epoch: int, batch_size: int) -> int:
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(epoch))
    bounds = [(first, min(first + batch_size, len(order))) for first in range(0, len(order), batch_size)]
    seen = 0
    for update, ((first, end), pixels) in enumerate(zip(bounds, source.batches(epoch, order, bounds), strict=True)):
        targets = F.one_hot(labels[order[first:end].to(labels.device)], NUM_CLASSES).float()
        generator = torch.Generator().manual_seed(update)
        images, targets = augment(pixels, targets, generator, CROP_AND_FLIP, epoch=epoch)
        seen += len(images)
    if labels.is_cuda:
        torch.cuda.synchronize()
    return seen


def measure_input_pipeline(
    rounds: int = 5, num_images: int = 10_000, size: int = 32, batch_size: int = 128, device: str = "cpu"
) -> dict[str, Any]:
    """Return images/s of both pipelines, median over the rounds, and the median of the rounds' ratios."""
    images = random_images(num_images, size)
    source, labels = InMemory(images.to(device)), (torch.arange(num_images) % NUM_CLASSES).to(device)
    transform = transforms.Compose(
        [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    loader = torch.utils.data.DataLoader(
        PilImages(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()), transform),
        batch_size, shuffle=True, num_workers=2, persistent_workers=True, pin_memory=device != "cpu",
    )  # fmt: skip

    def theirs() -> int:
        return sum(len(batch.to(device)) for batch, _ in loader)

    repeats = 5  # an epoch of ours is too short to time alone
    ours_rate, theirs_rate = [], []
    for number in range(rounds + 1):  # the first round warms up
        start = time.perf_counter()
        seen = sum(our_epoch(source, labels, repeat + 1, batch_size) for repeat in range(repeats))
        middle = time.perf_counter()
        loaded = theirs()
        end = time.perf_counter()
        if number:
            ours_rate.append(seen / (middle - start))
            theirs_rate.append(loaded / (end - middle))
    return {
        "ours": statistics.median(ours_rate),
        "dataloader": statistics.median(theirs_rate),
        "ratio": statistics.median(a / b for a, b in zip(ours_rate, theirs_rate, strict=True)),
        "rounds": {"ours": ours_rate, "dataloader": theirs_rate},
    }


def attention(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Stand in for a model, whose forward pass is not what is measured."""
    return F.avg_pool2d(images.mean(1, keepdim=True), 4)[:, 0]


def measure_augmentations(
    rounds: int = 5, size: int = 32, batch_size: int = 128, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Return per augmentation the images/s of ours and of torchvision's, medians over the rounds."""
    pixels, targets = (
        random_images(batch_size, size).to(device),
        torch.eye(NUM_CLASSES)[torch.arange(batch_size) % NUM_CLASSES].to(device),
    )
    floats, classes = pixels.float() / 255, targets.argmax(1)
    pil = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in pixels]
    per_image: dict[str, Callable[[Image.Image], Any]] = {
        "crop": transforms.RandomCrop(size, padding=4),
        "flip": transforms.RandomHorizontalFlip(),
        "trivial_augment": transforms.TrivialAugmentWide(),
        "rand_augment": transforms.RandAugment(),
        "aug_mix": transforms.AugMix(),
    }
    per_batch: dict[str, Callable[..., Any]] = {
        "mixup": v2.MixUp(num_classes=NUM_CLASSES),
        "cut_mix": v2.CutMix(num_classes=NUM_CLASSES),
    }
    options: dict[str, dict[str, Any]] = {name: {} for name in [*per_image, *per_batch, "snap_mix"]}
    options["crop"] = {"padding": 4}
    generator = torch.Generator().manual_seed(0)

    def ours(name: str) -> None:
        augment(pixels, targets, generator, {name: options[name]}, epoch=1, attention=attention)

    def theirs(name: str) -> None:
        if name in per_image:
            torch.stack([transforms.functional.to_tensor(per_image[name](image)) for image in pil])
        else:
            per_batch[name](floats, classes)

    rates: dict[str, dict[str, list[float]]] = {name: {"ours": [], "torchvision": []} for name in options}
    for number in range(rounds + 1):
        for name in options:
            runs: dict[str, tuple[Callable[[str], None], int]] = {"ours": (ours, 20)}
            if name != "snap_mix":
                runs["torchvision"] = (theirs, 1 if name in per_image else 20)
            for label, (run, repeats) in runs.items():
                start = time.perf_counter()
                for _ in range(repeats):
                    run(name)
                if device != "cpu":
                    torch.cuda.synchronize()
                if number:
                    rates[name][label].append(repeats * batch_size / (time.perf_counter() - start))
    return {
        name: {label: statistics.median(values) for label, values in each.items() if values}
        for name, each in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of ours, beside the two workers of theirs")
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = measure_input_pipeline(arguments.rounds, size=arguments.size, device=arguments.device)
    result = {
        "input_pipeline": pipeline,
        "augmentations": measure_augmentations(arguments.rounds, arguments.size, device=arguments.device),
        "ratios": {"input_pipeline": pipeline["ratio"]},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": arguments.threads,
        "device": arguments.device,
    }
    if arguments.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    print(f"input pipeline, images/s: ours {pipeline['ours']:,.0f}, DataLoader {pipeline['dataloader']:,.0f}, "
          f"{pipeline['ratio']:.1f} times")  # fmt: skip
    for name, rate in result["augmentations"].items():
        print(f"{name:16s} ours {rate['ours']:12,.0f}  torchvision {rate.get('torchvision', float('nan')):12,.0f}")


if __name__ == "__main__":
    main()
