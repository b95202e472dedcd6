"""Models in diffusers' layout: a folder with model_index.json and a folder for each part, read part by part."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler
from safetensors import SafetensorError

from gdacli.denoiser import PredictionType
from gdacli.errors import GdaError
from gdacli.schedules import NUM_TRAIN_TIMESTEPS
from gdacli.weights import has_variant

_PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction")

BROKEN = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    LookupError,
    ImportError,
    SafetensorError,
)
"""What the libraries raise of a folder that is damaged, of another model, or for a package that is not here."""


def read_index(folder: Path, allowed: str) -> dict[str, Any]:
    """Read model_index.json.

    Args:
        folder: of the model.
        allowed: what it must hold, for messages.

    Raises:
        GdaError: there is none, or it is none.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise GdaError(f"{path} does not exist; allowed: a folder of {allowed}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {**index, "_class_name": index["_class_name"]}
    except (ValueError, TypeError, KeyError) as error:
        raise GdaError(f"{path}: not the index of a model ({error}); allowed: a folder of {allowed}") from error


def read_part(
    folder: Path, kind: Any, allowed: str, *, dtype: torch.dtype = torch.float32, variant: str | None = None
) -> Any:
    """Read a part from its own files: a network with every weight, in evaluation mode; a tokenizer; a scheduler.

    Args:
        folder: of the part.
        kind: its class, of diffusers or transformers.
        allowed: what the model must be, for messages.
        dtype: of a network.
        variant: of a network's files; plain ones are read where there are none of it.

    Raises:
        GdaError: it is missing, damaged or incomplete.
    """
    if not folder.is_dir():
        raise GdaError(f"{folder} does not exist; allowed: {allowed}")
    options: dict[str, Any] = {"local_files_only": True}
    weighted = issubclass(kind, torch.nn.Module)
    if weighted:
        of = "torch_dtype" if issubclass(kind, diffusers.ModelMixin) else "dtype"
        options |= {of: dtype, "use_safetensors": True, "output_loading_info": True}
        if variant and has_variant(folder, variant):
            options["variant"] = variant
    try:
        read = kind.from_pretrained(folder, **options)
    except BROKEN as error:
        raise GdaError(f"{folder}: {short(error)}; allowed: {allowed}") from error
    if not weighted:
        return read
    part, found = read
    if found["missing_keys"]:
        raise GdaError(f"{folder}: the weights lack {min(found['missing_keys'])}; allowed: {allowed}")
    return part.eval()


def read_timesteps(scheduler: Any, where: str) -> tuple[list[float], PredictionType]:
    """Return alpha_bar per timestep, and what the network predicts, as the scheduler's config says it.

    An alpha_bar of 0 at the last timestep (zero terminal SNR) is fine for v-prediction; a predicted epsilon says
    nothing of the image there, and the division by 0 in its place is none of ours to smooth over.

    Args:
        scheduler: of diffusers, of any class with betas.
        where: its folder, for messages.

    Raises:
        GdaError: another kind of scheduler or prediction.
    """
    config = scheduler.config
    if "beta_schedule" not in config:
        raise GdaError(
            f"{where}: found {type(scheduler).__name__}; allowed: a scheduler of {NUM_TRAIN_TIMESTEPS} timesteps, such "
            "as DDIMScheduler"
        )
    try:
        alpha_bars = DDPMScheduler.from_config(config).alphas_cumprod.double().tolist()
    except (ValueError, RuntimeError) as error:
        raise GdaError(f"{where}: {short(error)}") from error
    prediction_type = config.prediction_type
    if prediction_type not in _PREDICTIONS:
        raise GdaError(f"{where}: found prediction_type {prediction_type}; allowed: {', '.join(_PREDICTIONS)}")
    ends = 0 < alpha_bars[-1] < 1 or (alpha_bars[-1] == 0 and prediction_type == "v_prediction")
    if len(alpha_bars) != NUM_TRAIN_TIMESTEPS or not ends:
        raise GdaError(
            f"{where}: found {len(alpha_bars)} timesteps down to alpha_bar {alpha_bars[-1]:.2g} for {prediction_type}; "
            f"allowed: {NUM_TRAIN_TIMESTEPS} that end above 0, or at 0 for v_prediction"
        )
    return alpha_bars, prediction_type


def check_lengths(tokenizer: Any, max_tokens: int, prompts: Iterable[str], field: str) -> None:
    """Refuse a prompt that the model would cut.

    Args:
        tokenizer: of transformers.
        max_tokens: that the model reads.
        prompts: to check.
        field: of params.yaml, for messages.

    Raises:
        GdaError: one has more tokens than `max_tokens`.
    """
    for prompt in prompts:
        if (length := len(tokenizer(prompt, verbose=False).input_ids)) > max_tokens:
            raise GdaError(f"{field}: {prompt!r} has {length} tokens; the model reads {max_tokens}: shorten it")


def short(error: Exception) -> str:
    """Return what a library says, in one line."""
    return " ".join(str(error).split())[:200]
