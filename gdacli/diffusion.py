"""Noise and solvers: from an image to a noise level, and from there back to an image.

Notation: x = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps; clean images have alpha_bar 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_noise(x: torch.Tensor, alpha_bar: float, noise: torch.Tensor) -> torch.Tensor:
    """Noise clean images [B, ...] to a level: sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise."""
    return math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * noise


Estimate = tuple["torch.Tensor", "torch.Tensor | None"]
"""A model's x_0, [B, ...], and where it put the log variance between its bounds: [B, ...], -1 is the lower; or None."""


def denoise(
    x: torch.Tensor,
    alpha_bars: Sequence[float],
    estimate: Callable[[torch.Tensor, int], Estimate],
    draw_noise: Callable[[], torch.Tensor],
    solver: str,
) -> torch.Tensor:
    """Go from x at the first noise level down to a clean image.

    Args:
        x: [B, ...], noised to `alpha_bars[0]`.
        alpha_bars: increasing noise levels of the grid, in [0, 1); the clean image is added as the last.
        estimate: (x, index in the grid) -> what the model makes of it, one evaluation.
        draw_noise: standard normal noise of x's shape, a fresh one each call (`ddpm`, `lcm`).
        solver: a key of SOLVERS.

    Returns:
        [B, ...], the clean images.
    """
    step, previous = SOLVERS[solver], None
    levels = [*alpha_bars, 1.0]
    for index, (now, then) in enumerate(pairwise(levels)):
        clean, variance = estimate(x, index)
        before = (previous, levels[index - 1]) if previous is not None else None
        x, previous = step(x, clean, variance, now, then, before, draw_noise), clean
    return x


def _ddpm(x, clean, variance, now, then, before, draw_noise):
    """Ancestral sampling: Ho et al. 2020, Eq. 7, on a respaced grid; sigma^2 is the posterior variance.

    A learned variance lies between that and beta: Nichol and Dhariwal 2021, Eq. 15. With a fixed one these are also
    the steps of the sampler known as Euler ancestral.
    """
    alpha = now / then
    mean = math.sqrt(then) * (1 - alpha) / (1 - now) * clean + math.sqrt(alpha) * (1 - then) / (1 - now) * x
    if then == 1:
        return mean
    posterior = (1 - alpha) * (1 - then) / (1 - now)
    if variance is None:
        return mean + math.sqrt(posterior) * draw_noise()
    share = (variance + 1) / 2
    log_variance = share * math.log(1 - alpha) + (1 - share) * math.log(posterior)
    return mean + (0.5 * log_variance).exp() * draw_noise()


def _ddim(x, clean, variance, now, then, before, draw_noise):
    """Deterministic DDIM: Song et al. 2021, Eq. 12 with sigma = 0; for flow matching the Euler step."""
    eps = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
    return math.sqrt(then) * clean + math.sqrt(1 - then) * eps


def _dpmsolver_2m(x, clean, variance, now, then, before, draw_noise):
    """DPM-Solver++(2M): Lu et al. 2022, Algorithm 2; the first and the last step are of first order."""
    if then == 1:
        return clean
    width = _log_snr(then) - _log_snr(now)
    target = clean
    if before is not None:
        ratio = (_log_snr(now) - _log_snr(before[1])) / width
        target = clean + (clean - before[0]) / (2 * ratio)
    return math.sqrt((1 - then) / (1 - now)) * x - math.sqrt(then) * math.expm1(-width) * target


def _lcm(x, clean, variance, now, then, before, draw_noise):
    """Latent consistency sampling: Luo et al. 2023, Algorithm 3, noise added to each estimate anew.

    Its boundary factors (c_skip, c_out) are 0 and 1 to 3e-5 from timestep 9 on, and left out.
    """
    return clean if then == 1 else add_noise(clean, then, draw_noise())


def _log_snr(alpha_bar: float) -> float:
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar)) if alpha_bar > 0 else -math.inf


SOLVERS: dict[str, Callable[..., torch.Tensor]] = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmsolver++": _dpmsolver_2m,
    "lcm": _lcm,
}
