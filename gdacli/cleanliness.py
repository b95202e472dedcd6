"""Is it clean: copies between the splits, and between them and the synthetic images, exact and near ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gdacli.compared_images import ImageSet
from gdacli.duplicates import Pairs, aligned_correlation, calibrate, exact_pairs, near_pairs, near_pairs_within

COPIES_VERSION = 2
"""Raise it when `find_copies` finds others of the same images."""

MOST_WITHIN_TRAIN = 20_000
"""Near copies are looked for within no more train images than this, for the same reason."""
LEAST_TELLING_SIDE = 16
"""Images that are compared at a smaller side look alike without being copies: of 8 x 8 digits no near copy is one."""

_SETTINGS = ("threshold", "side", "near_within_train")
_COUNTS = ("num_images", "num_drawn", "num_among", "num_others")
_ROWS_AT_ONCE = 8192
_PARTS = ("counts", "rows", "similarity")


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
    """How many images were looked at for exact copies."""
    num_drawn: int
    """For how many of them near copies were looked for."""
    num_among: int
    """Among how many images near copies were looked for."""
    num_others: int
    """How many images there are to be copies of."""
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

    @property
    def rows(self) -> list[int]:
        """Which images are copies."""
        return [pair.row for pair in self.pairs]

    @property
    def is_draw(self) -> bool:
        """Whether near copies were looked for among a part of the images alone."""
        return self.num_drawn < self.num_images or self.num_among < self.num_others

    def to_metrics(self) -> dict[str, int]:
        """Return the counts."""
        return {
            "images": self.num_images,
            "exact": self.num_exact,
            "near": self.num_near,
            "near_looked_for": self.num_drawn,
            "near_looked_among": self.num_among,
        }


@dataclass(frozen=True)
class Cleanliness:
    """All comparisons; those with a split are None if it is not looked at, those of synthetic images without a pool."""

    threshold: float
    """The least similarity of a near-duplicate, learnt from the train images."""
    side: int
    """In pixels, at which the images were compared."""
    split_train: Copies | None
    """Images of the split that are copies of a train image: a model may know them by heart."""
    within_train: Copies
    near_within_train: bool
    """Whether `within_train` holds near-duplicates too."""
    synthetic_split: Copies | None
    """Synthetic images that are copies of an image of the split."""
    memorised: Copies | None
    """Synthetic images that are copies of a train image other than their source, and not of their source."""
    unchanged: Copies | None
    """Synthetic images that are copies of their own source, as low strengths give; they teach what copies teach."""

    def compared(self) -> dict[str, Copies]:
        """Return what was compared, by name."""
        every = {
            "split_train": self.split_train,
            "within_train": self.within_train,
            "synthetic_split": self.synthetic_split,
            "memorised": self.memorised,
            "unchanged": self.unchanged,
        }
        return {name: copies for name, copies in every.items() if copies is not None}

    def to_metrics(self) -> dict[str, Any]:
        """Return threshold and counts."""
        counts = {name: copies.to_metrics() for name, copies in self.compared().items()}
        settings = {"threshold": self.threshold, "side": self.side, "near_within_train": self.near_within_train}
        return settings | counts

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what was found as arrays that can be kept; `from_arrays` makes it again."""
        arrays = {name: np.array(getattr(self, name)) for name in _SETTINGS}
        for name, found in self.compared().items():
            rows = [(pair.row, pair.row_of, pair.mirrored, pair.exact) for pair in found.pairs]
            arrays[f"{name} counts"] = np.array([getattr(found, each) for each in _COUNTS])
            arrays[f"{name} rows"] = np.array(rows, np.int64).reshape(-1, 4)
            arrays[f"{name} similarity"] = np.array([pair.similarity for pair in found.pairs], float)
        return arrays

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        train: Sequence[str],
        split: Sequence[str] | None,
        synthetic: Sequence[str] | None,
    ) -> "Cleanliness":
        """Make it again of `to_arrays` and the keys of the sets that were compared."""
        of_sets = {name: keys for name, keys in _of_sets(train, split, synthetic).items() if f"{name} rows" in arrays}
        found = {
            name: Copies(
                **{each: int(count) for each, count in zip(_COUNTS, arrays[f"{name} counts"], strict=True)},
                pairs=[
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
            side=int(arrays["side"]),
            split_train=found.get("split_train"),
            within_train=found["within_train"],
            near_within_train=bool(arrays["near_within_train"]),
            synthetic_split=found.get("synthetic_split"),
            memorised=found.get("memorised"),
            unchanged=found.get("unchanged"),
        )


def _of_sets(
    train: Sequence[str], split: Sequence[str] | None, synthetic: Sequence[str] | None
) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Return the keys of both sides of each comparison."""
    sides = {"within_train": (train, train)}
    if split is not None:
        sides = {"split_train": (split, train), **sides}
    if synthetic is not None and split is not None:
        sides["synthetic_split"] = (synthetic, split)
    if synthetic is not None:
        sides |= {"memorised": (synthetic, train), "unchanged": (synthetic, train)}
    return sides


def array_names(with_split: bool, with_pool: bool) -> set[str]:
    """Return the names of the arrays of `Cleanliness.to_arrays`."""
    compared = _of_sets((), () if with_split else None, () if with_pool else None)
    return {*_SETTINGS} | {f"{name} {part}" for name in compared for part in _PARTS}


def find_copies(
    train: ImageSet,
    split: ImageSet | None,
    synthetic: ImageSet | None = None,
    source_rows: np.ndarray | None = None,
    *,
    near_within_train: bool,
    seed: int = 0,
) -> Cleanliness:
    """Compare the images of a split and synthetic ones with the train images and with each other.

    Exact copies, and variants that are like their own source, are looked for among all images, for the time grows with
    their number; near ones among those that the sets have drawn.

    Args:
        train: the train images.
        split: those on which arms are compared; None looks at none.
        synthetic: the pool.
        source_rows: int64 [N], per synthetic image the row of its source in `train`, -1 without one.
        near_within_train: look for near-duplicates within the drawn train images too, all of them against all; exact
            ones are found in any case.
        seed: of the train images that calibrate the threshold, where there are many.

    Raises:
        ValueError: the synthetic images come without the rows of their sources.
    """
    if synthetic is not None and (source_rows is None or len(source_rows) != len(synthetic.keys)):
        raise ValueError("found synthetic images without source_rows; allowed: one per image")
    threshold = calibrate(train.features, train.drawn_squares, seed=seed)
    within = _within(train, threshold, near_within_train)
    result: dict[str, Copies | None] = {"synthetic_split": None, "memorised": None, "unchanged": None}
    if synthetic is not None and source_rows is not None:
        unchanged, is_unchanged = _unchanged(synthetic, train, source_rows, threshold)
        result = {
            "synthetic_split": _between(synthetic, split, threshold) if split is not None else None,
            "memorised": _between(synthetic, train, threshold, source_rows, ~is_unchanged),
            "unchanged": unchanged,
        }
    return Cleanliness(
        threshold=threshold,
        side=train.squares.shape[-1],
        split_train=_between(split, train, threshold) if split is not None else None,
        within_train=within,
        near_within_train=near_within_train,
        **result,
    )


def _between(
    a: ImageSet,
    b: ImageSet,
    threshold: float,
    source_rows: np.ndarray | None = None,
    wanted: np.ndarray | None = None,
) -> Copies:
    """Find the copies of images of b among the `wanted` ones of a, exact ones first; near ones not of their source."""
    without = None
    if source_rows is not None:
        place = np.full(len(b.keys), -1)
        place[b.drawn] = np.arange(len(b.drawn))
        sources = source_rows[a.drawn]
        without = np.where(sources >= 0, place[sources], -1)
    near = near_pairs(a.features, a.drawn_squares, threshold, b.features, b.drawn_squares, without=without)
    exact = exact_pairs(_as_bytes(a.digests), _as_bytes(b.digests))
    known = set(exact.rows_a.tolist())
    pairs = _copies(a, b, exact, True)
    pairs += [pair for pair in _copies(a, b, _of_all(near, a, b), False) if pair.row not in known]
    kept = [pair for pair in pairs if wanted is None or wanted[pair.row]]
    return Copies(len(a.keys), len(a.drawn), len(b.drawn), len(b.keys), kept)


def _within(train: ImageSet, threshold: float, near: bool) -> Copies:
    pairs = _copies(train, train, exact_pairs(_as_bytes(train.digests)), True)
    if near:
        found = _of_all(near_pairs_within(train.features, train.drawn_squares, threshold), train, train)
        different = (train.digests[found.rows_a] != train.digests[found.rows_b]).any(1)
        pairs += [
            pair for pair, kept in zip(_copies(train, train, found, False), different.tolist(), strict=True) if kept
        ]
    num_drawn = len(train.drawn) if near else 0
    return Copies(len(train.keys), num_drawn, num_drawn, len(train.keys), pairs)


def _of_all(pairs: Pairs, a: ImageSet, b: ImageSet) -> Pairs:
    """Turn places among the drawn rows into rows."""
    return replace(pairs, rows_a=a.drawn[pairs.rows_a], rows_b=b.drawn[pairs.rows_b])


def _unchanged(
    synthetic: ImageSet, train: ImageSet, source_rows: np.ndarray, threshold: float
) -> tuple[Copies, np.ndarray]:
    """Find the synthetic images that are copies of their own source; returns also which, bool [N]."""
    rows = np.flatnonzero(source_rows >= 0)
    sources = source_rows[rows]
    exact = (synthetic.digests[rows] == train.digests[sources]).all(1)
    similarity, mirrored = np.empty(len(rows), np.float32), np.empty(len(rows), bool)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        of_part = aligned_correlation(synthetic.squares[rows[part]], train.squares, sources[part])
        similarity[part], mirrored[part] = of_part
    similarity[exact], mirrored[exact] = 1, False
    kept = np.flatnonzero(exact | (similarity >= threshold))
    kept = kept[np.lexsort((-similarity[kept], ~exact[kept]))]
    pairs = [
        _copy(synthetic, train, int(rows[each]), int(sources[each]), similarity[each], mirrored[each], exact[each])
        for each in kept.tolist()
    ]
    is_unchanged = np.zeros(len(source_rows), bool)
    is_unchanged[rows[kept]] = True
    return Copies(len(rows), len(rows), len(train.keys), len(train.keys), pairs), is_unchanged


def _copies(a: ImageSet, b: ImageSet, pairs: Pairs, exact: bool) -> list[Copy]:
    columns = (pairs.rows_a.tolist(), pairs.rows_b.tolist(), pairs.similarity, pairs.mirrored)
    return [_copy(a, b, *cells, exact) for cells in zip(*columns, strict=True)]


def _copy(a: ImageSet, b: ImageSet, row: int, row_of: int, similarity: float, mirrored: bool, exact: bool) -> Copy:
    return Copy(str(a.keys[row]), str(b.keys[row_of]), row, row_of, float(similarity), bool(mirrored), bool(exact))


def _as_bytes(digests: np.ndarray) -> list[bytes]:
    return [each.tobytes() for each in digests]
