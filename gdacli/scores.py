"""Quality of synthetic images, seen by the probe: label confidence, distances to real images, failed images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.artifacts import require, sha256_file
from gdacli.errors import GdaError
from gdacli.rng import digest
from gdacli.tables import read_table

if TYPE_CHECKING:
    import torch

    from gdacli.models import Classifier

VERSION = 1
"""Raise it when the same image and probe get another score."""

SCORES: dict[str, type] = {
    "confidence": float,
    "source_distance": float,
    "nearest_distance": float,
    "nearest_key": str,
    "constant": bool,
}
"""Name -> type of what every synthetic image carries; CLIP_SCORE joins them where a CLIP model is named."""

CLIP_SCORE = "clip_score"

NO_SOURCE = -1.0
"""The source distance of an image that has no source."""

_PROBE_FILES = ("model.safetensors", "config.json", "features.npy", "images.parquet")
_DIGITS = 6
_ROWS_AT_ONCE = 65536

ClipScore = Callable[["torch.Tensor", Sequence[str]], list[float]]


def scoring_identity(probe: Path, clip_weights: str | None) -> str:
    """Return the hash of all that determines a score: another one means that images are scored again, not made."""
    files = [sha256_file(require(probe / name, "gdacli probe")) for name in _PROBE_FILES]
    return digest(VERSION, files, clip_weights)


def reason_to_drop(scores: Mapping[str, Any], thresholds: Mapping[str, Any]) -> str | None:
    """Return the name of the first threshold that an image fails, None if it is kept.

    Args:
        scores: of one image.
        thresholds: the keys of `generate.filter`; None is off.

    >>> reason_to_drop({"confidence": 0.2, "constant": False}, {"constant": True, "min_confidence": 0.5})
    'min_confidence'
    """
    if thresholds["constant"] and scores["constant"]:
        return "constant"
    for name, limit in thresholds.items():
        bound, _, score = name.partition("_")
        if limit is None or bound not in ("min", "max"):
            continue
        if score == "source_distance" and scores[score] == NO_SOURCE:
            continue
        if scores[score] < limit if bound == "min" else scores[score] > limit:
            return name
    return None


def is_constant(images: np.ndarray) -> np.ndarray:
    """Say of each image, uint8 [B, 3, H, W], if all its pixels have one colour (within 2 of 255): bool [B]."""
    spread = images.max(axis=(2, 3)).astype(int) - images.min(axis=(2, 3))
    return spread.max(axis=1) <= 2


class Scorer:
    """Scores batches of synthetic images; their shape must be constant, as for generation, so that bits are too.

    Args:
        model: the probe.
        keys: of the train images, in the order of `features`.
        features: float [N, D] of the train images, unit length.
        device: where to run.
        clip_score: of `clip.load`, or None.
    """

    def __init__(
        self,
        model: Classifier,
        keys: Sequence[str],
        features: np.ndarray,
        device: torch.device,
        clip_score: ClipScore | None = None,
    ) -> None:
        import torch

        self._model = model.to(device).eval()
        self._keys, self._device, self._clip_score = keys, device, clip_score
        self._row_of = {key: row for row, key in enumerate(keys)}
        self._features = torch.from_numpy(features).to(device)
        norms = np.linalg.norm(features.astype(np.float32), axis=1)  # not quite 1 in half precision
        self._norms = torch.from_numpy(norms).to(device)

    def __call__(
        self, images: np.ndarray, labels: Sequence[int], source_keys: Sequence[str], prompts: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Score images, uint8 [B, 3, H, W].

        Returns:
            per image: `confidence`, the probe's probability of its label in [0, 1]; `source_distance` and
            `nearest_distance`, cosine distances in [0, 2] between probe features, to its source (-1 without one) and to
            the nearest other train image, whose key is `nearest_key`; `constant`; `clip_score` if asked for. Rounded
            to 6 digits. A source distance near 0 is a near-copy, which teaches nothing; a nearest distance near 0 may
            be a memorised image.
        """
        import torch

        rows = torch.tensor([self._row_of.get(key, -1) for key in source_keys], device=self._device)
        pixels = torch.from_numpy(images).to(self._device)
        with torch.inference_mode():
            x = _resized(pixels, self._model.image_size).float() / 255
            logits, features = self._model.logits_and_features(x)
            to_source, to_nearest, nearest = self._distances(features, rows)
            confidence = logits.softmax(1).gather(1, torch.tensor(labels, device=self._device)[:, None])[:, 0]
        columns: dict[str, Sequence[Any]] = {
            "confidence": [round(value, _DIGITS) for value in confidence.tolist()],
            "source_distance": [
                round(value, _DIGITS) if row >= 0 else NO_SOURCE
                for value, row in zip(to_source.tolist(), rows.tolist(), strict=True)
            ],
            "nearest_distance": [round(value, _DIGITS) for value in to_nearest.tolist()],
            "nearest_key": [self._keys[row] for row in nearest.tolist()],
            "constant": is_constant(images).tolist(),
        }
        if self._clip_score is not None:
            columns[CLIP_SCORE] = [round(value, _DIGITS) for value in self._clip_score(pixels, prompts)]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _distances(self, features: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features [B, D], source rows [B] => distance to the source, to the nearest other image, its row; each [B]."""
        import torch

        best = torch.full((len(features),), -2.0, device=features.device)
        nearest = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        to_source = torch.zeros_like(best)
        for start in range(0, len(self._features), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            similarity = features @ self._features[part].float().T / self._norms[part]
            inside = (rows >= start) & (rows < start + similarity.shape[1])
            at = torch.nonzero(inside)[:, 0]
            to_source[at] = similarity[at, rows[at] - start]
            similarity[at, rows[at] - start] = -2.0
            value, row = similarity.max(1)
            better = value > best
            best = torch.where(better, value, best)
            nearest = torch.where(better, row + start, nearest)
        return (1 - to_source).clamp(0, 2), (1 - best).clamp(0, 2), nearest


def _resized(pixels: torch.Tensor, size: int | None) -> torch.Tensor:
    """Resize square images, uint8 [B, 3, H, W], to what the probe takes, as its training images were."""
    from torch.nn.functional import interpolate

    if size is None or size == pixels.shape[-1]:
        return pixels
    return interpolate(pixels, (size, size), mode="bilinear", antialias=True)


def load_scorer(probe: Path, device: torch.device, clip_score: ClipScore | None) -> Scorer:
    """Load what `gdacli probe` wrote.

    Raises:
        GdaError: features and keys do not belong together.
    """
    from gdacli.models import load_checkpoint

    keys = read_table(require(probe / "images.parquet", "gdacli probe"))["key"]
    features = np.load(probe / "features.npy", allow_pickle=False)
    if len(keys) != len(features):
        raise GdaError(
            f"{probe}: {len(keys)} keys, {len(features)} features: the files are damaged, run `gdacli probe`"
        )
    return Scorer(load_checkpoint(probe), keys, features, device, clip_score)
