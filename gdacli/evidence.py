"""What the report says of the images besides the errors of those who trained on them: are they good, are they clean."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gdacli.array_cache import cached_arrays
from gdacli.cleanliness import COPIES_VERSION, MOST_WITHIN_TRAIN, Cleanliness, array_names, find_copies
from gdacli.compared_images import (
    MOST_LOOKED_UP,
    MOST_TRAIN,
    PIXELS_VERSION,
    ImageSet,
    compared_side,
    image_set,
    read_pixels,
)
from gdacli.feature_map import FeatureMap, Method, feature_map
from gdacli.features import image_features, image_predictions
from gdacli.image_index import References, references
from gdacli.models import Classifier
from gdacli.pools import NO_SOURCE, UNKNOWN, sources_in
from gdacli.prepared import Prepared
from gdacli.quality import PoolQuality, group_name, pool_quality
from gdacli.rng import digest
from gdacli.store import local_work_folder


def looking(loading: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return where and how models look at many images, and where it is kept what they saw.

    Args:
        loading: `train.of_loading()`.
        device: where they run.
    """
    reading = {key: value for key, value in loading.items() if key != "random_resized_crop"}  # the centred squares
    return {"device": device, "cache": local_work_folder() / "evaluation", "reading": reading}


@dataclass(frozen=True)
class PoolEvidence:
    """How good the synthetic images are."""

    features: str
    """The model by whose features they are compared."""
    judge: str
    """The model, trained on real images alone, that has to find their labels again."""
    quality: list[PoolQuality]
    """Of `quality.pool_quality`."""
    map: FeatureMap
    groups: list[str]
    """What each image is called in the map: its strength, `sampled`, or its pool with its strength."""


def judge_pool(
    prepared: Prepared,
    pool: Mapping[str, Any],
    models: tuple[str, Classifier],
    judge: tuple[str, Classifier],
    *,
    method: Method,
    device: torch.device,
    cache: Path,
    reading: Mapping[str, Any],
) -> PoolEvidence:
    """Compare the images of the pools with the train images.

    Args:
        prepared: the real images.
        pool: of `pools.read_pools`; not empty.
        models: name and model whose features to compare by.
        judge: name and model that was trained on real images alone.
        method: of the feature map.
        device: where the models run.
        cache: folder for features and statistics.
        reading: `loading` and `workers` of `loading.open_images`.
    """
    made = pool_references(pool)
    name, model = models
    looking: Any = {"device": device, "cache": cache, **reading}
    real = image_features(prepared.references("train"), model, title="features, train", **looking)
    synthetic = image_features(made, model, title="features, pool", **looking)
    predictions = image_predictions(made, judge[1], title="labels, pool", **looking)
    rows = sources_in(pool, prepared.keys("train"))
    quality = pool_quality(
        real.features,
        synthetic.features,
        pools=pool["pool"],
        source_rows=rows,
        strengths=pool["strength"],
        labels=np.asarray(pool["label"]),
        predictions=predictions,
        real_digest=real.digest,
        cache=cache,
    )
    return PoolEvidence(
        features=name,
        judge=judge[0],
        quality=quality,
        map=feature_map(real.features, synthetic.features, method=method),
        groups=[
            group_name(of, None if strength == UNKNOWN else strength / 1000, has_source=row != NO_SOURCE)
            for of, row, strength in zip(pool["pool"], rows.tolist(), pool["strength"].tolist(), strict=True)
        ],
    )


def look_for_copies(
    prepared: Prepared,
    split: str | None,
    pool: Mapping[str, Any],
    model: Classifier,
    *,
    device: torch.device,
    cache: Path,
    reading: Mapping[str, Any],
) -> Cleanliness:
    """Compare the images of a split, and those of the pool, with the train images and with each other.

    Exact copies are looked for among all, near ones among as many as MOST_LOOKED_UP and MOST_TRAIN allow. What was
    found is kept, for the time grows with the product of the sets.

    Args:
        prepared: the real images.
        split: test or validation; None looks at neither.
        pool: of `pools.read_pools`; may be empty.
        model: whose features propose what may be a copy.
        device: where it runs.
        cache: folder for features and pixels.
        reading: `loading` and `workers` of `loading.open_images`.
    """
    side = compared_side(prepared.image_size)
    identities: list[str] = []

    def compared(images: References, most: int, title: str, keys: list[str] | None = None) -> ImageSet:
        found = image_features(images, model, title=f"features, {title}", device=device, cache=cache, **reading)
        identity, pixels = look_at_pixels(images, side, title, cache)
        result = image_set(keys or images.keys.to_pylist(), found.features, **pixels, most=most)
        identities.extend((found.digest, identity, hashlib.sha256(result.drawn.tobytes()).hexdigest()))
        return result

    train = compared(prepared.references("train"), MOST_TRAIN, "train")
    of_split = compared(prepared.references(split), MOST_LOOKED_UP, split) if split is not None else None
    made = compared(pool_references(pool), MOST_LOOKED_UP, "pool", pool["key"]) if pool["key"] else None
    rows = sources_in(pool, train.keys) if made else None
    near = len(train.keys) <= MOST_WITHIN_TRAIN
    sources = None if rows is None else hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()
    arrays = cached_arrays(
        cache,
        digest("copies", COPIES_VERSION, identities, sources, near),
        array_names(with_split=of_split is not None, with_pool=made is not None),
        lambda: find_copies(train, of_split, made, rows, near_within_train=near).to_arrays(),
    )
    keys = [each.keys if each is not None else None for each in (of_split, made)]
    return Cleanliness.from_arrays(arrays, train.keys, *keys)


def look_at_pixels(images: References, side: int, title: str, cache: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Return the `digests` and `squares` of `compared_images.read_pixels`, or those of the cache, and their hash.

    Args:
        images: of any size.
        side: of `compared_images.compared_side`.
        title: of the images, for the progress.
        cache: folder.
    """
    images_sha256 = hashlib.sha256(images.sha256.tobytes()).hexdigest()
    identity = digest("pixels", PIXELS_VERSION, version("pillow"), side, images_sha256)

    def read() -> dict[str, np.ndarray]:
        digests, squares = read_pixels(images, side, f"pixels, {title}")
        return {"digests": digests, "squares": squares}

    return identity, cached_arrays(cache, identity, {"digests", "squares"}, read)


def pool_references(pool: Mapping[str, Any]) -> References:
    """Return what names the images of pools, of `pools.read_pools`."""
    columns = pa.table({"shard": pool["shard"], "key": pool["member"], "sha256": pool["sha256"]})
    return references(columns, "the pool", origin="the pool", command="gdacli generate")
