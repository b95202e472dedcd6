"""LoRA weights, merged into a model's own, so that sampling costs the same."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gdacli.errors import GdaError

_PREFERRED = "pytorch_lora_weights.safetensors"


def fuse_lora(pipeline: Any, path: Path, scale: float) -> None:
    """Add LoRA weights, times a scale, to those of a pipeline's denoiser and text encoders.

    Args:
        pipeline: of diffusers.
        path: a .safetensors file, or a folder of one, in a format that diffusers reads.
        scale: 1 is as they were trained.

    Raises:
        GdaError: there is no such file, it was made for another model, or it changes nothing.
    """
    file = _find(path)
    where = f"generate.lora: {file}"
    if not hasattr(pipeline, "load_lora_weights"):
        raise GdaError(f"{where}: diffusers reads no LoRA weights for {type(pipeline).__name__}: leave lora out")
    before = _sums(pipeline)
    warned, logger = _Kept(), logging.getLogger("diffusers")
    handlers, level, propagates = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.level, logger.propagate = [warned], logging.WARNING, False
    try:
        pipeline.load_lora_weights(
            str(file.parent), weight_name=file.name, local_files_only=True, use_safetensors=True, adapter_name="lora"
        )
        if not pipeline.get_list_adapters():
            raise GdaError(f"{where}: no weights for {type(pipeline).__name__}: name LoRA weights made for this model")
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise GdaError(
            f"{where}: does not fit {type(pipeline).__name__} at {pipeline.name_or_path} "
            f"({' '.join(str(error).split())[:160]}): name LoRA weights made for this model"
        ) from error
    finally:
        logger.handlers, logger.level, logger.propagate = handlers, level, propagates
    if ignored := [text for text in warned.messages if "unexpected keys" in text]:
        raise GdaError(
            f"{where}: does not fit {type(pipeline).__name__} at {pipeline.name_or_path} ({ignored[0][:160]}): "
            "name LoRA weights made for this model"
        )
    if _sums(pipeline) == before:
        raise GdaError(f"{where}: changes no weight of the model: it was not trained, or leave lora out")


class _Kept(logging.Handler):
    """Keeps what a library would say on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(" ".join(record.getMessage().split()))


def _find(path: Path) -> Path:
    if path.is_file():
        if path.suffix != ".safetensors":
            raise GdaError(f"generate.lora: found {path}; allowed: a .safetensors file, which holds no code")
        return path
    files = sorted(path.glob("*.safetensors"))
    named = [file for file in files if file.name == _PREFERRED] or files
    if len(named) != 1:
        raise GdaError(
            f"generate.lora: {path} has {len(files)} .safetensors files; allowed: one, or one named {_PREFERRED}: "
            "name the file itself"
        )
    return named[0]


def _sums(pipeline: Any) -> list[float]:
    """Return a number per weight that changes with it."""
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return [weight.abs().sum(dtype=torch.float64).item() for module in modules for weight in module.parameters()]
