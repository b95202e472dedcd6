"""Quality of few-step solvers against 100 ancestral steps: Fréchet distance on the probe's features, at equal strength.

Runs in a project whose `fit` has run (the demo): for each strength and solver, variants of every train image; their
distance to the real train images, and to those of 100 ancestral steps; two seeds of the latter show what chance makes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.arms import PoolPlan
from gdacli.engine import Engine
from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.images import decode_array
from gdacli.models import Classifier, load_checkpoint
from gdacli.params import load_params
from gdacli.paths import GENERATOR, PROBE, SOURCE
from gdacli.pool import shards_of
from gdacli.prepared import read_prepared
from gdacli.recipe import read_recipe
from gdacli.training import predict

REFERENCE = ("ddpm", 100, 0)
RUNS = [REFERENCE, ("ddpm", 100, 1), ("ddpm", 25, 0), ("ddim", 25, 0), ("dpmsolver++", 25, 0), ("dpmsolver++", 20, 0)]


def features(project: Path, strength: float, solver: str, steps: int, seed: int) -> tuple[np.ndarray, float]:
    """Make a variant of every train image; returns the probe's features [N, D] and the seconds it took."""
    overrides = [f"generate.solver={solver}", f"generate.num_inference_steps={steps}"]
    params = load_params(project, overrides)
    prepared = read_prepared(project / SOURCE)
    index = prepared.train_index()
    with tempfile.TemporaryDirectory() as work:
        recipe = read_recipe(
            params.image_settings(),
            prepared,
            generators=project / GENERATOR,
            probe=project / PROBE,
            work=work,
            **params.making(),
        )
        shards = shards_of(
            prepared,
            PoolPlan({round(1000 * strength): np.ones(len(index["key"]), int)}, 0),
            settings=recipe.identity,
            seed=seed,
        )
        engine = Engine(recipe)
        _ = engine.generator, engine.scorer
        start = time.perf_counter()
        made = [
            decode_array(sample.image)
            for shard in shards
            for batch in engine.make_images(shard.requests)
            for sample in batch.values()
        ]
        seconds = time.perf_counter() - start
    probe = load_checkpoint(project / PROBE)
    return predict(probe, torch.from_numpy(np.stack(made)).split(256), output=Classifier.unit_features).numpy(), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.3, 0.5, 0.8])
    arguments = parser.parse_args()
    if not (arguments.project / GENERATOR).exists():
        print(f"{arguments.project}: no fitted generator; run `make demo` first, or name a project with --project")
        return
    real = GaussianStatistics.of(np.load(arguments.project / PROBE / "features.npy"))
    rows: list[dict[str, Any]] = []
    for strength in arguments.strengths:
        reference = None
        for solver, steps, seed in RUNS:
            made, seconds = features(arguments.project, strength, solver, steps, seed)
            fitted = GaussianStatistics.of(made)
            reference = reference or fitted  # the first of RUNS
            row = {"strength": strength, "solver": solver, "steps": steps, "seed": seed, "images": len(made)}
            row |= {"to_real": frechet_distance(fitted, real), "to_ddpm_100": frechet_distance(fitted, reference)}
            rows.append({**row, "seconds": seconds})
            if not arguments.json:
                print(
                    f"strength {strength:g}  {solver:12} {steps:3} steps, seed {seed}: to real {row['to_real']:.5f}, "
                    f"to ddpm 100 {row['to_ddpm_100']:.5f}, {seconds:.1f} s",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
