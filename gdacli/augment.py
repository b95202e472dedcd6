"""Augmentations: batched, random per image, drawn from the generator given.

Each maps (images [B, 3, H, W] float in [0, 1], targets [B, C] soft labels, generator, its own options) to the same
pair. To add one: write the function and its line in AUGMENTATIONS; its options are a section of `params.Augment`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

Batch = tuple[torch.Tensor, torch.Tensor]


def crop(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, *, padding: int) -> Batch:
    """Pad with `padding` black pixels on each side and cut out a window of the old size at a random place."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator).to(images.device)
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[image, channel, rows, columns], targets


def flip(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, *, probability: float) -> Batch:
    """Mirror each image horizontally with the given probability."""
    mirrored = (torch.rand(len(images), generator=generator) < probability).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images), targets


AUGMENTATIONS: dict[str, Callable[..., Batch]] = {"crop": crop, "flip": flip}


def augment(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, options: Mapping[str, Mapping[str, Any]]
) -> Batch:
    """Apply the augmentations named in `options` in the order of AUGMENTATIONS."""
    for name, function in AUGMENTATIONS.items():
        if name in options:
            images, targets = function(images, targets, generator, **options[name])
    return images, targets
