"""The pictures of the report: which images it shows, and their pixels from the shards."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.arms import Arm, milli, synthetic_key
from gdacli.cleanliness import Cleanliness, Copy
from gdacli.images import decode_array
from gdacli.paths import DROPPED, SELECTION, SOURCE, SYNTHETIC
from gdacli.prepared import Prepared, read_strategies
from gdacli.rejects import read_left_out
from gdacli.shards import read_shard

GALLERY_SIDE = 96
"""Largest side of an image in the report, in pixels."""
_CLASSES = 10
_BYTES = 2_000_000
_SUSPECTS = 24
_DROPPED = 16
_NEIGHBOURS = 8
_COPIES = 8

Place = tuple[Path, str]
"""Shard and key of an image."""


@dataclass(frozen=True)
class Variant:
    """A place in the gallery for an image of the pool."""

    key: str
    image: np.ndarray | None
    """uint8 [3, H, W]; None where the pool has none."""
    dropped: str | None = None
    """Why `generate.filter` dropped it."""


@dataclass(frozen=True)
class GalleryRow:
    """A training image, uint8 [3, H, W], beside its variants, one a column of the gallery."""

    key: str
    class_name: str
    source: np.ndarray
    variants: list[Variant]


@dataclass(frozen=True)
class Gallery:
    """Late-learned images with a variant per strength and imported pool, and early-learned ones."""

    columns: list[str]
    """What the variants are: a strength, or an imported pool."""
    late: list[GalleryRow]
    early: list[GalleryRow]

    @property
    def has_variants(self) -> bool:
        """True if an image of the pool is shown, which a person may reject."""
        return any(variant.image is not None for row in self.late for variant in row.variants)

    def by_class(self) -> list[tuple[str, list[GalleryRow]]]:
        """Return the late-learned rows of each class, in their order."""
        return [(name, list(rows)) for name, rows in groupby(self.late, lambda row: row.class_name)]


@dataclass(frozen=True)
class Suspect:
    """A training image whose label is probably wrong, uint8 [3, H, W]."""

    key: str
    label: str
    suggested: str
    """The class that the model takes it for."""
    quality: float
    """Probability of the label in [0, 1], out of fold."""
    image: np.ndarray


@dataclass(frozen=True)
class Picture:
    """An image, uint8 [3, H, W], with its key and what stands under it."""

    key: str
    caption: str
    image: np.ndarray


def rows_per_class(num_classes: int, num_columns: int, image_side: int) -> int:
    """Return how many late-learned images of each class the gallery has room for, 1 to 4.

    Even images that do not compress then take less than 2 MB, unless there are more than 11 columns of variants.

    >>> rows_per_class(10, 2, 32), rows_per_class(10, 10, 512)
    (4, 1)
    """
    largest_bytes = 4 * min(image_side, 64) ** 2  # 3 bytes a pixel, 4 characters for 3 bytes; larger images are WebP
    return int(np.clip(_BYTES // (num_classes * (1 + num_columns) * largest_bytes), 1, 4))


def late_learned(arms: Mapping[str, Arm], prepared: Prepared, pool: Mapping[str, Any], size: int) -> Gallery:
    """Take of each class the latest-learned images that have variants, and the earliest-learned one for contrast.

    Args:
        arms: the compared ones, whose strengths and imported pools are shown.
        prepared: the source images.
        pool: of `pools.read_pools`.
        size: side of the images in pixels.
    """
    index = prepared.train_index()
    score, chosen = read_strategies(SELECTION, index["key"])["cluster"]
    dropped = read_left_out(DROPPED)
    place_of = _places(pool, pool["key"])
    varied = [arm.strengths for arm in arms.values() if arm.add == "synthetic"]
    strengths = sorted({milli(strength) for each in varied for strength in each})
    imported = _first_of_sources(pool)

    def variants(row: int) -> list[str]:
        key = index["key"][row]
        of_imported = [keys.get(key, "") for keys in imported.values()]
        return [*(synthetic_key(key, strength, 0) for strength in strengths), *of_imported]

    late_rows, early_rows = [], []
    num_classes = min(prepared.num_classes, _CLASSES)
    room = rows_per_class(num_classes, len(strengths) + len(imported), size)
    for label in range(num_classes):
        members = np.flatnonzero(index["label"] == label)
        ranked = members[np.argsort(-score[members], kind="stable")]
        late = [row for row in ranked if chosen[row]]
        with_variants = [row for row in late if any(key in place_of or key in dropped for key in variants(row))]
        late_rows += (with_variants or late)[:room]
        early_rows += [row for row in ranked[::-1] if not chosen[row] and np.isfinite(score[row])][:1]
    shown = [(SOURCE / index["shard"][row], index["key"][row]) for row in late_rows + early_rows]
    made = [key for row in late_rows for key in variants(row) if key in place_of]
    images = read_images([*shown, *(place_of[key] for key in made)])

    def gallery_row(row: int, names: list[str]) -> GalleryRow:
        key = index["key"][row]
        reasons = [dropped.get(name, {}).get("reason") for name in names]
        found = [images[place_of[name]] if name in place_of else None for name in names]
        source = images[SOURCE / index["shard"][row], key]
        variants = [Variant(*each) for each in zip(names, found, reasons, strict=True)]
        return GalleryRow(key, prepared.class_names[index["label"][row]], source, variants)

    return Gallery(
        columns=[*(f"{strength / 1000:g}" for strength in strengths), *imported],
        late=[gallery_row(row, variants(row)) for row in late_rows],
        early=[gallery_row(row, []) for row in early_rows],
    )


def suspects(prepared: Prepared) -> list[Suspect]:
    """Return the first of the images that `gdacli select` suspects to be mislabelled."""
    path = SELECTION / "suspects.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:_SUSPECTS]
    images = _images(prepared, "train", [row["key"] for row in rows])
    return [
        Suspect(row["key"], row["label"], row["suggested_label"], float(row["quality"]), images[row["key"]])
        for row in rows
    ]


def dropped_images() -> list[Picture]:
    """Return images that `generate.filter` dropped, some of every reason, with the reason."""
    by_reason: dict[str, list[dict[str, str]]] = {}
    for row in read_left_out(DROPPED).values():
        by_reason.setdefault(row["reason"], []).append(row)
    room = -(-_DROPPED // max(1, len(by_reason)))
    rows = [row for reason in sorted(by_reason) for row in by_reason[reason][:room]][:_DROPPED]
    places = [(SYNTHETIC / DROPPED.stem / row["shard"], row["key"]) for row in rows]
    images = read_images(places)
    return [Picture(row["key"], row["reason"], images[place]) for row, place in zip(rows, places, strict=True)]


def nearest_neighbours(prepared: Prepared, pool: Mapping[str, Any]) -> list[tuple[Picture, Picture]]:
    """Return the synthetic images that are nearest to a train image other than their source, beside that image.

    Args:
        prepared: the source images.
        pool: of `pools.read_pools`.
    """
    order = np.argsort(np.asarray(pool["nearest_distance"]), kind="stable")
    rows, seen = list[int](), set[str]()
    for row in order.tolist():
        if pool["nearest_key"][row] and pool["nearest_key"][row] not in seen:
            seen.add(pool["nearest_key"][row])
            rows.append(row)
        if len(rows) == _NEIGHBOURS:
            break
    pairs = [(pool["key"][row], pool["nearest_key"][row], f"{pool['nearest_distance'][row]:.2g}") for row in rows]
    return _side_by_side(pairs, _pool_images(pool, [pair[0] for pair in pairs]), prepared, "train")


def copies_side_by_side(
    cleanliness: Cleanliness, prepared: Prepared, split: str, pool: Mapping[str, Any]
) -> dict[str, list[tuple[Picture, Picture]]]:
    """Return the first pairs of what was copied, by what was compared.

    Args:
        cleanliness: the pairs.
        prepared: the real images.
        split: that was compared with the train images.
        pool: of `pools.read_pools`.
    """
    shown = {}
    for name, copies in cleanliness.compared().items():
        pairs = [(pair.key, pair.of, _likeness(pair)) for pair in copies.pairs[:_COPIES]]
        keys = [pair[0] for pair in pairs]
        of_split = {"split_train": split, "within_train": "train"}.get(name)
        images = _pool_images(pool, keys) if of_split is None else _images(prepared, of_split, keys)
        shown[name] = _side_by_side(pairs, images, prepared, split if name == "synthetic_split" else "train")
    return shown


def _likeness(pair: Copy) -> str:
    return "exact" if pair.exact else f"{pair.similarity:.3f}{', mirrored' if pair.mirrored else ''}"


def _side_by_side(
    pairs: Sequence[tuple[str, str, str]], images: Mapping[str, np.ndarray], prepared: Prepared, split: str
) -> list[tuple[Picture, Picture]]:
    """Return pictures of (key, key of an image of the split, caption)."""
    others = _images(prepared, split, [other for _, other, _ in pairs])
    return [
        (Picture(key, caption, images[key]), Picture(other, caption, others[other])) for key, other, caption in pairs
    ]


def read_images(wanted: Iterable[Place]) -> dict[Place, np.ndarray]:
    """Return images, uint8 [3, H, W], by their place."""
    by_shard: dict[Path, set[str]] = {}
    for shard, key in wanted:
        by_shard.setdefault(shard, set()).add(key)
    return {
        (shard, sample.key): decode_array(sample.image)
        for shard, keys in by_shard.items()
        for sample in read_shard(shard)
        if sample.key in keys
    }


def _first_of_sources(pool: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return, by imported pool, the first of its images of each source: source key -> key."""
    found: dict[str, dict[str, str]] = {}
    for key, of, source in zip(pool["key"], pool["pool"], pool["source_key"], strict=True):
        if of and source:
            found.setdefault(of, {}).setdefault(source, key)
    return found


def _places(pool: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Place]:
    wanted = set(keys)
    rows = zip(pool["key"], pool["shard"], pool["member"], strict=True)
    return {key: (Path(shard), member) for key, shard, member in rows if key in wanted}


def _pool_images(pool: Mapping[str, Any], keys: Sequence[str]) -> dict[str, np.ndarray]:
    places = _places(pool, keys)
    images = read_images(places.values())
    return {key: images[place] for key, place in places.items()}


def _images(prepared: Prepared, split: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
    index = prepared.index(split)
    wanted = set(keys)
    places = {
        key: (SOURCE / shard, key) for key, shard in zip(index["key"], index["shard"], strict=True) if key in wanted
    }
    images = read_images(places.values())
    return {key: images[place] for key, place in places.items()}
