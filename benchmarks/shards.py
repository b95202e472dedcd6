"""Writing shards: ours (standard library) against webdataset.TarWriter, interleaved; and what importing each costs."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import webdataset

from gdacli.shards import Sample, write_shard

ROUNDS = 7


def ours(folder: Path, samples: list[Sample]) -> None:
    write_shard(folder / "ours.tar", samples)


def theirs(folder: Path, samples: list[Sample]) -> None:
    with webdataset.TarWriter(str(folder / "theirs.tar"), encoder=True, mtime=0) as writer:
        for sample in samples:
            writer.write({"__key__": sample.key, "png": sample.image, "cls": sample.label, "json": sample.meta})


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def import_seconds(module: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--num-samples", type=int, default=2000)
    arguments = parser.parse_args()
    content = np.random.default_rng(0).bytes(2500)  # about a CIFAR-10 PNG
    samples = [Sample(f"k{row:06d}", row % 10, content, "png", {"row": row}) for row in range(arguments.num_samples)]
    with tempfile.TemporaryDirectory() as name:
        times: dict[str, list[float]] = {"ours": [], "webdataset": []}
        for _ in range(ROUNDS):
            times["ours"].append(seconds(ours, Path(name), samples))
            times["webdataset"].append(seconds(theirs, Path(name), samples))
    medians = {tool: float(np.median(values)) for tool, values in times.items()}
    imports = {"ours": import_seconds("gdacli.shards"), "webdataset": import_seconds("webdataset")}
    result: dict[str, dict[str, float]] = {
        "samples_per_second": {tool: round(len(samples) / value) for tool, value in medians.items()},
        "ratios": {"write": medians["webdataset"] / medians["ours"], "import": imports["webdataset"] / imports["ours"]},
        "import_seconds": imports,
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for tool, rate in result["samples_per_second"].items():
            print(f"{tool:12} {rate:8} samples/s, import {imports[tool]:.2f} s")
        print(
            f"ratio, webdataset's time over ours: {result['ratios']['write']:.2f} (hashing and fsync included in ours)"
        )


if __name__ == "__main__":
    main()
