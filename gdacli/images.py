"""Decode any image to what a person sees, in RGB; resize; encode."""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import deflate
import numpy as np
from PIL import Image, ImageOps

Resize = Literal["crop", "squash", "pad"]
Format = Literal["png", "webp", "jpg"]

ENCODING = 1
"""Raise it when the same pixels get other bytes: an image's identity holds it."""

EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""The formats that are stored as they came, with the extension that they get in a shard."""

_FORMATS = (*EXTENSIONS, "BMP", "GIF", "TIFF", "PPM")
_EXIF_ORIENTATION = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_RGB = 2
_PNG_FILTER_UP = 2
_PNG_LEVEL = 1
_PNG_BIT_DEPTH_AT = 24
_PNG_END = b"IEND\xaeB`\x82"

# What Pillow raises for malformed files (TRAPS: not only OSError).
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class BadImageError(Exception):
    """Bytes that do not decode to an image; the message says why."""


@dataclass(frozen=True)
class Header:
    """What the header of an encoded image tells without decoding the pixels."""

    format: str
    """Pillow's name: PNG, JPEG..."""
    size: tuple[int, int]
    """(width, height) in pixels as stored, before EXIF rotation."""
    plain: bool
    """True if the stored pixels are already upright 8-bit RGB, so that the bytes can be kept."""


def read_header(encoded: bytes) -> Header:
    """Read the header of an encoded image.

    Raises:
        BadImageError: not an image of a known format.
    """
    with _open(encoded) as image:
        try:
            upright = image.getexif().get(_EXIF_ORIENTATION, 1) == 1
        except _DECODE_ERRORS as error:  # the header of a PNG goes on after the pixels
            raise BadImageError(_reason(error)) from error
        deep = image.format == "PNG" and encoded[_PNG_BIT_DEPTH_AT] == 16
        plain = image.mode == "RGB" and upright and not deep and "transparency" not in image.info
        return Header(format=image.format or "", size=image.size, plain=plain and image.format in EXTENSIONS)


def decode(encoded: bytes) -> Image.Image:
    """Decode to upright 8-bit RGB, as a viewer would show it.

    EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, of an animation the
    first frame is taken.

    Raises:
        BadImageError: the bytes do not decode, or decode short.
    """
    with _open(encoded) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image.load()
                upright = ImageOps.exif_transpose(image)
            if image.format == "PNG" and _PNG_END not in encoded:
                raise ValueError("the PNG is cut short: its end mark is missing")
        except _DECODE_ERRORS as error:
            raise BadImageError(_reason(error)) from error
        return _to_rgb(upright)


def open_upright(encoded: bytes) -> Image.Image:
    """Open an image as `decode` would give it, but leave the pixels of a plain JPEG for `load_shrunk` to decode.

    Raises:
        BadImageError: not an image of a known format; other than a JPEG, also as in `decode`.
    """
    image = _open(encoded)
    lazy = image.format == "JPEG" and image.mode == "RGB" and "exif" not in image.info
    return image if lazy else decode(encoded)


def load_shrunk(image: Image.Image, times: int) -> Image.Image:
    """Decode what `open_upright` left, at a half, a quarter or an eighth of the size if it may be so much smaller.

    Args:
        image: of `open_upright`.
        times: how many times smaller it may be; 1 or less keeps the size. Sides are rounded up.

    Raises:
        BadImageError: the bytes do not decode, or decode short.
    """
    try:
        if times > 1:
            image.draft("RGB", (image.width // times, image.height // times))
        image.load()
    except _DECODE_ERRORS as error:
        raise BadImageError(_reason(error)) from error
    return image


def decode_array(encoded: bytes) -> np.ndarray:
    """Decode to uint8 [3, H, W], contiguous: another memory layout would change the last bits of what is made of it."""
    return np.ascontiguousarray(np.asarray(decode(encoded)).transpose(2, 0, 1))


def resize_to(image: Image.Image, size: int, how: Resize) -> Image.Image:
    """Make an RGB image `size` x `size` pixels, antialiased (Lanczos).

    Args:
        how: `crop` scales the shorter side and cuts the centre, `squash` ignores the aspect ratio, `pad` scales the
            longer side and fills up with black.
    """
    if image.size == (size, size):
        return image
    if how == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if how == "pad":
        return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def encode_png(image: Image.Image | np.ndarray) -> bytes:
    """Encode an RGB image, or uint8 [3, H, W] of any memory layout, as PNG without metadata.

    Every row is stored as its difference from the one above (the filter "Up"), compressed by libdeflate at its fastest
    level; benchmarks/encoders.py compares. The bytes depend on the pixels and libdeflate's version alone.

    Raises:
        ValueError: another mode, dtype or shape.
    """
    pixels = _to_hwc(image)
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_RGB, 0, 0, 0)
    data = deflate.zlib_compress(_filtered_rows(pixels), _PNG_LEVEL)
    return _PNG_SIGNATURE + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", data) + _png_chunk(b"IEND", b"")


def encode(image: np.ndarray, format: Format, quality: int) -> bytes:
    """Encode uint8 [3, H, W] without metadata.

    Args:
        image: RGB.
        format: `png` is lossless and ignores `quality`; `webp` is lossless at quality 100; `jpg` never is.
        quality: 1 to 100; from 90 on, a JPEG keeps the colours at full resolution, which a classifier sees.

    Raises:
        ValueError: another dtype, shape, format or quality.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality {quality}: allowed is 1 to 100")
    if format == "png":
        return encode_png(image)
    buffer = io.BytesIO()
    pixels = Image.fromarray(_to_hwc(image))
    if format == "webp" and quality == 100:  # `quality` is the effort here: 0 is the fastest, of almost the same size
        pixels.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    elif format == "webp":
        pixels.save(buffer, "WEBP", quality=quality, method=2)
    elif format == "jpg":
        pixels.save(buffer, "JPEG", quality=quality, subsampling="4:4:4" if quality >= 90 else "4:2:0")
    else:
        raise ValueError(f"format {format!r}: allowed are png, webp, jpg")
    return buffer.getvalue()


def _to_hwc(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return uint8 [H, W, 3], contiguous."""
    pixels = np.asarray(image)
    if isinstance(image, np.ndarray) and image.ndim == 3:
        pixels = image.transpose(1, 2, 0)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"found {pixels.dtype} {list(pixels.shape)} [H, W, ...]; an image is RGB, uint8 [3, H, W]")
    return np.ascontiguousarray(pixels)


def _filtered_rows(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 [H, 1 + 3 W]: per row of [H, W, 3] the filter "Up" and the differences from the row above."""
    flat = pixels.reshape(len(pixels), -1)
    rows = np.empty((flat.shape[0], 1 + flat.shape[1]), np.uint8)
    rows[:, 0] = _PNG_FILTER_UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    return rows


def _png_chunk(kind: bytes, body: bytes | bytearray) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _open(encoded: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except _DECODE_ERRORS as error:
        raise BadImageError(_reason(error)) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image).astype(np.float64)
        highest = wide.max(initial=0)
        top = (
            65535 if highest > 255 or image.mode.startswith("I;16") else 255 if highest > 1 or image.mode == "I" else 1
        )
        return Image.fromarray((wide.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def _reason(error: BaseException) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image that can be read (" + ", ".join(_FORMATS) + ")"
    return str(error) or type(error).__name__
