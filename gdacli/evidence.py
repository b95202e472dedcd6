"""What the report says of the pool besides the errors of those who trained on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.feature_map import FeatureMap, Method, feature_map
from gdacli.features import image_features
from gdacli.image_index import read_references
from gdacli.models import Classifier
from gdacli.paths import SYNTHETIC
from gdacli.prepared import Prepared
from gdacli.quality import NO_SOURCE, PoolQuality, pool_quality, pool_sources


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
    made = read_references(SYNTHETIC / "index.parquet", origin="the pool", command="gdacli generate", folder=SYNTHETIC)
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
