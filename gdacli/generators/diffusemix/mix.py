"""From source, edit, mask and fractal to the mixed image."""

import torch


def mix(
    sources: torch.Tensor, edited: torch.Tensor, shares: torch.Tensor, fractals: torch.Tensor, fractal_weight: float
) -> torch.Tensor:
    """Concatenate sources and edits by their masks, then blend in fractals.

    Args:
        sources: float [B, 3, H, W] in [0, 255].
        edited: likewise.
        shares: of the edit in each pixel, float [B, 1, H, W] in [0, 1].
        fractals: as the sources.
        fractal_weight: share of the fractal in each pixel, in [0, 1).

    Returns:
        uint8 [B, 3, H, W].

    Source: DiffuseMix (Islam et al. 2024), section 3, the hybrid and the blended image; its code cuts decimals off,
    twice, where this rounds once.
    """
    hybrids = (1 - shares) * sources + shares * edited
    blended = (1 - fractal_weight) * hybrids + fractal_weight * fractals
    return blended.round().clamp(0, 255).to(torch.uint8)
