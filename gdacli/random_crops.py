"""Random resized crops: which part of an image a training sees, and its pixels at the wanted size."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from gdacli.images import load_shrunk, open_upright

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

_ATTEMPTS = 10
DRAWS = 2 * _ATTEMPTS + 2
"""Random numbers that one crop may use."""

_PIXELS_LEFT = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size only if that leaves so many pixels per wanted pixel and side."""


def uniforms(seed: int, places: Sequence[int], draws: int = DRAWS) -> np.ndarray:
    """Draw numbers for some places of a long random sequence, whichever other places are asked for.

    Args:
        seed: of the sequence, in [0, 2**64).
        places: int, from 0.
        draws: numbers per place.

    Returns:
        float64 [len(places), draws] in [0, 1).

    Source: SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 17), started
    at `seed` and read at positions `place * draws` and after.
    """
    position = np.asarray(places, np.uint64)[:, None] * np.uint64(draws) + np.arange(1, draws + 1, dtype=np.uint64)
    z: Any = np.uint64(seed) + position * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return ((z ^ z >> np.uint64(31)) >> np.uint64(11)) * 2.0**-53


def random_box(
    width: int, height: int, scale: Sequence[float], ratio: Sequence[float], numbers: Sequence[float]
) -> Box:
    """Choose the part of an image that a random resized crop shows.

    Args:
        width, height: of the image in pixels.
        scale: lowest and highest share of the image's area.
        ratio: lowest and highest width over height of the part; its logarithm is uniform.
        numbers: DRAWS of them, uniform in [0, 1).

    Source: Szegedy et al. 2014 (arXiv 1409.4842, section 6) as in `torchvision.transforms.RandomResizedCrop`: ten
    attempts, then the largest centred part of an allowed ratio. Same distribution, other random numbers.
    """
    lowest, highest = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(_ATTEMPTS):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * numbers[2 * attempt])
        aspect = math.exp(lowest + (highest - lowest) * numbers[2 * attempt + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(numbers[-2] * (width - w + 1)), int(numbers[-1] * (height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def centre_box(width: int, height: int) -> Box:
    """Return the largest centred square: resizing it is resizing the shorter side and cutting out the centre."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def resized_part(encoded: bytes, size: int, choose: Callable[[int, int], Box]) -> torch.Tensor:
    """Decode an image and resize a part of it, bilinear and antialiased as in Pillow; what has the size is not touched.

    A JPEG much larger than needed is decoded at a half, a quarter or an eighth of its size (libjpeg's scaled inverse
    DCT), as long as twice the wanted pixels are left on each side. Corners stay where they are, in fractions of a
    pixel; but the antialiasing filter starts from means over 2, 4 or 8 pixels, which blurs a little more: in a photo a
    value moves by less than 1 of 255 on average.

    Args:
        encoded: an image file.
        size: side of the result in pixels.
        choose: maps width and height to the part.

    Returns:
        uint8 [3, size, size].

    Raises:
        BadImageError: the bytes do not decode.
    """
    image = open_upright(encoded)
    width, height = image.size
    box = choose(width, height)
    image = load_shrunk(image, min(box[2] - box[0], box[3] - box[1]) // (_PIXELS_LEFT * size))
    if image.size != (width, height):
        times = round(width / image.width)  # 2, 4 or 8: not exactly the ratio of the sizes, which are rounded up
        left, top, right, bottom = (place / times for place in box)
        shrunk = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        return torch.from_numpy(np.array(shrunk)).permute(2, 0, 1)
    part = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1)
    if part.shape[1:] == (size, size):
        return part
    return F.interpolate(part[None], (size, size), mode="bilinear", antialias=True)[0]
