"""An image folder, `<split>/<class>/<key>.<extension>`, whose classes every reader numbers as we do."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gdacli.errors import GdaError
from gdacli.exports.card import write_card
from gdacli.exports.contents import Contents
from gdacli.pool import class_label

CLASSES, CLASS_MAP = "classes.txt", "class_map.txt"

_ILLEGAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')  # on one file system or another
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MOST_BYTES = 200  # of the 255 that a name may have: a number goes in front


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Return a folder name for each class, so that sorting the folders gives the order of the labels.

    The names of the classes, if they are legal on every file system and torchvision (which sorts by character) and timm
    (which sorts numbers by value, and ignores case) both bring them into this order; else each gets its label in front.

    >>> folder_names(["cat", "dog"]), folder_names(["dog", "cat/kitten"])
    (['cat', 'dog'], ['0_dog', '1_cat_kitten'])
    """
    names = list(class_names)
    as_seen = {unicodedata.normalize("NFKC", name).casefold() for name in names}  # by macOS and Windows
    can_stay = all(map(_is_legal, names)) and len(as_seen) == len(names)
    if can_stay and names == sorted(names) and names == sorted(names, key=_natural):
        return names
    width = len(str(len(names) - 1))
    return [f"{label:0{width}d}_{_legal(name)}" for label, name in enumerate(names)]


def write_image_folder(
    folder: Path, class_names: Sequence[str], splits: Sequence[Contents], advance: Callable[[], object]
) -> dict[str, Any]:
    """Write image folders of all splits, and what tells readers the order of the classes.

    Every class has its folder in every split, also an empty one: without it torchvision would number the classes
    after it differently, and say nothing.

    Args:
        folder: where.
        class_names: C of them, in the order of the labels.
        splits: what.
        advance: called after each image.

    Returns:
        the names of the folders.

    Raises:
        GdaError: two keys of a class differ in nothing that the file system sees.
    """
    names = folder_names(class_names)
    for split in splits:
        paths = [folder / split.split / name for name in names]
        for path in paths:
            path.mkdir(parents=True)
        for image in split.images():
            path = paths[image.label] / image.file_name
            try:
                with path.open("xb") as file:
                    file.write(image.content)
            except FileExistsError:
                raise GdaError(
                    f"{split.split}: key {image.key!r} and another one are the same file here: export to a file system "
                    "that tells upper from lower case, or as parquet or webdataset"
                ) from None
            advance()
    for file_name, lines in ((CLASSES, class_names), (CLASS_MAP, names)):
        text = "".join(f"{' '.join(line.split())}\n" for line in lines)
        (folder / file_name).write_text(text, encoding="utf-8")
    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": class_label(names)},
    ]
    patterns = {split.split: f"{split.split}/**" for split in splits}
    notes = (
        f"`{CLASSES}` has the names of the classes in the order of the labels, `{CLASS_MAP}` those of their folders; "
        "sorted, the folders are in that order too."
    )
    write_card(folder, features, patterns, splits, notes, config={"drop_labels": False, "features": features})
    return {"folder_names": names}


def _is_legal(name: str) -> bool:
    return name == _legal(name) and name[0] not in "._" and name == " ".join(name.split())


def _legal(name: str) -> str:
    # timm takes "²" for a number and fails
    name = "".join("_" if char.isdigit() and not char.isascii() else char for char in _ILLEGAL.sub("_", name))
    while len(name.encode()) > _MOST_BYTES:
        name = name[:-1]
    name = name.rstrip(". ")  # which Windows drops
    return f"{name}_" if _RESERVED.fullmatch(name) or not name else name


def _natural(name: str) -> list[str | int]:
    """Return what timm sorts by."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]
