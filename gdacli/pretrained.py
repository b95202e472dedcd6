"""Weights to start from: timm's, or those of a local file."""

from __future__ import annotations

import contextlib
import logging
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gdacli.architectures import ARCHITECTURES
from gdacli.artifacts import read_json
from gdacli.errors import GdaError

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the three channels in [0, 1]."""

NONE: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def read_tensors(path: Path, key: str) -> dict[str, torch.Tensor]:
    """Read a safetensors file onto the CPU.

    Args:
        path: of the file.
        key: what to call it in a message.

    Raises:
        GdaError: it is missing, cut short or something else.
    """
    if not path.is_file():
        what = "is a folder: name the .safetensors file in it" if path.is_dir() else "does not exist"
        raise GdaError(f"{key}: {path} {what}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise GdaError(
            f"{key}: {path} is no whole safetensors file ({error}): bring it back or name another"
        ) from error


def difference(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str | None:
    """Say how the tensors of a file differ from a network's in name or shape: the first of each kind, and counts.

    >>> difference({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3), "c": torch.zeros(1)})
    "1 missing (first 'b'), 1 unexpected (first 'c'), 1 of another shape (first 'a': [3], not [2])"
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shaped = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    parts = []
    for names, kind in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            parts.append(f"{len(names)} {kind} (first {names[0]!r})")
    if shaped:
        first = shaped[0]
        shapes = f"{list(found[first].shape)}, not {list(expected[first].shape)}"
        parts.append(f"{len(shaped)} of another shape (first {first!r}: {shapes})")
    return ", ".join(parts) or None


def load_exactly(net: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path, name: str) -> None:
    """Load a network's weights, all of them and no others.

    Raises:
        GdaError: names or shapes differ.
    """
    differs = difference(net.state_dict(), tensors)
    if differs:
        raise GdaError(
            f"{path} does not hold the weights of {name}: {differs}: name the model and model_args that it was made "
            "with, or another file"
        )
    net.load_state_dict(tensors)


def from_file(name: str, num_classes: int, args: dict[str, Any], path: Path) -> tuple[nn.Module, Normalisation]:
    """Make a network with the weights of a safetensors file; for another number of classes its last layer is new.

    A table of positions made for another image size is resampled, as timm does it; all else must match. Inputs are
    normalised as the `config.json` beside the file says (gdacli and timm write one), else as for timm's own weights.

    Raises:
        GdaError: the file is missing or damaged, or holds the weights of another architecture.
    """
    tensors = read_tensors(path, "pretrained")
    beside = path.parent / "config.json"
    if name in ARCHITECTURES:
        net: nn.Module = ARCHITECTURES[name](num_classes, **args)
        if tensors.keys() >= {"head.weight"} and len(tensors["head.weight"]) != num_classes:
            tensors = {**tensors, **{key: value for key, value in net.state_dict().items() if key.startswith("head.")}}
        load_exactly(net, tensors, path, name)
        return net, _normalisation(read_json(beside) if beside.exists() else {}, NONE)
    import timm
    from timm.models import PretrainedCfg

    default = timm.get_pretrained_cfg(name) or PretrainedCfg()
    classifier = default.classifier if isinstance(default.classifier, str) else (default.classifier or ("",))[0]
    head = tensors.get(f"{classifier}.weight")
    classes = num_classes if head is None else len(head)
    overlay = {"file": str(path), "custom_load": False, "num_classes": classes, "label_offset": 0}
    try:
        net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **args)
    except (RuntimeError, KeyError, ValueError, AttributeError, AssertionError, IndexError) as error:
        with torch.device("meta"):
            load_exactly(timm.create_model(name, num_classes=classes, **args), tensors, path, name)
        raise GdaError(f"{path} does not hold the weights of {name} ({_short(error)})") from error
    if classes != num_classes:
        cast(Any, net).reset_classifier(num_classes)
    default_normalisation = (tuple(default.mean), tuple(default.std))
    return net, _normalisation(read_json(beside) if beside.exists() else {}, default_normalisation)


def from_timm(name: str, num_classes: int, args: dict[str, Any]) -> tuple[nn.Module, Normalisation]:
    """Make a network with timm's weights of that name, from its cache or the network; its last layer is new.

    It keeps the last layer if `num_classes` is that of the weights.

    Raises:
        GdaError: there are none, or they cannot be had.
    """
    import timm

    config = None if name in ARCHITECTURES else timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise GdaError(f"pretrained: timm has no weights of {name}: set false, a .safetensors file, or another model")
    try:
        with _quiet_hub():
            net = timm.create_model(name, pretrained=True, num_classes=config.num_classes, **args)
    except (OSError, RuntimeError, ValueError) as error:
        raise GdaError(
            f"pretrained: timm's weights of {name} cannot be had ({_short(error)}): run "
            f"`hf download {config.hf_hub_id or config.url}` where there is a network, or name a .safetensors file"
        ) from error
    if num_classes != config.num_classes:
        cast(Any, net).reset_classifier(num_classes)
    return net, (tuple(config.mean), tuple(config.std))


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the Hub's client from reporting each of its attempts: the error that ends them is said."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _normalisation(config: dict[str, Any], default: Normalisation) -> Normalisation:
    inner = config.get("pretrained_cfg", {})
    return tuple(inner.get("mean", default[0])), tuple(inner.get("std", default[1]))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder='...')}"
