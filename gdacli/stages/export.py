"""`gdacli export`: an arm or the pool as files that any training script reads."""

from functools import partial
from pathlib import Path
from typing import Any

from gdacli.artifacts import require
from gdacli.console import progress, say
from gdacli.exports.contents import Contents, mix_contents, pool_contents, source_contents
from gdacli.exports.folder import check_free, new_export
from gdacli.exports.image_folder import CLASS_MAP, write_image_folder
from gdacli.exports.parquet import write_parquet
from gdacli.exports.webdataset import write_webdataset
from gdacli.params import Params
from gdacli.paths import REJECTS, SOURCE, SYNTHETIC, mix_file
from gdacli.prepared import read_prepared
from gdacli.rejects import read_left_out


def run(params: Params, format: str, output: Path, arm: str | None = None) -> dict[str, Any]:
    """Write an arm's mix, with the validation and test images beside it, or the pool; returns the counts.

    Args:
        params: of the project.
        format: `imagefolder`, `parquet` or `webdataset`.
        output: the folder to write, new or empty.
        arm: None exports the pool alone.
    """
    check_free(output)
    prepared = read_prepared(SOURCE)
    rejects = read_left_out(REJECTS)
    if arm is None:
        splits = [pool_contents(SYNTHETIC, rejects)]
    else:
        params.arm(arm)
        splits = [mix_contents(require(mix_file(arm), f"gdacli mix --arm {arm}"), rejects)]
        splits += [source_contents(prepared, split) for split in ("validation", "test") if prepared.splits[split].count]
    writers: dict[str, Any] = {
        "imagefolder": write_image_folder,
        "parquet": write_parquet,
        "webdataset": partial(write_webdataset, shard_size=params.data.shard_size),
    }
    total = sum(split.num_images for split in splits)
    with new_export(output) as folder, progress("export", total, "images") as advance:
        written = writers[format](folder, prepared.class_names, splits, advance)
    _say_what_to_mind(format, prepared.class_names, splits, written)
    return {
        "format": format,
        "output": str(output),
        "arm": arm,
        "images": {split.split: split.num_images for split in splits},
        "synthetic": int(splits[0].synthetic.sum()),
        "copies": splits[0].num_images - len(splits[0].keys),
        **written,
    }


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    counts = ", ".join(f"{split} {count}" for split, count in result["images"].items())
    parts = [f"{result['synthetic']} synthetic"] + ([f"{result['copies']} copies"] if result["copies"] else [])
    what = f"arm {result['arm']}" if result["arm"] else "the pool"
    return f"{what} as {result['format']}: {counts} images ({', '.join(parts)}) -> {result['output']}"


def _say_what_to_mind(format: str, class_names: list[str], splits: list[Contents], written: dict[str, Any]) -> None:
    """Say what a reader of the export would otherwise get wrong."""
    if format == "imagefolder":
        names = written.pop("folder_names")
        if names != class_names:
            say(
                f"note: class folders are called {names[0]}, {names[1]}...: the names alone would not be legal "
                f"everywhere, or not sort into the order of the labels ({CLASS_MAP})"
            )
        for split in splits:
            counts = split.class_counts(len(class_names))
            if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
                say(
                    f"note: {split.split} has no image of {len(empty)} of {len(names)} classes (first: {empty[0]}); "
                    "their folders are empty: give torchvision's ImageFolder allow_empty=True, and timm "
                    f"--class-map {CLASS_MAP}"
                )
    if len(written.get("extensions", [])) > 1:
        kinds = written["extensions"]
        say(
            f"note: the images are {' and '.join(kinds)}: give webdataset and timm {';'.join(kinds)!r}; "
            "datasets.load_dataset has a column for each, --format parquet one for all"
        )
