"""`gdacli export --format onnx`: the classifier for any runtime, published once onnxruntime agrees with torch."""

from pathlib import Path
from typing import Any

import torch

from gdacli.artifacts import new_file
from gdacli.compute import set_up
from gdacli.console import say
from gdacli.exports.onnx import check_agreement, check_installed, onnx_file
from gdacli.image_index import ImageIndex
from gdacli.models import load_checkpoint, read_class_names
from gdacli.paths import SOURCE
from gdacli.prepared import read_prepared
from gdacli.random_crops import centre_box, resized_part

_REAL_IMAGES = 64


def run(model: Path, output: Path) -> dict[str, Any]:
    """Write a trained classifier as an ONNX file; returns how far its logits are from torch's.

    It is checked on random images, and on prepared train images where it is called in a project that has some.

    Args:
        model: folder of a checkpoint; needs no project.
        output: the file to write.

    Raises:
        GdaError: a package is missing, or onnxruntime and torch disagree.
    """
    check_installed()
    set_up("cpu", torch.get_num_threads())
    class_names, classifier = read_class_names(model), load_checkpoint(model)
    say("export: torch writes the model, which takes seconds to a minute")
    content = onnx_file(classifier, class_names)
    real = _real_images(classifier.side())
    agreement = check_agreement(classifier, content, real)
    with new_file(output) as temporary:
        temporary.write_bytes(content)
    return {
        "model": str(model),
        "output": str(output),
        "bytes": len(content),
        "classes": len(class_names),
        "image_size": classifier.side(),
        "checked": {"random": agreement.images - sum(map(len, real)), "real": sum(map(len, real))},
        "largest_difference": agreement.difference,
        "allowed_difference": agreement.allowed,
    }


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    size, checked = result["image_size"], result["checked"]
    return (
        f"{result['classes']} classes, {size} x {size} pixels, {result['bytes'] / 1e6:.1f} MB; onnxruntime gives "
        f"torch's class on {checked['random']} random and {checked['real']} real images, logits within "
        f"{result['largest_difference']:.2g} (allowed {result['allowed_difference']:.2g}) -> {result['output']}"
    )


def _real_images(image_size: int) -> list[torch.Tensor]:
    """Return a batch of prepared train images, from one end to the other; none where there are no prepared ones."""
    if not (SOURCE / "dataset.json").exists():
        return []
    index = ImageIndex(read_prepared(SOURCE).references("train"))
    rows = torch.linspace(0, len(index) - 1, min(_REAL_IMAGES, len(index))).long().tolist()
    return [torch.stack([resized_part(index.encoded(row), image_size, centre_box) for row in rows])]
