"""`gdacli plan`: what `generate` would make, and what time, disk and money it takes."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdacli.arms import num_added
from gdacli.console import say
from gdacli.params import Params
from gdacli.paths import GENERATOR, PROBE, SELECTION, SOURCE, SYNTHETIC
from gdacli.pool import ShardRequest, request_pool
from gdacli.prepared import read_prepared, read_strategies
from gdacli.published import PublishedPool, previous_pool
from gdacli.recipe import Recipe, read_recipe
from gdacli.store import ImageStore, open_location, work_location

_TAR_OVERHEAD = 3 * 1024
"""Bytes of headers and padding of a sample's three members, about."""


def run(params: Params, price_per_hour: float) -> dict[str, Any]:
    """Count what the compared arms need, and measure a batch; writes nothing.

    Args:
        params: of the project.
        price_per_hour: of one device, in any currency.
    """
    prepared = read_prepared(SOURCE)
    generate = params.generate
    recipe = read_recipe(
        params.image_settings(), prepared, generators=GENERATOR, probe=PROBE, work=work_location(), **params.making()
    )
    arms = params.compared_arms()
    strategies = read_strategies(SELECTION, prepared.train_index()["key"])
    pool = request_pool(prepared, strategies, arms, params.all_arms(), settings=recipe.identity, seed=generate.seed)
    made_before = _made_before(recipe)
    by_strength: dict[str, dict[str, int]] = {}
    missing: list[ShardRequest] = []
    num_batches: dict[int, int] = {}
    for shard in pool.shards:
        left = [request for request in shard.requests if request.identity not in made_before]
        kind = f"{shard.strength / 1000:g}" if shard.source_shard else "sampled"
        counts = by_strength.setdefault(kind, {"images": 0, "to_make": 0, "denoising_steps": 0})
        counts["images"] += len(shard.requests)
        counts["to_make"] += len(left)
        counts["denoising_steps"] += len(left) * recipe.num_steps(shard.strength)
        if left:
            missing.append(ShardRequest(shard.name, shard.source_shard, shard.strength, left))
            batches = -(-len(left) // generate.batch_size)
            num_batches[shard.strength] = num_batches.get(shard.strength, 0) + batches
    result: dict[str, Any] = {
        "arms": {
            name: {"selected": int(pool.chosen[name].sum()), "synthetic": num_added(arm, pool.chosen[name])}
            for name, arm in arms.items()
        },
        "strengths": by_strength,
        "pool": {
            "images": pool.num_images,
            "made_before": pool.num_images - sum(len(shard.requests) for shard in missing),
            "to_make": sum(len(shard.requests) for shard in missing),
        },
        "denoising_steps": sum(counts["denoising_steps"] for counts in by_strength.values()),
    }
    return {**result, **_estimate(params, recipe, pool.num_images, missing, num_batches, price_per_hour)}


def _made_before(recipe: Recipe) -> set[str]:
    known = ImageStore(recipe.work, recipe.identity).known()
    for location in (*recipe.reuse, *previous_pool(SYNTHETIC)):
        known |= PublishedPool(location).identities()
    return known


def _estimate(
    params: Params,
    recipe: Recipe,
    num_images: int,
    missing: Sequence[ShardRequest],
    num_batches: dict[int, int],
    price_per_hour: float,
) -> dict[str, Any]:
    """Measure batches of the smallest and the largest strength, and reckon from them.

    What a batch takes is `once` (encoding, decoding, scoring) and `each` for every step.
    """
    generate = params.generate
    result: dict[str, Any] = {
        "device": None,
        "workers": 0,
        "batches": [],
        "seconds": 0.0,
        "device_hours": 0.0,
        "price_per_hour": price_per_hour,
        "cost": 0.0,
        "megabytes": {"work": 0.0, "pool": None},
        "free_megabytes": {place: _free(Path(place)) for place in dict.fromkeys(_places(recipe))},
    }
    if not missing:
        return result
    from gdacli.engine import Engine

    engine, batches, size = Engine(recipe), list[dict[str, Any]](), 0.0
    for strength in dict.fromkeys((min(num_batches), max(num_batches))):
        shard = next(each for each in missing if each.strength == strength)
        batch = shard.requests[: generate.batch_size]
        say(f"plan: measuring a batch of {generate.batch_size} at strength {strength / 1000:g}")
        for _ in range(1 if batches else 2):  # the very first one warms up
            start = time.perf_counter()
            samples = [sample for made in engine.make_images(batch) for sample in made.values()]
            seconds = time.perf_counter() - start
        size = sum(len(sample.image) + len(str(sample.meta)) + _TAR_OVERHEAD for sample in samples) / len(samples)
        steps = recipe.num_steps(strength)
        batches.append({"strength": strength / 1000, "steps": steps, "seconds": round(seconds, 4)})
    first, last = batches[0], batches[-1]
    each = first["seconds"] / first["steps"] if first["steps"] else 0.0
    if last["steps"] > first["steps"]:
        slope = (last["seconds"] - first["seconds"]) / (last["steps"] - first["steps"])
        each = min(each, max(0.0, slope))
    once = max(0.0, last["seconds"] - each * last["steps"])
    total = sum(count * (once + each * recipe.num_steps(strength)) for strength, count in num_batches.items())
    workers = generate.workers or (_num_gpus() if engine.device.type == "cuda" else 1)
    workers = min(workers, len(missing))
    num_missing = sum(len(shard.requests) for shard in missing)
    return result | {
        "device": engine.environment,
        "workers": workers,
        "batches": batches,
        "seconds": round(total / workers, 1),
        "device_hours": round(total / 3600, 5),
        "cost": round(total / 3600 * price_per_hour, 4),
        "megabytes": {"work": round(size * num_missing / 1e6, 3), "pool": round(size * num_images / 1e6, 3)},
    }


def _places(recipe: Recipe) -> list[str]:
    """Where the images go: the work directory, and the project (its `data` and DVC's cache)."""
    work = open_location(recipe.work)
    return [*([str(work)] if "://" not in recipe.work else []), str(recipe.source.parent)]


def _free(path: Path) -> float:
    while not path.exists():
        path = path.parent
    return round(shutil.disk_usage(path).free / 1e6)


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def summary(result: dict[str, Any]) -> str:
    """Show tables of arms and strengths, and the estimate."""
    from gdacli.console import table

    arms = [[name, counts["selected"], counts["synthetic"]] for name, counts in result["arms"].items()]
    rows = [[kind, *counts.values()] for kind, counts in result["strengths"].items()]
    pool = result["pool"]
    rows.append(["the pool", pool["images"], pool["to_make"], result["denoising_steps"]])
    lines = [
        table(["arm", "selected", "synthetic images"], arms),
        "",
        table(["strength", "images", "to make", "denoising steps"], rows),
        "",
    ]
    if not pool["to_make"]:
        return "\n".join([*lines, f"nothing to make: all {pool['images']} images were made before"])
    device, megabytes = result["device"], result["megabytes"]
    measured = " and ".join(f"{each['seconds']:.2f} s at strength {each['strength']:g}" for each in result["batches"])
    free = ", ".join(f"{free:.0f} MB at {place}" for place, free in result["free_megabytes"].items())
    lines += [
        f"time: {_duration(result['seconds'])} with {result['workers']} worker(s) on {device['device']} "
        f"({device['machine']}), from a batch that took {measured}",
        f"disk: {megabytes['work']:.1f} MB more in the work directory, {megabytes['pool']:.1f} MB in {SYNTHETIC} and "
        f"again in DVC's cache; free: {free}",
    ]
    if result["price_per_hour"]:
        cost = f"{result['cost']:.{2 if result['cost'] >= 1 else 4}f}"
        hours, price = f"{result['device_hours']:.3g}", f"{result['price_per_hour']:g}"
        lines.append(f"cost: {cost} for {hours} device hours at {price}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
