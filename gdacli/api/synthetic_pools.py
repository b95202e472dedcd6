"""The synthetic images of a project, read as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gdacli.errors import GdaError

if TYPE_CHECKING:
    from gdacli.image_index import ImageIndex


@dataclass(frozen=True)
class SyntheticPool:
    """The P images of `data/synthetic`; the images themselves are read when asked for."""

    folder: Path
    key: list[str]
    label: np.ndarray
    """int64 [P]."""
    source_key: list[str]
    """Of the image that each is a variant of; empty for one from noise alone."""
    strength: np.ndarray
    """float64 [P] in (0, 1]; 1 for an image from noise alone."""

    def __len__(self) -> int:
        return len(self.key)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the images, uint8 [H, W, 3] each."""
        return (self.images([row])[0] for row in range(len(self)))

    def images(self, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return images, uint8 [R, H, W, 3].

        Args:
            rows: R places, or bool [P]; None is all of them, which must fit into the memory.

        Raises:
            GdaError: an image is damaged, or a row is out of range.
        """
        from gdacli.images import BadImageError, decode

        wanted = np.arange(len(self)) if rows is None else np.asarray(rows)
        wanted = np.flatnonzero(wanted) if wanted.dtype == bool and wanted.shape == (len(self),) else wanted
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer) or not len(wanted):
            raise GdaError(
                f"rows: found {wanted.dtype} {list(wanted.shape)}, allowed: integers [R], R >= 1, or bool [P]"
            )
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise GdaError(f"rows: found {wanted.min()} to {wanted.max()}, allowed: 0 to {len(self) - 1}")
        try:
            return np.stack([np.asarray(decode(self._index.encoded(row))) for row in wanted.tolist()])
        except BadImageError as error:
            raise GdaError(f"{self.folder}: an image does not decode ({error}): pull or make it again") from error

    @cached_property
    def _index(self) -> ImageIndex:
        from gdacli.image_index import ImageIndex, read_references
        from gdacli.published import INDEX

        table = self.folder / INDEX
        return ImageIndex(read_references(table, origin="the pool", command="gdacli generate", folder=self.folder))


def read_pool(folder: Path) -> SyntheticPool:
    """Read the index of a pool.

    Raises:
        GdaError: `gdacli generate` has not run.
    """
    from gdacli.arms import source_of
    from gdacli.artifacts import require
    from gdacli.published import INDEX
    from gdacli.tables import read_table

    index = read_table(require(folder / INDEX, "gdacli generate"))
    sources = [source_of(key) or ("", 1000) for key in index["key"]]
    return SyntheticPool(
        folder=folder,
        key=index["key"],
        label=np.asarray(index["label"]),
        source_key=[key for key, _ in sources],
        strength=np.array([strength / 1000 for _, strength in sources], np.float64),
    )
