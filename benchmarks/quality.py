"""Seconds and peak memory of the quality of a pool, of its parts, and the Fréchet trace beside a matrix root.

Each runs in a process of its own on random float32 features; memory is what its peak adds to them. The trace is
timed in interleaved rounds: ours from two kept statistics, scipy.linalg.sqrtm from two kept covariances.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits

from gdacli.distribution_metrics import Manifold, kernel_distance, neighbour_scores, variant_diversity
from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.quality import NUM_COMPARED, pool_quality

VARIANTS = 4
"""Of a source, for the diversity."""

STRENGTHS = (400, 500, 700, 800)


def random_features(num_rows: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, width), dtype=np.float32)
    rows += np.float32(0.1 * seed)  # in place: a copy would hide what a metric takes
    return rows


def reference_statistics(real: np.ndarray, synthetic: np.ndarray) -> None:
    GaussianStatistics.of(real)


def frechet(real: np.ndarray, synthetic: np.ndarray) -> None:
    frechet_distance(GaussianStatistics.of(real), GaussianStatistics.of(synthetic))


def kernel(real: np.ndarray, synthetic: np.ndarray) -> None:
    kernel_distance(real, synthetic)


def reference_manifold(real: np.ndarray, synthetic: np.ndarray) -> None:
    Manifold.of(real[:NUM_COMPARED])


def neighbours(real: np.ndarray, synthetic: np.ndarray) -> None:
    """Measure all four scores with both manifolds."""
    neighbour_scores(Manifold.of(real[:NUM_COMPARED]), Manifold.of(synthetic[:NUM_COMPARED]))


def diversity(real: np.ndarray, synthetic: np.ndarray) -> None:
    variant_diversity(synthetic, np.arange(len(synthetic)) // VARIANTS % len(real), real)


def quality(real: np.ndarray, synthetic: np.ndarray) -> None:
    """Measure a pool of four strengths, of which each varies as many of the real images; nothing is kept yet."""
    strengths = np.arange(len(synthetic)) % len(STRENGTHS)
    labels = np.zeros(len(synthetic), np.int64)
    with tempfile.TemporaryDirectory() as cache:
        pool_quality(
            real,
            synthetic,
            pools=[""] * len(synthetic),
            source_rows=np.arange(len(synthetic)) // len(STRENGTHS) % len(real),
            strengths=np.array(STRENGTHS)[strengths],
            labels=labels,
            predictions=labels,
            real_digest="benchmark",
            cache=Path(cache),
        )


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], None]] = {
    "reference_statistics": reference_statistics,
    "frechet": frechet,
    "kernel": kernel,
    "diversity": diversity,
    "reference_manifold": reference_manifold,
    "neighbours": neighbours,
    "quality": quality,
}


def measure(name: str, num_real: int, num_synthetic: int, width: int, threads: int) -> dict[str, float]:
    """Return seconds, on the clock and of the CPU, and added peak memory in MB of a metric, in this process."""
    torch.set_num_threads(threads)
    real, synthetic = random_features(num_real, width, 0), random_features(num_synthetic, width, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with threadpool_limits(threads):
        start, cpu_start = time.perf_counter(), time.process_time()
        METRICS[name](real, synthetic)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of all threads: what to read when others use the machine too
        "added_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "features_mb": (real.nbytes + synthetic.nbytes) / 2**20,
    }


def measure_trace(width: int, threads: int, rounds: int) -> dict[str, Any]:
    """Return CPU seconds of both ways to a distance, medians over the rounds, and the median of the rounds' ratios."""
    a, b = (GaussianStatistics.of(random_features(2 * width, width, seed)) for seed in (0, 1))
    cov_a, cov_b = a.covariance, b.covariance

    def by_root() -> float:
        trace = np.trace(sqrtm(cov_a @ cov_b)).real
        return float(((a.mean - b.mean) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace)

    ours, theirs, apart = [], [], []
    with threadpool_limits(threads):
        for _ in range(rounds):
            start = time.process_time()
            distance = frechet_distance(a, b)
            middle = time.process_time()
            expected = by_root()
            theirs.append(time.process_time() - middle)
            ours.append(middle - start)
            apart.append(abs(distance - expected) / expected)
    return {
        "ours_cpu_seconds": statistics.median(ours),
        "sqrtm_cpu_seconds": statistics.median(theirs),
        "ratio": statistics.median(root / fast for root, fast in zip(theirs, ours, strict=True)),
        "relative_difference": max(apart),
        "rounds": {"ours": ours, "sqrtm": theirs},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--num-real", type=int, default=50_000)
    parser.add_argument("--num-synthetic", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--trace-width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[*METRICS, "trace"], default=[*METRICS, "trace"])
    arguments = parser.parse_args()
    shape = (arguments.num_real, arguments.num_synthetic, arguments.width)
    result: dict[str, Any] = {"rows": shape[:2], "width": arguments.width, "threads": arguments.threads}
    for name in arguments.only:
        if name == "trace":
            result[name] = measure_trace(arguments.trace_width, arguments.threads, arguments.rounds)
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result[name] = pool.apply(measure, (name, *shape, arguments.threads))
        if not arguments.json:
            print(name, *(f"{key} {value:.3g}" for key, value in result[name].items() if key != "rounds"), flush=True)
    if arguments.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
