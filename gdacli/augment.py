"""Augmentations: batched, random per image, drawn from the generator given, which is on the CPU.

Each maps (images [B, 3, H, W], targets [B, C] soft labels, generator, its own options) to the same pair. Those of
PIXELS take and give uint8, so that they are exact, and the same integers as torchvision's; those of MIXING take and
give float in [0, 1]. To add one: write the function and its line in one of the two; its options are a section of
`augment_sections.Augment`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from gdacli.auto_augment import aug_mix, rand_augment, trivial_augment
from gdacli.errors import GdaError
from gdacli.mixing import Attention, cut_mix, mixup, snap_mix

Batch = tuple[torch.Tensor, torch.Tensor]


def crop(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, *, padding: int) -> Batch:
    """Pad with `padding` black pixels on each side and cut out a window of the old size at a random place."""
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4).contiguous()
    tall, wide = padded.shape[2:]
    # every window of every image is a view that starts at one more byte: choosing rows of that view copies lines
    num_starts = (batch - 1) * channels * tall * wide + 2 * padding * (wide + 1) + 1
    windows = padded.as_strided((num_starts, channels, height, width), (1, tall * wide, wide, 1))
    top, left = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    starts = torch.arange(batch) * channels * tall * wide + top * wide + left
    return windows.index_select(0, starts.to(images.device, non_blocking=True)), targets


def flip(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, *, probability: float = 0.5) -> Batch:
    """Mirror each image horizontally with the given probability."""
    mirrored = torch.rand(len(images), generator=generator) < probability
    rows = torch.arange(len(images)) + len(images) * mirrored
    return torch.cat([images, images.flip(3)]).index_select(0, rows.to(images.device, non_blocking=True)), targets


PIXELS: dict[str, Callable[..., Batch]] = {
    "crop": crop,
    "flip": flip,
    "trivial_augment": trivial_augment,
    "rand_augment": rand_augment,
    "aug_mix": aug_mix,
}
MIXING: dict[str, Callable[..., Batch]] = {"mixup": mixup, "cut_mix": cut_mix, "snap_mix": snap_mix}
AUGMENTATIONS = PIXELS | MIXING


def augment(
    pixels: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    options: Mapping[str, Mapping[str, Any]],
    *,
    epoch: int,
    attention: Attention | None = None,
) -> Batch:
    """Apply the augmentations named in `options` in the order of AUGMENTATIONS, at most one of MIXING.

    Args:
        pixels: uint8 [B, 3, H, W], on any device.
        targets: float [B, C] soft labels, on that device.
        generator: on the CPU.
        options: name -> options of the function. Beside them `end_epoch`: the last epoch that uses it, None for all;
            and for those of MIXING `probability`: the chance that a batch is mixed by it (1 if absent; together at
            most 1).
        epoch: from 1.
        attention: class activation maps of the model, which snap_mix needs.

    Returns:
        images, float32 [B, 3, H, W] in [0, 1], and targets [B, C]; their rows sum to what they did but for snap_mix.

    Raises:
        GdaError: snap_mix without attention.
    """
    active = {name: dict(given) for name, given in options.items() if epoch <= (given.get("end_epoch") or epoch)}
    for given in active.values():
        given.pop("end_epoch", None)
    for name, function in PIXELS.items():
        if name in active:
            pixels, targets = function(pixels, targets, generator, **active[name])
    images = pixels.float().div_(255)
    mixing = {name: active[name] for name in MIXING if name in active}
    if mixing:
        place = torch.rand((), generator=generator).item()
        for name, given in mixing.items():
            probability = given.pop("probability", 1.0)
            if 0 <= place < probability:
                if name == "snap_mix":
                    given["attention"] = _needed(attention)
                return MIXING[name](images, targets, generator, **given)
            place -= probability
    return images, targets


def _needed(attention: Attention | None) -> Attention:
    if attention is None:
        raise GdaError("augment.snap_mix: this model gives no class activation maps; use cut_mix, or another model")
    return attention
