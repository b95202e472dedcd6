"""Reads a model in diffusers' layout part by part: its own files, every weight, and no code of its."""

import importlib
import inspect
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from gdacli.diffusers_layout import BROKEN, read_index, read_part, short
from gdacli.errors import GdaError
from gdacli.weights import CHECKER_PARTS, UNUSED_PARTS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torch's, of a pipeline that is imported with the others
    from diffusers.pipelines import auto_pipeline

_LAYOUT = "a text-to-image model in diffusers' layout, with safetensors weights"

_NEEDED = ("unet", "transformer", "vae", "scheduler", "tokenizer")

_KNOWN = (
    auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
)


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
    index = read_index(folder, _LAYOUT)
    pipeline_class = image_to_image_class(folder, index["_class_name"])
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()  # what it warns of is checked here, or for those who call its pipelines
    skipped = UNUSED_PARTS if safety_checker else (*UNUSED_PARTS, *CHECKER_PARTS)
    parts: dict[str, Any] = {}
    for name in inspect.signature(pipeline_class).parameters:
        if not isinstance(index.get(name), list):
            continue
        if len(index[name]) != 2 or (index[name][0] is None and name in _NEEDED):
            raise GdaError(f"{folder / 'model_index.json'}: {name} is {index[name]}; allowed: {_LAYOUT}")
        library, kind = index[name]
        parts[name] = None
        if library is not None and name not in skipped:
            part_class = _part_class(folder, library, kind)
            large = name == "vae" and pipeline_class.__name__.startswith("StableDiffusionXL")
            precise = large or part_class.__name__.startswith("CLIP") or name == "safety_checker"
            of_part = torch.float32 if precise else dtype
            parts[name] = read_part(folder / name, part_class, _LAYOUT, dtype=of_part, variant=variant)
            if large and not parts[name].config.force_upcast:
                parts[name].to(dtype)
    if "requires_safety_checker" in inspect.signature(pipeline_class).parameters:
        parts["requires_safety_checker"] = False
    try:
        pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(folder, local_files_only=True, **parts)
    except BROKEN as error:
        raise GdaError(f"{folder}: {short(error)}; allowed: {_LAYOUT}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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
    if not isinstance(found, type):
        raise GdaError(
            f"{folder / 'model_index.json'}: found a part of class {library}.{kind}; allowed: those that diffusers "
            f"{diffusers.__version__} and transformers {transformers.__version__} have: update them, or take another "
            "model"
        )
    return found
