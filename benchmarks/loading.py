"""Streaming from shards against torchvision's ImageFolder in a DataLoader: same files, crops, workers; interleaved."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gdacli.invocation import WAIT_BRIEFLY

os.environ.setdefault(*WAIT_BRIEFLY)  # as the command line does, before torch is imported

import numpy as np
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from gdacli.loading import ImageSource, open_images
from gdacli.prepared import Prepared, read_prepared

CROP = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
PARAMS: dict[str, Any] = {
    "probe": {"model": "convnet"},
    "train": {"model": "convnet"},
    "compare": {"arms": ["original"], "seeds": [0]},
    "arms": {"original": {"train": {}}},
}


def write_photos(folder: Path, num_images: int) -> None:
    """Write JPEGs as of photos: a shorter side of 128 pixels, smooth and with some grain, two classes."""
    rng = np.random.default_rng(0)
    for number in range(num_images):
        size = [(171, 128), (128, 171), (228, 128), (128, 128)][number % 4]
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (size[1], size[0], 3))
        path = folder / f"class{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)


def prepare(images: Path, project: Path) -> tuple[Prepared, Path]:
    """Make shards of an image folder, and a folder for torchvision of the images that are in the train shards."""
    params = {"data": {"source": str(images.resolve()), "test_fraction": 0.1}, **PARAMS}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run([sys.executable, "-m", "gdacli", "prepare", "-C", str(project)], check=True, capture_output=True)
    prepared = read_prepared(project / "data" / "source")
    for sample in prepared.samples("train"):
        folder = project / "folder" / f"{sample.label:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sample.key}.{sample.extension}").write_bytes(sample.image)
    return prepared, project / "folder"


def theirs(folder: Path, size: int, batch_size: int, workers: int) -> DataLoader:
    """Return the loader of PyTorch's ImageNet example, without its flip and normalisation."""
    transform = transforms.Compose([transforms.RandomResizedCrop(size, **CROP), transforms.ToTensor()])
    return DataLoader(
        ImageFolder(str(folder), transform),
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def epoch_of_theirs(loader: DataLoader) -> int:
    return sum(len(images) for images, _ in loader)


def epoch_of_ours(source: ImageSource, epoch: int, batch_size: int) -> int:
    """Run an epoch up to the same floats on the device that theirs ends with."""
    order = torch.randperm(len(source))
    bounds = [(first, min(first + batch_size, len(source))) for first in range(0, len(source), batch_size)]
    return sum(len(batch.float().div_(255)) for batch in source.batches(epoch, order, bounds))


def measure(
    images: Path | None = None, *, num_images: int = 3000, sizes: tuple[int, ...] = (64, 224), batch_size: int = 128,
    workers: int = 2, rounds: int = 5,
) -> dict[str, Any]:  # fmt: skip
    """Return images/s of both, and per size the median over rounds of ours over theirs.

    Args:
        images: an image folder; None makes one.
        num_images: of the folder that is made.
        sizes: sides in pixels of the crops.
        rounds: pairs of epochs per size; one more before them warms up.
    """
    result: dict[str, Any] = {"images_per_second": {}, "ratios": {}}
    with tempfile.TemporaryDirectory() as name:
        if images is None:
            images = Path(name) / "photos"
            write_photos(images, num_images)
        prepared, folder = prepare(images, Path(name))
        references = prepared.references("train")
        for size in sizes:
            ours = open_images(
                references, image_size=size, device=torch.device("cpu"), workers=workers, random_resized_crop=CROP
            )
            loader = theirs(folder, size, batch_size, workers)
            rates: dict[str, list[float]] = {"ours": [], "imagefolder": []}
            for number in range(rounds + 1):
                start = time.perf_counter()
                seen = epoch_of_ours(ours, number + 1, batch_size)
                middle = time.perf_counter()
                seen_by_theirs = epoch_of_theirs(loader)
                end = time.perf_counter()
                assert seen == seen_by_theirs == len(references)
                if number:
                    rates["ours"].append(seen / (middle - start))
                    rates["imagefolder"].append(seen / (end - middle))
            ratios = np.array(rates["ours"]) / np.array(rates["imagefolder"])
            result["images_per_second"][str(size)] = {tool: round(float(np.median(rates[tool]))) for tool in rates}
            result["ratios"][f"streaming_{size}"] = round(float(np.median(ratios)), 3)
    result["ratios"]["streaming"] = min(result["ratios"].values())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=Path, help="an image folder; without, photo-like JPEGs are made")
    parser.add_argument("--num-images", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    result = measure(
        arguments.images, num_images=arguments.num_images, workers=arguments.workers, rounds=arguments.rounds
    )
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for size, rates in result["images_per_second"].items():
        ratio = result["ratios"][f"streaming_{size}"]
        print(f"{size:>4} pixels: ours {rates['ours']} images/s, ImageFolder {rates['imagefolder']}, ratio {ratio}")


if __name__ == "__main__":
    main()
