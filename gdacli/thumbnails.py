"""Images small enough to stand in a page."""

import base64

import numpy as np
from PIL import Image, ImageOps

from gdacli.images import encode, encode_png

_EVERY_PIXEL_COUNTS = 64
_QUALITY = 85


def thumbnail(image: np.ndarray, largest: int) -> Image.Image:
    """Scale an image down (Lanczos) so that no side exceeds `largest` pixels; a smaller one stays as it is.

    Args:
        image: uint8 [3, H, W].
        largest: in pixels.
    """
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if max(picture.size) <= largest:
        return picture
    return ImageOps.contain(picture, (largest, largest), Image.Resampling.LANCZOS)


def data_uri(image: np.ndarray, largest: int) -> str:
    """Return an image, uint8 [3, H, W], as the `src` of an `<img>` that loads nothing, of at most `largest`² pixels.

    Small ones, which a page enlarges, are PNG; others are WebP, a fifth of its size.
    """
    picture = thumbnail(image, largest)
    if max(picture.size) <= _EVERY_PIXEL_COUNTS:
        return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()
    pixels = np.asarray(picture).transpose(2, 0, 1)
    return "data:image/webp;base64," + base64.b64encode(encode(pixels, "webp", _QUALITY)).decode()
