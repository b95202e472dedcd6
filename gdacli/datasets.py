"""Where images come from: bundled digits, an image folder, a table or Hub dataset, WebDataset shards."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import yaml

from gdacli.artifacts import read_json
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.images import encode_png
from gdacli.records import SPLIT_OF_NAME, Record, Source, legal_key, names_of_splits
from gdacli.shards import read_shard
from gdacli.table_datasets import open_table

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"})
_TABLE_SUFFIXES = (".parquet", ".arrow")
_FILES_TO_JUDGE_BY = 10_000
_CLASS_LISTS = ("classes.txt", "classnames.txt")


def open_source(
    source: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    fewest_classes: int = 2,
) -> Source:
    """Open a source by what it is.

    Args:
        source: `digits`, the path of an image folder, a folder or file of parquet or Arrow tables or WebDataset
            shards, or the id of a Hub dataset.
        image_column, label_column: the columns of a table; found by feature type when None.
        config, revision: of a Hub dataset.
        fewest_classes: that it must have.

    Raises:
        GdaError: nothing is there, it is empty, or columns, labels or classes do not fit.
    """
    opened = _open(source, image_column, label_column, config, revision)
    if len(opened.class_names) < fewest_classes:
        raise GdaError(
            f"data.source: {source}: found one class ({', '.join(opened.class_names)}); a classifier needs two or "
            "more: is there a folder too many above the classes?"
        )
    doubles = [name for name, count in Counter(opened.class_names).items() if count > 1 or not name.strip()]
    if doubles:
        raise GdaError(
            f"data.source: class name {doubles[0]!r} is empty or stands twice: every class needs its own name"
        )
    return opened


def _open(
    source: str, image_column: str | None, label_column: str | None, config: str | None, revision: str | None
) -> Source:
    if source == "digits":
        return _open_digits()
    path = Path(source).expanduser()
    columns = (image_column, label_column)
    if path.exists():
        kind = _kind(path)
        if kind == "shards":
            return _open_shards(path)
        return open_table(path, *columns) if kind == "tables" else _open_folder(path)
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        say(f"there is no folder {source!r} here; asking the Hub for a dataset of this name")
        return open_table(source, *columns, config=config, revision=revision)
    raise GdaError(
        f"data.source: there is no {str(path)!r}: give 'digits', an existing folder of images, tables or shards, "
        "or the id of a Hub dataset"
    )


def _kind(path: Path) -> str:
    """Say what most of the first files are: `images`, `shards` or `tables`."""
    kinds = dict.fromkeys(IMAGE_SUFFIXES, "images") | dict.fromkeys(_TABLE_SUFFIXES, "tables")
    kinds[".tar"] = "shards"
    files = [path] if path.is_file() else islice(visible_files(path), _FILES_TO_JUDGE_BY)
    counts = Counter(kinds[file.suffix.lower()] for file in files if file.suffix.lower() in kinds)
    return counts.most_common(1)[0][0] if counts else "images"


def visible_files(folder: Path) -> Iterator[Path]:
    """Walk a folder in the order of names, without what is hidden."""
    for child in sorted(folder.iterdir()):
        if child.name[0] == ".":
            continue
        if child.is_dir():
            yield from visible_files(child)
        elif child.is_file():
            yield child


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
    named = {split: root / name for split, name in names_of_splits(_subfolders(root), str(root)).items()}
    has_splits = "train" in named and bool(_subfolders(named["train"]))  # else `train` is a class like any other
    split_folders = named if has_splits else {"train": root}
    class_names = _subfolders(split_folders["train"])
    if not class_names:
        raise GdaError(
            f"data.source: {split_folders['train']} has no class folders: expected <class>/<image> in it, "
            "or train/<class>/<image>"
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, folder in split_folders.items():
        if not _subfolders(folder):
            raise GdaError(
                f"data.source: {folder} has no class folders, unlike {split_folders['train']}: sort its images into "
                f"<class>/<image>, or move it elsewhere"
            )
        files: list[tuple[str, int]] = []  # names: they take less memory than paths
        for name in _subfolders(folder):
            if name not in label_of:
                raise GdaError(f"data.source: class {name!r} of {folder} is not in {split_folders['train']}")
            images = [str(file.relative_to(root)) for file in visible_files(folder / name) if is_image(file)]
            if split == "train" and not images:
                raise GdaError(f"data.source: class {name!r} has no image: {folder / name} is empty; fill or remove it")
            files += [(file, label_of[name]) for file in images]
        if files:
            splits[split] = (len(files), _folder_reader(root, files))
    return Source(class_names, splits)


def _subfolders(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")


def is_image(file: Path) -> bool:
    """Say if a file is an image by its name."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def _folder_reader(root: Path, files: list[tuple[str, int]]) -> Callable[[], Iterator[Record]]:
    def records() -> Iterator[Record]:
        for file, label in files:
            yield Record(legal_key(Path(file).as_posix()), label, str(root / file), (root / file).read_bytes)

    return records


def _open_shards(root: Path) -> Source:
    tars = [root] if root.is_file() else [file for file in visible_files(root) if file.suffix == ".tar"]
    by_split: dict[str, list[Path]] = {}
    for tar in tars:
        words = re.split(r"[-_./]", (tar.name if root.is_file() else tar.relative_to(root).as_posix()).lower())
        splits = {SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME}
        if len(splits) > 1:
            raise GdaError(f"data.source: {tar}: the name speaks of {' and '.join(sorted(splits))}: rename it")
        by_split.setdefault(splits.pop() if splits else "", []).append(tar)
    if "" in by_split and len(by_split) > 1:
        raise GdaError(
            f"data.source: {by_split[''][0]} names no split, while others do ({', '.join(filter(None, by_split))}): "
            "rename it, train-*.tar for example"
        )
    if "" in by_split:
        by_split = {"train": by_split[""]}
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
                    yield Record(key, sample.label, name, partial(bytes, sample.image), sample.meta)

        return records

    return Source(class_names, {split: (count, reader(split)) for split, count in counts.items()})


def _shard_class_names(folder: Path) -> list[str] | None:
    if (folder / "dataset.json").exists():
        names = read_json(folder / "dataset.json").get("class_names")
        return [str(name) for name in names] if isinstance(names, list) else None
    for file_name in _CLASS_LISTS:
        if (folder / file_name).exists():
            return [line.strip() for line in (folder / file_name).read_text(encoding="utf-8").strip().splitlines()]
    card = folder / "README.md"
    if card.exists() and (front := re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)):
        info = (yaml.safe_load(front[1]) or {}).get("dataset_info") or {}
        for feature in info.get("features", []) if isinstance(info, dict) else []:
            dtype = feature.get("dtype")
            if feature.get("name") == "cls" and isinstance(dtype, dict) and "class_label" in dtype:
                names = dtype["class_label"]["names"]
                return [str(names[index]) for index in sorted(names, key=int)]
    return None
