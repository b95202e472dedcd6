"""What the report says of the images besides the errors of those who trained on them: are they good, are they clean."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.array_cache import cached_arrays
from gdacli.cleanliness import (
    COPIES_VERSION,
    PIXELS_VERSION,
    Cleanliness,
    ImageSet,
    array_names,
    compared_side,
    find_copies,
    read_pixels,
)
from gdacli.feature_map import FeatureMap, Method, feature_map
from gdacli.features import image_features
from gdacli.image_index import References, read_references
from gdacli.models import Classifier
from gdacli.paths import SYNTHETIC
from gdacli.prepared import Prepared
from gdacli.quality import NO_SOURCE, PoolQuality, pool_quality, pool_sources
from gdacli.rng import digest

MOST_WITHIN_TRAIN = 20_000
"""Near copies are looked for within no more train images than this: the time, a minute here, grows with the square."""


@dataclass(frozen=True)
class PoolEvidence:
    """How good the synthetic images are."""

    features: str
    """The model by whose features they are compared."""
    judge: str
    """The model, trained on real images alone, that has to find their labels again."""
    quality: list[PoolQuality]
    """By rising strength, sampled images last."""
    map: FeatureMap
    strengths: list[float | None]
    """Of each image of the pool; None of a sampled one."""


def judge_pool(
    prepared: Prepared,
    pool: Mapping[str, Any],
    models: tuple[str, Classifier],
    judge: tuple[str, Classifier],
    *,
    method: Method,
    device: torch.device,
    cache: Path,
) -> PoolEvidence:
    """Compare the pool with the train images.

    Args:
        prepared: the real images.
        pool: the pool's index; not empty.
        models: name and model whose features to compare by.
        judge: name and model that was trained on real images alone.
        method: of the feature map.
        device: where the models run.
        cache: folder for features and statistics.
    """
    made = _pool_references()
    name, model = models
    real = image_features(prepared.references("train"), model, device=device, cache=cache, title="features, train")
    synthetic = image_features(made, model, device=device, cache=cache, title="features, pool")
    judged = image_features(made, judge[1], device=device, cache=cache, title="labels, pool")
    if judged.predictions is None:
        raise ValueError("the judge has no classes")
    rows, strengths = pool_sources(pool["key"], prepared.keys("train"))
    quality = pool_quality(
        real.features,
        synthetic.features,
        source_rows=rows,
        strengths=strengths,
        labels=np.asarray(pool["label"]),
        predictions=judged.predictions,
        real_digest=real.digest,
        cache=cache,
    )
    return PoolEvidence(
        features=name,
        judge=judge[0],
        quality=quality,
        map=feature_map(real.features, synthetic.features, method=method),
        strengths=[
            None if row == NO_SOURCE else strength / 1000
            for row, strength in zip(rows.tolist(), strengths.tolist(), strict=True)
        ],
    )


def look_for_copies(
    prepared: Prepared,
    split: str,
    pool: Mapping[str, Any],
    model: Classifier,
    *,
    device: torch.device,
    cache: Path,
) -> Cleanliness:
    """Compare the images of a split, and those of the pool, with the train images and with each other.

    What was found is kept, for the time grows with the product of the sets: minutes for tens of thousands.

    Args:
        prepared: the real images.
        split: test or validation.
        pool: the pool's index; may be empty.
        model: whose features propose what may be a copy.
        device: where it runs.
        cache: folder for features and pixels.
    """
    side = compared_side(prepared.image_size)
    identities: list[str] = []

    def image_set(references: References, title: str) -> ImageSet:
        found = image_features(references, model, device=device, cache=cache, title=f"features, {title}")
        seen = found.features
        images_sha256 = hashlib.sha256(references.sha256.tobytes()).hexdigest()
        identity = digest("pixels", PIXELS_VERSION, version("pillow"), side, images_sha256)

        def read() -> dict[str, np.ndarray]:
            digests, squares = read_pixels(references, side, f"pixels, {title}")
            return {"digests": digests, "squares": squares}

        pixels = cached_arrays(cache, identity, {"digests", "squares"}, read)
        identities.extend((found.digest, identity))
        lengths = np.linalg.norm(seen, axis=1, keepdims=True)
        return ImageSet(references.keys.to_pylist(), seen / np.maximum(lengths, 1e-12), **pixels)

    train, compared = (image_set(prepared.references(name), name) for name in ("train", split))
    made = image_set(_pool_references(), "pool") if pool["key"] else None
    rows = pool_sources(pool["key"], train.keys)[0] if made else None
    near = len(train.keys) <= MOST_WITHIN_TRAIN
    sources = None if rows is None else hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()
    arrays = cached_arrays(
        cache,
        digest("copies", COPIES_VERSION, identities, sources, near),
        array_names(with_pool=made is not None),
        lambda: find_copies(train, compared, made, rows, near_within_train=near).to_arrays(),
    )
    return Cleanliness.from_arrays(arrays, train.keys, compared.keys, made.keys if made else None)


def _pool_references() -> References:
    return read_references(SYNTHETIC / "index.parquet", origin="the pool", command="gdacli generate", folder=SYNTHETIC)
