"""How good a generator's samples are: Fréchet distance to held-out images, nearest train images, sheets to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.artifacts import new_file
from gdacli.console import say
from gdacli.generators import Generator
from gdacli.grid import Row, contact_sheet
from gdacli.held_out import Embed, HeldOut
from gdacli.memorisation import coarse_pixels, memorisation, nearest_train_images
from gdacli.rng import derive_seed

_BATCH = 256
_CELL = 64
_COLUMNS, _CLASSES, _PAIRS = 8, 16, 12


@dataclass(frozen=True)
class Gauge:
    """What samples of a generator are measured with."""

    held_out: HeldOut
    embed: Embed
    train_labels: np.ndarray
    """int64 [N]."""
    train_images: np.ndarray
    """uint8 [N, 3, H, W], what the generator is trained on."""
    class_names: Sequence[str]
    """Of the labels; empty for a generator that is told no class."""
    mirrored: bool
    """Whether it is trained on mirrored images too, so that a mirrored train image is a copy."""
    seed: int

    def samples(self, generator: Generator, purpose: str) -> np.ndarray:
        """Make an image from noise for each held-out image, of its class: uint8 [n, 3, H, W].

        The same purpose (`check`, `end`) gives the same noise: checks show how one and the same noise is seen better,
        and what is said in the end is not the noise by which the best check was chosen.
        """
        labels = torch.from_numpy(self.held_out.labels)
        seeds = [derive_seed(self.seed, purpose, number) for number in range(len(labels))]
        batch = min(_BATCH, -(-len(labels) // 16) * 16)
        made = []
        for first in range(0, len(labels), batch):
            rows = (torch.arange(first, first + batch) % len(labels)).tolist()  # padded to a constant shape
            made.append(generator.sample(labels[rows], [seeds[row] for row in rows]).cpu())
        return torch.cat(made)[: len(labels)].numpy()

    def check(self, generator: Generator, sheet: Path) -> float:
        """Draw samples and return their Fréchet distance."""
        made = self.samples(generator, "check")
        self._draw(sheet, self._rows(made), [str(number + 1) for number in range(_COLUMNS)])
        return _short(self.held_out.distance(self.embed(made)))

    def quality(self, generator: Generator, sheet: Path, nearest_sheet: Path) -> dict[str, Any]:
        """Draw samples, and those that are nearest to a train image; return the figures."""
        made = self.samples(generator, "end")
        features = self.embed(made)
        self._draw(sheet, self._rows(made), [str(number + 1) for number in range(_COLUMNS)])
        compared = {
            "features": (self.embed, self.embed(self.train_images)),
            "pixels": (coarse_pixels, coarse_pixels(self.train_images)),
        }
        found, suspicion, nearest = {}, np.zeros(len(made)), np.zeros(len(made), np.int64)
        for name, (seen_as, train) in compared.items():
            own = self.held_out.rows if self.held_out.split == "train" else None
            real = nearest_train_images(self._views(seen_as, self.held_out.images), train, own)
            near = nearest_train_images(self._views(seen_as, made), train)
            verdict = memorisation(near.relative_distances, real.relative_distances)
            found[name] = {
                "nearer_share": _short(verdict.share),
                "threshold": _short(verdict.threshold),
                "nearest": _short(float(near.relative_distances.min())),
                "p_value": _short(verdict.p_value),
                "suspect": verdict.suspect,
            }
            relative = verdict.threshold / np.maximum(near.relative_distances, 1e-12)
            nearest = np.where(relative > suspicion, near.rows, nearest)
            suspicion = np.maximum(relative, suspicion)
        order = np.argsort(-suspicion, kind="stable")[:_PAIRS]
        self._draw_pairs(nearest_sheet, made, suspicion, nearest, order)
        return {
            "frechet_distance": _short(self.held_out.distance(features)),
            "real_frechet_distance": _short(self.held_out.real_distance),
            "measured_against": self.held_out.split,
            "num_samples": len(made),
            "memorisation": found,
        }

    def _views(self, seen_as: Embed, images: np.ndarray) -> list[np.ndarray]:
        views = [images, np.ascontiguousarray(images[..., ::-1])] if self.mirrored else [images]
        return [seen_as(view) for view in views]

    def _rows(self, made: np.ndarray) -> list[Row]:
        if not self.class_names:
            groups = [("samples", made[first : first + _COLUMNS]) for first in range(0, 4 * _COLUMNS, _COLUMNS)]
        else:
            labels = np.unique(self.held_out.labels)[:_CLASSES]
            groups = [
                (self.class_names[label], made[self.held_out.labels == label][:_COLUMNS]) for label in labels.tolist()
            ]
        return [(title, [*images, *[None] * (_COLUMNS - len(images))]) for title, images in groups if len(images)]

    def _draw_pairs(
        self, path: Path, made: np.ndarray, suspicion: np.ndarray, nearest: np.ndarray, order: np.ndarray
    ) -> None:
        """Draw samples beside train images; the number is how many times nearer than the threshold."""
        rows: list[Row] = []
        for row in order.tolist():
            label = int(self.held_out.labels[row])
            title = self.class_names[label] if self.class_names else "sample"
            rows.append((f"{title} ({suspicion[row]:.2f} x)", [made[row], self.train_images[nearest[row]]]))
        self._draw(path, rows, ["sample", "train"])

    def _draw(self, path: Path, rows: Sequence[Row], titles: Sequence[str]) -> None:
        """Draw a sheet, whole or not at all; a picture ends no run."""
        try:
            with new_file(path) as temporary:
                temporary.write_bytes(contact_sheet(rows, titles, cell=_CELL))
        except OSError as error:
            say(f"note: {path} is not drawn ({error})")


def _short(value: float) -> float:
    """Round to six significant digits."""
    return float(f"{value:.6g}")
