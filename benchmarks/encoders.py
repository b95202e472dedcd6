"""PNG encoders on photos or photo-like images: images per second of a core, gain by a second thread, bytes.

Medians of interleaved rounds, in processor time; the gain of a second thread needs two idle cores. Encoders whose
package is missing are left out: `pip install opencv-python-headless imagecodecs isal` adds them.
"""

import argparse
import importlib.util
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from gdacli.images import decode, decode_array, encode, encode_png, resize_to

SIZES = {512: 12, 32: 400}
"""Pixels a side -> images."""

Encoder = Callable[[np.ndarray], bytes]


def pillow(**options) -> Encoder:
    def encoder(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "PNG", **options)
        return buffer.getvalue()

    return encoder


def torchvision() -> Encoder:
    import torch
    from torchvision.io import encode_png as theirs

    torch.set_num_threads(1)
    return lambda image: theirs(torch.from_numpy(image), 1).numpy().tobytes()


def opencv() -> Encoder:
    import cv2

    cv2.setNumThreads(1)
    return lambda image: cv2.imencode(".png", image[::-1].transpose(1, 2, 0))[1].tobytes()


def imagecodecs(**options) -> Encoder:
    import imagecodecs

    return lambda image: bytes(imagecodecs.png_encode(np.ascontiguousarray(image.transpose(1, 2, 0)), **options))


def isal() -> Encoder:
    """As ours, with ISA-L in place of libdeflate; its bytes depend on the processor."""
    from isal import isal_zlib

    from gdacli.images import _filtered_rows, _to_hwc

    return lambda image: bytes(isal_zlib.compress(_filtered_rows(_to_hwc(image)), 1))  # without 57 bytes of headers


def encoders() -> dict[str, Encoder]:
    found: dict[str, Encoder] = {
        "ours": encode_png,
        "pillow": pillow(),
        "pillow, level 1": pillow(compress_level=1),
        "pillow, level 1, rle": pillow(compress_level=1, compress_type=3),
    }
    if importlib.util.find_spec("torchvision"):
        found["torchvision, level 1"] = torchvision()
    if importlib.util.find_spec("cv2"):
        found["opencv"] = opencv()
    if importlib.util.find_spec("imagecodecs"):
        found["imagecodecs, level 1"] = imagecodecs(level=1)
        found["imagecodecs, level 1, up, rle"] = imagecodecs(level=1, strategy=3, filter=32)
    if importlib.util.find_spec("isal"):
        found["isal, up, level 1"] = isal()
    found["encode webp 100"] = lambda image: encode(image, "webp", 100)
    found["encode webp 90"] = lambda image: encode(image, "webp", 90)
    found["encode jpg 95"] = lambda image: encode(image, "jpg", 95)
    return found


def photo_like(rng: np.random.Generator, size: int) -> np.ndarray:
    """Make uint8 [3, size, size] whose spectrum falls like a photo's, 1 / frequency, with a little sensor noise."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequencies[0, 0] = np.inf
    grey, *colours = (
        np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / frequencies**power).real for power in (1.5, 2, 2)
    )
    layers = np.stack([grey / grey.std() + 0.4 * colour / colour.std() for colour in (*colours, -colours[0])])
    return (118 + 50 * layers + rng.normal(0, 1, layers.shape)).clip(0, 255).astype(np.uint8)


def photos(folder: Path, num: int, size: int) -> list[np.ndarray]:
    """Read photos, cut to squares and scaled to uint8 [3, size, size]; small ones become tiles."""
    kinds = (".jpg", ".jpeg", ".png", ".webp")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in kinds]
    shuffled = (files[row] for row in np.random.default_rng(0).permutation(len(files)))
    images = []
    for _ in range(num):
        first = decode(next(shuffled).read_bytes())
        across = max(1, -(-size // min(first.size)))
        side = -(-size // across)
        tiles = [first, *(decode(next(shuffled).read_bytes()) for _ in range(across**2 - 1))]
        squares = [np.asarray(resize_to(tile, side, "crop")) for tile in tiles]
        rows = [np.concatenate(squares[row * across : (row + 1) * across], 1) for row in range(across)]
        images.append(np.ascontiguousarray(np.concatenate(rows)[:size, :size].transpose(2, 0, 1)))
    return images


def measure(images: list[np.ndarray], rounds: int) -> dict[str, dict[str, float]]:
    tools = encoders()
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in tools}
    size = {}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(rounds):
            for name, encoder in tools.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                made = [encoder(image) for image in images]
                one, cpu = time.perf_counter() - start, time.process_time() - start_cpu
                start = time.perf_counter()
                list(pool.map(lambda part, encoder=encoder: list(map(encoder, part)), [images[0::2], images[1::2]]))
                times[name].append((cpu, one, time.perf_counter() - start))
                size[name] = sum(map(len, made)) / len(images)
    assert all((decode_array(encode_png(image)) == image).all() for image in images)
    medians = {name: np.median(values, axis=0) for name, values in times.items()}
    return {
        name: {
            "images_per_second": round(len(images) / cpu, 1),
            "gain_of_2_threads": round(one / two, 2),
            "bytes_per_image": round(size[name]),
        }
        for name, (cpu, one, two) in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=Path, help="a folder of photos, in place of made ones")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    result = {}
    for size, num in SIZES.items():
        images = (
            photos(arguments.images, num, size) if arguments.images else [photo_like(rng, size) for _ in range(num)]
        )
        result[str(size)] = measure(images, arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for label, figures in result.items():
        print(f"{label + ' x ' + label + ' pixels':32s}  images/s  2 threads  bytes/image")
        for name, each in sorted(figures.items(), key=lambda item: -item[1]["images_per_second"]):
            speed, gain = each["images_per_second"], each["gain_of_2_threads"]
            print(f"  {name:30s} {speed:9.0f} {'x':>5s} {gain:4.2f} {each['bytes_per_image']:12.0f}")


if __name__ == "__main__":
    main()
