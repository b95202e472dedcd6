"""Parquet files as the Hub lays them out, which `datasets.load_dataset` reads with images and class names."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gdacli.exports.card import write_card
from gdacli.exports.contents import Contents, ExportedImage
from gdacli.pool import class_label

FILE_BYTES = 400 * 1024**2
"""Of images in a file; the Hub's own viewer converts to files of up to 500 MB."""

_GROUP_ROWS = 1000
_GROUP_BYTES = 16 * 1024**2  # a reader that shuffles holds some groups at a time

_TYPES = {
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "label": pa.int64(),
    "key": pa.string(),
    "synthetic": pa.bool_(),
}


def write_parquet(
    folder: Path,
    class_names: Sequence[str],
    splits: Sequence[Contents],
    advance: Callable[[], object],
    file_bytes: int = FILE_BYTES,
) -> dict[str, Any]:
    """Write `<split>-00000-of-0000n.parquet` of all splits; at most a row group is in memory.

    Args:
        folder: where.
        class_names: C of them, in the order of the labels.
        splits: what.
        advance: called after each image.
        file_bytes: of the images of a file, at most, but for one of a single row group.

    Returns:
        the number of files.
    """
    schema, count = _schema(class_names), 0
    for split in splits:
        files = list[Path]()
        with ExitStack() as open_file:
            left, writer = 0, None
            for group in _groups(split.images(), advance):
                num_bytes = sum(len(image.content) for image in group)
                if writer is None or num_bytes > left:
                    open_file.close()
                    files.append(folder / f"{split.split}-{len(files):05d}.parquet")
                    writer, left = open_file.enter_context(_open(files[-1], schema)), file_bytes
                left -= num_bytes
                writer.write_table(_table(group, schema))
        for number, file in enumerate(files):
            file.rename(folder / f"{split.split}-{number:05d}-of-{len(files):05d}.parquet")
        count += len(files)
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": class_label(class_names)},
        {"name": "key", "dtype": "string"},
        {"name": "synthetic", "dtype": "bool"},
    ]
    patterns = {split.split: f"{split.split}-*.parquet" for split in splits}
    write_card(folder, features, patterns, splits, "`synthetic` tells made images from originals.")
    return {"files": count}


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a file whose images, which are compressed already, are stored as they are."""
    columns = {"image.bytes": "NONE", **dict.fromkeys(("image.path", "label", "key", "synthetic"), "ZSTD")}
    return pq.ParquetWriter(path, schema, compression=columns, use_dictionary=["label"])


def _groups(images: Iterator[ExportedImage], advance: Callable[[], object]) -> Iterator[list[ExportedImage]]:
    group, num_bytes = list[ExportedImage](), 0
    for image in images:
        group.append(image)
        num_bytes += len(image.content)
        advance()
        if len(group) == _GROUP_ROWS or num_bytes >= _GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _table(group: Sequence[ExportedImage], schema: pa.Schema) -> pa.Table:
    columns = {
        "image": [{"bytes": image.content, "path": image.file_name} for image in group],
        "label": [image.label for image in group],
        "key": [image.key for image in group],
        "synthetic": [image.synthetic for image in group],
    }
    return pa.table([pa.array(columns[name], kind) for name, kind in _TYPES.items()], schema=schema)


def _schema(class_names: Sequence[str]) -> pa.Schema:
    """Return the columns, with the features of `datasets` in the metadata, where it looks for them."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(class_names), "_type": "ClassLabel"},
        "key": {"dtype": "string", "_type": "Value"},
        "synthetic": {"dtype": "bool", "_type": "Value"},
    }
    return pa.schema(list(_TYPES.items()), {"huggingface": json.dumps({"info": {"features": features}})})
