"""The picture on a dataset's card: some images of each class, as one PNG."""

from collections.abc import Mapping, Sequence

import numpy as np

from gdacli.galleries import Place, read_images
from gdacli.grid import contact_sheet
from gdacli.prepared import Prepared
from gdacli.sharing.shared_pool import SAMPLED, SharedPool, kind_title

GALLERY = "gallery.png"

_CLASSES = 12
_COLUMNS = 10
_CELL = 72


def shown_classes(num_classes: int) -> list[int]:
    """Return the classes that a picture has room for: all, or 12 of them at even distances."""
    return sorted({round(place) for place in np.linspace(0, num_classes - 1, min(num_classes, _CLASSES)).tolist()})


def gallery(shared: SharedPool, prepared: Prepared | None) -> bytes:
    """Draw a row for each class: images at even distances in the order of the pool, not chosen by how they look.

    Args:
        shared: the images.
        prepared: the originals, to stand before their variants; None shows synthetic images alone.

    Returns:
        the PNG.
    """
    names = shared.manifest["class_names"]
    kinds = list(shared.counts())
    of_class: dict[int, dict[str, list[str]]] = {}
    source_of = dict(zip(shared.keys, shared.sources, strict=True))
    kind_of = dict(zip(shared.keys, shared.kinds, strict=True))
    for key, label in zip(shared.keys, shared.index["label"].to_pylist(), strict=True):
        of_class.setdefault(label, {}).setdefault(source_of[key] or key, []).append(key)  # one without stands alone
    width = len(kinds) + (prepared is not None)
    groups = max(1, _COLUMNS // width)
    keys = {label: _places(of_class.get(label, {}), kinds, kind_of, groups) for label in shown_classes(len(names))}
    shard_of = dict(zip(shared.keys, shared.index["shard"].to_pylist(), strict=True))
    made = _by_key(read_images((shared.folder / shard_of[key], key) for row in keys.values() for key in row if key))
    shown = [source_of[key] for row in keys.values() for key in row if key]
    originals = _originals(prepared, shown) if prepared else {}
    beside = {key: originals.get(source) for key, source in source_of.items()} if prepared else None
    rows = [(names[label], _row(row, len(kinds), made, beside)) for label, row in keys.items()]
    titles = ["source"] * (prepared is not None) + [kind_title(kind) for kind in kinds]
    return contact_sheet(rows, titles * groups, cell=_CELL)


def _places(
    by_source: Mapping[str, Sequence[str]], kinds: Sequence[str], kind_of: Mapping[str, str], groups: int
) -> list[str | None]:
    """Return for each group of columns a key per kind, None where the source has no such variant."""
    sources = list(by_source)
    if set(kinds) == {SAMPLED} or SAMPLED not in kinds:
        complete = [source for source in sources if len({kind_of[key] for key in by_source[source]}) == len(kinds)]
        sources = complete or sources
    chosen = [sources[number] for number in _spread(len(sources), groups)]
    places: list[str | None] = []
    for source in chosen:
        variants = {kind_of[key]: key for key in reversed(by_source[source])}
        places += [variants.get(kind) for kind in kinds]
    return places + [None] * (groups * len(kinds) - len(places))


def _spread(count: int, wanted: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, wanted)).tolist()}) if count else []


def _row(
    places: Sequence[str | None],
    num_kinds: int,
    made: Mapping[str, np.ndarray],
    beside: Mapping[str, np.ndarray | None] | None,
) -> list[np.ndarray | None]:
    """Return the images of a row, before each group the original of its source, where `beside` has some."""
    images: list[np.ndarray | None] = []
    for start in range(0, len(places), num_kinds):
        group = places[start : start + num_kinds]
        if beside is not None:
            images.append(next((beside[key] for key in group if key), None))
        images += [made[key] if key else None for key in group]
    return images


def _originals(prepared: Prepared, keys: Sequence[str]) -> dict[str, np.ndarray]:
    index, wanted = prepared.train_index(), set(keys)
    places = zip(index["key"], index["shard"], strict=True)
    return _by_key(read_images((prepared.folder / shard, key) for key, shard in places if key in wanted))


def _by_key(images: Mapping[Place, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: image for (_, key), image in images.items()}
