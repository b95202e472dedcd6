"""`gdacli generate`: the pool, every synthetic image that the compared arms need, each once."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gdacli.arms import num_added
from gdacli.artifacts import new_directory, sha256_bytes, sweep, temporary_name, write_json, write_text
from gdacli.console import progress, say
from gdacli.errors import GdaError
from gdacli.executors import make_shards
from gdacli.generators import BACKENDS
from gdacli.params import Params
from gdacli.paths import DROPPED, GENERATOR, LATEST, PROBE, SELECTION, SOURCE, SYNTHETIC
from gdacli.pool import PoolRequest, ShardRequest, dataset_card, request_pool, split_among
from gdacli.prepared import read_prepared, read_strategies
from gdacli.published import INDEX, MANIFEST, previous_pool
from gdacli.recipe import Recipe, read_recipe
from gdacli.scores import CLIP_SCORE, SCORES, reason_to_drop
from gdacli.shards import Shard, read_shard, write_shard
from gdacli.showcase import Showcase
from gdacli.store import Environment, ImageStore, work_location
from gdacli.tables import TableWriter, write_csv

VERSION = 2

_INDEX = {"key": str, "label": int, "shard": str, "sha256": str, "identity": str}


def run(params: Params, part: tuple[int, int] | None = None, merge: bool = False) -> dict[str, Any]:
    """Write `data/synthetic`; returns how many images it holds and how many of them were made now.

    Args:
        params: of the project.
        part: (i, n) makes the i-th of n parts (from 1) and publishes nothing.
        merge: publish what the parts have made, make nothing.

    Raises:
        GdaError: an earlier stage has not run, or `merge` finds shards missing.
    """
    prepared = read_prepared(SOURCE)
    index = prepared.train_index()
    generate = params.generate
    recipe = read_recipe(
        params.image_settings(), prepared, generators=GENERATOR, probe=PROBE, work=work_location(), **params.making()
    )
    arms = params.compared_arms()
    strategies = read_strategies(SELECTION, index["key"])
    pool = request_pool(prepared, strategies, arms, params.all_arms(), settings=recipe.identity, seed=generate.seed)
    store = ImageStore(recipe.work, recipe.identity)
    wanted = pool.shards if part is None else split_among(pool.shards, part[1])[part[0] - 1]
    num_wanted = sum(len(shard.requests) for shard in wanted)
    num_made = 0
    with store.locked(shared=merge or part is not None), progress("generate", num_wanted, "images") as advance:
        missing = [shard for shard in wanted if not store.holds(shard.identities, recipe.scoring)]
        show_latest = Showcase(LATEST, recipe, store, missing)

        def make(shards: list[ShardRequest]) -> None:
            def done(made: int, taken: int) -> None:
                nonlocal num_made
                num_made += made
                advance(made + taken)
                if made:
                    show_latest()

            if shards and merge:
                raise GdaError(
                    f"{len(shards)} of {len(pool.shards)} shards are not made yet (first: {shards[0].name}) in "
                    f"{store.folder}: wait for the parts that make them, run them again, or leave --merge out"
                )
            make_shards(generate.executor, recipe, shards, generate.workers, done)

        advance(num_wanted - sum(len(shard.requests) for shard in missing))
        with _previous_pool(needed=bool(missing) and not merge) as previous:
            recipe = replace(recipe, reuse=(*recipe.reuse, *previous))
            make(missing)
            if part is not None:
                shape = {"part": part[0], "parts": part[1], "shards": len(wanted), "num_images": num_wanted}
                return {**shape, "run": {"made": num_made, "reused": num_wanted - num_made}}
            manifest = _publish(pool, recipe, store, make, generate.filter.model_dump())
    return {
        "num_images": manifest["num_images"],
        "run": {"made": num_made, "reused": num_wanted - num_made},
        "images": manifest["images"],
        "dropped": manifest["dropped"],
        "per_arm": {name: num_added(arms[name], pool.chosen[name]) for name in arms},
        "shards": len(manifest["shards"]),
        "megabytes": round(sum((SYNTHETIC / each["name"]).stat().st_size for each in manifest["shards"]) / 1e6, 3),
    }


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    made, reused = result["run"]["made"], result["run"]["reused"]
    if "part" in result:
        return (
            f"part {result['part']} of {result['parts']}: {result['num_images']} images in {result['shards']} shards: "
            f"{made} made, {reused} reused; when all parts are done: gdacli generate --merge"
        )
    by_strength = ", ".join(f"{name} {count}" for name, count in result["images"].items() if count)
    dropped = ", ".join(f"{count} by {reason}" for reason, count in result["dropped"].items())
    return (
        f"{result['num_images']} images ({by_strength or 'none needed'}): {made} made, {reused} reused; "
        + (f"dropped: {dropped}; " if dropped else "")
        + f"{result['shards']} shards, {result['megabytes']:.1f} MB -> {SYNTHETIC}"
    )


@contextmanager
def _previous_pool(needed: bool) -> Iterator[list[str]]:
    """Yield where the previous pool is: in its place, or, as DVC removes outputs before a run, a copy from its cache.

    So a fresh clone after `dvc pull` makes only what is new.
    """
    if not needed or SYNTHETIC.exists() or "DVC_STAGE" not in os.environ or not _known_to_dvc():
        yield previous_pool(SYNTHETIC) if needed else []
        return
    place = SYNTHETIC.with_name("previous")
    sweep(place)
    copy = temporary_name(place)
    try:
        root = os.environ["DVC_ROOT"]
        command = ["dvc", "get", root, os.path.relpath(SYNTHETIC.absolute(), root), "--out", str(copy)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            say(f"note: the previous pool cannot be had from DVC: {' '.join(done.stderr.split())[:200]}")
        yield previous_pool(copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _known_to_dvc() -> bool:
    lock = Path("dvc.lock")
    return lock.exists() and f"path: {SYNTHETIC}" in lock.read_text(encoding="utf-8")


def _publish(
    pool: PoolRequest,
    recipe: Recipe,
    store: ImageStore,
    make: Callable[[list[ShardRequest]], None],
    thresholds: dict[str, Any],
) -> dict[str, Any]:
    """Write the pool from finished shards, without the images that fail a threshold; returns its manifest."""
    scores = SCORES if recipe.clip_model is None else {**SCORES, CLIP_SCORE: float}
    shards: list[Shard] = []
    environments: list[Environment] = []
    images: dict[str, int] = {}
    dropped: list[list[Any]] = []
    meta: dict[str, Any] = {}
    with new_directory(SYNTHETIC) as folder:
        with TableWriter(folder / INDEX, {**_INDEX, **scores}) as listing:
            for wanted in pool.shards:
                path = folder / wanted.name
                shard, where = _fetch(wanted, recipe, store, make, path)
                environments += [each for each in where if each not in environments]
                rows, failed = [], set[str]()
                for sample, request in zip(read_shard(path), wanted.requests, strict=True):
                    meta, scored = sample.meta, [sample.meta[name] for name in scores]
                    if reason := reason_to_drop(sample.meta, thresholds):
                        failed.add(sample.key)
                        dropped.append([sample.key, reason, *scored])
                    else:
                        sha256 = sha256_bytes(sample.image)
                        rows.append((sample.key, sample.label, wanted.name, sha256, request.identity, *scored))
                kind = f"s{wanted.strength:04d}" if wanted.source_shard else "sampled"
                images[kind] = images.get(kind, 0) + len(rows)
                if not rows:
                    path.unlink()
                    continue
                if failed:
                    shard = write_shard(path, (each for each in read_shard(path) if each.key not in failed))
                listing.append(rows)
                shards.append(shard)
        manifest = {
            "images": images,
            "num_images": sum(images.values()),
            "dropped": dict(sorted(Counter(reason for _, reason, *_ in dropped).items())),
            "filter": thresholds,
            "settings": recipe.settings,
            "backend_version": BACKENDS[recipe.settings["backend"]],
            "model": {"name": recipe.model, "revision": recipe.model_location[1], "sha256": recipe.weights},
            "class_names": recipe.class_names,
            "scoring": recipe.scoring,
            "environments": sorted(environments, key=str),
            "shards": [vars(shard) for shard in shards],
        }
        write_json(folder / MANIFEST, manifest)
        write_csv(folder / DROPPED.name, ["key", "reason", *scores], dropped)
        if shards:
            write_text(folder / "README.md", dataset_card(recipe.class_names, recipe.extension, meta))
    return manifest


def _fetch(
    wanted: ShardRequest,
    recipe: Recipe,
    store: ImageStore,
    make: Callable[[list[ShardRequest]], None],
    path: Path,
) -> tuple[Shard, list[Environment]]:
    """Copy a finished shard out of the store; one that is found damaged is made again, once."""
    found = store.fetch(wanted.identities, recipe.scoring, path)
    if found is None:
        make([wanted])
        found = store.fetch(wanted.identities, recipe.scoring, path)
    if found is None:
        raise GdaError(f"{store.folder}: shard {wanted.name} is damaged again right after it was made: check the disk")
    return found
