"""Make a pool of synthetic images that any other tool made, as `gdacli prepare` makes shards of real ones."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gdacli.arms import milli, source_of
from gdacli.artifacts import new_directory, sha256_bytes, write_json, write_text
from gdacli.brought_pools import Brought, check_sources, held_out_images
from gdacli.console import progress, say
from gdacli.datasets import open_source
from gdacli.errors import GdaError
from gdacli.images import EXTENSIONS, BadImageError, Header, Resize, decode, encode_png, read_header, resize_to
from gdacli.paths import POOLS
from gdacli.pool import dataset_card
from gdacli.pools import UNKNOWN
from gdacli.prepared import Prepared
from gdacli.published import INDEX, MANIFEST
from gdacli.records import Record, Source
from gdacli.shards import Sample, read_shard, write_shard
from gdacli.tables import TableWriter

_INDEX = {"key": str, "label": int, "shard": str, "sha256": str, "source_key": str, "strength": int}


@dataclass(frozen=True)
class _Found:
    """What is known of an image before it is taken."""

    header: Header
    source: str
    """Key of the image that it varies, empty without one."""
    strength: int
    """In thousandths, or UNKNOWN."""


def import_images(
    folder: Path,
    name: str,
    prepared: Prepared,
    *,
    resize: Resize,
    shard_size: int,
    skip_bad: bool,
    source_keys: Path | None,
) -> Brought:
    """Turn images of another tool into `data/pools/<name>`, as `gdacli prepare` turns real ones into shards.

    The source of an image and its strength are those of its json in a shard or of its row in a table (`source_key`,
    `strength`), of a file name `<source key>_s0500_v0`, or of `source_keys`; without, it has none.

    Args:
        folder: a folder of images (`<class>/<image>`), tables or shards.
        name: of the pool in the project.
        prepared: the real images, whose size the others get.
        resize, shard_size: of the section `data`.
        skip_bad: leave out images that do not decode.
        source_keys: a CSV with the columns `file` (path in the folder, or key in the shard) and `source_key`.

    Raises:
        GdaError: classes, sources or images do not fit the project.
    """
    source = _open(folder)
    label_of = {class_name: label for label, class_name in enumerate(prepared.class_names)}
    if strangers := [each for each in source.class_names if each not in label_of]:
        remedy = "rename it, or leave it out"
        if all(each.isdecimal() for each in source.class_names):
            remedy = (
                "if these are numbers of classes, name them: shards in a classes.txt beside them, a name a line by "
                "number; a table in a column of text"
            )
        raise GdaError(
            f"{folder}: class {strangers[0]!r} is none of the project's ({', '.join(prepared.class_names[:10])}): "
            f"{remedy}"
        )
    given = _read_source_keys(source_keys)
    count, records = source.splits["train"]
    found, skipped = _look_at(records(), count, folder, given, skip_bad)
    if not found:
        raise GdaError(f"{folder}: found no image that decodes")
    check_sources((each.source for each in found.values()), prepared, str(source_keys or folder))
    headers = [each.header for each in found.values()]
    fits = all(header.plain and prepared.image_size in (None, header.size) for header in headers)
    formats = {header.format for header in headers}
    keep = fits and len(formats) == 1
    extension = EXTENSIONS[formats.pop()] if keep else "png"
    rows: list[tuple[Any, ...]] = []
    held_out = held_out_images(prepared)

    def samples() -> Iterator[Sample]:
        for record in records():
            if record.key not in found:
                continue
            encoded = record.load()
            image = decode(encoded)
            if not keep:
                if prepared.image_size is not None and image.size != prepared.image_size:
                    image = resize_to(image, prepared.square_size(), resize)
                encoded = encode_png(image)
            sha256 = sha256_bytes(encoded)
            if sha256 in held_out:
                raise GdaError(f"{record.name}: it is the {held_out[sha256]} image itself: no arm may train on it")
            class_name = source.class_names[record.label]
            label, own = label_of[class_name], found[record.key]
            meta = {
                "source_key": own.source,
                "strength": own.strength / 1000 if own.strength != UNKNOWN else float(UNKNOWN),
                "class_name": class_name,
                "pool": name,
                "file": _own_name(record, folder),
                "synthetic": True,
            }
            rows.append((record.key, label, sha256, own.source, own.strength))
            yield Sample(record.key, label, encoded, extension, meta)

    everything = samples()
    shards = []
    with (
        new_directory(POOLS / name) as target,
        progress(f"import {name}", len(found), "images") as advance,
        TableWriter(target / INDEX, _INDEX) as index,
    ):
        for number in range(-(-len(found) // shard_size)):
            shard = f"train-{number:06d}.tar"
            shards.append(write_shard(target / shard, islice(everything, shard_size)))
            index.append([(key, label, shard, *rest) for key, label, *rest in rows[number * shard_size :]])
            advance(shards[-1].count)
        manifest = {
            "class_names": prepared.class_names,
            "num_images": len(rows),
            "shards": [vars(shard) for shard in shards],
            "imported_from": {"folder": folder.resolve().name},
        }
        write_json(target / MANIFEST, manifest)
        example = next(read_shard(target / shards[0].name))
        write_text(target / "README.md", dataset_card(prepared.class_names, extension, example.meta))
    if given and (unused := set(given) - {_own_name(record, folder) for record in records()}):
        say(f"note: {source_keys}: {len(unused)} of its {len(given)} files are not in {folder} (first: {min(unused)})")
    return Brought(name, len(rows), sum(bool(each.source) for each in found.values()), num_skipped=skipped)


def _open(folder: Path) -> Source:
    try:
        source = open_source(str(folder), fewest_classes=1)
    except GdaError as error:
        raise GdaError(str(error).removeprefix("data.source: ")) from error
    if len(source.splits) > 1:
        raise GdaError(
            f"{folder}: found the splits {', '.join(source.splits)}; a pool is for training alone: name the folder of "
            "one of them"
        )
    return source


def _look_at(
    records: Iterator[Record], count: int, folder: Path, given: Mapping[str, str], skip_bad: bool
) -> tuple[dict[str, _Found], int]:
    """Return what is known of every image that decodes, by key, and how many do not."""
    found: dict[str, _Found] = {}
    skipped = 0
    with progress("import: headers", count, "images") as advance:
        for record in records:
            if record.key in found:
                raise GdaError(f"{record.name}: another image has the same key {record.key}: rename one")
            try:
                encoded = record.load()
                header = read_header(encoded)
                decode(encoded)
                found[record.key] = _Found(header, *_source(record, folder, given))
            except BadImageError as error:
                if not skip_bad:
                    raise GdaError(
                        f"{record.name}: {error}: remove or replace it, or set data.on_bad_image: skip"
                    ) from error
                say(f"skipped: {record.name}: {error}")
                skipped += 1
            advance()
    return found, skipped


def _read_source_keys(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return {row["file"]: row["source_key"].strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise GdaError(f"--source-keys {path}: no CSV with the columns file and source_key ({error})") from error


def _source(record: Record, folder: Path, given: Mapping[str, str]) -> tuple[str, int]:
    """Return the key of an image's source, empty without one, and its strength in thousandths."""
    own = _own_name(record, folder)
    named = source_of(Path(own).stem)
    source, strength = named if named is not None else ("", UNKNOWN)
    source = str(given.get(own) or record.meta.get("source_key") or source)
    told = record.meta.get("strength")
    if isinstance(told, int | float) and 0 < told <= 1:
        strength = milli(told)
    return source, strength


def _own_name(record: Record, folder: Path) -> str:
    """Return what the user calls an image: its path in the folder, or its key in a shard or row of a table."""
    if ", sample " in record.name:
        return record.name.rpartition(", sample ")[2]
    path = Path(record.name)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else record.key
