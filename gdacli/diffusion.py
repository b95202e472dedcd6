"""Noise schedules and solvers: from a strength to the timesteps it means, and from noise back to an image.

Notation: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, timesteps t = 0 .. T-1; clean images have
alpha_bar 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NUM_TRAIN_TIMESTEPS = 1000


def num_denoising_steps(strength: float, num_inference_steps: int) -> int:
    """Return how many steps a strength takes when strength 1 takes `num_inference_steps`; 0 means: too small.

    >>> num_denoising_steps(0.5, 100), num_denoising_steps(0.29, 100), num_denoising_steps(0.001, 25)
    (50, 29, 0)
    """
    return math.floor(strength * num_inference_steps + 0.5)


def start_timestep(strength: float) -> int:
    """Return the timestep to which a strength (the paper's t*/T) noises an image: 1 is T - 1, almost pure noise.

    >>> start_timestep(1.0), start_timestep(0.5)
    (999, 499)
    """
    return max(0, round(strength * NUM_TRAIN_TIMESTEPS) - 1)


def timestep_grid(strength: float, num_inference_steps: int) -> list[int]:
    """Return the decreasing timesteps at which the model is evaluated, the first being exactly `start_timestep`.

    They are evenly spaced and end one spacing above the clean image ("trailing" spacing: Lin et al. 2024, Table 2),
    so that a strength means the same noise for every solver and number of steps.

    Raises:
        ValueError: the strength means no step.

    >>> timestep_grid(0.5, 10)
    [499, 399, 299, 199, 99]
    """
    steps = num_denoising_steps(strength, num_inference_steps)
    if steps == 0:
        raise ValueError(f"strength {strength} of {num_inference_steps} steps is no denoising step")
    top = start_timestep(strength) + 1
    return [round(top * (steps - i) / steps) - 1 for i in range(steps)]


def cosine_alpha_bars() -> list[float]:
    """Return alpha_bar of the T timesteps of the cosine schedule.

    Source: Nichol and Dhariwal 2021, Eq. 17, betas clipped at 0.999; diffusers calls it `squaredcos_cap_v2`.
    """

    def level(t: float) -> float:
        return math.cos((t / NUM_TRAIN_TIMESTEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha_bars, product = [], 1.0
    for t in range(NUM_TRAIN_TIMESTEPS):
        product *= 1 - min(1 - level(t + 1) / level(t), 0.999)
        alpha_bars.append(product)
    return alpha_bars


def add_noise(x: torch.Tensor, alpha_bar: float, noise: torch.Tensor) -> torch.Tensor:
    """Noise clean images [B, ...] to a level: sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise."""
    return math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * noise


def denoise(
    x: torch.Tensor,
    alpha_bars: Sequence[float],
    predict_clean: Callable[[torch.Tensor, int], torch.Tensor],
    draw_noise: Callable[[], torch.Tensor],
    solver: str,
) -> torch.Tensor:
    """Go from x at the first noise level down to a clean image.

    Args:
        x: [B, ...], noised to `alpha_bars[0]`.
        alpha_bars: increasing noise levels of the grid, below 1; the clean image is added as the last.
        predict_clean: (x, index in the grid) -> the model's x_0, one evaluation.
        draw_noise: standard normal noise of x's shape, a fresh one each call (`ddpm`).
        solver: a key of SOLVERS.

    Returns:
        [B, ...], the clean images.
    """
    step, previous = SOLVERS[solver], None
    levels = [*alpha_bars, 1.0]
    for index, (now, then) in enumerate(pairwise(levels)):
        clean = predict_clean(x, index)
        before = (previous, levels[index - 1]) if previous is not None else None
        x, previous = step(x, clean, now, then, before, draw_noise), clean
    return x


def _ddpm(x, clean, now, then, before, draw_noise):
    """Ancestral sampling: Ho et al. 2020, Eq. 7, on a respaced grid; sigma^2 is the posterior variance."""
    alpha = now / then
    mean = math.sqrt(then) * (1 - alpha) / (1 - now) * clean + math.sqrt(alpha) * (1 - then) / (1 - now) * x
    return mean if then == 1 else mean + math.sqrt((1 - alpha) * (1 - then) / (1 - now)) * draw_noise()


def _ddim(x, clean, now, then, before, draw_noise):
    """Deterministic DDIM: Song et al. 2021, Eq. 12 with sigma = 0."""
    eps = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
    return math.sqrt(then) * clean + math.sqrt(1 - then) * eps


def _dpmsolver_2m(x, clean, now, then, before, draw_noise):
    """DPM-Solver++(2M): Lu et al. 2022, Algorithm 2; the first and the last step are of first order."""
    if then == 1:
        return clean
    width = _log_snr(then) - _log_snr(now)
    target = clean
    if before is not None:
        ratio = (_log_snr(now) - _log_snr(before[1])) / width
        target = clean + (clean - before[0]) / (2 * ratio)
    return math.sqrt((1 - then) / (1 - now)) * x - math.sqrt(then) * math.expm1(-width) * target


def _log_snr(alpha_bar: float) -> float:
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


SOLVERS: dict[str, Callable[..., torch.Tensor]] = {"ddpm": _ddpm, "ddim": _ddim, "dpmsolver++": _dpmsolver_2m}
