"""The theory programs: seconds of each as users run it, and the Gaussian mixture against drawing every point.

The published code draws points; ours draws the means and scatters that its figures hang on. Both here train in the same
settings; the ratio is of interleaved runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gdacli.theory.gaussian_mixture import simulate

PROGRAMS = ("gmm", "two-layer", "mixup", "selection")
ROUNDS, REPEATS = 3, 200
GAMMAS = [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
SIGMA, SWEEP = 0.6, {"dimension": 50, "num_train": 10}


def run_program(name: str) -> dict[str, float]:
    """Run `gdacli theory NAME` with its defaults in a process of its own; returns wall and processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        before, start = os.times(), time.perf_counter()
        command = [sys.executable, "-m", "gdacli", "theory", name, "--output", folder]
        subprocess.run(command, check=True, capture_output=True)
        wall, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": wall, "processor_seconds": spent}


def draw_points(rng: np.random.Generator, dimension: int, num_train: int) -> np.ndarray:
    """Do what `simulate` does point by point; returns gaps [gammas, repeats]."""
    gaps = np.empty((len(GAMMAS), REPEATS))
    half = num_train // 2
    for repeat in range(REPEATS):
        real = rng.standard_normal((2, half, dimension)) * SIGMA  # y x - mu, class by class
        centres, variance = real.mean(1), real.var(1, ddof=1).mean(0)
        for row, gamma in enumerate(GAMMAS):
            normals = rng.standard_normal((2, int(gamma * half), dimension))
            made = centres[:, None] + np.sqrt(variance) * normals
            points = np.concatenate([real, made], 1).reshape(-1, dimension)
            offset = points.mean(0)
            train = ((points - offset) ** 2).sum(1).mean()
            gaps[row, repeat] = (dimension * SIGMA**2 + (offset**2).sum() - train) / (2 * SIGMA**2)
    return gaps


def compare() -> dict[str, float]:
    """Time both, interleaved; returns the median seconds, their ratio, and how far the mean gaps are apart."""
    times: dict[str, list[float]] = {"points": [], "statistics": []}
    worst = 0.0
    for seed in range(ROUNDS):
        start = time.perf_counter()
        points = draw_points(np.random.default_rng(seed), **SWEEP)
        times["points"].append(time.perf_counter() - start)
        start = time.perf_counter()
        found = simulate(seed, **SWEEP, gammas=GAMMAS, sigma=SIGMA, repeats=REPEATS, advance=lambda count: None).gap
        times["statistics"].append(time.perf_counter() - start)
        error = np.sqrt((points.var(1, ddof=1) + found.var(1, ddof=1)) / REPEATS)
        worst = max(worst, float((np.abs(points.mean(1) - found.mean(1)) / error).max()))
    of_points, ours = (float(np.median(each)) for each in times.values())
    return {"points": of_points, "statistics": ours, "ratio": of_points / ours, "largest_z": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "programs": {name: run_program(name) for name in PROGRAMS},
        "gmm": {"repeats": REPEATS, **SWEEP, **compare()},
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, took in result["programs"].items():
        print(f"theory {name:10} {took['seconds']:6.1f} s, {took['processor_seconds']:6.1f} s of the processor")
    gmm = result["gmm"]
    print(
        f"gmm, {REPEATS} repeats at d=50, m=10: drawing points takes {gmm['ratio']:.0f} times as long; mean gaps "
        f"{gmm['largest_z']:.1f} standard errors apart at most"
    )


if __name__ == "__main__":
    main()
