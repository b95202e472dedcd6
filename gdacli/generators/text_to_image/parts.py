"""Reads a model in diffusers' layout part by part: its own files, every weight, and no code of its."""

import importlib
import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from gdacli.errors import GdaError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch's, of a pipeline that is imported with the others
    from diffusers.pipelines import auto_pipeline

_LAYOUT = "a text-to-image model in diffusers' layout, with safetensors weights"

_KNOWN = (
    auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
)

_NEVER = ("watermarker", "image_encoder")
"""Parts that no image here goes through."""


def read_pipeline(folder: Path, *, dtype: torch.dtype, variant: str | None, safety_checker: bool) -> Any:
    """Read the image-to-image pipeline of a model, on the CPU and in evaluation mode.

    The CLIP text encoders and the safety checker are float32: they are small, and their results serve a whole run. So
    is the VAE of Stable Diffusion XL where its config says `force_upcast`: its activations are large.

    Args:
        folder: with model_index.json and a folder per part.
        dtype: of the other networks.
        variant: of the weights' files; a part without such files has its plain ones read.
        safety_checker: whether to read the model's own, if it has one.

    Raises:
        GdaError: no pipeline that diffusers' AutoPipelineForImage2Image knows, or a part that is missing or damaged.
    """
    index = read_index(folder)
    pipeline_class = image_to_image_class(folder, index["_class_name"])
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()  # what it warns of is checked here, or for those who call its pipelines
    skipped = (*_NEVER, *(() if safety_checker else ("safety_checker", "feature_extractor")))
    parts: dict[str, Any] = {}
    for name in inspect.signature(pipeline_class).parameters:
        if not isinstance(index.get(name), list):
            continue
        library, kind = index[name]
        parts[name] = None
        if library is not None and name not in skipped:
            precise = name == "vae" and pipeline_class.__name__.startswith("StableDiffusionXL") and _upcasts(folder)
            of_part = torch.float32 if precise else dtype
            parts[name] = _read_part(folder / name, _part_class(folder, library, kind), of_part, variant)
    if "requires_safety_checker" in inspect.signature(pipeline_class).parameters:
        parts["requires_safety_checker"] = False
    try:
        pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(folder, local_files_only=True, **parts)
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise GdaError(f"{folder}: {_short(error)}; allowed: {_LAYOUT}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def read_index(folder: Path) -> dict[str, Any]:
    """Read model_index.json.

    Raises:
        GdaError: there is none, or it is none.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise GdaError(f"{path} does not exist; allowed: a folder of {_LAYOUT}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {**index, "_class_name": index["_class_name"]}
    except (ValueError, TypeError, KeyError) as error:
        raise GdaError(f"{path}: not the index of a model ({error}); allowed: a folder of {_LAYOUT}") from error


def image_to_image_class(folder: Path, name: Any) -> Any:
    """Return the pipeline class that diffusers has for images of a model whose index names the class `name`."""
    for mapping in _KNOWN:
        for key, known in mapping.items():
            found = auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.get(key)
            if known.__name__ == name and found is not None:
                return found
    raise GdaError(
        f"{folder / 'model_index.json'}: found a {name}, for which diffusers has no image-to-image pipeline; "
        f"allowed: {_LAYOUT}, of a class such as StableDiffusionPipeline, StableDiffusionXLPipeline, IFPipeline or "
        "FluxPipeline"
    )


def _part_class(folder: Path, library: str, kind: str) -> Any:
    """Return a class of diffusers or transformers; a folder's own code is never run."""
    if library == "transformers":
        kind = kind.replace("FeatureExtractor", "ImageProcessor")  # the name until version 5
        found = getattr(transformers, kind, None)
    elif library == "diffusers":
        found = getattr(diffusers, kind, None)
    else:
        known = {path.stem for path in Path(diffusers.pipelines.__path__[0]).iterdir()}
        package = importlib.import_module(f"diffusers.pipelines.{library}") if library in known else None
        found = getattr(package, kind, None)
    if found is None:
        raise GdaError(
            f"{folder / 'model_index.json'}: found a part of class {library}.{kind}; allowed: those that diffusers "
            f"{diffusers.__version__} and transformers {transformers.__version__} have: update them, or take another "
            "model"
        )
    return found


def _read_part(folder: Path, kind: Any, dtype: torch.dtype, variant: str | None) -> Any:
    if not folder.is_dir():
        raise GdaError(f"{folder} does not exist; allowed: {_LAYOUT}")
    options: dict[str, Any] = {"local_files_only": True}
    weighted = issubclass(kind, torch.nn.Module)
    if weighted:
        precise = kind.__name__.startswith("CLIP") or folder.name == "safety_checker"
        of = "torch_dtype" if issubclass(kind, diffusers.ModelMixin) else "dtype"
        options |= {of: torch.float32 if precise else dtype, "use_safetensors": True, "output_loading_info": True}
        if variant and any(f".{variant}." in path.name or f".{variant}-" in path.name for path in folder.iterdir()):
            options["variant"] = variant
    try:
        read = kind.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, TypeError, NotImplementedError, KeyError) as error:
        raise GdaError(f"{folder}: {_short(error)}; allowed: {_LAYOUT}") from error
    if not weighted:
        return read
    part, found = read
    if found["missing_keys"]:
        raise GdaError(f"{folder}: the weights lack {min(found['missing_keys'])}; allowed: {_LAYOUT}")
    return part.eval()


def _upcasts(folder: Path) -> bool:
    path = folder / "vae/config.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("force_upcast", True)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
