"""Tiny generators as files of torch.export."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim, export, save


class Tiny(nn.Module):
    """Upsample what a linear layer makes of z and the class, as StyleGAN and BigGAN do it at greater length."""

    def __init__(self, num_classes: int = 3, width: int = 8, size: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_classes, self.size = num_classes, size
        self.first = nn.Linear(width + num_classes, 3 * 16)
        self.last = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        told = torch.cat([z, F.one_hot(labels, self.num_classes).float()], 1)
        x = F.interpolate(self.first(told).view(-1, 3, 4, 4), size=(self.size, self.size))
        return torch.tanh(self.last(x))


def write_export(path: Path, module: nn.Module | None = None, width: int = 8, **options: Any) -> str:
    """Export a generator of z and labels, or of z alone, and return the sha256 of the file.

    Args:
        path: of the file.
        module: in train or eval mode as it is; None is `Tiny`.
        width: of z.
        options: `labels`: whether it takes them; `batch`: a dimension or None for a static one.
    """
    inputs: Sequence[torch.Tensor] = [torch.randn(4, width), torch.zeros(4, dtype=torch.int64)]
    inputs = tuple(inputs if options.get("labels", True) else inputs[:1])
    batch = options.get("batch", Dim("batch"))
    shapes = None if batch is None else tuple({0: batch} for _ in inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(export((module or Tiny()).train(options.get("train", False)), inputs, dynamic_shapes=shapes), path)
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """Return the hash by which a file is trusted."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def exported_options(folder: Path) -> dict[str, Any]:
    """Return what the backend takes to load the `model.pt2` of a folder."""
    model = folder / "model.pt2"
    return {"model": model, "mapping": None, "trusted_sha256": [sha256_of(model)], "output_range": "minus_one_to_one"}
