"""Tables of images: parquet and Arrow files, and datasets of the Hub, through the `datasets` library."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gdacli.errors import GdaError
from gdacli.records import Record, Source, names_of_splits


def open_table(
    source: Path | str,
    image_column: str | None,
    label_column: str | None,
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """Open a parquet or Arrow file or folder, or a Hub dataset by its id; see `datasets.open_source`.

    Raises:
        GdaError: it cannot be read, or its columns or labels do not fit.
    """
    import datasets as hf

    hf.disable_progress_bars()
    hf.logging.set_verbosity_error()
    try:
        loaded = _load_tables(hf, source, config, revision)
    except Exception as error:  # the library raises many kinds; each means that this source cannot be read
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "" if isinstance(source, Path) else f"; there is no local folder {source!r} either"
        raise GdaError(f"data.source: {source}: cannot be read as a dataset: {reason}{remedy}") from error
    tables = {split: loaded[name] for split, name in names_of_splits(loaded, str(source)).items()}
    if "train" not in tables:
        if len(loaded) != 1:
            raise GdaError(f"data.source: {source} has the splits {', '.join(loaded)}, but none is called train")
        tables = {"train": next(iter(loaded.values()))}
    features = tables["train"].features
    image = _image_column(hf, features, image_column)
    label = _label_column(hf, features, label_column)
    class_names, label_of = _table_classes(hf, features[label], tables["train"], label)
    splits = {}
    for split, table in tables.items():
        if isinstance(features[image], hf.Image):
            table = table.cast_column(image, hf.Image(decode=False))
        splits[split] = (len(table), _table_reader(split, table, image, label, label_of))
    return Source(class_names, splits)


def _load_tables(hf: Any, source: Path | str, config: str | None, revision: str | None) -> dict[str, Any]:
    if isinstance(source, str):
        return dict(hf.load_dataset(source, config, revision=revision))
    if source.is_file():
        kind = source.suffix.removeprefix(".")
        return {"train": hf.load_dataset(kind, data_files=str(source), split="train")}
    if (source / "dataset_dict.json").exists():
        return dict(hf.load_from_disk(str(source)))
    if (source / "state.json").exists():
        return {"train": hf.load_from_disk(str(source))}
    return dict(hf.load_dataset(str(source)))


def _image_column(hf: Any, features: Any, named: str | None) -> str:
    if named is not None:
        if not _holds_images(hf, features[_existing(features, named, "data.image_column")]):
            raise GdaError(f"data.image_column: column {named!r} holds {features[named]}; needs images or their bytes")
        return named
    found = [name for name, feature in features.items() if _holds_images(hf, feature)]
    return _only(found, ("image", "img"), features, "data.image_column", "image")


def _holds_images(hf: Any, feature: Any) -> bool:
    """True for an image, a struct with `bytes`, and plain bytes."""
    if isinstance(feature, hf.Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, hf.Image) or (isinstance(feature, dict) and "bytes" in feature)


def _label_column(hf: Any, features: Any, named: str | None) -> str:
    if named is not None:
        return _existing(features, named, "data.label_column")
    usual = ("label", "fine_label", "labels", "cls", "class")
    found = [name for name, feature in features.items() if isinstance(feature, hf.ClassLabel)]
    found = found or [name for name in usual if isinstance(features.get(name), hf.Value)]
    return _only(found, usual, features, "data.label_column", "class label")


def _existing(features: Any, named: str, field: str) -> str:
    if named not in features:
        raise GdaError(f"{field}: there is no column {named!r}; the columns are {', '.join(features)}")
    return named


def _only(found: list[str], preferred: tuple[str, ...], features: Any, field: str, what: str) -> str:
    if len(found) == 1:
        return found[0]
    for name in preferred:
        if name in found:
            return name
    count = "no" if not found else "more than one"
    raise GdaError(f"{field}: {count} {what} column among {', '.join(features)}: name it in params.yaml")


def _table_classes(hf: Any, feature: Any, table: Any, column: str) -> tuple[list[str], Callable[[Any], int | None]]:
    if isinstance(feature, hf.ClassLabel):
        names = list(feature.names)
        return names, lambda value: value if value is not None and 0 <= value < len(names) else None
    if not isinstance(feature, hf.Value) or not (feature.dtype == "string" or "int" in feature.dtype):
        raise GdaError(f"data.label_column: column {column!r} holds {feature}; needs classes, whole numbers or text")
    values = sorted(set(table.unique(column)) - {None})
    if any(isinstance(value, int) and value < 0 for value in values):
        raise GdaError(f"data.label_column: column {column!r} holds {values[0]}: labels are 0 or larger")
    label_of = {value: label for label, value in enumerate(values)}
    return [str(value) for value in values], label_of.get


_META = ("source_key", "strength")
"""Columns of a table of synthetic images that say of what each was made."""


def _table_reader(
    split: str, table: Any, image: str, label: str, label_of: Callable[[Any], int | None]
) -> Callable[[], Iterator[Record]]:
    def load(cell: Any) -> bytes:
        if isinstance(cell, bytes):
            return cell
        if isinstance(cell, dict) and cell.get("bytes") is not None:
            return cell["bytes"]
        if isinstance(cell, dict) and cell.get("path") and Path(cell["path"]).exists():
            return Path(cell["path"]).read_bytes()
        return b""

    def records() -> Iterator[Record]:
        told = [name for name in _META if name in table.column_names]
        for row, cells in enumerate(table.select_columns([image, label, *told])):
            name = f"{split} split, row {row}"
            found = label_of(cells[label])
            if found is None:
                raise GdaError(f"data.label_column: {name}: label {cells[label]!r} is not one of the train classes")
            yield Record(
                f"{split}-{row:08d}", found, name, partial(load, cells[image]), {each: cells[each] for each in told}
            )

    return records
