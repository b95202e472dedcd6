"""The prepared data set in `data/source`, and the selection over it: what later stages read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.artifacts import read_json, require
from gdacli.errors import GdaError
from gdacli.image_index import References, read_references
from gdacli.images import BadImageError, decode_array
from gdacli.records import SPLITS
from gdacli.shards import Sample, Shard, read_shard
from gdacli.tables import read_columns, read_table


@dataclass(frozen=True)
class Split:
    """One split: its shards, its number of images, and the number of each class."""

    count: int
    class_counts: list[int]
    shards: list[Shard]


@dataclass(frozen=True)
class Prepared:
    """`dataset.json` of a prepared data set."""

    folder: Path
    class_names: list[str]
    image_size: tuple[int, int] | None
    """(width, height) in pixels, None if it varies."""
    splits: dict[str, Split]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def square_size(self) -> int:
        """Return the side of the images in pixels.

        Raises:
            GdaError: the images vary in size or are not square.
        """
        if self.image_size is None or self.image_size[0] != self.image_size[1]:
            raise GdaError(
                f"data.image_size: the images in {self.folder} {self._sizes()}, and this step needs square ones of "
                "one size: set data.image_size (32, 64...) and run `gdacli prepare` again"
            )
        return self.image_size[0]

    def training_size(self, image_size: int | None, field: str) -> int:
        """Return the side in pixels at which a classifier sees the images.

        Args:
            image_size: what the parameters say; None is the prepared size.
            field: the parameter's name, for the message.

        Raises:
            GdaError: the parameters say nothing, and the images vary in size or are not square.
        """
        if image_size is not None:
            return image_size
        if self.image_size is None or self.image_size[0] != self.image_size[1]:
            raise GdaError(
                f"{field}: found null, but the images in {self.folder} {self._sizes()}: set {field} (64, 224...), "
                "or set data.image_size and run `gdacli prepare` again"
            )
        return self.image_size[0]

    def _sizes(self) -> str:
        return "vary in size" if self.image_size is None else "are {} x {} pixels".format(*self.image_size)

    def samples(self, split: str) -> Iterator[Sample]:
        """Yield the samples of a split in order.

        Raises:
            GdaError: a shard is missing, damaged, or has another number of samples than `dataset.json` says.
        """
        for shard in self.splits[split].shards:
            found = 0
            for sample in read_shard(self.folder / shard.name):
                found += 1
                yield sample
            if found != shard.count:
                raise GdaError(
                    f"{self.folder / shard.name}: found {found} samples, {self.folder}/dataset.json says "
                    f"{shard.count}: the shard is damaged, run `gdacli prepare` or `dvc pull {self.folder}`"
                )

    def index(self, split: str) -> dict[str, Any]:
        """Return key, label, shard and sha256 of the images of a split, in the order of the shards."""
        first, end = self._rows(split)
        return {name: column[first:end] for name, column in read_table(self.folder / "index.parquet").items()}

    def train_index(self) -> dict[str, Any]:
        """Return the index of the train images."""
        return self.index("train")

    def keys(self, split: str) -> list[str]:
        """Return the keys of the images of a split, in the order of the shards."""
        first, end = self._rows(split)
        return read_columns(self.folder / "index.parquet", ["key"])["key"][first:end].to_pylist()

    def require_validation(self, what: str) -> None:
        """Check that there are validation images.

        Raises:
            GdaError: there are none; `what` says, in the message, what needs them.
        """
        if self.splits["validation"].count == 0:
            raise GdaError(
                f"{what}, but there are no validation images: set data.validation_fraction and run `gdacli prepare`"
            )

    def labels(self, split: str) -> np.ndarray:
        """Return the labels of the images of a split, int64 [N], in the order of the shards."""
        first, end = self._rows(split)
        return read_columns(self.folder / "index.parquet", ["label"])["label"].to_numpy()[first:end]

    def references(self, split: str) -> References:
        """Return what names the images of a split, in the order of the shards."""
        return read_references(
            self.folder / "index.parquet",
            origin="the prepared set",
            command="gdacli prepare",
            folder=self.folder,
            rows=self._rows(split),
        )

    def _rows(self, split: str) -> tuple[int, int]:
        """Return the first row of a split in the index and the one after the last; `prepare` writes split by split."""
        first = sum(self.splits[before].count for before in SPLITS[: SPLITS.index(split)])
        return first, first + self.splits[split].count

    def load(self, split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Read a whole split of equally sized images into memory.

        Returns:
            keys [N], labels int64 [N], images uint8 [N, 3, H, W].
        """
        size, count = self.square_size(), self.splits[split].count
        keys = list[str]()
        labels = np.empty(count, np.int64)
        images = np.empty((count, 3, size, size), np.uint8)
        for row, sample in enumerate(self.samples(split)):
            keys.append(sample.key)
            labels[row] = sample.label
            images[row] = decode_sample(sample, self.folder)
        return keys, labels, images


def read_prepared(folder: Path) -> Prepared:
    """Read `dataset.json`.

    Raises:
        GdaError: `gdacli prepare` has not run.
    """
    info = read_json(require(folder / "dataset.json", "gdacli prepare"))
    splits = {
        name: Split(split["count"], split["class_counts"], [Shard(**shard) for shard in split["shards"]])
        for name, split in info["splits"].items()
    }
    return Prepared(folder, info["class_names"], tuple(info["image_size"]) if info["image_size"] else None, splits)


def read_strategies(folder: Path, keys: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the selection over the train images with these keys.

    Returns:
        per strategy the score, float64 [N] (higher = augment first), and the strategy's own choice, bool [N].

    Raises:
        GdaError: `gdacli select` has not run, or ran on other images.
    """
    columns = read_table(require(folder / "selection.parquet", "gdacli select"))
    if columns["key"] != list(keys):
        raise GdaError(
            f"{folder} was made of other train images than the prepared ones: run `gdacli probe` and `gdacli select`"
        )
    names = [column.removesuffix("_score") for column in columns if column.endswith("_score")]
    return {name: (columns[f"{name}_score"], columns[f"{name}_chosen"]) for name in names}


def decode_sample(sample: Sample, folder: Path) -> np.ndarray:
    """Decode a sample of our own shards to uint8 [3, H, W]."""
    try:
        return decode_array(sample.image)
    except BadImageError as error:
        raise GdaError(f"{folder}: sample {sample.key!r} does not decode ({error}): pull or make it again") from error
