"""Is it clean: copies between the splits, and between them and the synthetic images, exact and near ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gdacli.console import progress
from gdacli.duplicates import (
    SQUARE,
    Pairs,
    aligned_correlation,
    calibrate,
    exact_pairs,
    grey_square,
    near_pairs,
    near_pairs_within,
    pixel_digest,
)
from gdacli.errors import GdaError
from gdacli.image_index import ImageIndex, References
from gdacli.images import BadImageError, decode_array

DIGEST_BYTES = 32
PIXELS_VERSION = 1
"""Raise it when `read_pixels` gives other digests or squares of the same images."""
COPIES_VERSION = 1
"""Raise it when `find_copies` finds others of the same images."""

_PARTS = ("count", "rows", "similarity")


@dataclass(frozen=True)
class ImageSet:
    """What of N images is compared; `read_pixels` gives the last two."""

    keys: Sequence[str]
    features: np.ndarray
    """float [N, D], unit length, of the same model for all sets; may be a memory map."""
    digests: np.ndarray
    """uint8 [N, 32]."""
    squares: np.ndarray
    """uint8 [N, S, S], of the same S for all sets."""


@dataclass(frozen=True)
class Copy:
    """An image and what it is a copy of."""

    key: str
    of: str
    row: int
    row_of: int
    similarity: float
    """Correlation of the aligned pixels, 1 for an exact copy."""
    mirrored: bool
    exact: bool
    """Equal in every pixel, whatever the encoding."""


@dataclass(frozen=True)
class Copies:
    """The copies between two sets, exact ones first, then by similarity."""

    num_images: int
    """How many images were looked at."""
    pairs: list[Copy]
    """Each image once, with what it resembles most; within a set a third copy of an image gives a second pair."""

    @property
    def num_exact(self) -> int:
        """Number of pairs that are equal in every pixel."""
        return sum(pair.exact for pair in self.pairs)

    @property
    def num_near(self) -> int:
        """Number of the other pairs."""
        return len(self.pairs) - self.num_exact

    def to_metrics(self) -> dict[str, int]:
        """Return the counts."""
        return {"images": self.num_images, "exact": self.num_exact, "near": self.num_near}


@dataclass(frozen=True)
class Cleanliness:
    """All comparisons; those of synthetic images are None where there is no pool."""

    threshold: float
    """The least similarity of a near-duplicate, learnt from the train images."""
    test_train: Copies
    """Test images that are copies of a train image: a model may know them by heart."""
    within_train: Copies
    near_within_train: bool
    """Whether `within_train` holds near-duplicates too."""
    synthetic_test: Copies | None
    """Synthetic images that are copies of a test image."""
    memorised: Copies | None
    """Synthetic images that are copies of a train image other than their source, and not of their source."""
    unchanged: Copies | None
    """Synthetic images that are copies of their own source, as low strengths give; they teach what copies teach."""

    def compared(self) -> dict[str, Copies]:
        """Return what was compared, by name."""
        every = {
            "test_train": self.test_train,
            "within_train": self.within_train,
            "synthetic_test": self.synthetic_test,
            "memorised": self.memorised,
            "unchanged": self.unchanged,
        }
        return {name: copies for name, copies in every.items() if copies is not None}

    def to_metrics(self) -> dict[str, Any]:
        """Return threshold and counts."""
        counts = {name: copies.to_metrics() for name, copies in self.compared().items()}
        return {"threshold": self.threshold, "near_within_train": self.near_within_train, **counts}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what was found as arrays that can be kept; `from_arrays` makes it again."""
        arrays = {"threshold": np.array(self.threshold), "near_within_train": np.array(self.near_within_train)}
        for name, found in self.compared().items():
            rows = [(pair.row, pair.row_of, pair.mirrored, pair.exact) for pair in found.pairs]
            arrays[f"{name} count"] = np.array(found.num_images)
            arrays[f"{name} rows"] = np.array(rows, np.int64).reshape(-1, 4)
            arrays[f"{name} similarity"] = np.array([pair.similarity for pair in found.pairs], float)
        return arrays

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        train: Sequence[str],
        test: Sequence[str],
        synthetic: Sequence[str] | None,
    ) -> "Cleanliness":
        """Make it again of `to_arrays` and the keys of the sets that were compared."""
        of_sets = {name: keys for name, keys in _of_sets(train, test, synthetic).items() if f"{name} rows" in arrays}
        found = {
            name: Copies(
                int(arrays[f"{name} count"]),
                [
                    Copy(str(keys[row]), str(others[row_of]), row, row_of, similarity, bool(mirrored), bool(exact))
                    for (row, row_of, mirrored, exact), similarity in zip(
                        arrays[f"{name} rows"].tolist(), arrays[f"{name} similarity"].tolist(), strict=True
                    )
                ],
            )
            for name, (keys, others) in of_sets.items()
        }
        return cls(
            threshold=float(arrays["threshold"]),
            test_train=found["test_train"],
            within_train=found["within_train"],
            near_within_train=bool(arrays["near_within_train"]),
            synthetic_test=found.get("synthetic_test"),
            memorised=found.get("memorised"),
            unchanged=found.get("unchanged"),
        )


def _of_sets(
    train: Sequence[str], test: Sequence[str], synthetic: Sequence[str] | None
) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Return the keys of both sides of each comparison."""
    sides = {"test_train": (test, train), "within_train": (train, train)}
    if synthetic is None:
        return sides
    return sides | {
        "synthetic_test": (synthetic, test),
        "memorised": (synthetic, train),
        "unchanged": (synthetic, train),
    }


def array_names(with_pool: bool) -> set[str]:
    """Return the names of the arrays of `Cleanliness.to_arrays`."""
    parts = {f"{name} {part}" for name in _of_sets((), (), () if with_pool else None) for part in _PARTS}
    return {"threshold", "near_within_train"} | parts


def compared_side(image_size: tuple[int, int] | None) -> int:
    """Return the side in pixels at which images are compared; `image_size` is None where sizes vary."""
    return SQUARE if image_size is None else min(SQUARE, *image_size)


def read_pixels(references: References, side: int, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Decode each image once; returns digests uint8 [N, 32] and grey squares uint8 [N, side, side].

    Args:
        references: of N images of any size.
        side: of `compared_side`, the same for all sets.
        title: of the progress.

    Raises:
        GdaError: a shard or an image is missing, another than named, or does not decode.
    """
    index = ImageIndex(references)
    digests = np.empty((len(index), DIGEST_BYTES), np.uint8)
    squares = np.empty((len(index), side, side), np.uint8)
    with progress(title, len(index), "images") as advance:
        for row in range(len(index)):
            try:
                image = decode_array(index.encoded(row))
            except BadImageError as error:
                raise GdaError(f"{index.name(row)} does not decode ({error}): pull or make it again") from error
            digests[row] = np.frombuffer(pixel_digest(image), np.uint8)
            squares[row] = grey_square(image, side)
            advance()
    return digests, squares


def find_copies(
    train: ImageSet,
    test: ImageSet,
    synthetic: ImageSet | None = None,
    source_rows: np.ndarray | None = None,
    *,
    near_within_train: bool,
    seed: int = 0,
) -> Cleanliness:
    """Compare test and synthetic images with the train images and with each other.

    Args:
        train, test: the splits.
        synthetic: the pool.
        source_rows: int64 [N], per synthetic image the row of its source in `train`, -1 without one.
        near_within_train: look for near-duplicates within the train images too, all of them against all; exact ones
            are found in any case.
        seed: of the train images that calibrate the threshold, where there are many.

    Raises:
        ValueError: the synthetic images come without the rows of their sources.
    """
    if synthetic is not None and (source_rows is None or len(source_rows) != len(synthetic.keys)):
        raise ValueError("found synthetic images without source_rows; allowed: one per image")
    threshold = calibrate(train.features, train.squares, seed=seed)
    within = _within(train, threshold, near_within_train)
    result: dict[str, Copies | None] = {"synthetic_test": None, "memorised": None, "unchanged": None}
    if synthetic is not None and source_rows is not None:
        unchanged, is_unchanged = _unchanged(synthetic, train, source_rows, threshold)
        result = {
            "synthetic_test": _between(synthetic, test, threshold),
            "memorised": _between(synthetic, train, threshold, source_rows, ~is_unchanged),
            "unchanged": unchanged,
        }
    return Cleanliness(threshold, _between(test, train, threshold), within, near_within_train, **result)


def _between(
    a: ImageSet, b: ImageSet, threshold: float, without: np.ndarray | None = None, wanted: np.ndarray | None = None
) -> Copies:
    """Find the copies of images of b among the `wanted` ones of a, exact ones first."""
    near = near_pairs(a.features, a.squares, threshold, b.features, b.squares, without=without)
    exact = exact_pairs(_as_bytes(a.digests), _as_bytes(b.digests))
    known = set(exact.rows_a.tolist())
    pairs = _copies(a, b, exact, True) + [pair for pair in _copies(a, b, near, False) if pair.row not in known]
    return Copies(len(a.keys), [pair for pair in pairs if wanted is None or wanted[pair.row]])


def _within(train: ImageSet, threshold: float, near: bool) -> Copies:
    pairs = _copies(train, train, exact_pairs(_as_bytes(train.digests)), True)
    if near:
        found = near_pairs_within(train.features, train.squares, threshold)
        different = (train.digests[found.rows_a] != train.digests[found.rows_b]).any(1)
        pairs += [
            pair for pair, kept in zip(_copies(train, train, found, False), different.tolist(), strict=True) if kept
        ]
    return Copies(len(train.keys), pairs)


def _unchanged(
    synthetic: ImageSet, train: ImageSet, source_rows: np.ndarray, threshold: float
) -> tuple[Copies, np.ndarray]:
    """Find the synthetic images that are copies of their own source; returns also which, bool [N]."""
    rows = np.flatnonzero(source_rows >= 0)
    sources = source_rows[rows]
    exact = (synthetic.digests[rows] == train.digests[sources]).all(1)
    similarity, mirrored = aligned_correlation(synthetic.squares[rows], train.squares, sources)
    similarity[exact], mirrored[exact] = 1, False
    kept = np.flatnonzero(exact | (similarity >= threshold))
    kept = kept[np.lexsort((-similarity[kept], ~exact[kept]))]
    pairs = [
        _copy(synthetic, train, int(rows[each]), int(sources[each]), similarity[each], mirrored[each], exact[each])
        for each in kept.tolist()
    ]
    is_unchanged = np.zeros(len(source_rows), bool)
    is_unchanged[rows[kept]] = True
    return Copies(len(rows), pairs), is_unchanged


def _copies(a: ImageSet, b: ImageSet, pairs: Pairs, exact: bool) -> list[Copy]:
    columns = (pairs.rows_a.tolist(), pairs.rows_b.tolist(), pairs.similarity, pairs.mirrored)
    return [_copy(a, b, *cells, exact) for cells in zip(*columns, strict=True)]


def _copy(a: ImageSet, b: ImageSet, row: int, row_of: int, similarity: float, mirrored: bool, exact: bool) -> Copy:
    return Copy(str(a.keys[row]), str(b.keys[row_of]), row, row_of, float(similarity), bool(mirrored), bool(exact))


def _as_bytes(digests: np.ndarray) -> list[bytes]:
    return [each.tobytes() for each in digests]
