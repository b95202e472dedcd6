"""What of images is looked at to find copies: their digests, their pixels as grey squares, their features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gdacli.console import progress
from gdacli.duplicates import SQUARE, grey_square, pixel_digest
from gdacli.errors import GdaError
from gdacli.image_index import ImageIndex, References
from gdacli.images import BadImageError, decode_array
from gdacli.rng import uniform

DIGEST_BYTES = 32
PIXELS_VERSION = 1
"""Raise it when `read_pixels` gives other digests or squares of the same images."""

MOST_LOOKED_UP, MOST_TRAIN = 20_000, 200_000
"""Near copies of at most so many images, of the split as of the pool, are looked for among at most so many train
images. The time grows with the product: minutes for these, a day for all of a million among a million."""


@dataclass(frozen=True)
class ImageSet:
    """What of N images is compared, see `image_set`."""

    keys: Sequence[str]
    digests: np.ndarray
    """uint8 [N, 32]."""
    squares: np.ndarray
    """uint8 [N, S, S], of the same S for all sets."""
    drawn: np.ndarray
    """int64 [n], ascending: the rows among which near copies are looked for."""
    features: np.ndarray
    """float32 [n, D] of these rows, unit length, of the same model for all sets."""

    @property
    def drawn_squares(self) -> np.ndarray:
        """The squares of the drawn rows, uint8 [n, S, S]; no copy if these are all."""
        return self.squares if len(self.drawn) == len(self.squares) else self.squares[self.drawn]


def image_set(
    keys: Sequence[str], features: np.ndarray, digests: np.ndarray, squares: np.ndarray, most: int
) -> ImageSet:
    """Prepare N images for `find_copies`; near copies are looked for among at most `most` of them.

    Which ones are drawn hangs on their keys alone, by a hash, and so not on their order.

    Args:
        keys: [N], distinct.
        features: float [N, D] of any length; only the drawn rows are kept.
        digests, squares: of `read_pixels`.
        most: MOST_TRAIN of the train images, MOST_LOOKED_UP of others.
    """
    drawn = np.arange(len(keys))
    if len(keys) > most:
        drawn = np.sort(np.argsort([uniform("copies", key) for key in keys], kind="stable")[:most])
    chosen = features[drawn].astype(np.float32, copy=False)
    lengths = np.sqrt(np.einsum("nd,nd->n", chosen, chosen))  # norm() would hold another array of this size
    chosen /= np.maximum(lengths, 1e-12)[:, None]
    return ImageSet(keys, digests, squares, drawn, chosen)


def compared_side(image_size: tuple[int, int] | None) -> int:
    """Return the side in pixels at which images are compared; `image_size` is None where sizes vary."""
    return SQUARE if image_size is None else min(SQUARE, *image_size)


def read_pixels(references: References, side: int, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Decode each image once; returns digests uint8 [N, 32] and grey squares uint8 [N, side, side].

    Args:
        references: of N images of any size.
        side: of `compared_side`, the same for all sets.
        title: of the progress.

    Raises:
        GdaError: a shard or an image is missing, another than named, or does not decode.
    """
    index = ImageIndex(references)
    digests = np.empty((len(index), DIGEST_BYTES), np.uint8)
    squares = np.empty((len(index), side, side), np.uint8)
    with progress(title, len(index), "images") as advance:
        for row in range(len(index)):
            try:
                image = decode_array(index.encoded(row))
            except BadImageError as error:
                raise GdaError(f"{index.name(row)} does not decode ({error}): pull or make it again") from error
            digests[row] = np.frombuffer(pixel_digest(image), np.uint8)
            squares[row] = grey_square(image, side)
            advance()
    return digests, squares
