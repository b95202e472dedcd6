"""Fractal images: from a folder, or made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gdacli.errors import GdaError
from gdacli.images import BadImageError, decode, resize_to
from gdacli.rng import derive_seed

MADE = "julia"
"""What `Fractals.name` says of one that is made."""

_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
_ITERATIONS = 64
_FAR = 100.0  # what is further away stays so, and adds exp(-100)


@dataclass(frozen=True)
class Fractals:
    """A fractal for each image, by its seed."""

    paths: Sequence[Path] | None
    """To draw from; None makes each."""
    size: int
    """Pixels of a side."""

    def name(self, seed: int) -> str:
        """Return the file's name, or MADE."""
        return MADE if self.paths is None else self._path(self.paths, seed).name

    def __call__(self, seed: int) -> np.ndarray:
        """Return uint8 [3, size, size].

        Raises:
            GdaError: the file holds no image.

        Source: DiffuseMix (Islam et al. 2024), section 3, blends in one of a set of fractals at random; its code
        resizes it whatever its shape.
        """
        if self.paths is None:
            return julia(derive_seed(seed, "fractal"), self.size)
        path = self._path(self.paths, seed)
        try:
            image = resize_to(decode(path.read_bytes()), self.size, "squash")
        except (OSError, BadImageError) as error:
            raise GdaError(f"generate.fractals: {path}: {error}: remove it, and run `gdacli fit`") from error
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def _path(self, paths: Sequence[Path], seed: int) -> Path:
        return paths[derive_seed(seed, "fractal") % len(paths)]


def list_fractals(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name.

    Raises:
        GdaError: there is none.
    """
    found = sorted(path for path in folder.glob("*") if path.suffix in _EXTENSIONS)
    if not found:
        raise GdaError(
            f"generate.fractals: {folder} holds no image; allowed: {', '.join(_EXTENSIONS)}; null makes them"
        )
    return found


def julia(seed: int, size: int) -> np.ndarray:
    """Draw a Julia set in random colours.

    Args:
        seed: of the set, the cut and the colours.
        size: pixels of a side.

    Returns:
        uint8 [3, size, size].

    Source: own choice, for a set that needs no download. The parameter c lies on or just outside the boundary of the
    Mandelbrot set's main cardioid, where Julia sets are intricate; the field is the sum of exp(-|z|) over the orbit,
    smooth inside and outside; ranks make it fill the palette evenly.
    """
    rng = np.random.default_rng(seed)
    on = np.exp(1j * rng.uniform(0.2, 2 * np.pi - 0.2))
    c = complex(rng.uniform(1.0, 1.06) * (on / 2 - on**2 / 4))
    axis = rng.uniform(0.5, 1.3) * ((np.arange(size) + 0.5) / size * 2 - 1)
    z = (axis + 1j * axis[:, None]) * np.exp(1j * rng.uniform(0, 2 * np.pi)) + complex(*rng.uniform(-0.3, 0.3, 2))
    x, y = z.real.astype(np.float32), z.imag.astype(np.float32)
    field = np.zeros_like(x)
    for _ in range(_ITERATIONS):  # z -> z^2 + c in real numbers: half the time of complex ones
        field += np.exp(-np.sqrt(x * x + y * y))
        x, y = np.clip(x * x - y * y + c.real, -_FAR, _FAR), np.clip(2 * x * y + c.imag, -_FAR, _FAR)
    ranks = np.empty(size * size)
    ranks[np.argsort(field, axis=None, kind="stable")] = np.arange(size * size) / (size * size)
    phases, turns = rng.uniform(0, 1, (3, 1, 1)), rng.uniform(0.7, 2.5, (3, 1, 1))
    colours = 0.5 + 0.5 * np.cos(2 * np.pi * (turns * ranks.reshape(1, size, size) + phases))
    return (255 * colours).round().astype(np.uint8)
