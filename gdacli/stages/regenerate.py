"""`gdacli regenerate`: make one image of the pool again, from what the pool says of it, and compare."""

from pathlib import Path
from typing import Any

from gdacli.artifacts import new_file, sha256_bytes
from gdacli.errors import GdaError
from gdacli.images import ENCODING
from gdacli.params import Params
from gdacli.paths import GENERATOR, PROBE, SOURCE, SYNTHETIC
from gdacli.pool import Request
from gdacli.prepared import read_prepared
from gdacli.published import PublishedPool
from gdacli.recipe import read_recipe
from gdacli.shards import Sample, read_shard
from gdacli.store import work_location


def run(params: Params, key: str, output: Path | None) -> dict[str, Any]:
    """Make the image with the settings of `data/synthetic/manifest.json`, not those of `params.yaml`.

    Args:
        params: of the project; only the device is taken from it.
        key: of the image.
        output: file to write the image to.

    Raises:
        GdaError: the pool has no such image, the source or the weights are no longer those of the pool, or the image
            made is another one than the pool's.
    """
    from gdacli.engine import Engine

    pool = PublishedPool(str(SYNTHETIC))
    if key not in pool.index["key"]:
        raise GdaError(f"--key {key}: {SYNTHETIC} has no such image; index.parquet there lists those it has")
    row = pool.index["key"].index(key)
    manifest = pool.manifest
    shard = SYNTHETIC / pool.index["shard"][row]
    held = next((sample for sample in read_shard(shard) if sample.key == key), None)
    if held is None or sha256_bytes(held.image) != pool.index["sha256"][row]:
        raise GdaError(f"{shard}: the image {key!r} in it is damaged: run `gdacli generate`, or `dvc checkout --force`")
    prepared = read_prepared(SOURCE)
    recipe = read_recipe(
        manifest["settings"],
        prepared,
        generators=GENERATOR,
        probe=PROBE,
        work=work_location(),
        **{**params.making(), "clip_model": None, "reuse": ()},
    )
    for what, found, made_with in (
        ("weights", recipe.weights, manifest["model"]["sha256"]),
        ("class names", list(recipe.class_names), manifest["class_names"]),
        ("backend version", recipe.facts.version, manifest["backend_version"]),
        ("encoding version", ENCODING, manifest["encoding_version"]),
    ):
        if found != made_with:
            raise GdaError(
                f"{SYNTHETIC} was made with other {what} than there are now: check out the revision that made it"
            )
    request = _request(held, pool.index["identity"][row], prepared.train_index())
    (batch,) = Engine(recipe).make_images([request])
    made = batch[request.identity].image
    if output is not None:
        with new_file(output) as temporary:
            temporary.write_bytes(made)
    if made != held.image:
        raise GdaError(
            f"{key}: the image made now (SHA-256 {sha256_bytes(made)[:16]}...) is not the one in {shard} "
            f"({sha256_bytes(held.image)[:16]}...): equal bytes are promised on one kind of device with the same "
            f"library versions; the pool was made with {manifest['environments']}"
        )
    return {"key": key, "equal": True, "sha256": sha256_bytes(made), "output": str(output) if output else None}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    written = f" -> {result['output']}" if result["output"] else ""
    return f"{result['key']}: made again, equal to the image in the shard{written}"


def _request(sample: Sample, identity: str, index: dict[str, Any]) -> Request:
    """Return what was asked for when a sample of the pool was made."""
    meta = sample.meta
    shard = ""
    if meta["source_key"]:
        if meta["source_key"] not in index["key"]:
            raise GdaError(f"{SOURCE} has no image {meta['source_key']!r}: check out the revision that made the pool")
        shard = index["shard"][index["key"].index(meta["source_key"])]
    return Request(
        key=sample.key,
        label=sample.label,
        seed=meta["seed"],
        identity=identity,
        strength=round(1000 * meta["strength"]),
        variant=meta["variant"],
        source_key=meta["source_key"],
        source_sha256=meta["source_sha256"],
        source_shard=shard,
    )
