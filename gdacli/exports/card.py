"""The README.md of an exported folder, by which `datasets.load_dataset` finds splits, columns and class names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdacli.exports.contents import Contents
from gdacli.pool import front_matter


def write_card(
    folder: Path,
    features: Sequence[Mapping[str, Any]],
    patterns: Mapping[str, str],
    splits: Sequence[Contents],
    notes: str,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write the README.md.

    Args:
        folder: of the export.
        features: the columns, in the Hub's form.
        patterns: of the files of each split.
        splits: what is exported.
        notes: what a reader must know besides, in Markdown.
        config: further options of the Hub's loader.
    """
    features = [dict(feature) for feature in features]
    front = {
        "tags": ["synthetic"],
        "task_categories": ["image-classification"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": pattern} for split, pattern in patterns.items()],
                **(config or {}),
            }
        ],
        "dataset_info": {"features": features},
    }
    counts = ", ".join(
        f"{split.split} {split.num_images} ({int(split.repeats[split.synthetic].sum())} synthetic)" for split in splits
    )
    (folder / "README.md").write_text(
        f"{front_matter(front)}Exported by gdacli. Images: {counts}.\n\n{notes}\n", encoding="utf-8"
    )
