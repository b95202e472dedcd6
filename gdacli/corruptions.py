"""The 15 corruptions of CIFAR-10-C and ImageNet-C, at 5 severities, for images of one's own.

They follow the published code with its constants (`corruption_constants`); where they deviate:

- `frost` draws its texture; the published code cuts it from five photographs, which are not ours to ship.
- Values are rounded to the nearest of 256 levels, not down.
- `zoom_blur` and `snow` zoom by whole pixels as published, which also shifts a little, but below 32 pixels exactly.
- Sides up to 64 take CIFAR-10-C's constants, longer ones ImageNet-C's. Lengths in pixels grow and shrink with the side
  from 32 or 224, where they are as published, but not to less than 1 or 0.5 times that.

So errors compare between the models of one run, not with those on the published files.

No package was fit: imagecorruptions (last release 2020) and imagecorruptions-imaug bring OpenCV, scikit-image and
numba, have ImageNet-C's constants alone and take no generator.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from gdacli.corruption_constants import CIFAR, IMAGENET, LARGEST_CIFAR_SIDE, LENGTHS
from gdacli.textures import frost_texture, plasma

Rng = np.random.Generator
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_SIDE = 8
LUMA = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]


def corrupt_batch(images: np.ndarray, name: str, severity: int, rngs: Sequence[Rng]) -> np.ndarray:
    """Corrupt images, each as if it were alone; returns uint8 [N, 3, S, S].

    Args:
        images: uint8 [N, 3, S, S], S >= 8.
        name: one of CORRUPTIONS.
        severity: 1 (mild) to 5.
        rngs: [N], each image's own, for example of `derive_seed("corrupt", seed, key, name, severity)`: what becomes of
            it depends on nothing else.

    Raises:
        ValueError: another name, severity, shape or number of generators.

    Source: Hendrycks and Dietterich 2019, section 4 and its code; deviations: see the module.
    """
    if name not in _TABLE:
        raise ValueError(f"found corruption {name}; allowed: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"found severity {severity}; allowed: 1 to 5")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"found {images.dtype} {list(images.shape)}; allowed: uint8 [N, 3, S, S]")
    if images.shape[3] < SMALLEST_SIDE or len(rngs) != len(images):
        raise ValueError(
            f"found {len(rngs)} generators for {list(images.shape)}; allowed: one per image, sides of 8 and more"
        )
    constants = scaled_constants(name, severity, images.shape[3])
    pixels = images.astype(np.float32) / 255
    out = _TABLE[name](pixels, constants, rngs)
    return np.rint(out.clip(0, 1) * 255).astype(np.uint8)


def scaled_constants(name: str, severity: int, side: int) -> tuple[float, ...]:
    """Return the constants of a corruption for images of `side` pixels, lengths scaled to it."""
    chosen = CIFAR if side <= LARGEST_CIFAR_SIDE else IMAGENET
    scale = side / chosen.reference_side
    constants = chosen.severities[name][severity - 1]
    if name == "elastic_transform":  # published as shares of the side, which are never too small
        return tuple(value * scale for value in constants)
    lengths = LENGTHS.get(name, ())
    scale = max(scale, chosen.smallest_scale)
    return tuple(value * scale if place in lengths else value for place, value in enumerate(constants))


def _each(rngs: Sequence[Rng], draw: Callable[[Rng], np.ndarray]) -> np.ndarray:
    return np.stack([draw(rng) for rng in rngs])


def _gaussian_noise(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    return x + c[0] * _each(rngs, lambda rng: rng.standard_normal(x.shape[1:], np.float32))


def _shot_noise(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    return np.stack([rng.poisson(each * c[0]) for each, rng in zip(x, rngs, strict=True)]) / c[0]


def _impulse_noise(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    hit = _each(rngs, lambda rng: rng.random(x.shape[1:], np.float32))
    salt = _each(rngs, lambda rng: rng.random(x.shape[1:], np.float32) < 0.5)  # values, not pixels: a hit is coloured
    return np.where(hit < c[0], salt, x)


def _defocus_blur(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    radius, sigma = c
    reach = max(8, int(radius))
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    edge = np.exp(-(taps**2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, edge / edge.sum(), axis, mode="mirror")
    disk /= disk.sum()
    used = np.flatnonzero(disk.sum(0) > 1e-12)
    trimmed = disk[used[0] : used[-1] + 1, used[0] : used[-1] + 1].astype(np.float32)
    return ndimage.correlate(x, trimmed[None, None], mode="mirror")


def _glass_blur(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    """Move pixels about, between two blurs.

    The published code means to swap two pixels but copies one over the other (an assignment of views); so does this.
    """
    sigma, reach, times = c[0], max(1, round(c[1])), int(c[2])
    side = x.shape[3]
    places = np.arange(side - reach, reach, -1)
    start, images = np.tile(np.arange(side * side)[:, None], (1, len(x))), np.arange(len(x))

    def draw(rng: Rng) -> np.ndarray:
        moves = rng.integers(-reach, reach, (2, times, len(places) ** 2))
        return moves[0] * side + moves[1]

    moves = _each(rngs, draw)
    flat = (places[:, None] * side + places).ravel()
    for repeat in range(times):
        origins = np.ascontiguousarray(flat[:, None] + moves[:, repeat].T)
        for place, origin in zip(flat.tolist(), origins, strict=True):  # each sees what those before it did
            start[place] = start[origin, images]
    blurred = _gaussian_blur(x, sigma).reshape(len(x), 3, -1)
    moved = np.take_along_axis(blurred, start.T[:, None], axis=2).reshape(x.shape)
    return _gaussian_blur(moved, sigma)


def _gaussian_blur(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest")


def _motion_blur(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    moved = [_move(each, c[0], c[1], rng.uniform(-45, 45)) for each, rng in zip(x, rngs, strict=True)]
    return np.stack(moved)


def _move(x: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Average [C, S, S] along one direction, the weights half a Gaussian.

    Source: ImageMagick's MotionBlurImage: 2 ceil(radius) + 1 taps at whole pixels, the edge's pixels repeated.
    """
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    downs, rights = (
        np.ceil(steps * share - 0.5).astype(int) for share in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle)))
    )
    side, rim = x.shape[2], len(steps)
    padded = np.pad(x, ((0, 0), (rim, rim), (rim, rim)), mode="edge")
    out = np.zeros_like(x)
    for weight, down, right in zip(weights.astype(np.float32), downs + rim, rights + rim, strict=True):
        out += weight * padded[:, down : down + side, right : right + side]
    return out


def _zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge [..., S, S] about its centre, linearly interpolated, and cut it to its size."""
    weights = _zoom_weights(x.shape[-1], factor).astype(np.float32)
    return weights @ x @ weights.T


def _zoom_weights(side: int, factor: float) -> np.ndarray:
    """Return the matrix [S, S] that enlarges a line: of the published cut and `ndimage.zoom`, both in whole pixels."""
    if side < CIFAR.reference_side:  # whole pixels would be no change
        centre = (side - 1) / 2
        origin = centre + (np.arange(side) - centre) / factor
        return (1 - abs(origin[:, None] - np.arange(side))).clip(0)
    kept = int(np.ceil(side / factor))
    top = (side - kept) // 2
    enlarged = ndimage.zoom(np.eye(side)[top : top + kept], (factor, 1), order=1)
    trim = (len(enlarged) - side) // 2
    return enlarged[trim : trim + side]


def _zoom_blur(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    factors = np.arange(1, c[0], c[1])
    return (x + sum(_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def _snow(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    mean, sd, factor, threshold, radius, sigma, own = c

    def fall(rng: Rng) -> np.ndarray:
        flakes = _zoom(rng.normal(mean, sd, (1, *x.shape[2:])).astype(np.float32), factor)
        return _move(np.where(flakes < threshold, 0, flakes).clip(0, 1), radius, sigma, rng.uniform(-135, -45))

    layer = _each(rngs, fall)
    grey = (x * LUMA).sum(1, keepdims=True)
    whitened = own * x + (1 - own) * np.maximum(x, grey * 1.5 + 0.5)
    return whitened + layer + layer[..., ::-1, ::-1]


def _frost(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    """Lay a drawn frost texture over the image: see `textures.frost_texture`, a deviation."""
    return c[0] * x + c[1] * _each(rngs, lambda rng: frost_texture(x.shape[3], rng))


def _fog(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    weight, decay = c
    largest = x.max(axis=(1, 2, 3), keepdims=True)
    clouds = _each(rngs, lambda rng: plasma(x.shape[3], decay, rng))[:, None]
    return (x + weight * clouds) * largest / (largest + weight)


def _brightness(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    """Add to HSV's value: the channels grow in proportion, so that hue and saturation stay; black turns grey."""
    value = x.max(axis=1, keepdims=True)
    raised = np.minimum(value + c[0], 1)
    return np.where(value > 0, x * raised / np.maximum(value, 1e-6), raised)


def _contrast(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    means = x.mean(axis=(2, 3), keepdims=True)
    return (x - means) * c[0] + means


def _elastic_transform(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    return np.stack([_bend(each, c, rng) for each, rng in zip(x, rngs, strict=True)])


def _bend(x: np.ndarray, c: tuple[float, ...], rng: Rng) -> np.ndarray:
    """Map three points of [3, S, S] to shifted ones, affinely, then shift each pixel by a smooth random field."""
    distance, sigma, corner_shift = c
    side = x.shape[2]
    centre, arm = side // 2, side // 3
    before = np.array([[centre + arm, centre + arm], [centre + arm, centre - arm], [centre - arm, centre - arm]], float)
    after = before + rng.uniform(-corner_shift, corner_shift, before.shape)
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)  # [3, 2], from (x, y, 1) of the outcome
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1)  # (x, y)
    origin = grid @ back[:2] + back[2]
    warped = _sample(x, origin, "mirror")
    if not distance:
        return warped
    field = [ndimage.gaussian_filter(rng.uniform(-1, 1, (side, side)), sigma, truncate=3) for _ in range(2)]
    return _sample(warped, grid + distance * np.stack(field, axis=-1), "reflect")


def _sample(x: np.ndarray, origin: np.ndarray, border: str) -> np.ndarray:
    where = origin[..., ::-1].transpose(2, 0, 1)  # (x, y) to (row, column)
    return np.stack([ndimage.map_coordinates(channel, where, order=1, mode=border) for channel in x])


def _pixelate(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    side = x.shape[3]
    small = int(side * c[0])

    def shrink(picture: Image.Image) -> Image.Image:
        box = Image.Resampling.BOX
        return picture.resize((small, small), box).resize((side, side), box)

    return _as_pictures(x, shrink)


def _jpeg_compression(x: np.ndarray, c: tuple[float, ...], rngs: Sequence[Rng]) -> np.ndarray:
    def compress(picture: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=int(c[0]))
        return Image.open(stream)

    return _as_pictures(x, compress)


def _as_pictures(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    pictures = np.rint(x * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    changed = [np.asarray(change(Image.fromarray(np.ascontiguousarray(each)))) for each in pictures]
    return np.stack(changed).transpose(0, 3, 1, 2) / np.float32(255)


_TABLE: dict[str, Callable[[np.ndarray, tuple[float, ...], Sequence[Rng]], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
CORRUPTIONS = tuple(_TABLE)
