"""Architectures: two of our own for small images, and every timm model by name."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from gdacli.artifacts import read_json
from gdacli.errors import GdaError


class ConvNet(nn.Module):
    """A plain network for tiny images: three stages of two 3x3 convolutions, each but the last halved by pooling.

    Args:
        num_classes: C.
        width: channels of the first stage; they double twice.
    """

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in range(3):
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, width << stage, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width << stage),
                    nn.ReLU(),
                ]
                channels = width << stage
            if stage < 2:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.num_features = channels
        self.head = nn.Linear(channels, num_classes)

    def embed(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => what the last layer sees, [N, D]."""
        return self.features(x_NCHW).mean(dim=(2, 3))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => logits [N, C]."""
        return self.head(self.embed(x_NCHW))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU; the shortcut starts after the first ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        changes = stride != 1 or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C_in, H, W] => [N, C, H / stride, W / stride]."""
        out = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 for images of about 32 x 32 pixels (11,172,170 parameters at width 64, 10 classes).

    Source: He et al. 2016; the stem and the shortcut as in the code that the targeted-augmentation paper cites.

    Args:
        num_classes: C.
        width: channels of the first stage; they double three times.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        blocks, channels = [], width
        for stage in range(4):
            for stride in ((1 if stage == 0 else 2), 1):
                blocks.append(PreActBlock(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.num_features = channels
        self.head = nn.Linear(channels, num_classes)

    def embed(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => what the last layer sees, [N, D]."""
        return F.relu(self.norm(self.blocks(self.stem(x_NCHW)))).mean(dim=(2, 3))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => logits [N, C]."""
        return self.head(self.embed(x_NCHW))


ARCHITECTURES: dict[str, type[nn.Module]] = {"convnet": ConvNet, "preact_resnet18": PreActResNet18}
"""Our own; importing timm, which takes seconds, is left to those who name one of its models."""


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


def create_model(name: str, num_classes: int, model_args: dict[str, Any], seed: int) -> nn.Module:
    """Make a network with random weights that depend on the seed alone.

    Raises:
        GdaError: no such architecture, or it does not take an argument.
    """
    check_model(name)
    torch.manual_seed(seed)
    try:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name](num_classes, **model_args)
        import timm

        return timm.create_model(name, num_classes=num_classes, **model_args)
    except TypeError as error:
        takes = ""
        if name in ARCHITECTURES:
            takes = "; it takes " + ", ".join(list(inspect.signature(ARCHITECTURES[name]).parameters)[1:])
        raise GdaError(f"model_args: {name} does not take {model_args}{takes} ({error})") from error


def load_checkpoint(folder: Path) -> nn.Module:
    """Load `config.json` and `model.safetensors`, as `probe` and `train` write them, onto the CPU."""
    config = read_json(folder / "config.json")
    model = create_model(config["architecture"], config["num_classes"], config["model_args"], seed=0)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def logits_and_features(model: nn.Module, x_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a model once.

    Args:
        x_NCHW: float [N, 3, H, W] in [0, 1].

    Returns:
        logits, float32 [N, C], and what the last layer sees, float32 [N, D], each row of length 1.
    """
    if isinstance(model, ConvNet | PreActResNet18):
        features = model.embed(x_NCHW)
        logits = model.head(features)
    else:
        timm_model: Any = model
        maps = timm_model.forward_features(x_NCHW)
        features, logits = timm_model.forward_head(maps, pre_logits=True), timm_model.forward_head(maps)
    return logits.float(), F.normalize(features.float().flatten(1), dim=1)


def unit_features(model: nn.Module, x_NCHW: torch.Tensor) -> torch.Tensor:
    """Return the features of `logits_and_features`."""
    return logits_and_features(model, x_NCHW)[1]


def timm_config(
    name: str, model: nn.Module, class_names: list[str], image_size: int, model_args: dict[str, Any]
) -> dict[str, Any]:
    """Return the `config.json` of a checkpoint in timm's form."""
    return {
        "architecture": name,
        "num_classes": len(class_names),
        "num_features": int(getattr(model, "num_features", 0)),
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
