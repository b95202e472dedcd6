"""`gdacli prepare`: a source becomes WebDataset shards with fixed splits."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.artifacts import new_directory, sha256_bytes, write_json
from gdacli.console import progress, say
from gdacli.datasets import open_source
from gdacli.errors import GdaError
from gdacli.images import EXTENSIONS, BadImageError, Header, decode, encode_png, read_header, resize_to
from gdacli.params import Data, Params
from gdacli.paths import SOURCE
from gdacli.records import SPLITS, Record, Source
from gdacli.rng import derive_seed
from gdacli.shards import Sample, Shard, write_shard
from gdacli.splits import key_uniform, split_off, subsample
from gdacli.tables import TableWriter

VERSION = 2

_UNUSED = len(SPLITS)
_INDEX = {"key": str, "label": int, "split": str, "shard": str, "sha256": str}


@dataclass
class _Scan:
    """What one pass over the headers of a source split tells; a few bytes an image."""

    labels: array = field(default_factory=lambda: array("l"))
    bad: array = field(default_factory=lambda: array("b"))
    bad_keys: list[str] = field(default_factory=list)
    key_hashes: array = field(default_factory=lambda: array("Q"))
    uniforms: dict[str, array] = field(
        default_factory=lambda: {purpose: array("d") for purpose in ("test", "validation", "train")}
    )


@dataclass
class _Written:
    """What was written of a split."""

    class_counts: list[int]
    shards: list[Shard] = field(default_factory=list)
    digests: array = field(default_factory=lambda: array("Q"))


def run(params: Params) -> dict[str, Any]:
    """Write `data/source`; returns the counts."""
    data = params.data
    source = open_source(
        data.source,
        image_column=data.image_column,
        label_column=data.label_column,
        config=data.config,
        revision=data.revision,
    )
    if "validation" in source.splits and data.validation_fraction > 0:
        raise GdaError(
            f"data.validation_fraction: found {data.validation_fraction}, but the source has a validation split of its "
            "own: set it to 0"
        )
    scans, extension, keep_bytes = _scan(source, data)
    roles = _assign(scans, data)
    skipped = [key for scan in scans.values() for key in scan.bad_keys]
    with new_directory(SOURCE) as folder:
        written, image_size = _write(source, roles, folder, data, extension, keep_bytes, skipped)
        _check_classes(source.class_names, written)
        splits = {
            split: {
                "count": sum(part.class_counts),
                "class_counts": part.class_counts,
                "shards": [vars(shard) for shard in part.shards],
            }
            for split, part in written.items()
        }
        info = {"class_names": source.class_names, "image_size": image_size, "extension": extension, "splits": splits}
        write_json(folder / "dataset.json", {**info, "skipped": sorted(skipped)})
    leaks = int(np.isin(np.asarray(written["test"].digests), np.asarray(written["train"].digests)).sum())
    if leaks:
        say(f"warning: {leaks} test images are, byte for byte, also in train: the test error is too low by them")
    return {
        "class_names": source.class_names,
        "images": {split: entry["count"] for split, entry in splits.items()},
        "class_counts": {split: entry["class_counts"] for split, entry in splits.items()},
        "image_size": image_size,
        "extension": extension,
        "bytes_kept": keep_bytes,
        "skipped": len(skipped),
        "test_images_in_train": leaks,
    }


def summary(result: dict[str, Any]) -> str:
    """Say the result in a few lines."""
    counts = ", ".join(f"{count} {split}" for split, count in result["images"].items())
    size = "{} x {}".format(*result["image_size"]) if result["image_size"] else "varying"
    skipped = f", {result['skipped']} undecodable skipped" if result["skipped"] else ""
    classes = len(result["class_names"])
    per_class = ", ".join(f"{split} {min(n)} to {max(n)}" for split, n in result["class_counts"].items() if any(n))
    return (
        f"{counts} images of {classes} classes ({per_class} per class), {size} pixels, {result['extension']}{skipped} "
        f"-> {SOURCE}"
    )


def _scan(source: Source, data: Data) -> tuple[dict[str, _Scan], str, bool]:
    """Read every header once: the splits, and whether one stored format can be kept for the whole dataset."""
    scans = {split: _Scan() for split in source.splits}
    formats, all_plain = set[str](), True
    with progress("prepare: headers", sum(count for count, _ in source.splits.values()), "images") as advance:
        for split, (_, records) in source.splits.items():
            scan = scans[split]
            for record in records():
                if not 0 <= record.label < len(source.class_names):
                    raise GdaError(
                        f"data.source: {record.name}: label {record.label} is outside 0..{len(source.class_names) - 1}"
                    )
                header = _header(record, data)
                if header is not None:
                    formats.add(header.format)
                    all_plain &= header.plain and _is_final(header, data)
                else:
                    scan.bad_keys.append(record.key)
                scan.labels.append(record.label)
                scan.bad.append(header is None)
                scan.key_hashes.append(derive_seed(record.key))
                for purpose, numbers in scan.uniforms.items():
                    numbers.append(key_uniform(record.key, data.seed, purpose))
                advance()
    hashes, counts = np.unique(np.concatenate([scan.key_hashes for scan in scans.values()]), return_counts=True)
    for double in hashes[counts > 1][:1]:
        every = chain.from_iterable(reader() for _, reader in source.splits.values())
        names = [record.name for record in every if derive_seed(record.key) == double]
        raise GdaError(
            f"data.source: {' and '.join(names[:2])} have the same key: every sample needs a name of its own"
        )
    keep = all_plain and len(formats) == 1
    return scans, EXTENSIONS[formats.pop()] if keep else "png", keep


def _header(record: Record, data: Data) -> Header | None:
    try:
        return read_header(record.load())
    except BadImageError as error:
        if data.on_bad_image == "error":
            raise _bad(record, error) from error
        say(f"skipped: {record.name}: {error}")
        return None


def _is_final(header: Header, data: Data) -> bool:
    return data.image_size is None or header.size == (data.image_size, data.image_size)


def _bad(record: Record, error: BadImageError) -> GdaError:
    return GdaError(f"{record.name}: {error}: remove or replace it, or set data.on_bad_image: skip")


def _assign(scans: dict[str, _Scan], data: Data) -> dict[str, np.ndarray]:
    """Give every record a role: an index into SPLITS, or _UNUSED."""
    train, validation, test = range(len(SPLITS))
    roles = {}
    for split, scan in scans.items():
        role = np.full(len(scan.labels), SPLITS.index(split), np.int8)
        role[np.asarray(scan.bad, bool)] = _UNUSED
        roles[split] = role
    role, scan = roles["train"], scans["train"]
    labels = np.asarray(scan.labels)

    def members_of_train(purpose: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        members = np.flatnonzero(role == train)
        return members, np.asarray(scan.uniforms[purpose])[members], labels[members]

    if "test" not in scans:
        members, uniforms, of_class = members_of_train("test")
        role[members[split_off(uniforms, of_class, data.test_fraction)]] = test
    if data.validation_fraction > 0:
        members, uniforms, of_class = members_of_train("validation")
        role[members[split_off(uniforms, of_class, data.validation_fraction)]] = validation
    if data.train_fraction < 1:
        members, uniforms, of_class = members_of_train("train")
        role[members[~subsample(uniforms, of_class, data.train_fraction)]] = _UNUSED
    return roles


def _write(
    source: Source,
    roles: dict[str, np.ndarray],
    folder: Path,
    data: Data,
    extension: str,
    keep_bytes: bool,
    skipped: list[str],
) -> tuple[dict[str, _Written], list[int] | None]:
    """Write the shards and `index.parquet`; returns what was written and the image size, None if it varies."""
    written: dict[str, _Written] = {}
    sizes = set[tuple[int, int]]()
    total = sum(int((role != _UNUSED).sum()) for role in roles.values())
    with (
        progress("prepare: images", total, "images") as advance,
        TableWriter(folder / "index.parquet", _INDEX) as index,
    ):

        def samples(target: int, split: str) -> Iterator[Sample]:
            for record, role in zip(source.splits[split][1](), roles[split], strict=True):
                if role != target:
                    continue
                advance()
                encoded = record.load()
                try:
                    image = decode(encoded)
                except BadImageError as error:
                    if data.on_bad_image == "error":
                        raise _bad(record, error) from error
                    say(f"skipped: {record.name}: {error}")
                    skipped.append(record.key)
                    continue
                if not keep_bytes:
                    if data.image_size is not None:
                        image = resize_to(image, data.image_size, data.resize)
                    encoded = encode_png(image)
                if len(sizes) < 2:
                    sizes.add(image.size)
                name = source.class_names[record.label]
                meta = {"class_name": name, "width": image.width, "height": image.height, "synthetic": False}
                yield Sample(record.key, record.label, encoded, extension, meta)

        for target, name in enumerate(SPLITS):
            written[name] = _Written([0] * len(source.class_names))
            for split in source.splits:
                if (roles[split] == target).any():
                    _write_shards(samples(target, split), folder, name, data.shard_size, written[name], index)
    return written, list(sizes.pop()) if len(sizes) == 1 else None


def _write_shards(
    samples: Iterator[Sample], folder: Path, split: str, shard_size: int, written: _Written, index: TableWriter
) -> None:
    for first in samples:  # the first of each shard; `islice` below takes the others
        name = f"{split}-{len(written.shards):06d}.tar"
        rows: list[tuple[Any, ...]] = []

        def listed(first: Sample = first, name: str = name, rows: list[tuple[Any, ...]] = rows) -> Iterator[Sample]:
            for sample in chain([first], islice(samples, shard_size - 1)):
                sha256 = sha256_bytes(sample.image)
                rows.append((sample.key, sample.label, split, name, sha256))
                written.class_counts[sample.label] += 1
                written.digests.append(int(sha256[:16], 16))
                yield sample

        written.shards.append(write_shard(folder / name, listed()))
        index.append(rows)


def _check_classes(class_names: list[str], written: dict[str, _Written]) -> None:
    for split in SPLITS:
        counts = written[split].class_counts
        if split == "validation" and not any(counts):
            continue
        empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
        if empty and (split == "train" or len(empty) == len(class_names)):
            raise GdaError(
                f"data.source: class {empty[0]!r} has no {split} image ({len(empty)} such classes): add images, "
                "remove the class, or change data.test_fraction, data.validation_fraction or data.train_fraction"
            )
        if empty:
            say(f"warning: no {split} image of {len(empty)} of {len(class_names)} classes: {', '.join(empty[:5])}")
