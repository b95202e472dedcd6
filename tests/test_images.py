import io

import numpy as np
import pytest
from conftest import encoded
from PIL import Image

from gdacli.images import BadImageError, decode, decode_array, encode_png, read_header, resize_to

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


def test_png_round_trips_and_holds_no_metadata():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 5, 7), dtype=np.uint8)
    assert (decode_array(encode_png(image)) == image).all()
    assert decode_array(encode_png(image)).flags.c_contiguous
    assert encode_png(image) == encode_png(image.copy())
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
