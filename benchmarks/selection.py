"""Selection: time and peak memory, and its k-means against scikit-learn's, class by class, interleaved.

`--full` is the size of ImageNet's train split: 1,280,000 images x 1,000 logits, 5.1 GB in a temporary folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.dynamics import QUANTITIES, describe, read_probe
from gdacli.row_files import new_rows
from gdacli.selection import STRATEGIES, centroids, select_cluster
from gdacli.tables import write_table

EPOCHS = 8
ROUNDS = 3
COMPARED_CLASSES = 8


def write_probe(folder: Path, num_classes: int, per_class: int, num_logits: int) -> None:
    """Write what a probe would, in random order: a third of the images is learned late."""
    import torch

    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(num_classes), per_class))
    directions = rng.standard_normal((16, num_logits), np.float32)
    recorded = np.empty((EPOCHS, len(labels), len(QUANTITIES)), np.float32)
    with new_rows(folder / "logits.npy", (len(labels), num_logits), np.float32) as file:
        for first in range(0, len(labels), 4096):
            rows = np.arange(first, min(first + 4096, len(labels)))
            logits = rng.standard_normal((len(rows), 16), np.float32) @ directions
            logits += rng.standard_normal(logits.shape, np.float32)
            late = rng.random(len(rows)) < 1 / 3
            logits[np.arange(len(rows)), labels[rows]] += rng.gamma(4, np.where(late, 1, 8)).astype(np.float32)
            file.write(rows, logits)
            for epoch in range(EPOCHS):
                part = torch.from_numpy(logits * ((1 + epoch) / EPOCHS))
                recorded[epoch, rows] = describe(part, torch.from_numpy(labels[rows])).numpy()
    quantities: dict[str, Any] = dict(zip(QUANTITIES, recorded.transpose(2, 0, 1), strict=True))
    quantities["correct"] = quantities["correct"].astype(bool)
    np.savez(folder / "dynamics.npz", **quantities, separation_epoch=EPOCHS)
    write_table(folder / "images.parquet", {"key": [f"image-{row:07d}" for row in range(len(labels))], "label": labels})


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def peak_mb() -> float:
    """Return the most memory this process ever held (`ru_maxrss` would count that of the process that started it)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(folder: Path) -> dict[str, Any]:
    """Run every strategy and the centroids in this process; returns seconds and peak memory."""
    at_start = peak_mb()
    _, labels, dynamics = read_probe(folder)
    after_reading, peaks = peak_mb(), {}
    times: dict[str, float] = {}
    for name, strategy in STRATEGIES.items():
        times[name] = seconds(strategy, dynamics, labels, np.random.default_rng(0))
        peaks[name] = peak_mb()
    late = dynamics.loss[-1] > dynamics.loss[-1].mean()
    times["centroids"] = seconds(centroids, dynamics.logits, labels, late, int(labels.max()) + 1)
    memory = {"after imports": at_start, "after reading": after_reading, "after cluster": peaks["cluster"]}
    return {"seconds": times, "peak_mb": {**memory, "after all": peak_mb()}}


def compare(folder: Path) -> tuple[dict[str, float], list[float]]:
    """Return scikit-learn's time over ours for the same classes, and the inertias of ours over its."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    _, labels, dynamics = read_probe(folder)
    rows = np.flatnonzero(labels < COMPARED_CLASSES)
    logits, of_class = dynamics.logits[rows], labels[rows]
    few = type(dynamics)(**{name: getattr(dynamics, name)[:, rows] for name in QUANTITIES}, logits=logits)
    groups = [logits[of_class == label] for label in range(COMPARED_CLASSES)]
    times: dict[str, list[float]] = {"ours": [], "all_threads": [], "one_thread": []}
    inertias = []
    for seed in range(ROUNDS):
        start = time.perf_counter()
        late = select_cluster(few, of_class, np.random.default_rng(seed))[1]
        times["ours"].append(time.perf_counter() - start)
        for threads, limit in (("all_threads", None), ("one_thread", 1)):
            with threadpool_limits(limit):
                start = time.perf_counter()
                fitted = [KMeans(2, n_init=10, random_state=seed).fit(group) for group in groups]
                times[threads].append(time.perf_counter() - start)
        for label, (group, theirs) in enumerate(zip(groups, fitted, strict=True)):
            inertias.append(inertia(group, late[of_class == label]) / inertia(group, theirs.labels_ == 1))
    ours = float(np.median(times.pop("ours")))
    return {f"k_means_{threads}": float(np.median(theirs)) / ours for threads, theirs in times.items()}, inertias


def inertia(points: np.ndarray, second: np.ndarray) -> float:
    groups = (points[second].astype(float), points[~second].astype(float))
    return sum(float(np.square(group - group.mean(axis=0)).sum()) for group in groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="1,000 classes instead of 100")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    num_classes, per_class, num_logits = 1000 if arguments.full else 100, 1280, 1000
    with tempfile.TemporaryDirectory() as name:
        write_probe(Path(name), num_classes, per_class, num_logits)
        done = subprocess.run([sys.executable, __file__, "--measure", name], check=True, capture_output=True, text=True)
        ratios, inertias = compare(Path(name))
    result = {
        "num_images": num_classes * per_class,
        "num_logits": num_logits,
        "logits_mb": num_classes * per_class * num_logits * 4 / 2**20,
        **json.loads(done.stdout),
        "ratios": {"k_means": min(ratios.values()), **ratios},
        "inertia_over_scikit_learns": {"mean": float(np.mean(inertias)), "worst": max(inertias)},
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['num_images']} images x {num_logits} logits, {result['logits_mb']:.0f} MB on disk")
    for strategy, value in result["seconds"].items():
        print(f"  {strategy:14} {value:8.2f} s")
    print("peak memory: " + ", ".join(f"{value:.0f} MB {when}" for when, value in result["peak_mb"].items()))
    said = [f"{value:.2f} ({name.removeprefix('k_means_').replace('_', ' ')})" for name, value in ratios.items()]
    print(f"k-means, scikit-learn's time over ours: {', '.join(said)}")
    print(f"inertia, ours over scikit-learn's: {np.mean(inertias):.7f} on average, {max(inertias):.7f} at most")


if __name__ == "__main__":
    main()
