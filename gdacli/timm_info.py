"""The file by which timm finds the shards of a split, and their sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

TIMM_INFO = "_info.json"


def timm_info(splits: Mapping[str, Sequence[tuple[str, int]]]) -> dict[str, Any]:
    """Return the content of the file.

    Args:
        splits: name -> its shards: path in the folder, and number of images.
    """
    return {
        "splits": {
            name: {
                "name": name,
                "num_samples": sum(count for _, count in shards),
                "filenames": [file for file, _ in shards],
                "shard_lengths": [count for _, count in shards],
            }
            for name, shards in splits.items()
        }
    }
