"""TrivialAugment, RandAugment and AugMix on batches of uint8 images, with torchvision's spaces and integers.

torchvision draws one operation per call, so per image only where a loader calls it so; kornia draws one per batch.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch

from gdacli.image_operations import apply_operations

Batch = tuple[torch.Tensor, torch.Tensor]
Space = Mapping[str, tuple[torch.Tensor, bool]]
"""Per operation the magnitudes, [num_bins] or [1] where it has none, and whether a sign is drawn; GEOMETRY first."""

NONE = torch.zeros(1)


def trivial_augment(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, *, num_magnitude_bins: int = 31
) -> Batch:
    """Apply one operation of one magnitude to each image, all equally likely.

    Args:
        images: uint8 [B, 3, H, W].
        targets: [B, C], returned as they are.
        generator: on the CPU.
        num_magnitude_bins: magnitudes per operation, >= 2.

    Source: Mueller and Hutter 2021, the wide space; torchvision's TrivialAugmentWide on tensors, nearest neighbour.
    """
    space = trivial_space(num_magnitude_bins)
    bins = torch.randint(num_magnitude_bins, (len(images),), generator=generator)
    return _apply_random(images, space, bins, generator, "nearest"), targets


def rand_augment(
    images: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
) -> Batch:
    """Apply `num_ops` operations of one magnitude to each image, one after the other, all equally likely.

    Args:
        images: uint8 [B, 3, H, W].
        targets: [B, C], returned as they are.
        generator: on the CPU.
        num_ops: operations per image.
        magnitude: bin of the magnitude, < num_magnitude_bins.
        num_magnitude_bins: >= 2.

    Source: Cubuk et al. 2020; torchvision's RandAugment on tensors, nearest neighbour.
    """
    space = rand_space(num_magnitude_bins, *images.shape[2:])
    bins = torch.full((len(images),), magnitude)
    for _ in range(num_ops):
        images = _apply_random(images, space, bins, generator, "nearest")
    return images, targets


def aug_mix(
    images: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    *,
    severity: int = 3,
    mixture_width: int = 3,
    chain_depth: int | None = None,
    alpha: float = 1.0,
    all_ops: bool = True,
) -> Batch:
    """Mix each image with `mixture_width` chains of operations on it.

    Args:
        images: uint8 [B, 3, H, W].
        targets: [B, C], returned as they are.
        generator: on the CPU.
        severity: magnitudes are drawn from the lowest `severity` of 10.
        mixture_width: number of chains.
        chain_depth: operations per chain; None draws 1, 2 or 3 for each.
        alpha: of the Dirichlet and Beta distributions of the weights.
        all_ops: also brightness, color, contrast and sharpness, which overlap with ImageNet-C's corruptions.

    Source: Hendrycks et al. 2020, without its consistency loss; torchvision's AugMix on tensors, bilinear.
    """
    batch, device = len(images), images.device
    space = aug_mix_space(*images.shape[2:], all_ops)
    shares = _dirichlet(alpha, 2, batch, generator)
    weights = torch.cat([shares[:, :1], _dirichlet(alpha, mixture_width, batch, generator) * shares[:, 1:]], 1)
    weights = weights.float().to(device, non_blocking=True)[..., None, None, None]
    if chain_depth is None:
        depths = torch.randint(1, 4, (mixture_width * batch,), generator=generator)
    else:
        depths = torch.full((mixture_width * batch,), chain_depth)
    chains = images.repeat(mixture_width, 1, 1, 1)
    for step in range(3 if chain_depth is None else chain_depth):
        bins = torch.randint(severity, (len(chains),), generator=generator)
        chains = _apply_random(chains, space, bins, generator, "bilinear", depths > step)
    mixed = weights[:, 0] * images
    for number, chain in enumerate(chains.split(batch), start=1):
        mixed += weights[:, number] * chain
    return mixed.to(torch.uint8), targets


@lru_cache
def trivial_space(num_bins: int) -> Space:
    """Return the operations of TrivialAugment and their magnitudes."""
    return {
        "shear_x": (torch.linspace(0.0, 0.99, num_bins), True),
        "shear_y": (torch.linspace(0.0, 0.99, num_bins), True),
        "translate_x": (torch.linspace(0.0, 32.0, num_bins), True),
        "translate_y": (torch.linspace(0.0, 32.0, num_bins), True),
        "rotate": (torch.linspace(0.0, 135.0, num_bins), True),
        "identity": (NONE, False),
        **{name: (torch.linspace(0.0, 0.99, num_bins), True) for name in BLENDS},
        "posterize": (_bits(8, 6, num_bins), False),
        "solarize": (torch.linspace(255.0, 0.0, num_bins), False),
        "auto_contrast": (NONE, False),
        "equalize": (NONE, False),
    }


@lru_cache
def rand_space(num_bins: int, height: int, width: int) -> Space:
    """Return the operations of RandAugment and their magnitudes."""
    return {
        "shear_x": (torch.linspace(0.0, 0.3, num_bins), True),
        "shear_y": (torch.linspace(0.0, 0.3, num_bins), True),
        "translate_x": (torch.linspace(0.0, 150.0 / 331.0 * width, num_bins), True),
        "translate_y": (torch.linspace(0.0, 150.0 / 331.0 * height, num_bins), True),
        "rotate": (torch.linspace(0.0, 30.0, num_bins), True),
        "identity": (NONE, False),
        **{name: (torch.linspace(0.0, 0.9, num_bins), True) for name in BLENDS},
        "posterize": (_bits(8, 4, num_bins), False),
        "solarize": (torch.linspace(255.0, 0.0, num_bins), False),
        "auto_contrast": (NONE, False),
        "equalize": (NONE, False),
    }


@lru_cache
def aug_mix_space(height: int, width: int, all_ops: bool) -> Space:
    """Return the operations of AugMix and their 10 magnitudes."""
    blends = BLENDS if all_ops else ()
    return {
        "shear_x": (torch.linspace(0.0, 0.3, 10), True),
        "shear_y": (torch.linspace(0.0, 0.3, 10), True),
        "translate_x": (torch.linspace(0.0, width / 3.0, 10), True),
        "translate_y": (torch.linspace(0.0, height / 3.0, 10), True),
        "rotate": (torch.linspace(0.0, 30.0, 10), True),
        **{name: (torch.linspace(0.0, 0.9, 10), True) for name in blends},
        "posterize": (_bits(4, 4, 10), False),
        "solarize": (torch.linspace(255.0, 0.0, 10), False),
        "auto_contrast": (NONE, False),
        "equalize": (NONE, False),
    }


BLENDS = ("brightness", "color", "contrast", "sharpness")


def _bits(most: int, span: int, num_bins: int) -> torch.Tensor:
    return most - (torch.arange(num_bins) / ((num_bins - 1) / span)).round()


def draw_operations(space: Space, bins: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw an operation and a sign for each image.

    Args:
        space: operations and magnitudes.
        bins: int64 [n], each image's bin of the magnitude; an operation without magnitudes takes none.
        generator: on the CPU.

    Returns:
        int64 [n], the place of the operation in `space`, and its signed magnitude, float64 [n].
    """
    which = torch.randint(len(space), bins.shape, generator=generator)
    negative = torch.randint(2, bins.shape, generator=generator).bool()
    longest = max(len(magnitudes) for magnitudes, _ in space.values())
    table = torch.stack([magnitudes.expand(longest) for magnitudes, _ in space.values()]).double()
    signed = torch.tensor([signed for _, signed in space.values()])
    magnitudes = table[which, bins]
    return which, torch.where(negative & signed[which], -magnitudes, magnitudes)


def _apply_random(
    images: torch.Tensor,
    space: Space,
    bins: torch.Tensor,
    generator: torch.Generator,
    interpolation: str,
    where: torch.Tensor | None = None,
) -> torch.Tensor:
    which, magnitudes = draw_operations(space, bins, generator)
    names = list(space)
    if where is not None:  # a chain that is at its end
        names.append("identity")
        which = torch.where(where, which, len(names) - 1)
    return apply_operations(images, names, which, magnitudes, interpolation)


def _dirichlet(alpha: float, parts: int, size: int, generator: torch.Generator) -> torch.Tensor:
    return torch._sample_dirichlet(torch.full((size, parts), alpha, dtype=torch.float64), generator)
