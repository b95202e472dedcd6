"""Generator backends: each makes faithful variants of images at a given strength.

To add one: write `generators/<name>.py` with the function `load` (and `fit`, if it is trained on the data), and its
line in BACKENDS. Every backend's

    load(folder, *, class_names, image_size, solver, num_inference_steps, guidance_scale, device, dtype, memory_format,
         compile, **own options) -> Generator

reads a local folder; one that does not fit raises GdaError.

- image_size: pixels of a side of what `encode` gets, and of what `generate` and `sample` return.
- solver: a key of `diffusion.SOLVERS`. guidance_scale: 1 is none, and evaluates no unconditional half.
- dtype: of the denoiser's weights and activations; latents, noise and the solver's arithmetic stay float32.
- memory_format: torch.contiguous_format or torch.channels_last, of the weights and of the images that they see.
- compile: whether torch.compile makes the denoiser faster; the first batch then takes a minute or so more.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

BACKENDS: dict[str, int] = {"class_conditional": 1, "text_to_image": 1}
"""Name -> version. Raise the version when the same weights, settings and seed give another image, so that images made
before are not taken for new ones; a golden test guards it."""


class Generator(Protocol):
    """What a backend's `load` returns."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images, uint8 [B, 3, H, W], into what the model noises, float32 [B, ...]; once per source image."""

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Make a variant of each image.

        Args:
            latents: float32 [B, ...] of `encode`; B is the same in every call, a multiple of 16.
            labels: int64 [B].
            strength: in (0, 1], the same for the whole batch.
            seeds: B seeds in [0, 2**63); a row depends on its own seed, latent and label alone.

        Returns:
            uint8 [B, 3, H, W].
        """

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make an image of each class label, int64 [B], from noise alone; returns uint8 [B, 3, H, W]."""

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """Return what a sample's json says of how it was made: prompt, start timestep, steps, alpha_bar; pure."""


def backend(name: str) -> ModuleType:
    """Import a backend of BACKENDS by name."""
    return import_module(f"gdacli.generators.{name}")
