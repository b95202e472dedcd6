"""Generators with a latent space, for the objectives that look for useful images: images are a smooth function of z."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn


class LatentGenerator(Protocol):
    """G: images are differentiable in z and in the parameters, to first order; z is drawn from N(0, I)."""

    latent_dim: int
    """Z."""
    conditional: bool
    """False: the labels have no say."""

    def __call__(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Make images, float32 [B, 3, H, W] in [0, 1], of z, float32 [B, Z], and labels, int64 [B], on one device."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights, which require no gradient unless someone asks for it."""
        ...


class MappedGenerator(LatentGenerator, Protocol):
    """One that goes by a second latent space: G(z, y) = synthesis(mapping(z, y), y)."""

    def mapping(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return w, float32 [B, W], of z, float32 [B, Z], and labels, int64 [B]."""
        ...

    def synthesis(self, w: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Make images, float32 [B, 3, H, W] in [0, 1], of w, float32 [B, W], and labels, int64 [B]."""
        ...
