"""Images small enough to stand in a page."""

import base64

import numpy as np
from PIL import Image, ImageOps

from gdacli.images import encode_png


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
    """Return an image, uint8 [3, H, W], as the `src` of an `<img>` that loads nothing: a PNG of at most `largest`²."""
    return "data:image/png;base64," + base64.b64encode(encode_png(thumbnail(image, largest))).decode()
