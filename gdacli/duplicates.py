"""Copies: images of one set that are, exactly or nearly, images of another or of the same set.

Neighbours propose and pixels confirm. The nearest neighbours by features and by coarse pixels (flipped or not) are
cheap to find among billions of pairs, but a model puts all red cars side by side; so a pair counts only if its pixels
agree, better than those of the train set's unrelated neighbours.

Found are copies with another encoding, brightness or contrast, shifted or cropped by up to 1/16 of the side, or flipped
left to right. Rotated, strongly cropped or recoloured ones are not, nor is another photo of the same thing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from gdacli.random_crops import centre_box

SQUARE = 32
"""Largest side in pixels at which images are compared."""
NUM_BY_FEATURES, NUM_BY_PIXELS = 5, 2
"""Neighbours that are looked at, per image."""
FENCE = 4.0
"""How many standard deviations, of the log distance, a copy is nearer than the usual nearest neighbour."""
LEAST, MOST = 0.93, 0.999
"""A calibrated threshold is moved into these: below, no pair is called a copy, and above, every one is."""
FEW_IMAGES, UNCALIBRATED = 100, 0.99
"""Fewer train images than this tell no spread; then this is the threshold."""

_CALIBRATED_ON = 10_000
_SMALLEST_DISTANCE = 1e-6
_THIRD_QUARTILE = 0.6745  # of the standard normal distribution
_COARSE = 8
_ROWS_A, _ROWS_B, _PAIRS = 1024, 16_384, 256


@dataclass(frozen=True)
class Pairs:
    """P pairs of rows, the most similar first."""

    rows_a: np.ndarray
    """int64 [P]; between two sets a row of a occurs once, with its most similar one of b."""
    rows_b: np.ndarray
    """int64 [P]. Within one set it is the larger of the two rows."""
    similarity: np.ndarray
    """float32 [P], correlation of the aligned pixels: 1 = equal but for brightness and contrast."""
    mirrored: np.ndarray
    """bool [P]: one of the two, flipped left to right, agrees better."""

    def __len__(self) -> int:
        return len(self.rows_a)


def pixel_digest(image: np.ndarray) -> bytes:
    """Return the SHA-256 of an image's size and pixels, uint8 [3, H, W]: the same for any lossless encoding of it."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()


def exact_pairs(digests_a: Sequence[bytes], digests_b: Sequence[bytes] | None = None) -> Pairs:
    """Pair each row of a with the first row of b that has the same digest.

    Args:
        digests_a: [N], of `pixel_digest`.
        digests_b: [M]; None: within a, where each copy is paired with the first of its kind, which is `rows_a`'s lesser
            row. A third copy gives a second pair, so that here a row of a may occur again.
    """
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests_a if digests_b is None else digests_b):
        first.setdefault(digest, row)
    found = [(row, first[digest]) for row, digest in enumerate(digests_a) if digest in first]
    if digests_b is None:
        found = [(original, copy) for copy, original in found if original < copy]
    rows = np.array(found, np.int64).reshape(-1, 2)
    return Pairs(rows[:, 0], rows[:, 1], np.ones(len(rows), np.float32), np.zeros(len(rows), bool))


def grey_square(image: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image to what the pixel check compares: its centred square in grey, uint8 [side, side].

    Args:
        image: uint8 [3, H, W].
        side: of all sets to compare, from 4; SQUARE, or the images' own shorter side if that is less.
    """
    height, width = image.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L")
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX, centre_box(width, height)))


def aligned_correlation(
    squares_a: np.ndarray, squares_b: np.ndarray, rows_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate pairs of images, each at the best of some small shifts, and flipped or not.

    The middle of a is laid over b, up to 1/16 of the side off its place; so a shift, a crop of that much, a change of
    brightness or contrast and another encoding cost little. Rotations and stronger crops are not found.

    Args:
        squares_a: uint8 [P, S, S], of `grey_square`.
        squares_b: uint8 [M, S, S].
        rows_b: int64 [P], the row of b that goes with each of a.

    Returns:
        float32 [P] in [-1, 1], less the less the pixels of one vary, and 0 where they do not; and bool [P]: the flipped
        one agrees better.
    """
    side = squares_a.shape[-1]
    reach = max(1, side // 16)
    size = (
        side - 2 * reach
    )  # as the least length below: a standard deviation of one grey level, under which it is noise
    best, mirrored = np.zeros(len(squares_a), np.float32), np.zeros(len(squares_a), bool)
    for start in range(0, len(squares_a), _PAIRS):
        part = slice(start, start + _PAIRS)
        middle = torch.from_numpy(squares_a[part].astype(np.float32))[:, reach:-reach, reach:-reach]
        middle = F.normalize((middle - middle.mean((1, 2), keepdim=True)).flatten(1), dim=1, eps=size)
        middle = middle.view(-1, 1, size, size)
        kernels = torch.cat([middle, middle.flip(3)], 1)
        other = torch.from_numpy(squares_b[rows_b[part]].astype(np.float32))
        other = other - other.mean((1, 2), keepdim=True)
        products = F.conv2d(other[None], kernels.view(-1, 1, size, size), groups=len(other))[0]
        squares = _window_sums(other.square(), size) - _window_sums(other, size).square() / size**2
        lengths = squares.clamp(min=0).sqrt().clamp(min=size)
        both = (products.view(len(other), 2, *lengths.shape[1:]) / lengths[:, None]).amax((2, 3))
        best[part] = both.amax(1).clamp(-1, 1).numpy()
        mirrored[part] = (both[:, 1] > both[:, 0]).numpy()
    return best, mirrored


def _window_sums(images: torch.Tensor, size: int) -> torch.Tensor:
    """Sum every window of size x size: [P, S, S] => [P, S - size + 1, S - size + 1]."""
    for dim in (1, 2):
        sums = images.cumsum(dim)
        first = torch.zeros_like(sums.narrow(dim, 0, 1))
        sums = torch.cat([first, sums], dim)
        count = sums.shape[dim] - size
        images = sums.narrow(dim, size, count) - sums.narrow(dim, 0, count)
    return images


def nearest(
    features_a: np.ndarray, features_b: np.ndarray, num: int, without: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of b for each row of a, in blocks: memory grows with N x num, not with N x M.

    Args:
        features_a: float [N, D], unit length; may be a memory map.
        features_b: float [M, D], unit length.
        num: neighbours; fewer where b is smaller.
        without: int64 [N], a row of b that comes last; -1 is none.

    Returns:
        cosine similarity float32 [N, num], the highest first (-inf: left out), and rows int64 [N, num].
    """
    num = min(num, len(features_b))
    similarity, rows = np.empty((len(features_a), num), np.float32), np.empty((len(features_a), num), np.int64)
    for start in range(0, len(features_a), _ROWS_A):
        block = torch.from_numpy(np.asarray(features_a[start : start + _ROWS_A], np.float32))
        left_out = None if without is None else torch.from_numpy(without[start : start + _ROWS_A])
        kept, places = torch.empty(len(block), 0), torch.empty(len(block), 0, dtype=torch.int64)
        for first in range(0, len(features_b), _ROWS_B):
            cosine = block @ torch.from_numpy(np.asarray(features_b[first : first + _ROWS_B], np.float32)).T
            if left_out is not None:
                inside = ((left_out >= first) & (left_out < first + cosine.shape[1])).nonzero()[:, 0]
                cosine[inside, left_out[inside] - first] = -torch.inf
            values, found = cosine.topk(min(num, cosine.shape[1]), dim=1)
            kept, places = torch.cat([kept, values], 1), torch.cat([places, found + first], 1)
            kept, order = kept.topk(min(num, kept.shape[1]), dim=1)
            places = places.gather(1, order)
        similarity[start : start + len(block)], rows[start : start + len(block)] = kept.numpy(), places.numpy()
    return similarity, rows


def calibrate(features: np.ndarray, squares: np.ndarray, *, seed: int = 0) -> float:
    """Learn from the train images how alike neighbours are that are no copies; returns the least similarity of a copy.

    The distance, 1 - correlation, of each image's most similar neighbour is about log-normal. The threshold lies FENCE
    standard deviations below the median of its logarithm; the deviation is taken from the upper half, between median
    and third quartile, since copies lie in the lower one. Where a tenth of the images have copies it hardly moves;
    where a third have, it becomes stricter. It is kept between LEAST and MOST, and is UNCALIBRATED for fewer than
    FEW_IMAGES images.

    Args:
        features: float [N, D], unit length.
        squares: uint8 [N, S, S], of `grey_square`.
        seed: of the 10,000 images whose neighbours are looked for, where there are more.
    """
    if len(features) < FEW_IMAGES:
        return UNCALIBRATED
    rows = np.arange(len(features))
    if len(rows) > _CALIBRATED_ON:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _CALIBRATED_ON, replace=False))
    _, value, _ = _most_similar(features[rows], squares[rows], features, squares, rows)
    distance = np.log(np.maximum(1 - value.astype(float), _SMALLEST_DISTANCE))
    middle, upper = np.quantile(distance, (0.5, 0.75))
    spread = (upper - middle) / _THIRD_QUARTILE
    return float(np.clip(1 - np.exp(middle - FENCE * spread), LEAST, MOST))


def near_pairs(
    features_a: np.ndarray,
    squares_a: np.ndarray,
    threshold: float,
    features_b: np.ndarray,
    squares_b: np.ndarray,
    *,
    without: np.ndarray | None = None,
) -> Pairs:
    """Find the near-duplicates between two sets; exact ones and mirrored ones are among them, but for plain surfaces.

    Args:
        features_a: float [N, D], unit length.
        squares_a: uint8 [N, S, S], of `grey_square`.
        threshold: of `calibrate` on the train set, in (0, 1].
        features_b: float [M, D], unit length, of the same model.
        squares_b: uint8 [M, S, S].
        without: int64 [N], a row of b that a row of a is not to be paired with; -1 is none.
    """
    none = np.full(len(features_a), -1)
    b, value, mirrored = _most_similar(
        features_a, squares_a, features_b, squares_b, none if without is None else without
    )
    return _sorted(np.arange(len(b)), b, value, mirrored, value >= threshold)


def near_pairs_within(features: np.ndarray, squares: np.ndarray, threshold: float) -> Pairs:
    """Find the near-duplicates within a set, each image with its most similar other one, no pair twice.

    Args:
        features: float [N, D], unit length.
        squares: uint8 [N, S, S], of `grey_square`.
        threshold: of `calibrate`.
    """
    a = np.arange(len(features))
    b, value, mirrored = _most_similar(features, squares, features, squares, a)
    kept = value >= threshold
    kept &= ~((b < a) & kept[b] & (b[b] == a))  # found from its other end
    return _sorted(np.minimum(a, b), np.maximum(a, b), value, mirrored, kept)


def _sorted(a: np.ndarray, b: np.ndarray, value: np.ndarray, mirrored: np.ndarray, kept: np.ndarray) -> Pairs:
    order = np.flatnonzero(kept)
    order = order[np.argsort(-value[order], kind="stable")]
    return Pairs(a[order], b[order], value[order], mirrored[order])


def _most_similar(
    features_a: np.ndarray, squares_a: np.ndarray, features_b: np.ndarray, squares_b: np.ndarray, without: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each row of a the row of b that agrees best, its correlation (-1: there is none), and if mirrored."""
    proposed = [nearest(features_a, features_b, NUM_BY_FEATURES, without)[1]]
    coarse_b = _coarse(squares_b)
    for turned in (squares_a, squares_a[:, :, ::-1]):
        proposed += [nearest(_coarse(each), coarse_b, NUM_BY_PIXELS, without)[1] for each in _shifted(turned)]
    rows = np.concatenate(proposed, axis=1)
    best = np.zeros(len(rows), np.int64)
    value, mirrored = np.full(len(rows), -1, np.float32), np.zeros(len(rows), bool)
    for column in rows.T:
        found, flipped = aligned_correlation(squares_a, squares_b, column)
        found[column == without] = -1  # where there is no other row
        better = found > value
        best[better], value[better], mirrored[better] = column[better], found[better], flipped[better]
    return best, value, mirrored


def _shifted(squares: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the squares, and of small ones, whose fields are no larger than a shift, shifted ones too."""
    side = squares.shape[-1]
    if side >= 2 * _COARSE:
        yield squares
        return
    padded = np.pad(squares, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for top in range(3):
        for left in range(3):
            yield padded[:, top : top + side, left : left + side]


def _coarse(squares: np.ndarray) -> np.ndarray:
    """Return the squares in 8 x 8 fields, less their mean and of unit length: float32 [N, 64]."""
    fields = np.empty((len(squares), _COARSE**2), np.float32)
    for start in range(0, len(squares), _ROWS_A):
        part = torch.from_numpy(squares[start : start + _ROWS_A].astype(np.float32))[:, None]
        small = F.adaptive_avg_pool2d(part, _COARSE).flatten(1)
        centred = small - small.mean(1, keepdim=True)
        fields[start : start + len(part)] = F.normalize(centred, dim=1, eps=_COARSE).numpy()
    return fields
