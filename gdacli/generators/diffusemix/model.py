"""The parts of an InstructPix2Pix model, read from diffusers' layout."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from gdacli.errors import GdaError
from gdacli.schedules import NUM_TRAIN_TIMESTEPS

_PIPELINE = "StableDiffusionInstructPix2PixPipeline"
_PREDICTIONS = ("epsilon", "v_prediction")
_LAYOUT = "InstructPix2Pix in diffusers' layout, such as timbrooks/instruct-pix2pix, with safetensors weights"


@dataclass(frozen=True)
class Parts:
    """What edits images."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: torch.nn.Module
    """CLIP's, in float32."""
    tokens: dict[str, torch.Tensor]
    """Prompt -> ids, int64 [77]."""
    alpha_bars: list[float]
    prediction_type: Literal["epsilon", "v_prediction"]
    native_size: int
    """Pixels of a side for which the UNet's configuration was made."""


def read_parts(folder: Path, texts: Sequence[str], dtype: torch.dtype) -> Parts:
    """Read a model's networks, every weight of them, in evaluation mode, and never by running its code.

    Args:
        folder: with model_index.json.
        texts: the prompts, the empty one among them.
        dtype: of UNet and VAE.

    Raises:
        GdaError: another family of models, a part that is missing or damaged, or a prompt longer than the model reads.
    """
    _check_family(folder)
    logging.disable_progress_bar()
    unet = _read(UNet2DConditionModel, folder / "unet", torch_dtype=dtype, low_cpu_mem_usage=False)
    vae = _read(AutoencoderKL, folder / "vae", torch_dtype=dtype, low_cpu_mem_usage=False)
    if unet.config.in_channels != 2 * vae.config.latent_channels:
        raise GdaError(
            f"{folder}: the UNet takes {unet.config.in_channels} channels, the VAE makes {vae.config.latent_channels}; "
            f"allowed: twice as many, the noise's and the source's, that is, {_LAYOUT}"
        )
    scheduler = _try(DDPMScheduler, folder / "scheduler")
    alpha_bars, prediction_type = scheduler.alphas_cumprod.double().tolist(), scheduler.config.prediction_type
    if prediction_type not in _PREDICTIONS:
        raise GdaError(f"{folder}: found prediction_type {prediction_type}; allowed: {', '.join(_PREDICTIONS)}")
    if len(alpha_bars) != NUM_TRAIN_TIMESTEPS or not 0 < alpha_bars[-1] < 1:
        raise GdaError(
            f"{folder}: found {len(alpha_bars)} timesteps down to alpha_bar {alpha_bars[-1]:.2g}; "
            f"allowed: {NUM_TRAIN_TIMESTEPS} that end above 0"
        )
    return Parts(
        unet=unet,
        vae=vae,
        text_encoder=_read(CLIPTextModel, folder / "text_encoder", dtype=torch.float32),
        tokens=_tokenize(folder / "tokenizer", texts),
        alpha_bars=alpha_bars,
        prediction_type=prediction_type,
        native_size=unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1),
    )


def _check_family(folder: Path) -> None:
    path = folder / "model_index.json"
    if not path.is_file():
        raise GdaError(f"{path} does not exist; allowed: a folder of {_LAYOUT}")
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise GdaError(f"{path}: not the index of a model ({error}); allowed: a folder of {_LAYOUT}") from error
    if found != _PIPELINE:
        raise GdaError(f"{path}: found a {found}; allowed: {_PIPELINE}, that is, {_LAYOUT}")


def _read(part: Any, folder: Path, **options: Any) -> Any:
    network, found = _try(part, folder, use_safetensors=True, output_loading_info=True, **options)
    if found["missing_keys"]:
        raise GdaError(f"{folder}: the weights lack {min(found['missing_keys'])}; allowed: {_LAYOUT}")
    return network.eval()


def _try(part: Any, folder: Path, **options: Any) -> Any:
    try:
        return part.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise GdaError(f"{folder}: {' '.join(str(error).split())[:200]}; allowed: {_LAYOUT}") from error


def _tokenize(folder: Path, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    tokenizer = cast(CLIPTokenizer, _try(CLIPTokenizer, folder))
    longest = tokenizer.model_max_length
    for text in texts:
        if (length := len(tokenizer(text, verbose=False).input_ids)) > longest:
            raise GdaError(f"generate.prompt: {text!r} has {length} tokens; the model reads {longest}: shorten it")
    ids = tokenizer(list(texts), padding="max_length", max_length=longest, return_tensors="pt").input_ids
    return dict(zip(texts, ids, strict=True))
