"""Augmentation that gradients go through, of what a discriminator sees, so that it cannot learn few images by heart.

Source: Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", all three kinds (color,
translation, cutout) with the paper's ranges. What is moved in or cut out is grey.
"""

import torch

_SHIFT, _CUTOUT = 1 / 8, 1 / 2  # shares of a side


def diff_augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change colours, move and cut out, of each image at random.

    Args:
        images: float32 [B, 3, H, W] in [-1, 1].
        generator: on the CPU, so that all devices draw the same.

    Returns:
        float32 [B, 3, H, W], differentiable in the images; colours may leave [-1, 1].
    """
    size, side = len(images), images.shape[2:]
    brightness, saturation, contrast = torch.rand(3, size, 1, 1, 1, generator=generator).to(images.device)
    shifts = torch.rand(2, size, generator=generator).to(images.device)
    centres = torch.rand(2, size, generator=generator).to(images.device)
    coloured = color(images, brightness - 0.5, 2 * saturation, contrast + 0.5)
    furthest = [int(each * _SHIFT + 0.5) for each in side]
    moved = translate(
        coloured, *((share * (2 * far + 1)).long() - far for share, far in zip(shifts, furthest, strict=True))
    )
    hidden = [int(each * _CUTOUT + 0.5) for each in side]
    starts = [
        (share * (each + 1 - cut % 2)).long() - cut // 2 for share, each, cut in zip(centres, side, hidden, strict=True)
    ]
    return cut_out(moved, *starts, *hidden)


def color(
    images: torch.Tensor, brightness: torch.Tensor, saturation: torch.Tensor, contrast: torch.Tensor
) -> torch.Tensor:
    """Add brightness, then scale what differs from an image's grey, then what differs from its mean; each [B, 1, 1, 1].

    0, 1 and 1 change nothing.
    """
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + contrast * (images - mean)


def translate(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Move images [B, C, H, W] by pixels, int64 [B]; zeros come in."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def cut_out(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Set a part of images [B, C, H, W] to zero: from row and column, int64 [B], which may lie outside."""
    rows = torch.arange(images.shape[2], device=images.device) - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - left[:, None]
    hidden = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    return images * ~hidden[:, None]
