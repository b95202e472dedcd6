"""`gdacli generate`: the pool, every synthetic image that the compared arms need, each once."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gdacli.arms import arm_keys
from gdacli.artifacts import new_directory, sha256_bytes, temporary_directory, write_json, write_text
from gdacli.console import progress, say
from gdacli.errors import GdaError
from gdacli.executors import make_shards
from gdacli.images import ENCODING
from gdacli.params import Params
from gdacli.paths import DROPPED, GENERATOR, LATEST, PROBE, SELECTION, SOURCE, SYNTHETIC
from gdacli.pool import ShardRequest, dataset_card, request_pool, split_among
from gdacli.prepared import read_prepared, read_strategies
from gdacli.published import INDEX, MANIFEST, previous_pool
from gdacli.recipe import Recipe, read_recipe
from gdacli.scores import CLIP_SCORE, SCORES, reason_to_drop
from gdacli.shards import Shard, read_shard, write_shard
from gdacli.showcase import Showcase
from gdacli.store import Environment, ImageStore, work_location
from gdacli.tables import TableWriter, write_csv

VERSION = 3

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

        def make(shards: list[ShardRequest], again: bool = False) -> None:
            def done(made: int, taken: int) -> None:
                nonlocal num_made
                num_made += made
                if again:  # they are counted already
                    return
                if taken:
                    advance(taken, free=True)
                if made:
                    advance(made)
                    show_latest()

            if shards and merge:
                raise GdaError(
                    f"{len(shards)} of {len(pool.shards)} shards are not made yet (first: {shards[0].name}) in "
                    f"{store.folder}: wait for the parts that make them, run them again, or leave --merge out"
                )
            if shards:
                with _previous_pool() as previous:
                    reusing = replace(recipe, reuse=(*recipe.reuse, *previous))
                    make_shards(generate.executor, reusing, shards, generate.workers, done)

        advance(num_wanted - sum(len(shard.requests) for shard in missing), free=True)
        make(missing)
        if part is not None:
            shape = {"part": part[0], "parts": part[1], "shards": len(wanted), "num_images": num_wanted}
            return {**shape, "run": {"made": num_made, "reused": num_wanted - num_made}}
        manifest, dropped = _publish(pool.shards, recipe, store, make, generate.filter.model_dump())
    return {
        "num_images": manifest["num_images"],
        "run": {"made": num_made, "reused": num_wanted - num_made},
        "images": manifest["images"],
        "dropped": manifest["dropped"],
        "per_arm": {
            name: len(set(arm_keys(arm, index["key"], pool.chosen[name])) - dropped) for name, arm in arms.items()
        },
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
    none = "none left" if dropped else "none needed"
    return (
        f"{result['num_images']} images ({by_strength or none}): {made} made, {reused} reused; "
        + (f"dropped: {dropped}; " if dropped else "")
        + f"{result['shards']} shards, {result['megabytes']:.1f} MB -> {SYNTHETIC}"
    )


@contextmanager
def _previous_pool() -> Iterator[list[str]]:
    """Yield where the previous pool is: in its place, or, as DVC removes outputs before a run, a copy from its cache.

    So a fresh clone after `dvc pull` makes only what is new.
    """
    if SYNTHETIC.exists() or "DVC_STAGE" not in os.environ or not _known_to_dvc():
        yield previous_pool(SYNTHETIC)
        return
    with temporary_directory(SYNTHETIC.with_name("previous")) as scratch:
        root, copy = os.environ["DVC_ROOT"], scratch / SYNTHETIC.name
        command = ["dvc", "get", root, os.path.relpath(SYNTHETIC.absolute(), root), "--out", str(copy)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            say(f"note: the previous pool cannot be had from DVC: {' '.join(done.stderr.split())[:200]}")
        yield previous_pool(copy)


def _known_to_dvc() -> bool:
    lock = Path("dvc.lock")
    return lock.exists() and f"path: {SYNTHETIC}\n" in lock.read_text(encoding="utf-8")


def _publish(
    shards: list[ShardRequest],
    recipe: Recipe,
    store: ImageStore,
    make: Callable[[list[ShardRequest], bool], None],
    thresholds: dict[str, Any],
) -> tuple[dict[str, Any], set[str]]:
    """Write the pool from finished shards, the images that fail a threshold apart; returns its manifest, their keys."""
    scores = SCORES if recipe.clip_model is None else {**SCORES, CLIP_SCORE: float}
    published: list[Shard] = []
    images: dict[str, int] = {}
    dropped: list[list[Any]] = []
    meta: dict[str, Any] = {}
    with new_directory(SYNTHETIC) as folder:
        found = {wanted.name: _fetch(wanted, recipe, store, folder) for wanted in shards}
        damaged = [wanted for wanted in shards if found[wanted.name] is None]
        make(damaged, True)
        found |= {wanted.name: _fetch(wanted, recipe, store, folder) for wanted in damaged}
        environments: list[Environment] = []
        with TableWriter(folder / INDEX, {**_INDEX, **scores}) as listing:
            for wanted in shards:
                path, fetched = folder / wanted.name, found[wanted.name]
                if fetched is None:
                    raise GdaError(f"{store.folder}: {wanted.name} is damaged right after it was made: check the disk")
                shard, where = fetched
                environments += [each for each in where if each not in environments]
                rows, failed = [], set[str]()
                for sample, request in zip(read_shard(path), wanted.requests, strict=True):
                    meta, scored = sample.meta, [sample.meta[name] for name in scores]
                    if reason := reason_to_drop(sample.meta, thresholds):
                        failed.add(sample.key)
                        dropped.append([sample.key, reason, wanted.name, request.identity, *scored])
                    else:
                        sha256 = sha256_bytes(sample.image)
                        rows.append((sample.key, sample.label, wanted.name, sha256, request.identity, *scored))
                kind = f"s{wanted.strength:04d}" if wanted.source_shard else "sampled"
                images[kind] = images.get(kind, 0) + len(rows)
                if failed:
                    write_shard(folder / DROPPED.stem / path.name, (s for s in read_shard(path) if s.key in failed))
                    shard = write_shard(path, (s for s in read_shard(path) if s.key not in failed))
                if rows:
                    listing.append(rows)
                    published.append(shard)
                else:
                    path.unlink()
        reasons = dict(sorted(Counter(reason for _, reason, *_ in dropped).items()))
        if reasons.get("constant") == sum(len(wanted.requests) for wanted in shards) > 0:
            raise GdaError(
                f"each of the {len(dropped)} images is of one colour: a safety checker blackened them, or the model is "
                "broken: look at some with `gdacli preview`, change the prompt or the model, or set "
                "generate.safety_checker: false"
            )
        manifest = {
            "images": images,
            "num_images": sum(images.values()),
            "dropped": reasons,
            "filter": thresholds,
            "settings": recipe.settings,
            "backend_version": recipe.facts.version,
            "encoding_version": ENCODING,
            "model": {"name": recipe.model, "files": recipe.pins, "sha256": recipe.weights},
            "class_names": recipe.class_names,
            "scoring": recipe.scoring,
            "environments": sorted(environments, key=str),
            "shards": [vars(shard) for shard in published],
        }
        write_json(folder / MANIFEST, manifest)
        write_csv(folder / DROPPED.name, ["key", "reason", "shard", "identity", *scores], dropped)
        if published:
            write_text(folder / "README.md", dataset_card(recipe.class_names, recipe.extension, meta))
    return manifest, {key for key, *_ in dropped}


def _fetch(
    wanted: ShardRequest, recipe: Recipe, store: ImageStore, folder: Path
) -> tuple[Shard, list[Environment]] | None:
    return store.fetch(wanted.identities, recipe.scoring, folder / wanted.name)
