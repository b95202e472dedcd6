"""WebDataset shards, with what `datasets`, webdataset and timm each look for beside them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from gdacli.artifacts import write_json
from gdacli.exports.card import write_card
from gdacli.exports.contents import Contents
from gdacli.pool import class_label
from gdacli.shards import Sample, Shard, write_shard
from gdacli.timm_info import TIMM_INFO, timm_info


def write_webdataset(
    folder: Path, class_names: Sequence[str], splits: Sequence[Contents], advance: Callable[[], object], shard_size: int
) -> dict[str, Any]:
    """Write `<split>-000000.tar`... of all splits.

    Args:
        folder: where.
        class_names: C of them, in the order of the labels.
        splits: what.
        advance: called after each image.
        shard_size: samples in a shard.

    Returns:
        the number of shards, and the extensions of the images.
    """
    extensions = set[str]()

    def samples(split: Contents) -> Iterator[Sample]:
        for image in split.images():
            extensions.add(image.extension)
            meta = {"class_name": class_names[image.label], "synthetic": image.synthetic}
            yield Sample(image.key, image.label, image.content, image.extension, meta)
            advance()

    shards = {split.split: _write_shards(folder, split.split, samples(split), shard_size) for split in splits}
    info = timm_info({name: [(shard.name, shard.count) for shard in written] for name, written in shards.items()})
    write_json(folder / TIMM_INFO, info)
    kinds = sorted(extensions)
    features: list[dict[str, Any]] = [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        *({"name": extension, "dtype": "image"} for extension in kinds),
        {"name": "cls", "dtype": class_label(class_names)},
        {"name": "json", "struct": [{"name": "class_name", "dtype": "string"}, {"name": "synthetic", "dtype": "bool"}]},
    ]
    notes = f"Images are `{'`, `'.join(kinds)}`; for webdataset and timm's `--input-key` that is `{';'.join(kinds)}`."
    write_card(folder, features, {name: f"{name}-*.tar" for name in shards}, splits, notes)
    return {"shards": sum(map(len, shards.values())), "extensions": kinds}


def _write_shards(folder: Path, split: str, samples: Iterator[Sample], shard_size: int) -> list[Shard]:
    shards = list[Shard]()
    for first in samples:  # the first of each shard; `islice` takes the others
        path = folder / f"{split}-{len(shards):06d}.tar"
        shards.append(write_shard(path, chain([first], islice(samples, shard_size - 1))))
    return shards
