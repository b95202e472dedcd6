"""Images per CPU second of each corruption, a batch at a time, with the seeds and generators of `robustness`."""

import argparse
import json
import time

import numpy as np

from gdacli.corruptions import CORRUPTIONS, SEVERITIES, corrupt_batch
from gdacli.rng import derive_seed


def images_per_second(name: str, images: np.ndarray, repeats: int) -> float:
    """Return the rate over the five severities, the best of some repeats."""
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        for severity in SEVERITIES:
            seeds = (derive_seed("corrupt", 0, f"image-{number}", name, severity) for number in range(len(images)))
            corrupt_batch(images, name, severity, [np.random.default_rng(seed) for seed in seeds])
        best = max(best, len(SEVERITIES) * len(images) / (time.process_time() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--num-images", type=int, default=256, help="of a batch")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    shape = (arguments.num_images, 3, arguments.size, arguments.size)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    rates = {name: images_per_second(name, images, arguments.repeats) for name in CORRUPTIONS}
    total = sum(len(SEVERITIES) * 1000 / rate for rate in rates.values())
    if arguments.json:
        print(json.dumps({"size": arguments.size, "images_per_second": rates, "seconds_per_1000_sources": total}))
        return
    for name, rate in rates.items():
        print(f"{name:18} {rate:9.0f} images/CPU-s")
    print(f"all 15 x 5 of 1,000 images of {arguments.size} x {arguments.size}: {total:.1f} CPU-s")


if __name__ == "__main__":
    main()
