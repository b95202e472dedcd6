"""The parts of an InstructPix2Pix model, read from diffusers' layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from gdacli.denoiser import PredictionType
from gdacli.diffusers_layout import check_lengths, read_index, read_part, read_timesteps
from gdacli.errors import GdaError

_PIPELINE = "StableDiffusionInstructPix2PixPipeline"
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
    prediction_type: PredictionType
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
    if (found := read_index(folder, _LAYOUT)["_class_name"]) != _PIPELINE:
        raise GdaError(f"{folder / 'model_index.json'}: found a {found}; allowed: {_PIPELINE}, that is, {_LAYOUT}")
    logging.disable_progress_bar()
    unet = read_part(folder / "unet", UNet2DConditionModel, _LAYOUT, dtype=dtype)
    vae = read_part(folder / "vae", AutoencoderKL, _LAYOUT, dtype=dtype)
    if unet.config.in_channels != 2 * vae.config.latent_channels:
        raise GdaError(
            f"{folder}: the UNet takes {unet.config.in_channels} channels, the VAE makes {vae.config.latent_channels}; "
            f"allowed: twice as many, the noise's and the source's, that is, {_LAYOUT}"
        )
    scheduler = read_part(folder / "scheduler", DDPMScheduler, _LAYOUT)
    alpha_bars, prediction_type = read_timesteps(scheduler, f"{folder}/scheduler")
    tokenizer = read_part(folder / "tokenizer", CLIPTokenizer, _LAYOUT)
    longest = tokenizer.model_max_length
    check_lengths(tokenizer, longest, texts, "generate.prompt")
    ids = tokenizer(list(texts), padding="max_length", max_length=longest, return_tensors="pt").input_ids
    return Parts(
        unet=unet,
        vae=vae,
        text_encoder=read_part(folder / "text_encoder", CLIPTextModel, _LAYOUT),
        tokens=dict(zip(texts, ids, strict=True)),
        alpha_bars=alpha_bars,
        prediction_type=prediction_type,
        native_size=unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1),
    )
