"""`gdacli prepare` on n and 5 n images: images/s, and that peak memory does not grow with their number."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gdacli.images import encode_png

PARAMS = """
data: {source: images, test_fraction: 0.2}
probe: {model: convnet}
train: {model: convnet}
compare: {arms: [original], seeds: [0]}
arms: {original: {train: {}}}
"""


CHILD = """
import resource, sys
from gdacli.cli import app
app(["prepare", "-C", sys.argv[1]], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(num_images: int, size: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "params.yaml").write_text(PARAMS)
        for label in range(2):
            (folder / "images" / f"class{label}").mkdir(parents=True)
        for number in range(num_images):
            image = rng.integers(0, 256, (3, size, size), dtype=np.uint8)
            (folder / f"images/class{number % 2}/{number:07d}.png").write_bytes(encode_png(image))
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", CHILD, name], capture_output=True, text=True, check=True)
        elapsed = time.perf_counter() - start
    peak = int(done.stdout.splitlines()[-1]) / (1024 if sys.platform != "darwin" else 1024**2)
    return {"num_images": num_images, "images_per_second": num_images / elapsed, "peak_megabytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    runs = [measure(arguments.num_images * factor, arguments.size) for factor in (1, 5)]
    pixels = 4 * arguments.num_images * arguments.size**2 * 3 / 1024**2
    growth = runs[1]["peak_megabytes"] - runs[0]["peak_megabytes"]
    result = {"runs": runs, "growth_megabytes": growth, "pixels_of_the_further_images_megabytes": pixels}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for run in runs:
            print(
                "{num_images:7} images: {images_per_second:7.0f} images/s, peak {peak_megabytes:.0f} MB".format(**run)
            )
        print(f"growth {growth:.1f} MB; the pixels of the further images take {pixels:.1f} MB")


if __name__ == "__main__":
    main()
