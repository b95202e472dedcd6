"""Where images come from: bundled digits, an image folder, a table or Hub dataset, WebDataset shards."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gdacli.artifacts import read_json
from gdacli.errors import GdaError
from gdacli.images import encode_png
from gdacli.rng import digest, uniform
from gdacli.shards import read_shard

SPLITS = ("train", "validation", "test")
_SPLIT_OF_NAME = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"})
_TABLE_SUFFIXES = (".parquet", ".arrow")
_CLASS_LISTS = ("classes.txt", "classnames.txt")


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a source, not read yet."""

    key: str
    label: int
    name: str
    """What the user calls it: a path or a row, for messages."""
    load: Callable[[], bytes]
    """Reads the encoded image."""


@dataclass(frozen=True)
class Source:
    """A labelled set of images that can be read more than once.

    `splits` maps each split that the source itself has to its number of records and a function that starts reading.
    """

    class_names: list[str]
    splits: dict[str, tuple[int, Callable[[], Iterator[Record]]]]


def open_source(
    source: str,
    *,
    folder: Path = Path(),
    image_column: str | None = None,
    label_column: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """Open a source by what it is.

    Args:
        source: `digits`, a path (relative to `folder`) of an image folder, a folder or file of parquet or Arrow
            tables or WebDataset shards, or the id of a Hub dataset.
        image_column, label_column: the columns of a table; found by feature type when None.
        config, revision: of a Hub dataset.

    Raises:
        GdaError: nothing is there, it is empty, or columns, labels or classes do not fit.
    """
    if source == "digits":
        return _open_digits()
    path = folder / Path(source).expanduser()
    columns = (image_column, label_column)
    if path.exists():
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        if any(file.suffix == ".tar" for file in files):
            return _open_shards(path, [file for file in files if file.suffix == ".tar"])
        if any(file.suffix in _TABLE_SUFFIXES for file in files):
            return _open_table(path, *columns)
        return _open_folder(path)
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        return _open_table(source, *columns, config=config, revision=revision)
    raise GdaError(
        f"data.source: there is no {str(path)!r}: give 'digits', an existing folder of images, tables or shards, "
        "or the id of a Hub dataset"
    )


def readable(class_name: str) -> str:
    """Turn a class name into words for a prompt: underscores, dashes and camel case become spaces.

    >>> readable("sweetPepper"), readable("t-shirt"), readable("great_white_shark"), readable("USFlag")
    ('sweet pepper', 't-shirt', 'great white shark', 'US flag')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", class_name.replace("_", " "))
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in spaced.split())


def legal_key(name: str) -> str:
    """Make a shard key of a sample's own name: letters, digits, '_' and '-'; a hash keeps changed names apart.

    >>> legal_key("train-00000012"), legal_key("cat/a.png")
    ('train-00000012', 'cat_a_png-5e6fd884')
    """
    name = unicodedata.normalize("NFC", name)
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
    return slug if slug == name else f"{slug}-{digest(name)[:8]}"


def split_off(keys_uniform: np.ndarray, labels: np.ndarray, fraction: float) -> np.ndarray:
    """Choose about `fraction` of each class by hash, so that a further image moves no other.

    Each image is chosen if its own number is below the fraction: the class shares agree up to chance. A class of two
    or more images keeps at least one on either side.

    Args:
        keys_uniform: float64 [N] in [0, 1), a hash of each key.
        labels: int [N].
        fraction: in (0, 1).

    Returns:
        bool [N], True = chosen.
    """
    chosen = keys_uniform < fraction
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            chosen[members] = False
        elif not chosen[members].any():
            chosen[members[keys_uniform[members].argmin()]] = True
        elif chosen[members].all():
            chosen[members[keys_uniform[members].argmax()]] = False
    return chosen


def subsample(keys_uniform: np.ndarray, labels: np.ndarray, fraction: float) -> np.ndarray:
    """Choose exactly round(`fraction` x size) of each class, at least one; smaller fractions are subsets of larger.

    Args:
        keys_uniform: float64 [N] in [0, 1), a hash of each key.
        labels: int [N].
        fraction: in (0, 1].

    Returns:
        bool [N], True = chosen.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        chosen[members[keys_uniform[members].argsort(kind="stable")[:count]]] = True
    return chosen


def key_uniform(key: str, seed: int, purpose: str) -> float:
    """Return the number in [0, 1) by which `split_off` and `subsample` judge a key."""
    return uniform("split", seed, purpose, key)


def _open_digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()

    def load(grey: np.ndarray) -> bytes:
        return encode_png(np.repeat((grey * (255 / 16)).round().astype(np.uint8)[None], 3, axis=0))

    def records() -> Iterator[Record]:
        for row, (grey, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            yield Record(f"digits-{row:04d}", int(label), f"digits, row {row}", partial(load, grey))

    return Source([str(name) for name in digits.target_names], {"train": (len(digits.target), records)})


def _open_folder(root: Path) -> Source:
    if not root.is_dir():
        raise GdaError(f"data.source: {root} is not a folder, and not a parquet, Arrow or tar file")
    children = {child.name: child for child in sorted(root.iterdir()) if child.is_dir() and child.name[0] != "."}
    split_folders = {
        _SPLIT_OF_NAME[name.lower()]: path for name, path in children.items() if name.lower() in _SPLIT_OF_NAME
    }
    if "train" not in split_folders:
        split_folders = {"train": root}
    class_names = _subfolders(split_folders["train"])
    if not class_names:
        raise GdaError(
            f"data.source: {split_folders['train']} has no class folders: expected <class>/<image> in it, "
            "or train/<class>/<image>"
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, folder in split_folders.items():
        files: list[tuple[Path, int]] = []
        for name in _subfolders(folder):
            if name not in label_of:
                raise GdaError(f"data.source: class {name!r} of {folder} is not in {split_folders['train']}")
            images = sorted(file for file in (folder / name).rglob("*") if _is_image(file))
            if split == "train" and not images:
                raise GdaError(f"data.source: class {name!r} has no image: {folder / name} is empty; fill or remove it")
            files += [(file, label_of[name]) for file in images]
        if files:
            splits[split] = (len(files), _folder_reader(root, files))
    return Source(class_names, splits)


def _subfolders(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _IMAGE_SUFFIXES and file.name[0] != "." and file.is_file()


def _folder_reader(root: Path, files: list[tuple[Path, int]]) -> Callable[[], Iterator[Record]]:
    def records() -> Iterator[Record]:
        for file, label in files:
            name = file.relative_to(root).as_posix()
            yield Record(legal_key(name), label, str(file), file.read_bytes)

    return records


def _open_shards(root: Path, tars: list[Path]) -> Source:
    by_split: dict[str, list[Path]] = {}
    for tar in tars:
        prefix = re.split(r"[-_.]", tar.name)[0].lower()
        by_split.setdefault(_SPLIT_OF_NAME.get(prefix, "train"), []).append(tar)
    if "train" not in by_split:
        raise GdaError(f"data.source: {root} has shards of {', '.join(by_split)} but none of train (train-*.tar)")
    counts, top_label = dict.fromkeys(by_split, 0), 0
    for split, paths in by_split.items():
        for path in paths:
            for sample in read_shard(path):
                counts[split] += 1
                top_label = max(top_label, sample.label)
    folder = root if root.is_dir() else root.parent
    class_names = _shard_class_names(folder) or [str(label) for label in range(top_label + 1)]

    def reader(split: str) -> Callable[[], Iterator[Record]]:
        def records() -> Iterator[Record]:
            for path in by_split[split]:
                for sample in read_shard(path):
                    key = legal_key(sample.key if sample.key.startswith(split) else f"{split}_{sample.key}")
                    name = f"{path}, sample {sample.key}"
                    yield Record(key, sample.label, name, partial(bytes, sample.image))

        return records

    return Source(class_names, {split: (count, reader(split)) for split, count in counts.items()})


def _shard_class_names(folder: Path) -> list[str] | None:
    if (folder / "dataset.json").exists():
        names = read_json(folder / "dataset.json").get("class_names")
        return [str(name) for name in names] if isinstance(names, list) else None
    for file_name in _CLASS_LISTS:
        if (folder / file_name).exists():
            return (folder / file_name).read_text(encoding="utf-8").splitlines()
    card = folder / "README.md"
    if card.exists() and (front := re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)):
        info = (yaml.safe_load(front[1]) or {}).get("dataset_info") or {}
        for feature in info.get("features", []) if isinstance(info, dict) else []:
            dtype = feature.get("dtype")
            if feature.get("name") == "cls" and isinstance(dtype, dict) and "class_label" in dtype:
                names = dtype["class_label"]["names"]
                return [str(names[index]) for index in sorted(names, key=int)]
    return None


def _open_table(
    source: Path | str,
    image_column: str | None,
    label_column: str | None,
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    import datasets as hf

    hf.disable_progress_bars()
    hf.logging.set_verbosity_error()
    try:
        loaded = _load_tables(hf, source, config, revision)
    except Exception as error:  # the library raises many kinds; each means that this source cannot be read
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "" if isinstance(source, Path) else f"; there is no local folder {source!r} either"
        raise GdaError(f"data.source: {source}: cannot be read as a dataset: {reason}{remedy}") from error
    tables = {_SPLIT_OF_NAME[name.lower()]: table for name, table in loaded.items() if name.lower() in _SPLIT_OF_NAME}
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
        return _existing(features, named, "data.image_column")
    found = [name for name, feature in features.items() if isinstance(feature, hf.Image) or _is_bytes_struct(feature)]
    return _only(found, ("image", "img"), features, "data.image_column", "image")


def _is_bytes_struct(feature: Any) -> bool:
    return isinstance(feature, dict) and "bytes" in feature


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
    values = sorted(set(table.unique(column)) - {None})
    if any(isinstance(value, int) and value < 0 for value in values):
        raise GdaError(f"data.label_column: column {column!r} holds {values[0]}: labels are 0 or larger")
    label_of = {value: label for label, value in enumerate(values)}
    return [str(value) for value in values], label_of.get


def _table_reader(
    split: str, table: Any, image: str, label: str, label_of: Callable[[Any], int | None]
) -> Callable[[], Iterator[Record]]:
    def load(cell: Any) -> bytes:
        if isinstance(cell, dict) and cell.get("bytes") is not None:
            return cell["bytes"]
        if isinstance(cell, dict) and cell.get("path") and Path(cell["path"]).exists():
            return Path(cell["path"]).read_bytes()
        return b""

    def records() -> Iterator[Record]:
        for row, cells in enumerate(table.select_columns([image, label])):
            name = f"{split} split, row {row}"
            found = label_of(cells[label])
            if found is None:
                raise GdaError(f"data.label_column: {name}: label {cells[label]!r} is not one of the train classes")
            yield Record(f"{split}-{row:08d}", found, name, partial(load, cells[image]))

    return records
