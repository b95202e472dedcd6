"""What every source gives: labelled images under keys of their own, in splits."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gdacli.errors import GdaError
from gdacli.rng import digest

SPLITS = ("train", "validation", "test")
SPLIT_OF_NAME = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a source, not read yet."""

    key: str
    label: int
    name: str
    """What the user calls it: a path or a row, for messages."""
    load: Callable[[], bytes]
    """Reads the encoded image."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What a shard says of it in JSON, or a table in further columns."""


@dataclass(frozen=True)
class Source:
    """A labelled set of images that can be read more than once.

    `splits` maps each split that the source itself has to its number of records and a function that starts reading.
    """

    class_names: list[str]
    splits: dict[str, tuple[int, Callable[[], Iterator[Record]]]]


def legal_key(name: str) -> str:
    """Make a shard key of a sample's own name: letters, digits, '_' and '-'; a hash keeps changed names apart.

    >>> legal_key("train-00000012"), legal_key("cat/a.png")
    ('train-00000012', 'cat_a_png-5e6fd884')
    """
    name = unicodedata.normalize("NFC", name)
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
    return slug if slug == name else f"{slug}-{digest(name)[:8]}"


def names_of_splits(names: Iterable[str], where: str) -> dict[str, str]:
    """Map our split names to those of a source, which go by many names.

    Raises:
        GdaError: two names mean the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = SPLIT_OF_NAME.get(name.lower())
        if split in found:
            raise GdaError(f"data.source: {where} has both {found[split]!r} and {name!r}, which mean {split}: keep one")
        if split is not None:
            found[split] = name
    return found
