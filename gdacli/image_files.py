"""Images as files: found in folders, decoded in batches for a classifier."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gdacli.console import say
from gdacli.datasets import IMAGE_SUFFIXES, is_image, visible_files
from gdacli.errors import GdaError
from gdacli.images import BadImageError, Resize, decode, resize_to
from gdacli.random_crops import centre_box, resized_part

OnBadImage = Literal["error", "skip"]


def find_images(path: Path) -> list[Path]:
    """Return the images of a folder at any depth, in the order of their names; a file is itself an image.

    Raises:
        GdaError: nothing is there, or no image.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise GdaError(f"{path}: there is no such folder or file")
    files = [file for file in visible_files(path) if is_image(file)]
    if not files:
        raise GdaError(f"{path}: found no image in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def decoded_batches(
    files: Sequence[Path],
    *,
    image_size: int,
    resize: Resize | None,
    on_bad_image: OnBadImage,
    batch_size: int = 256,
    threads: int = 1,
) -> Iterator[tuple[list[Path], int, torch.Tensor]]:
    """Yield images for a prediction: the files of a batch that decode, how many do not, uint8 [B, 3, size, size].

    The pixels are those that `loading.Streaming` yields of the same files: what has the size is not touched, of others
    the centred square is scaled. While a batch is used, the next one is decoded.

    Args:
        files: of any format, size and mode.
        image_size: side in pixels.
        resize: first resize as `images.resize_to` does, which is what `prepare` does with data.image_size.
        on_bad_image: what becomes of a file that does not decode; `skip` says and leaves it out.
        batch_size: files of a batch.
        threads: that decode.

    Raises:
        GdaError: a file cannot be read or does not decode.
    """
    read = partial(_read, image_size=image_size, resize=resize)
    batches = [files[first : first + batch_size] for first in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            waiting = [pool.submit(read, file) for file in batches[0]]
            for number, batch in enumerate(batches):
                following = batches[number + 1] if number + 1 < len(batches) else []
                ahead = [pool.submit(read, file) for file in following]
                yield _batch(batch, waiting, image_size, on_bad_image)
                waiting = ahead
        finally:
            pool.shutdown(cancel_futures=True)


def _batch(
    files: Sequence[Path], waiting: Sequence[Future[torch.Tensor]], image_size: int, on_bad_image: OnBadImage
) -> tuple[list[Path], int, torch.Tensor]:
    kept, images = list[Path](), torch.empty((len(files), 3, image_size, image_size), dtype=torch.uint8)
    for file, future in zip(files, waiting, strict=True):
        try:
            images[len(kept)] = future.result()
        except (BadImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            if on_bad_image == "error":
                raise GdaError(f"{file}: {reason}: remove or replace it, or give --on-bad-image skip") from error
            say(f"skipped: {file}: {reason}")
            continue
        kept.append(file)
    return kept, len(files) - len(kept), images[: len(kept)]


def _read(file: Path, image_size: int, resize: Resize | None) -> torch.Tensor:
    """Return uint8 [3, image_size, image_size]."""
    encoded = file.read_bytes()
    if resize is None:
        return resized_part(encoded, image_size, centre_box)
    return torch.from_numpy(np.array(resize_to(decode(encoded), image_size, resize))).permute(2, 0, 1)
