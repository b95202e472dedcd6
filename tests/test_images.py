import io

import numpy as np
import pytest
from conftest import encoded
from PIL import Image

from gdacli.images import BadImageError, decode, decode_array, encode, encode_png, read_header, resize_to

RED = np.full((8, 6, 3), (200, 30, 10), np.uint8)


def sixteen_bit_rgb_png() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + struct.pack(">HHH", 200 * 257, 30 * 257, 10 * 257) * 6
    header = struct.pack(">IIBBBBB", 6, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")


def rotated_jpeg() -> bytes:
    image = Image.fromarray(RED)
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif, quality=95)


def transparent_palette_png() -> bytes:
    image = Image.fromarray(RED).convert("P", palette=Image.Palette.ADAPTIVE)
    return encoded(image, transparency=0)


LOOKS = {
    "grey": (encoded(np.full((8, 6), 77, np.uint8)), (77, 77, 77), (6, 8)),
    "grey 16 bit": (encoded(Image.fromarray(np.full((8, 6), 77 * 257, np.uint16))), (77, 77, 77), (6, 8)),
    "rgb 16 bit": (sixteen_bit_rgb_png(), (200, 30, 10), (6, 8)),
    "one bit": (encoded(Image.new("1", (6, 8), 1)), (255, 255, 255), (6, 8)),
    "palette": (encoded(Image.fromarray(RED).convert("P", palette=Image.Palette.ADAPTIVE)), (200, 30, 10), (6, 8)),
    "transparent palette": (transparent_palette_png(), (255, 255, 255), (6, 8)),
    "alpha, seen through": (encoded(Image.new("RGBA", (6, 8), (0, 0, 0, 0))), (255, 255, 255), (6, 8)),
    "alpha, half": (encoded(Image.new("RGBA", (6, 8), (0, 0, 0, 128))), (127, 127, 127), (6, 8)),
    "grey with alpha": (encoded(Image.new("LA", (6, 8), (40, 255))), (40, 40, 40), (6, 8)),
    "exif rotated": (rotated_jpeg(), (200, 30, 10), (8, 6)),
    "bmp": (encoded(RED, "BMP"), (200, 30, 10), (6, 8)),
    "gif": (encoded(RED, "GIF"), (200, 30, 10), (6, 8)),
    "tiff": (encoded(RED, "TIFF"), (200, 30, 10), (6, 8)),
    "cmyk jpeg": (encoded(Image.new("CMYK", (6, 8), (0, 0, 0, 128)), "JPEG"), (127, 127, 127), (6, 8)),
}


@pytest.mark.parametrize("name", LOOKS)
def test_images_come_out_as_a_person_sees_them(name):
    content, colour, size = LOOKS[name]
    image = decode(content)
    assert image.mode == "RGB"
    assert image.size == size
    assert np.abs(np.asarray(image).astype(int).mean((0, 1)) - colour).max() <= 3
    assert not read_header(content).plain


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_plain_images_are_recognised_by_their_header(kind):
    header = read_header(encoded(RED, kind))
    assert (header.format, header.size, header.plain) == (kind, (6, 8), True)


def test_every_truncation_is_noticed():
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP"):
        content = encoded(noise, kind)
        for length in range(len(content)):
            with pytest.raises(BadImageError):
                decode(content[:length])


def test_what_is_no_image_is_said(tmp_path):
    with pytest.raises(BadImageError, match="not an image that can be read"):
        decode(b"hello")
    with pytest.raises(BadImageError, match="not an image that can be read"):
        read_header(b"")


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(BadImageError, match="decompression bomb"):
        decode(encoded(RED))


LAYOUTS = {
    "contiguous": lambda image: image,
    "channels last": lambda image: np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1),
    "mirrored": lambda image: image[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
    "a part": lambda image: np.pad(image, ((0, 0), (2, 1), (1, 3)))[:, 2:-1, 1:-3],
    "read-only": lambda image: np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (7, 5), (1, 40), (40, 1), (64, 64)])
def test_lossless_formats_round_trip_whatever_the_layout(size, layout):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, *size), dtype=np.uint8)
    for image in (noise, np.zeros_like(noise), np.full_like(noise, 255)):
        for made, expected in (
            (encode_png(LAYOUTS[layout](image)), encode_png(image)),
            (encode(LAYOUTS[layout](image), "png", 50), encode_png(image)),
            (encode(LAYOUTS[layout](image), "webp", 100), encode(image, "webp", 100)),
        ):
            assert made == expected
            assert (decode_array(made) == image).all()
            assert decode_array(made).flags.c_contiguous
            assert read_header(made).plain


@pytest.mark.parametrize(("format", "quality"), [("png", 1), ("webp", 100), ("webp", 90), ("jpg", 95), ("jpg", 75)])
def test_encoders_are_deterministic_also_in_threads(format, quality):
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, 48, 40), dtype=np.uint8) for _ in range(16)]
    first = [encode(image, format, quality) for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda image: encode(image, format, quality), images)) == first
    assert read_header(first[0]).format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[format]


@pytest.mark.parametrize(
    ("format", "quality", "levels"), [("webp", 95, 8), ("webp", 50, 16), ("jpg", 95, 2), ("jpg", 50, 16)]
)
def test_lossy_formats_come_near(format, quality, levels):
    y, x = np.mgrid[:48, :40]
    image = np.stack([4 * y + x, 255 - 3 * y, 5 * x]).astype(np.uint8)
    made = encode(image, format, quality)
    assert np.abs(decode_array(made).astype(int) - image).mean() < levels


def test_jpegs_of_high_quality_keep_colours_at_full_resolution():
    stripes = np.zeros((3, 16, 16), np.uint8)
    stripes[0, :, ::2], stripes[2, :, 1::2] = 255, 255
    error = {
        quality: np.abs(decode_array(encode(stripes, "jpg", quality)).astype(int) - stripes).mean()
        for quality in (89, 90)
    }
    assert error[90] < 5 < 50 < error[89]


def test_what_is_no_image_is_not_encoded():
    for wrong in (
        np.zeros((3, 4, 4)),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((3, 0, 4), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"an image is RGB, uint8 \[3, H, W\]"):
            encode_png(wrong)
    with pytest.raises(ValueError, match="an image is RGB"):
        encode_png(Image.new("L", (4, 4)))
    for quality in (0, 101):
        with pytest.raises(ValueError, match="allowed is 1 to 100"):
            encode(np.zeros((3, 4, 4), np.uint8), "webp", quality)


def test_png_holds_no_metadata():
    tagged = Image.fromarray(RED)
    tagged.info["comment"] = "who knows"
    assert b"who knows" not in encode_png(tagged)
    assert Image.open(io.BytesIO(encode_png(tagged))).info == {}


@pytest.mark.parametrize(("how", "corner"), [("crop", 255), ("squash", 255), ("pad", 0)])
def test_resizing_makes_squares(how, corner):
    image = resize_to(Image.new("RGB", (40, 20), "white"), 10, how)
    assert image.size == (10, 10)
    assert image.getpixel((0, 0)) == (corner,) * 3
    assert image.getpixel((5, 5)) == (255,) * 3
