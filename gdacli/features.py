"""What a model sees in images: its features or its predictions, computed once for the same images and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gdacli.architectures import ARCHITECTURES
from gdacli.array_cache import cached_arrays
from gdacli.artifacts import require
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.image_index import References
from gdacli.loading import Loading, open_images
from gdacli.models import Classifier, check_model, create_model, load_checkpoint
from gdacli.rng import digest

VERSION = 2
"""Raise it when the same images and model get other features or predictions."""

PROBE_FEATURES = "probe"
"""The name that stands for the probe's checkpoint."""

_PIXELS_AT_ONCE = 2**22  # of a batch: 256 images of 128 x 128 pixels, 15 of the 518 x 518 that DINOv2 takes
_LARGEST_BATCH = 256
_DECIDE_BITS = ("torch", "torchvision", "timm", "pillow")


@dataclass(frozen=True)
class ImageFeatures:
    """What a model sees in N images."""

    features: np.ndarray
    """float32 [N, D], what the last layer sees: not normalised."""
    digest: str
    """Of the model and the images, for what is computed of them."""


def load_feature_model(name: str, weights: str | None, probe: Path) -> Classifier:
    """Load the model whose features images are compared by, onto the CPU.

    A timm model takes images of the size, and normalised as, its `pretrained_cfg` says, and has no last layer.

    Args:
        name: `probe`, or a timm model, with the tag of its weights (`inception_v3.tv_in1k`).
        weights: a .safetensors file; None takes timm's own weights, from the Hub or its cache.
        probe: the folder of the probe's checkpoint.

    Raises:
        GdaError: no such model, or its weights are neither here nor reachable.
    """
    if name == PROBE_FEATURES:
        if weights is not None:
            raise GdaError(
                f"evaluate.features_weights: found {weights}, but evaluate.features is probe, whose weights are in "
                f"{probe}: set features_weights to null, or features to a timm model"
            )
        require(probe / "model.safetensors", "gdacli probe")
        return load_checkpoint(probe)
    if name in ARCHITECTURES:
        raise GdaError(
            f"evaluate.features: found {name}, whose weights are a training's; allowed: {PROBE_FEATURES}, or a timm "
            "model by name, such as inception_v3.tv_in1k"
        )
    try:
        check_model(name)
        size = _input_size(name)
        return create_model(name, 0, {}, 0, image_size=size, pretrained=True if weights is None else weights)
    except GdaError as error:
        raise GdaError(
            f"evaluate.features: found {name}, which cannot be loaded ({error}): set evaluate.features_weights to its "
            f".safetensors file, or evaluate.features to {PROBE_FEATURES}"
        ) from error


def _input_size(name: str) -> int:
    import timm

    try:
        config: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise GdaError(str(error)) from error
    return int(config.input_size[-1])


def model_digest(model: Classifier) -> str:
    """Return the hash of all that determines what a model sees: weights, architecture, size and normalisation."""
    sums = hashlib.sha256()
    for tensor in (*model.net.state_dict().values(), model.mean, model.std):
        sums.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    shapes = {name: list(tensor.shape) for name, tensor in model.net.state_dict().items()}
    return digest(sums.hexdigest(), type(model.net).__name__, model.model_args, model.image_size, shapes)


def image_features(
    references: References,
    model: Classifier,
    *,
    device: torch.device,
    cache: Path,
    title: str = "features",
    loading: Loading = "auto",
    workers: int = 0,
) -> ImageFeatures:
    """Return features of images, or those that the cache holds.

    Args:
        references: of N >= 1 images.
        model: made for an image size, to which the centred squares of the images are resized.
        device: where to run; the model is moved there.
        cache: folder of `array_cache.cached_arrays`.
        title: of the progress.
        loading, workers: see `loading.open_images`.

    Raises:
        GdaError: an image is missing or another than named, or a feature is not a number.
    """
    look = _Look(references, model, device, title, loading, workers)
    identity = look.identity("features")

    def compute() -> dict[str, np.ndarray]:
        features = look.at_all(lambda network, pixels: network.logits_and_last_features(pixels)[1])
        if not np.isfinite(features.sum(0, dtype=np.float64)).all():
            raise GdaError("evaluate.features: the model gives features that are not numbers: name another model")
        return {"features": features}

    return ImageFeatures(cached_arrays(cache, identity, {"features"}, compute)["features"], identity)


def array_features(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Return features of square images in memory, as `image_features` of stored ones.

    Args:
        model: in eval mode on its device, made for an image size, to which the images are resized.
        images: uint8 [N, 3, S, S], N >= 1.

    Returns:
        float32 [N, D], what the last layer sees: not normalised.

    Raises:
        GdaError: a feature is not a number.
    """
    size = model.image_size or images.shape[-1]
    device, found = model.mean.device, list[np.ndarray]()
    step = max(1, min(_LARGEST_BATCH, _PIXELS_AT_ONCE // size**2))
    with torch.inference_mode():
        for first in range(0, len(images), step):
            pixels = torch.from_numpy(images[first : first + step]).to(device)
            if size != pixels.shape[-1]:
                pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
            found.append(model.logits_and_last_features(pixels.float() / 255)[1].cpu().numpy())
    features = np.concatenate(found)
    if not np.isfinite(features.sum(0, dtype=np.float64)).all():
        raise GdaError("the model gives features that are not numbers: train the probe with a lower probe.lr")
    return features


def image_predictions(
    references: References,
    model: Classifier,
    *,
    device: torch.device,
    cache: Path,
    title: str = "predictions",
    loading: Loading = "auto",
    workers: int = 0,
) -> np.ndarray:
    """Return the class of the highest logit of each image, int64 [N], or what the cache holds of it.

    Args:
        references, model, device, cache, title, loading, workers: see `image_features`; the model has a last layer.

    Raises:
        GdaError: an image is missing or another than named.
    """
    look = _Look(references, model, device, title, loading, workers)

    def compute() -> dict[str, np.ndarray]:
        return {"predictions": look.at_all(lambda network, pixels: network(pixels).argmax(1))}

    return cached_arrays(cache, look.identity("predictions"), {"predictions"}, compute)["predictions"]


@dataclass(frozen=True)
class _Look:
    """A model's look at images, see `image_features`."""

    references: References
    model: Classifier
    device: torch.device
    title: str
    loading: Loading
    workers: int

    def identity(self, what: str) -> str:
        """Return the hash of all that decides what is seen."""
        size = self._size()
        images_sha256 = hashlib.sha256(self.references.sha256.tobytes()).hexdigest()
        environment = [self.device.type, torch.get_num_threads(), *(version(name) for name in _DECIDE_BITS)]
        count = len(self.references)
        return digest(what, VERSION, environment, model_digest(self.model), size, count, images_sha256)

    def at_all(self, output: Callable[[Classifier, torch.Tensor], torch.Tensor]) -> np.ndarray:
        """Return the output of all images, [N, ...], of batches float [B, 3, S, S] in [0, 1]."""
        size = self._size()
        images = open_images(
            self.references, image_size=size, device=self.device, loading=self.loading, workers=self.workers
        )
        network = self.model.to(self.device).eval()
        found = np.empty(0)
        row = 0
        with progress(self.title, len(images), "images") as advance, torch.inference_mode():
            for batch in images.in_order(max(1, min(_LARGEST_BATCH, _PIXELS_AT_ONCE // size**2))):
                of_batch = output(network, batch.float() / 255).cpu().numpy()
                if not row:
                    found = np.empty((len(images), *of_batch.shape[1:]), of_batch.dtype)
                found[row : row + len(batch)] = of_batch
                row += len(batch)
                advance(len(batch))
        return found

    def _size(self) -> int:
        size = self.model.image_size
        if size is None or not len(self.references):
            raise ValueError(f"found {len(self.references)} images and a model for size {size}, needs both")
        return size
