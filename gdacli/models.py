"""Classifiers: an architecture of ours or of timm by name, with what turns pixels into its input."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from gdacli.architectures import ARCHITECTURES, ConvNet, PreActResNet18
from gdacli.artifacts import read_json
from gdacli.errors import GdaError


class Classifier(nn.Module):
    """A network and the normalisation of its input.

    Args:
        net: an architecture of ours or of timm; its weights alone are what a checkpoint holds.
        mean: of the three channels in [0, 1], taken off the input.
        std: of the three channels, what the input is then divided by.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, net: nn.Module, mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => logits [N, C]."""
        return self.net((x_NCHW - self.mean) / self.std)

    def logits_and_features(self, x_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network once.

        Args:
            x_NCHW: float [N, 3, H, W] in [0, 1].

        Returns:
            logits, float32 [N, C], and what the last layer sees, float32 [N, D], each row of length 1.
        """
        x, net = (x_NCHW - self.mean) / self.std, self.net
        if isinstance(net, ConvNet | PreActResNet18):
            features = net.embed(x)
            logits = net.head(features)
        else:
            timm_model: Any = net
            maps = timm_model.forward_features(x)
            features, logits = timm_model.forward_head(maps, pre_logits=True), timm_model.forward_head(maps)
        return logits.float(), F.normalize(features.float().flatten(1), dim=1)

    def unit_features(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the features of `logits_and_features`."""
        return self.logits_and_features(x_NCHW)[1]


def check_model(name: str) -> None:
    """Check that there is an architecture of this name.

    Raises:
        GdaError: there is none; the message lists those that exist.
    """
    if name in ARCHITECTURES:
        return
    import timm

    if not timm.is_model(name):
        known = [*ARCHITECTURES, *timm.list_models()]
        close = ", ".join(difflib.get_close_matches(name, known, 3)) or "none is close"
        raise GdaError(
            f"model: found {name!r}; allowed: {', '.join(ARCHITECTURES)} and timm's {len(known) - len(ARCHITECTURES)} "
            f"(nearest: {close}; all: python -c 'import timm; print(timm.list_models())')"
        )


def create_model(name: str, num_classes: int, model_args: dict[str, Any], seed: int) -> Classifier:
    """Make a network with random weights that depend on the seed alone.

    Raises:
        GdaError: no such architecture, or it does not take an argument.
    """
    check_model(name)
    torch.manual_seed(seed)
    try:
        if name in ARCHITECTURES:
            return Classifier(ARCHITECTURES[name](num_classes, **model_args))
        import timm

        return Classifier(timm.create_model(name, num_classes=num_classes, **model_args))
    except TypeError as error:
        takes = ""
        if name in ARCHITECTURES:
            takes = "; it takes " + ", ".join(list(inspect.signature(ARCHITECTURES[name]).parameters)[1:])
        raise GdaError(f"model_args: {name} does not take {model_args}{takes} ({error})") from error


def load_checkpoint(folder: Path) -> Classifier:
    """Load `config.json` and `model.safetensors`, as `probe` and `train` write them, onto the CPU."""
    config = read_json(folder / "config.json")
    model = create_model(config["architecture"], config["num_classes"], config["model_args"], seed=0)
    model.net.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def timm_config(
    name: str, model: Classifier, class_names: list[str], image_size: int, model_args: dict[str, Any]
) -> dict[str, Any]:
    """Return the `config.json` of a checkpoint in timm's form."""
    return {
        "architecture": name,
        "num_classes": len(class_names),
        "num_features": int(getattr(model.net, "num_features", 0)),
        "label_names": class_names,
        "model_args": model_args,
        "pretrained_cfg": {
            "input_size": [3, image_size, image_size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "num_classes": len(class_names),
        },
    }
