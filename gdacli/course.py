"""What happens in the course of a training, seen in a replay: where features lie, and what a search finds."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.array_cache import cached_arrays
from gdacli.console import progress, say
from gdacli.feature_map import NUM_POINTS, FeatureMap, Method, feature_map
from gdacli.features import array_features, image_features, model_digest
from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.image_index import References
from gdacli.loading import open_images
from gdacli.models import Classifier
from gdacli.replays import ends_as, say_others
from gdacli.rng import derive_seed, digest
from gdacli.synthetic_images import drawn_images
from gdacli.training import Epoch
from gdacli.training_store import TrainingStore
from gdacli.trainings import Training, fit

_VERSION = 1

_POINTS = NUM_POINTS // 2  # of each side of a map

_ARRAYS = {"map_epochs", "real", "synthetic", "origin", "distances", "num_epochs", "same_weights"}

Samples = Callable[[int, int], Iterator[Mapping[str, torch.Tensor]]]
"""(count, number of the draw) => batches as of `objectives.Supply.samples`."""


@dataclass(frozen=True)
class DistanceRow:
    """How far generated images are from real ones after an epoch: Fréchet distances, lower is nearer."""

    epoch: int
    """0 is before the first."""
    updates: int
    uniform: float
    """Of images of z from N(0, I)."""
    found: float
    """Of images of where the search moves the same z."""


@dataclass(frozen=True)
class Course:
    """What was seen of a training."""

    maps: list[tuple[int, FeatureMap]]
    """Epoch, and features of real train images and of synthetic ones by the classifier as it is after it."""
    origin: str
    """Of the synthetic ones: `stored`, `uniform` or `found`, see `objectives.Supply.samples`."""
    distances: list[DistanceRow]
    """Before the first and after each epoch; empty where nothing is searched."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures, without the maps."""
        rows = [[row.epoch, row.updates, row.uniform, row.found] for row in self.distances]
        return {"map_epochs": [epoch for epoch, _ in self.maps], "origin": self.origin, "frechet_distances": rows}


@dataclass(frozen=True)
class Judge:
    """What the images of a search are compared with, and by what."""

    model: Classifier
    real: GaussianStatistics
    """Of its features of real train images."""


def make_judge(
    model: Classifier,
    train: References,
    num_images: int,
    *,
    device: torch.device,
    cache: Path,
    reading: Mapping[str, Any],
) -> Judge:
    """Look at real train images, as many as there will be generated ones, or all of fewer.

    Args:
        model: see `Judge`.
        train: the real images.
        num_images: of each Fréchet distance.
        device, cache, reading: see `evidence.judge_pool`.
    """
    seen = image_features(train, model, title="features, train", device=device, cache=cache, **reading).features
    rows = np.random.default_rng(derive_seed("course", "judge")).permutation(len(seen))[:num_images]
    return Judge(model, GaussianStatistics.of(seen[np.sort(rows)]))


def training_course(
    name: str,
    store: TrainingStore,
    checkpoint: Path,
    start: Callable[[], Training],
    *,
    num_images: int,
    epochs: Sequence[int] | None,
    method: Method,
    train: References,
    stored: References | None,
    judge: Judge | None,
    reading: Mapping[str, Any],
) -> Course:
    """Return what happens in a training, from the work directory if it was measured before, else from a replay.

    A replay costs what the training did, and is left undisturbed: a line says if the weights that it ends with are not
    those of the checkpoint, as on another device.

    Args:
        name: of the training, for the progress.
        store: of the training; it need not hold it.
        checkpoint: folder of the training's `model.safetensors`.
        start: puts the training together.
        num_images: synthetic images of each Fréchet distance; a map shows at most half of `feature_map.NUM_POINTS`.
        epochs: to map after; None takes a sixth, half and all of the training.
        method: of the maps.
        train: the real images.
        stored: synthetic images to map; None takes those of the training's objective, as it makes them by then.
        judge: measures Fréchet distances; None leaves them out. The objective then must search.
        reading: `device`, `loading` and `workers` of `loading.open_images`.

    Raises:
        GdaError: what `trainings.open_training` and `training.train_classifier` raise.

    Source: meta-generative-regularization paper, Figures 5 and 7b. It maps after 5, 15 and 30 epochs, and takes 2,048
    images of each kind anew each epoch, as is done here; both kinds are here of the same z.
    """
    of_judge = [model_digest(judge.model), digest(judge.real.mean.tolist())] if judge is not None else None
    of_stored = hashlib.sha256(stored.sha256.tobytes()).hexdigest() if stored is not None else None
    wanted = list(epochs) if epochs is not None else None
    identity = digest("course", _VERSION, num_images, wanted, of_judge, of_stored)
    with store.locked():
        arrays = cached_arrays(
            store.folder,
            f"course-{identity[:32]}",
            _ARRAYS,
            lambda: _replay(name, start(), checkpoint, num_images, wanted, train, stored, judge, reading),
        )
    if not arrays["same_weights"]:
        say_others(name, "course", checkpoint)
    found = arrays["map_epochs"].tolist()
    if beyond := sorted(set(wanted or []) - set(found)):
        say(
            f"note: {name}: evaluate.course.epochs: no map after {', '.join(map(str, beyond))}: the training has "
            f"{int(arrays['num_epochs'])} epochs"
        )
    return Course(
        maps=[
            (epoch, feature_map(real, synthetic, method=method))
            for epoch, real, synthetic in zip(found, arrays["real"], arrays["synthetic"], strict=True)
        ],
        origin=str(arrays["origin"]),
        distances=[
            DistanceRow(int(epoch), int(updates), uniform, of_found)
            for epoch, updates, uniform, of_found in arrays["distances"].tolist()
        ],
    )


def map_epochs(wanted: Sequence[int] | None, num_epochs: int) -> list[int]:
    """Return after which epochs of a training maps are drawn, ascending: those wanted that it has.

    >>> map_epochs(None, 200), map_epochs(None, 2), map_epochs([5, 15, 30], 20)
    ([33, 100, 200], [1, 2], [5, 15])
    """
    if wanted is None:
        wanted = [max(1, num_epochs // 6), max(1, num_epochs // 2), num_epochs]
    return sorted({epoch for epoch in wanted if epoch <= num_epochs})


def _replay(
    name: str,
    training: Training,
    checkpoint: Path,
    num_images: int,
    wanted: Sequence[int] | None,
    train: References,
    stored: References | None,
    judge: Judge | None,
    reading: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    num_epochs = -(-training.updates // training.per_epoch)
    mapped = map_epochs(wanted, num_epochs)
    model = training.model
    count = min(num_images, _POINTS)
    seen: dict[str, list[np.ndarray]] = {"real": [], "synthetic": []}
    distances: list[list[float]] = []
    origin = "stored"
    if judge is not None:
        judge.model.to(reading["device"]).eval()
    real = open_images(train, image_size=_size(model), **reading)
    samples = _samples(training, stored, reading)

    def look(epoch: int, updates: int) -> None:
        nonlocal origin
        is_mapped = epoch in mapped
        if not is_mapped and judge is None:
            return
        left = count if is_mapped else 0
        judged: dict[str, list[np.ndarray]] = {"uniform": [], "found": []}
        features: list[np.ndarray] = []
        with _undisturbed(model):
            for batch in samples(count if judge is None else num_images, epoch):
                if judge is not None:
                    for how, images in batch.items():
                        judged[how].append(array_features(judge.model, images.cpu().numpy()))
                if left:
                    origin = "found" if "found" in batch else next(iter(batch))
                    features.append(array_features(model, batch[origin][:left].cpu().numpy()))
                    left -= len(features[-1])
            if is_mapped:
                seen["synthetic"].append(np.concatenate(features))
                drawn = drawn_images(real, count, derive_seed("course", "real"))
                seen["real"].append(np.concatenate([array_features(model, each.cpu().numpy()) for each in drawn]))
        if judge is not None:
            of_kinds = [GaussianStatistics.of(np.concatenate(judged[how])) for how in ("uniform", "found")]
            distances.append([epoch, updates, *(frechet_distance(judge.real, each) for each in of_kinds)])

    def on_epoch(done: Epoch) -> None:
        look(done.epoch, done.updates)

    if mapped or judge is not None:
        with progress(f"replay {name}", training.updates, "updates") as advance:
            look(0, 0)
            fit(training, on_epoch=on_epoch, on_update=lambda update, size: advance())
    width = model.num_features()
    return {
        "map_epochs": np.array(mapped, np.int64),
        **{side: np.stack(each) if each else np.empty((0, 0, width), np.float32) for side, each in seen.items()},
        "origin": np.array(origin),
        "distances": np.array(distances).reshape(-1, 4),
        "num_epochs": np.array(num_epochs),
        "same_weights": np.array((not mapped and judge is None) or ends_as(training, checkpoint)),
    }


def _samples(training: Training, stored: References | None, reading: Mapping[str, Any]) -> Samples:
    if stored is None:
        if training.objective is None:
            raise ValueError("found neither stored images nor an objective with some")
        return training.objective.samples
    images = open_images(stored, image_size=_size(training.model), **reading)

    def samples(count: int, number: int) -> Iterator[Mapping[str, torch.Tensor]]:
        for batch in drawn_images(images, count, derive_seed("course", number)):
            yield {"stored": batch}

    return samples


def _size(model: Classifier) -> int:
    if model.image_size is None:
        raise ValueError("the model is made for no image size")
    return model.image_size


@contextlib.contextmanager
def _undisturbed(model: Classifier) -> Iterator[None]:
    """Within, the model predicts; afterwards its mode and torch's random numbers are as before."""
    device = next(model.parameters()).device
    training = model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            model.eval()
            yield
        finally:
            model.train(training)
