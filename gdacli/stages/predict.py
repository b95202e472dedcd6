"""`gdacli predict`: what a trained classifier says of images that nobody has labelled."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.artifacts import new_file
from gdacli.compute import set_up
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.image_files import OnBadImage, decoded_batches, find_images
from gdacli.images import Resize
from gdacli.models import load_checkpoint, read_class_names
from gdacli.training import predict

_HEADER = ("file", "class", "probability")


def run(
    images: Path,
    model: Path,
    output: Path | None = None,
    *,
    top: int = 1,
    resize: Resize | None = None,
    on_bad_image: OnBadImage = "error",
) -> dict[str, Any]:
    """Classify every image of a folder; needs no project.

    Args:
        images: a folder, or one image.
        model: folder of a checkpoint.
        output: CSV file to write; None returns the rows.
        top: rows per image.
        resize: see `image_files.decoded_batches`.
        on_bad_image: `error` or `skip`.

    Raises:
        GdaError: there is no image, one does not decode, or the model cannot be had.
    """
    files = find_images(images)
    class_names = read_class_names(model)
    if top > len(class_names):
        raise GdaError(f"--top: found {top}; allowed: 1 to {len(class_names)}, the number of classes of {model}")
    device = set_up("auto", torch.get_num_threads())
    classifier = load_checkpoint(model)
    classifier.to(device)
    rows, num_images, counts = list[tuple[str, str, float]](), 0, Counter[str]()
    with progress("predict", len(files), "images") as advance:
        batches = decoded_batches(
            files,
            image_size=classifier.side(),
            resize=resize,
            on_bad_image=on_bad_image,
            threads=torch.get_num_threads(),
        )
        for kept, num_bad, batch in batches:
            if kept:
                probabilities = predict(classifier, [batch.to(device)]).softmax(1).numpy()
                ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
                for file, likely, values in zip(kept, ranked, probabilities, strict=True):
                    rows += [(str(file), class_names[label], float(values[label])) for label in likely]
                    counts[class_names[likely[0]]] += 1
            num_images += len(kept)
            advance(len(kept) + num_bad)
    if not num_images:
        raise GdaError(f"{images}: none of the {len(files)} images decodes")
    result = {
        "model": str(model),
        "images": num_images,
        "skipped": len(files) - num_images,
        "classes": {name: counts[name] for name in class_names if counts[name]},
        "output": None if output is None else str(output),
    }
    if output is None:
        return {**result, "predictions": [dict(zip(_HEADER, row, strict=True)) for row in rows]}
    with new_file(output) as temporary:
        temporary.write_text(_csv(rows), encoding="utf-8", newline="")
    return result


def summary(result: dict[str, Any]) -> str:
    """Return the CSV, or say where it is."""
    if result["output"] is None:
        return _csv([tuple(row.values()) for row in result["predictions"]]).removesuffix("\n")
    classes = ", ".join(f"{name} {count}" for name, count in result["classes"].items())
    skipped = f", {result['skipped']} undecodable skipped" if result["skipped"] else ""
    return f"{result['images']} images{skipped}: {classes} -> {result['output']}"


def _csv(rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows((file, name, f"{probability:.6g}") for file, name, probability in rows)
    return text.getvalue()
