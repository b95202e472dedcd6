"""What is exported: the images of an arm's mix or of the pool, read one by one and checked against their SHA-256."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gdacli.artifacts import require
from gdacli.errors import GdaError
from gdacli.image_index import ImageIndex, References, read_references, take
from gdacli.pools import check_vetoes
from gdacli.prepared import Prepared
from gdacli.published import INDEX
from gdacli.rng import derive_seed
from gdacli.tables import read_columns

_COPY = "{key}_copy{number}"
_WEBP_AT = slice(8, 12)


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """One image as it leaves: the bytes that were made or prepared, under a key of its own."""

    key: str
    label: int
    synthetic: bool
    content: bytes
    extension: str

    @property
    def file_name(self) -> str:
        """`<key>.<extension>`."""
        return f"{self.key}.{self.extension}"


@dataclass(frozen=True)
class Contents:
    """One split of an export: N images in parallel columns; the images themselves stay in their shards."""

    split: str
    keys: pa.Array
    """Strings [N]."""
    labels: np.ndarray
    """int64 [N]."""
    synthetic: np.ndarray
    """bool [N]."""
    repeats: np.ndarray
    """int64 [N], how often an epoch shows each: what is more than 1 leaves as copies."""
    index: ImageIndex
    shuffled: bool
    """Written in an order that mixes classes and origins, for readers that go through the files one after the other."""

    @property
    def num_images(self) -> int:
        """Number of images, copies counted."""
        return int(self.repeats.sum())

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Return the number of images of each class, copies counted, int64 [C]."""
        return np.bincount(self.labels, self.repeats, minlength=num_classes).astype(np.int64)

    def images(self) -> Iterator[ExportedImage]:
        """Yield every image; the second and further copies of one are called `<key>_copy1`, `<key>_copy2`...

        The order hangs on the keys alone where it is `shuffled`, and is that of the shards where it is not.

        Raises:
            GdaError: an image is damaged, or is no PNG, JPEG or WebP.
        """
        rows = np.repeat(np.arange(len(self.keys)), self.repeats)
        copies = np.arange(len(rows)) - np.repeat(np.cumsum(self.repeats) - self.repeats, self.repeats)
        order = np.arange(len(rows))
        if self.shuffled:
            ranks = (derive_seed("export", self._name(*place)) for place in zip(rows, copies, strict=True))
            order = np.argsort(np.fromiter(ranks, np.int64, len(rows)), kind="stable")
        for place in order:
            row = int(rows[place])
            content = self.index.encoded(row)
            extension = image_extension(content)
            if extension is None:
                raise GdaError(f"{self.index.name(row)} is no PNG, JPEG or WebP: make or pull it again")
            name = self._name(row, copies[place])
            yield ExportedImage(name, int(self.labels[row]), bool(self.synthetic[row]), content, extension)

    def check_keys(self) -> None:
        """Check that no two images leave under one name.

        Raises:
            GdaError: two do.
        """
        several = np.flatnonzero(self.repeats > 1)
        copies = [self._name(row, copy) for row in several for copy in range(1, self.repeats[row])]
        names = pa.concat_arrays([self.keys, pa.array(copies, self.keys.type)])
        counts = pc.value_counts(names)
        doubles = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(doubles):
            raise GdaError(
                f"{self.split}: {len(doubles)} names stand for two images each (first: {doubles[0]['values']}): "
                "rename the source's images, or the images of the imported pool"
            )

    def _name(self, row: Any, copy: Any) -> str:
        key = self.keys[int(row)].as_py()
        return key if copy == 0 else _COPY.format(key=key, number=copy)


def pool_contents(pool: Path, rejects: Collection[str]) -> Contents:
    """Return the synthetic images of a pool as split train.

    Args:
        pool: its folder.
        rejects: keys to leave out.

    Raises:
        GdaError: there is no pool, or nothing is left of it.
    """
    table = require(pool / INDEX, "gdacli generate")
    references = read_references(table, origin="the pool's index", command="gdacli generate", folder=pool)
    kept = np.flatnonzero(~pc.is_in(references.keys, pa.array(sorted(rejects), references.keys.type)).to_numpy(False))
    if not len(kept):
        raise GdaError(
            f"{pool} has no image to export ({len(references)} made, {len(references) - len(kept)} rejected): "
            "give --arm for an arm's mix, or put an arm that adds synthetic images into compare.arms"
        )
    labels = read_columns(table, ["label"])["label"].to_numpy()[kept]
    return _contents("train", take(references, kept), labels, np.ones(len(kept), bool), np.ones(len(kept), np.int64))


def mix_contents(table: Path, rejects: Collection[str]) -> Contents:
    """Return an arm's mix as split train: originals, copies and synthetic images.

    Args:
        table: of the mix.
        rejects: keys of synthetic images that a person vetoed, to see that the mix knows.

    Raises:
        GdaError: the mix is damaged, or older than a veto.
    """
    columns = read_columns(table, ["key", "label", "origin", "repeats", "shard"])
    synthetic = pc.equal(columns["origin"], "synthetic").to_numpy()
    if rejects:
        made = columns.filter(pc.equal(columns["origin"], "synthetic"))
        images = zip(made["key"].to_pylist(), made["shard"].to_pylist(), strict=True)
        check_vetoes(table, images, rejects, f"`gdacli mix --arm {table.stem}`")
    references = read_references(table, origin="the mix", command=f"gdacli mix --arm {table.stem}")
    return _contents(
        "train", references, columns["label"].to_numpy(), synthetic, columns["repeats"].to_numpy().astype(np.int64)
    )


def source_contents(prepared: Prepared, split: str) -> Contents:
    """Return a split of the prepared originals."""
    labels = prepared.labels(split)
    ones = np.ones(len(labels), np.int64)
    return _contents(split, prepared.references(split), labels, np.zeros(len(labels), bool), ones)


def image_extension(content: bytes) -> str | None:
    """Return the extension of an encoded image by its first bytes; None if it is of no format that shards hold.

    >>> image_extension(b"RIFF....WEBPVP8 "), image_extension(b"GIF89a")
    ('webp', None)
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "webp" if content.startswith(b"RIFF") and content[_WEBP_AT] == b"WEBP" else None


def _contents(
    split: str, references: References, labels: np.ndarray, synthetic: np.ndarray, repeats: np.ndarray
) -> Contents:
    shuffled = split == "train"
    made = Contents(split, references.keys, labels, synthetic, repeats, ImageIndex(references), shuffled)
    made.check_keys()
    return made
