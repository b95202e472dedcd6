"""Random textures that corruptions lay over images: clouds and frost."""

import numpy as np

TINT = np.array([-0.07, 0.01, 0.06], np.float32)[:, None, None]


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Draw clouds by the diamond-square algorithm on a torus; returns float32 [side, side], cut from one in [0, 1].

    Args:
        side: in pixels; drawn at the next power of two.
        decay: the random part shrinks by decay^2 from one scale to the next finer one: lower = rougher.
        rng: of the texture.

    Source: `plasma_fractal` of hendrycks/robustness, whose amplitude is the square of its parameter too.
    """
    size = 1 << (side - 1).bit_length()
    heights = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half, amplitude = step // 2, wibble**2
        noise = rng.uniform(-amplitude, amplitude, (3, size // step, size // step))
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        middles = (pairs + np.roll(pairs, -1, 1)) / 4 + noise[0]
        heights[half::step, half::step] = middles
        above = middles + np.roll(middles, 1, 0)
        left = middles + np.roll(middles, 1, 1)
        heights[::step, half::step] = (above + corners + np.roll(corners, -1, 1)) / 4 + noise[1]
        heights[half::step, ::step] = (left + pairs) / 4 + noise[2]
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return (heights / heights.max())[:side, :side].astype(np.float32)


def frost_texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw bluish ice: bright ridges where clouds cross their middle, and grain; float32 [3, side, side] in [0, 1].

    Brightness and contrast are drawn from the range of the five photographs of the published code (measured: means 0.48
    to 0.82, standard deviations 0.05 to 0.14, blue 0.13 above red), which it stands in for.

    Args:
        side: in pixels.
        rng: of the texture.
    """
    mean, sd = rng.uniform(0.48, 0.82), rng.uniform(0.05, 0.14)
    ridges = 1 - abs(2 * plasma(side, 1.3, rng) - 1)
    ice = 0.8 * (ridges - ridges.mean()) / ridges.std() + 0.6 * rng.standard_normal((side, side))  # variance 1
    return (mean + sd * ice + TINT).clip(0, 1).astype(np.float32)
