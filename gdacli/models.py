"""Classifiers: an architecture of ours or of timm by name, with what turns pixels into its input."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gdacli.architectures import ARCHITECTURES
from gdacli.artifacts import read_json
from gdacli.errors import GdaError
from gdacli.pretrained import NONE, from_file, from_timm, load_exactly, read_tensors


class Classifier(nn.Module):
    """A network and the normalisation of its input.

    Args:
        net: an architecture of ours or of timm; its weights alone are what a checkpoint holds.
        mean: of the three channels in [0, 1], taken off the input.
        std: of the three channels, what the input is then divided by.
        model_args: with which the architecture makes such a network again.
        image_size: side in pixels of the images that it is made for, None if that was not said.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float] = NONE[0],
        std: Sequence[float] = NONE[1],
        model_args: Mapping[str, Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.image_size = image_size
        self.model_args = dict(model_args or {})
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] in [0, 1] => logits [N, C]."""
        return self.net((x_NCHW - self.mean) / self.std)

    def side(self) -> int:
        """Return the side in pixels of the images that it is made for.

        Raises:
            GdaError: that was not said.
        """
        if self.image_size is None:
            raise GdaError("model: found no image size, so how large its images are is not known: set image_size")
        return self.image_size

    def logits_and_features(self, x_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network once.

        Args:
            x_NCHW: float [N, 3, H, W] in [0, 1].

        Returns:
            logits, float32 [N, C], and what the last layer sees, float32 [N, D], each row of length 1.
        """
        logits, features = self.logits_and_last_features(x_NCHW)
        return logits, F.normalize(features, dim=1)

    def logits_and_last_features(self, x_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same with the features as the last layer sees them, of any length."""
        maps = self.net.forward_features((x_NCHW - self.mean) / self.std)
        features, logits = self.net.forward_head(maps, pre_logits=True), self.net.forward_head(maps)
        return logits.float(), features.float().flatten(1)

    def num_features(self) -> int:
        """Return D, the width of what the last layer sees."""
        return int(getattr(self.net, "head_hidden_size", self.net.num_features))

    def unit_features(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the features of `logits_and_features`."""
        return self.logits_and_features(x_NCHW)[1]

    def attention(self, x_NCHW: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return class activation maps, which `mixing.snap_mix` needs; the model stays as it is.

        Args:
            x_NCHW: float [N, 3, H, W] in [0, 1].
            targets: float [N, C], the classes that the maps speak for.

        Returns:
            float32 [N, h, w], higher = more of the class.

        Raises:
            GdaError: the network has no feature maps in front of a linear last layer.

        Source: Zhou et al. 2016, Eq. 2.
        """
        training = self.training
        with torch.no_grad():
            maps = self.eval().net.forward_features((x_NCHW - self.mean) / self.std)
        self.train(training)
        weights = getattr(self.net.get_classifier(), "weight", None)
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC" and maps.dim() == 4:
            maps = maps.permute(0, 3, 1, 2)
        if maps.dim() != 4 or weights is None or weights.shape[1:] != maps.shape[1:2]:
            raise GdaError(
                "augment.snap_mix: this model has no feature maps in front of its last layer; use cut_mix, or another "
                "model"
            )
        return torch.einsum("ndhw,nd->nhw", maps.float(), targets.float() @ weights.detach())

    def train(self, mode: bool = True) -> Classifier:
        """Switch to training; the statistics of a batch normalisation whose weights are frozen do not move."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
                module.eval()
        return self


def check_model(name: str) -> None:
    """Check that there is an architecture of this name.

    Raises:
        GdaError: there is none; the message lists those that exist.
    """
    if name in ARCHITECTURES:
        return
    import timm

    from gdacli.timm_models import OURS

    if not timm.is_model(name):
        known = timm.list_models()
        close = ", ".join(difflib.get_close_matches(name, known, 3)) or "none is close"
        raise GdaError(
            f"model: found {name!r}; allowed: {', '.join(OURS)} and timm's {len(known) - len(OURS)} "
            f"(nearest: {close}; all: python -c 'import timm; print(timm.list_models())')"
        )


def create_model(
    name: str,
    num_classes: int,
    model_args: Mapping[str, Any],
    seed: int,
    *,
    image_size: int | None = None,
    pretrained: bool | str = False,
) -> Classifier:
    """Make a network for images of a size.

    Args:
        name: of an architecture of ours or of timm, there also with the tag of its weights (`resnet18.tv_in1k`).
        num_classes: C.
        model_args: of the architecture; they win over what it needs for the size (`timm_models.fitted_args`).
        seed: of the random weights, which depend on nothing else.
        image_size: side in pixels that the network must take; None leaves the architecture as it is, unchecked.
        pretrained: False, True (timm's weights of that name), or a .safetensors file; for another number of classes
            than theirs the last layer is new. The input is then normalised as theirs was.

    Raises:
        GdaError: no such architecture, it does not take an argument or the size, or there are no such weights.
    """
    check_model(name)
    args = dict(model_args)
    try:
        if name not in ARCHITECTURES and image_size is not None:
            from gdacli.timm_models import fitted_args

            args = fitted_args(name, args, image_size)
        torch.manual_seed(seed)
        mean, std = NONE
        if isinstance(pretrained, str):
            net, (mean, std) = from_file(name, num_classes, args, Path(pretrained).expanduser())
        elif pretrained:
            net, (mean, std) = from_timm(name, num_classes, args)
        else:
            net = _random(name, num_classes, args)
    except (TypeError, ValueError, AssertionError, AttributeError, LookupError, RuntimeError) as error:
        takes = ""
        if name in ARCHITECTURES:
            takes = "; it takes " + ", ".join(list(inspect.signature(ARCHITECTURES[name]).parameters)[1:])
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GdaError(f"model_args: {name} does not take {dict(model_args)}{takes} ({reason})") from error
    if name not in ARCHITECTURES and image_size is not None:  # ours take any size
        from gdacli.timm_models import check_fit

        check_fit(net, name, image_size)
    return Classifier(net, mean, std, args, image_size)


def start_model(
    settings: Mapping[str, Any], num_classes: int, seed: int, *, image_size: int, device: torch.device
) -> Classifier:
    """Make the network that a training starts from, on its device.

    Args:
        settings: `model`, `model_args`, `pretrained` and `freeze`; see `create_model` and `freeze`.
        num_classes, seed, image_size: see `create_model`.
        device: where it is to be trained.
    """
    model = create_model(
        settings["model"],
        num_classes,
        settings["model_args"],
        seed,
        image_size=image_size,
        pretrained=settings["pretrained"],
    )
    freeze(model, settings["freeze"])
    return model.to(device)


def _random(name: str, num_classes: int, args: Mapping[str, Any]) -> nn.Module:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name](num_classes, **args)
    import timm

    return timm.create_model(name, num_classes=num_classes, **args)


def freeze(model: Classifier, what: str | int) -> None:
    """Take parameters out of training: they no longer require a gradient, nor do their batch statistics move.

    Args:
        model: changed in place.
        what: `none`; `backbone`, all but the last layer; or how many of the network's leading groups as timm counts
            them: 1 is the stem, 2 the stem and the first stage (of a ResNet) or block (of a ViT), and so on.

    Raises:
        GdaError: the network has no so many groups before its last layer.
    """
    if what == "none":
        return
    if what == "backbone":
        last = model.net.get_classifier()
        if not isinstance(last, nn.Module):
            raise GdaError(
                "freeze: found backbone, but this model has several last layers: give a number of leading groups"
            )
        head = {id(parameter) for parameter in last.parameters()}
        frozen = [parameter for parameter in model.net.parameters() if id(parameter) not in head]
    else:
        from timm.models import group_parameters

        groups = group_parameters(model.net, model.net.group_matcher(coarse=True), return_values=True)
        if not 0 < int(what) < len(groups):
            raise GdaError(f"freeze: found {what}; allowed: none, backbone, or 1 to {len(groups) - 1} leading groups")
        frozen = [parameter for number in range(int(what)) for parameter in groups[number]]
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.train(model.training)


def load_checkpoint(folder: Path) -> Classifier:
    """Load `config.json` and `model.safetensors`, as `probe` and `train` write them, onto the CPU.

    Raises:
        GdaError: a file is missing or damaged, or the weights are another architecture's.
    """
    path = folder / "config.json"
    config = _read_config(folder)
    try:
        name, num_classes, args = config["architecture"], config["num_classes"], config["model_args"]
        mean, std = config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
        image_size = config["pretrained_cfg"]["input_size"][-1]
    except (KeyError, TypeError) as error:
        raise GdaError(f"{path}: found no {error}: it is no checkpoint of gdacli; make or pull it again") from error
    model = create_model(name, num_classes, args, seed=0)
    weights = folder / "model.safetensors"
    load_exactly(model.net, read_tensors(weights, "checkpoint"), weights, name)
    return Classifier(model.net, mean, std, args, image_size)


def read_class_names(folder: Path) -> list[str]:
    """Return the names of the classes of a checkpoint, in the order of its logits.

    Raises:
        GdaError: `config.json` is missing or damaged, or has no name for each class.
    """
    path = folder / "config.json"
    config = _read_config(folder)
    names = config.get("label_names")
    if not isinstance(names, list) or len(names) != config.get("num_classes"):
        found = f"{len(names)} label_names" if isinstance(names, list) else "no label_names"
        raise GdaError(f"{path}: found {found} for {config.get('num_classes')} classes: add a list with one for each")
    return [str(name) for name in names]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise GdaError(f"{path} does not exist: {folder} is no checkpoint; make or pull it again")
    config = read_json(path)
    if not isinstance(config, dict):
        raise GdaError(f"{path}: found {type(config).__name__}: it is no checkpoint of gdacli; make or pull it again")
    return config


def save_weights(model: Classifier, path: Path) -> None:
    """Write the weights as a safetensors file, in timm's form."""
    weights = {name: value.contiguous() for name, value in model.net.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})


def timm_config(name: str, model: Classifier, class_names: list[str]) -> dict[str, Any]:
    """Return the `config.json` of a checkpoint in timm's form, for `timm.create_model("local-dir:<folder>")`.

    Args:
        name: of the architecture.
        model: what the checkpoint holds, made for an image size.
        class_names: C of them.
    """
    own = model.net.pretrained_cfg
    return {
        "architecture": name.partition(".")[0],
        "num_classes": len(class_names),
        "num_features": int(getattr(model.net, "num_features", 0)),
        "label_names": class_names,
        "model_args": model.model_args,
        "pretrained_cfg": {
            "input_size": [3, model.image_size, model.image_size],
            "fixed_input_size": "img_size" in model.model_args,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [round(value, 6) for value in model.mean.flatten().tolist()],
            "std": [round(value, 6) for value in model.std.flatten().tolist()],
            "num_classes": len(class_names),
            "first_conv": own["first_conv"],
            "classifier": own["classifier"],
        },
    }
