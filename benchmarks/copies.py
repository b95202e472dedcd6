"""Seconds and peak memory of looking for copies among train, test and synthetic images, from features and pixels.

Near copies are looked for among as many as gdacli evaluate takes. Random features and squares, so that nothing is a
copy; what is measured does not depend on that. Memory is what the peak adds to them.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch

from gdacli.cleanliness import find_copies
from gdacli.compared_images import DIGEST_BYTES, MOST_LOOKED_UP, MOST_TRAIN, ImageSet
from gdacli.duplicates import SQUARE

VARIANTS = 2
"""Of a source."""


def random_set(name: str, count: int, width: int, seed: int) -> ImageSet:
    rng = np.random.default_rng(seed)
    drawn = np.arange(min(count, MOST_TRAIN if name == "train" else MOST_LOOKED_UP))
    features = rng.standard_normal((len(drawn), width), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    digests = rng.integers(0, 256, (count, DIGEST_BYTES), np.uint8)
    squares = rng.integers(0, 256, (count, SQUARE, SQUARE), np.uint8)
    return ImageSet([f"{name}-{number}" for number in range(count)], digests, squares, drawn, features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--num-train", type=int, default=50_000)
    parser.add_argument("--num-test", type=int, default=10_000)
    parser.add_argument("--num-synthetic", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    counts = {"train": arguments.num_train, "test": arguments.num_test, "synthetic": arguments.num_synthetic}
    sets = {name: random_set(name, count, arguments.width, seed) for seed, (name, count) in enumerate(counts.items())}
    sources = np.arange(arguments.num_synthetic) // VARIANTS % arguments.num_train
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    find_copies(sets["train"], sets["test"], sets["synthetic"], sources, near_within_train=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    result = {
        **counts,
        "width": arguments.width,
        "threads": arguments.threads,
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "added_mb": (after.ru_maxrss - before.ru_maxrss) / 1024,
        "inputs_mb": sum(each.features.nbytes + each.squares.nbytes for each in sets.values()) / 2**20,
    }
    print(json.dumps(result, indent=2) if arguments.json else result)


if __name__ == "__main__":
    main()
