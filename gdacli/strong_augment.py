"""RandAugment on float images, random per image and differentiable: the strong view of a consistency loss.

Grey, solarize and equalize are Kornia's. Its RandAugment draws one operation per batch, so the drawing is ours, and so
are the operations that work on many images at once for less: one warp for all that is geometric, one blend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from kornia.enhance import equalize, solarize

from gdacli.auto_augment import draw_operations, rand_space
from gdacli.image_operations import GEOMETRY, warp


@dataclass(frozen=True)
class Drawn:
    """What `draw` drew, on the CPU.

    Attributes:
        ops: int64 [num_ops, B], places in `rand_space`.
        magnitudes: float32 [num_ops, B], with their signs, in the units of `rand_space` (0 to 255 for a threshold).
    """

    ops: torch.Tensor
    magnitudes: torch.Tensor

    def __getitem__(self, images: slice) -> "Drawn":
        """Return the share of some of the images."""
        return Drawn(self.ops[:, images], self.magnitudes[:, images])


def draw(
    count: int,
    generator: torch.Generator,
    *,
    num_ops: int,
    magnitude: int,
    num_magnitude_bins: int = 31,
    image_size: int,
) -> Drawn:
    """Draw `num_ops` operations for each of `count` images, with replacement, all equally likely.

    Args:
        count: images of the whole batch, of which each process takes its slice.
        generator: on the CPU.
        num_ops: operations per image, one after the other.
        magnitude: bin of the magnitude, < num_magnitude_bins.
        num_magnitude_bins: >= 2.
        image_size: pixels of a side; translations grow with it.

    Source: as `auto_augment.rand_augment`, from the same operations and magnitudes.
    """
    space = rand_space(num_magnitude_bins, image_size, image_size)
    bins = torch.full((count,), magnitude)
    drawn = [draw_operations(space, bins, generator) for _ in range(num_ops)]
    if not drawn:
        return Drawn(torch.empty(0, count, dtype=torch.int64), torch.empty(0, count))
    return Drawn(torch.stack([ops for ops, _ in drawn]), torch.stack([m for _, m in drawn]).float())


def strongly_augmented(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Apply to each image its drawn operations, one after the other.

    Args:
        images: float32 [B, 3, H, W] in [0, 1], anywhere.
        drawn: for these B images.

    Returns:
        float32 [B, 3, H, W] in [0, 1], the same under autocast. Differentiable in the images: posterize and equalize,
        whose derivative is 0 or nowhere defined, pass the gradient on as if they changed nothing (straight through);
        a pixel that another operation clips, or moves out of the image, has none, as it should.

    Source: Yamaguchi et al., meta generative regularization, section 4.1: T of Eq. 5 is RandAugment (Cubuk et al. 2020)
        by Kornia, settings not stated. Deviations from Kornia's: each image has operations of its own, drawn with
        replacement; the space is torchvision's, without invert and solarize_add and with larger translations;
        posterize and equalize pass a gradient (Kornia's have none), and round to 8 bits where Kornia cuts.
    """
    places = torch.arange(len(images))  # of the images: from one operation to the next they stay grouped
    with torch.autocast(images.device.type, enabled=False):
        for ops, magnitudes in zip(drawn.ops, drawn.magnitudes, strict=True):
            order = torch.argsort(ops, stable=True)
            grouped = _Permuted.apply(images, places[order])
            images = _of_groups(grouped, torch.bincount(ops, minlength=len(NAMES)), magnitudes[order])
            places = torch.argsort(order)
        return _Permuted.apply(images, places)


def _of_groups(images: torch.Tensor, counts: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """Apply each operation of NAMES to the next `counts` images."""
    per_family = [part.tolist() for part in counts.split([len(names) for names, _ in FAMILIES])]
    sizes = [sum(part) for part in per_family]
    shares = zip(FAMILIES, images.split(sizes), magnitudes.split(sizes), per_family, strict=True)
    return torch.cat([apply(part, m, of_each) if len(part) else part for (_, apply), part, m, of_each in shares])


class _Permuted(torch.autograd.Function):
    """The images in another order; the gradient is put back by a gather, where that of an index is a slow scatter."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        ctx.order = order
        return images.index_select(0, order.to(images.device, non_blocking=True))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient.index_select(0, torch.argsort(ctx.order).to(gradient.device, non_blocking=True)), None


class _StraightThrough(torch.autograd.Function):
    """Some values with the gradient of the images they were made from."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return values

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def _warped(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    parts = zip(GEOMETRY.values(), m.double().split(counts), strict=True)
    sources = torch.cat([matrices(part, *images.shape[2:]) for matrices, part in parts if len(part)])
    warped = warp(images, sources, "bilinear")
    return _StraightThrough.apply(warped, warped.detach().clamp_(0, 1))  # weights may sum to a rounding more than 1


def _identity(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    return images


def _blended(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    parts = zip(BLENDS.values(), images.split(counts), strict=True)
    differences = torch.cat([difference(part) if len(part) else part for difference, part in parts])
    return torch.addcmul(images, _sent(m, images)[:, None, None, None], differences).clamp(0, 1)


def _from_black(images: torch.Tensor) -> torch.Tensor:
    return images


def _from_grey(images: torch.Tensor) -> torch.Tensor:
    return images - rgb_to_grayscale(images)


def _from_mean(images: torch.Tensor) -> torch.Tensor:
    return images - rgb_to_grayscale(images).mean((1, 2, 3), keepdim=True)


def _from_blur(images: torch.Tensor) -> torch.Tensor:
    if min(images.shape[2:]) <= 2:
        return torch.zeros_like(images)
    # the blur is [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13, and the outermost pixels stay; sums of rows, then of columns,
    # cost a third of kornia's convolution and its gradient
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return F.pad((9 * images[..., 1:-1, 1:-1] - sums) / 13, (1, 1, 1, 1))


BLENDS = {"brightness": _from_black, "color": _from_grey, "contrast": _from_mean, "sharpness": _from_blur}
"""Per name: images => their difference from the images that they are blended with, of which magnitude -1 takes all."""


def _posterized(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    step = _sent(2 ** (8 - m), images)[:, None, None, None]
    return _StraightThrough.apply(images, images.detach().mul(255).round_().div_(step).floor_().mul_(step).div_(255))


def _solarized(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    return solarize(images, _sent(m, images) / 255)


def _auto_contrasted(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    low, high = images.flatten(2).min(2).values, images.flatten(2).max(2).values
    # less than half a step of 8 bits stays, as one colour does: its stretching has a gradient without bound
    flat = high.detach() - low.detach() < 0.5 / 255
    low, span = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 1)
    return (images - low[..., None, None]) / span[..., None, None]


def _equalized(images: torch.Tensor, m: torch.Tensor, counts: list[int]) -> torch.Tensor:
    levels = images.detach().mul(255).round_().div_(255)
    nan = levels.isnan()  # stays, so that a loss shows it; kornia's look-up would stop the device
    return _StraightThrough.apply(images, equalize(levels.masked_fill(nan, 0)).masked_fill_(nan, torch.nan))


def _sent(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return values.to(images.device, images.dtype, non_blocking=True)


FAMILIES: tuple[tuple[tuple[str, ...], Callable[[torch.Tensor, torch.Tensor, list[int]], torch.Tensor]], ...] = (
    (tuple(GEOMETRY), _warped),
    (("identity",), _identity),
    (tuple(BLENDS), _blended),
    (("posterize",), _posterized),
    (("solarize",), _solarized),
    (("auto_contrast",), _auto_contrasted),
    (("equalize",), _equalized),
)
"""Operations that are done as one: float images [n, 3, H, W], magnitudes [n] on the CPU, images of each => images."""
NAMES = tuple(name for names, _ in FAMILIES for name in names)
"""In the order of `rand_space`."""
