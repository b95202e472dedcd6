"""The README.md of an exported folder, by which `datasets.load_dataset` finds splits, columns and class names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdacli.exports.contents import Contents


def class_label(class_names: Sequence[str]) -> dict[str, Any]:
    """Return the type of a column of labels."""
    return {"class_label": {"names": {str(label): name for label, name in enumerate(class_names)}}}


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
    import yaml

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
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(
        f"---\n{text}---\nExported by gdacli. Images: {counts}.\n\n{notes}\n", encoding="utf-8"
    )
