"""Augmentations that mix each image of a batch, and its label, with another one: mixup, CutMix, SnapMix."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Batch = tuple[torch.Tensor, torch.Tensor]
Attention = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(images float [B, 3, H, W] in [0, 1], targets [B, C]) => class activation maps [B, h, w], higher = more of the class.

It decides itself in which mode the model runs, and must leave it as it was.
"""


def mixup(
    images: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    *,
    alpha: float = 1.0,
    label_alpha: float | None = None,
) -> Batch:
    """Average each image with another one of the batch, and its label with the other's.

    Args:
        images: float [B, 3, H, W] in [0, 1].
        targets: [B, C] soft labels.
        generator: on the CPU.
        alpha: an image's own weight is drawn from Beta(alpha, alpha).
        label_alpha: the label's own weight is drawn from Beta(label_alpha, label_alpha), independent of the image's
            but for the side of 1/2 on which it lies; None takes the image's weight.

    Source: Zhang et al. 2018, with a weight per image (the paper: per batch); Zou et al. 2023 (The Benefits of Mixup
    for Feature Learning) for two weights. Its abstract does not say how the second is drawn: that both favour the
    same image is ours.
    """
    partner = _partners(images, generator)
    weight = label_weight = _beta(alpha, len(images), generator)
    if label_alpha is not None:
        drawn = _beta(label_alpha, len(images), generator)
        label_weight = torch.where((weight < 0.5) == (drawn < 0.5), drawn, 1 - drawn)
    own = weight.float().to(images.device, non_blocking=True)[:, None, None, None]
    mixed = torch.lerp(images.index_select(0, partner), images, own)
    return mixed, _mix_targets(targets, partner, label_weight, 1 - label_weight)


def cut_mix(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, *, alpha: float = 1.0) -> Batch:
    """Replace a box of each image by the same box of another one; labels are weighted by the area.

    Args:
        images: float [B, 3, H, W] in [0, 1].
        targets: [B, C] soft labels.
        generator: on the CPU.
        alpha: the area that stays is drawn from Beta(alpha, alpha); what of the box falls outside the image is cut off.

    Source: Yun et al. 2019, with a box per image (the paper: per batch).
    """
    partner = _partners(images, generator)
    box = _boxes(alpha, images, generator)
    mixed = torch.lerp(images, images.index_select(0, partner), _inside(box, images)[:, None])
    share = (_area(box) / images[0, 0].numel()).double()
    return mixed, _mix_targets(targets, partner, 1 - share, share)


def snap_mix(
    images: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    *,
    attention: Attention,
    alpha: float = 5.0,
) -> Batch:
    """Replace a box of each image by a box of another size of another image; labels are weighted by what is in them.

    An image's label keeps the share of its attention outside its box; the other's label gets the share of the other's
    attention inside the box that was taken. The weights of a row need not sum to 1. Where a box is empty the image and
    its label stay. A map without contrast says nothing about where: it counts by area.

    Args:
        images: float [B, 3, H, W] in [0, 1].
        targets: [B, C] soft labels.
        generator: on the CPU.
        attention: the class activation maps of the images for their targets.
        alpha: the area outside each of the two boxes is drawn from Beta(alpha, alpha).

    Source: Huang et al. 2021 (SnapMix), with boxes per image (the public code: per batch); that code counts pairs of
    one class twice, which the paper does not say: here they count once.
    """
    height, width = images.shape[2:]
    partner = _partners(images, generator)
    into, taken = _boxes(alpha, images, generator), _boxes(alpha, images, generator)
    empty = (_area(into) == 0) | (_area(taken) == 0)
    into, taken = into.masked_fill(empty, 0), taken.masked_fill(empty, 0)
    with torch.no_grad():
        maps = _shares(attention(images, targets).float(), height, width)
    own = 1 - (maps * _inside(into, images)).sum((1, 2))
    other = (maps.index_select(0, partner) * _inside(taken, images)).sum((1, 2))
    patches = _resized(images.index_select(0, partner), taken, into)
    mixed = torch.lerp(images, patches, _inside(into, images)[:, None]).clamp_(0, 1)
    return mixed, _mix_targets(targets, partner, own, other)


def _partners(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)


def _beta(alpha: float, size: int, generator: torch.Generator) -> torch.Tensor:
    return torch._sample_dirichlet(torch.full((size, 2), alpha, dtype=torch.float64), generator)[:, 0]


def _boxes(alpha: float, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a box per image: int64 [4, B] on the CPU, top, bottom, left, right, the second and the last outside."""
    sides = (1 - _beta(alpha, len(images), generator)).sqrt()
    edges = []
    for size in images.shape[2:]:
        centre = torch.randint(size, (len(images),), generator=generator)
        half = (sides * size).long() // 2
        edges += [(centre - half).clamp(min=0), (centre + half).clamp(max=size)]
    return torch.stack(edges)


def _area(box: torch.Tensor) -> torch.Tensor:
    top, bottom, left, right = box
    return (bottom - top) * (right - left)


def _inside(box: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return 1 inside the boxes and 0 outside, float [B, H, W] on the device of the images."""
    top, bottom, left, right = box.to(images.device, non_blocking=True)[..., None]
    y, x = (torch.arange(size, device=images.device) for size in images.shape[2:])
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows.float()[:, :, None] * columns.float()[:, None, :]


def _resized(images: torch.Tensor, taken: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """Return images that hold, inside the boxes `into`, what is in the boxes `taken`, corner on corner, bilinear."""
    coordinates = []
    for axis, size in enumerate(images.shape[2:]):
        (first, end), (to_first, to_end) = taken[2 * axis : 2 * axis + 2], into[2 * axis : 2 * axis + 2]
        scale = (end - first - 1) / (to_end - to_first - 1).clamp(min=1)
        places = first[:, None] + (torch.arange(size) - to_first[:, None]) * scale[:, None]
        coordinates.append(((2 * places + 1) / size - 1).float().to(images.device, non_blocking=True))
    y, x = coordinates
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _shares(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return per pixel its share of the attention, float [B, height, width], each of sum 1."""
    maps = F.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    maps = maps - maps.amin((1, 2), keepdim=True)
    total = maps.sum((1, 2), keepdim=True)
    return torch.where(total > 0, maps / total.clamp(min=torch.finfo(maps.dtype).tiny), 1 / (height * width))


def _mix_targets(targets: torch.Tensor, partner: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    own, other = (weight.to(targets, non_blocking=True)[:, None] for weight in (own, other))
    return own * targets + other * targets.index_select(0, partner)
