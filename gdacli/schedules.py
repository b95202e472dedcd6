"""Noise schedules: from a strength to the noise levels at which a model is evaluated.

Every process is written as x = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps. A flow-matching model's
(1 - sigma) x_0 + sigma eps is the same line, longer by sqrt((1 - sigma)^2 + sigma^2): the model's input is scaled, and
one solver serves all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

NUM_TRAIN_TIMESTEPS = 1000

NoiseSchedule = Literal["native", "glide"]
"""What a strength means: the model's own timestep, or the noise of GLIDE's timestep of that strength."""

# GLIDE's 1,000 timesteps respaced to 100: index i is timestep i x 999 / 99.
_GLIDE_STEPS = 100


@dataclass(frozen=True, slots=True)
class Level:
    """A noise level at which the model is evaluated."""

    time: float
    """What the model is told: an int for timesteps; 1000 sigma for flow matching."""
    alpha_bar: float
    """In [0, 1)."""
    scale: float = 1.0
    """Of the model's input over x."""


class Schedule(Protocol):
    """A model's noise process."""

    def levels(self, strength: float, num_inference_steps: int) -> list[Level]:
        """Return the levels from the start of a strength in (0, 1] downwards; the clean image is not among them.

        Raises:
            ValueError: the strength means no step.
        """


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


def glide_start(strength: float) -> float:
    """Return GLIDE's timestep of a strength, not rounded: with N = 100 strength, that of index N - 1 of its 100.

    >>> glide_start(1.0), round(glide_start(0.5), 2)
    (999.0, 494.45)
    """
    return max(0.0, (_GLIDE_STEPS * strength - 1) * (NUM_TRAIN_TIMESTEPS - 1) / (_GLIDE_STEPS - 1))


def glide_alpha_bar(strength: float) -> float:
    """Return the noise level of a strength in GLIDE, the paper's generator.

    >>> [round(glide_alpha_bar(strength), 3) for strength in (0.1, 0.4, 0.5, 0.7, 0.8)]
    [0.976, 0.655, 0.502, 0.207, 0.096]
    """
    return cosine_alpha_bars()[round(glide_start(strength))]


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


@dataclass(frozen=True)
class Timesteps:
    """The levels of a model that knows T timesteps."""

    alpha_bars: Sequence[float]
    """Of the timesteps 0 .. T-1, decreasing."""
    noise_schedule: NoiseSchedule

    def levels(self, strength: float, num_inference_steps: int) -> list[Level]:
        """Space the timesteps evenly from the start, ending one spacing above the clean image.

        Source: "trailing" spacing, Lin et al. 2024, Table 2; so a strength means the same noise for every solver and
        number of steps.
        """
        steps = _at_least_one(strength, num_inference_steps)
        top = self._start(strength) + 1
        grid = [max(0, round(top * (steps - i) / steps) - 1) for i in range(steps)]
        return [Level(t, self.alpha_bars[t]) for t in dict.fromkeys(grid)]

    def _start(self, strength: float) -> int:
        if self.noise_schedule == "native":
            return start_timestep(strength)
        wanted = glide_alpha_bar(strength)
        return min(range(len(self.alpha_bars)), key=lambda t: abs(self.alpha_bars[t] - wanted))


@dataclass(frozen=True)
class GlideTimesteps:
    """GLIDE's own levels: with 100 steps exactly those of its `timestep_respacing="100"`."""

    def levels(self, strength: float, num_inference_steps: int) -> list[Level]:
        """Space the timesteps evenly from `glide_start` down to 0, the first and the last included."""
        steps = _at_least_one(strength, num_inference_steps)
        top, alpha_bars = glide_start(strength), cosine_alpha_bars()
        grid = [round(top * i / (steps - 1)) for i in reversed(range(steps))] if steps > 1 else [round(top)]
        return [Level(t, alpha_bars[t]) for t in dict.fromkeys(grid)]


@dataclass(frozen=True)
class Flow:
    """The levels of a flow-matching model: x = (1 - sigma) x_0 + sigma eps."""

    shift: Callable[[float], float]
    """The model's time shift: from evenly spaced u in (0, 1] to sigma in (0, 1]; increasing."""
    noise_schedule: NoiseSchedule

    def levels(self, strength: float, num_inference_steps: int) -> list[Level]:
        """Space u evenly from the start, ending one spacing above the clean image.

        `native`: u starts at the strength. `glide`: where sigma leaves as much signal to the noise as GLIDE's level.
        """
        steps = _at_least_one(strength, num_inference_steps)
        top = self._start(strength)
        return [self._level(self.shift(top * ((steps - i) / steps))) for i in range(steps)]

    def _start(self, strength: float) -> float:
        if self.noise_schedule == "native":
            return strength
        level = glide_alpha_bar(strength)
        sigma = 1 / (1 + math.sqrt(level / (1 - level)))
        low, high = 0.0, 1.0
        for _ in range(60):  # bisection: the shift is increasing, and some families give no inverse
            middle = (low + high) / 2
            low, high = (middle, high) if self.shift(middle) < sigma else (low, middle)
        return high

    def _level(self, sigma: float) -> Level:
        square = (1 - sigma) ** 2 + sigma**2
        return Level(NUM_TRAIN_TIMESTEPS * sigma, (1 - sigma) ** 2 / square, math.sqrt(square))


def _at_least_one(strength: float, num_inference_steps: int) -> int:
    steps = num_denoising_steps(strength, num_inference_steps)
    if steps == 0:
        raise ValueError(f"strength {strength} of {num_inference_steps} steps is no denoising step")
    return steps
