"""Pixels on their way between files and models: range and size."""

import torch
import torch.nn.functional as F


def to_model(images: torch.Tensor) -> torch.Tensor:
    """Uint8 [B, 3, H, W] => float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def from_model(images: torch.Tensor, size: int) -> torch.Tensor:
    """Float [B, 3, n, n] in about [-1, 1] => uint8 [B, 3, size, size]."""
    return ((resize(images.clamp(-1, 1), size) + 1) * 127.5).round().to(torch.uint8)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Scale images, float [B, 3, H, W] in [-1, 1], to `size` pixels of a side: bicubic, antialiased, clipped again."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)
