"""Stable Diffusion 1.x and 2.x from a local folder: its own weights, prompted with the class name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from gdacli.denoiser import Condition, Denoiser, classifier_free, compiled
from gdacli.errors import GdaError
from gdacli.prompts import Prompts
from gdacli.schedules import NUM_TRAIN_TIMESTEPS, NoiseSchedule, Timesteps

VERSION = 1
OPTIONS = ("model", "revision", "prompt", "class_prompts")
PROMPT = "a photo of {class_name}"

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
_PREDICTIONS = ("epsilon", "v_prediction")
_LAYOUT = "Stable Diffusion 1.x or 2.x in diffusers' layout, with safetensors weights"


def load(
    folder: Path,
    *,
    model: Path,
    class_names: Sequence[str],
    image_size: int,
    solver: str,
    num_inference_steps: int,
    guidance_scale: float,
    noise_schedule: NoiseSchedule,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    compile: bool,
    prompts: Prompts,
) -> "TextToImage":
    """Load a model that diffusers' pipelines read; see `gdacli.generators` for the other arguments.

    Args:
        model: folder with model_index.json, unet, vae, text_encoder, tokenizer and scheduler; a safety checker is not
            read.
        prompts: what the images are said to show.

    Raises:
        GdaError: another family of models, a part that is missing or damaged, or a prompt longer than the model reads.
    """
    folder = model
    _check_family(folder)
    logging.disable_progress_bar()
    unet = _read_weights(UNet2DConditionModel, folder / "unet", torch_dtype=dtype, low_cpu_mem_usage=False)
    vae = _read_weights(AutoencoderKL, folder / "vae", torch_dtype=dtype, low_cpu_mem_usage=False)
    text_encoder = _read_weights(CLIPTextModel, folder / "text_encoder", dtype=torch.float32)
    if unet.config.in_channels != vae.config.latent_channels:
        raise GdaError(
            f"{folder}: the UNet takes {unet.config.in_channels} channels, the VAE makes {vae.config.latent_channels}; "
            "allowed: a text-to-image model, not one for inpainting, depth or editing"
        )
    for module in (unet, vae):
        module.to(device=device, memory_format=memory_format)
    alpha_bars, prediction_type = _read_schedule(folder / "scheduler")
    network = compiled(unet) if compile else unet

    def predict(noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        return network(noisy, times, *told, return_dict=False)[0]

    denoiser = Denoiser(
        predict=predict,
        schedule=Timesteps(alpha_bars, noise_schedule),
        prediction_type=prediction_type,
        threshold=None,
        learned_variance=False,
        solver=solver,
        num_inference_steps=num_inference_steps,
        dtype=dtype,
        memory_format=memory_format,
    )
    texts = ["", *dict.fromkeys(text for choices in prompts.choices for text in choices)]
    tokens = dict(zip(texts, _tokenize(model / "tokenizer", texts), strict=True))
    return TextToImage(
        denoiser, guidance_scale, vae, text_encoder.to(device), prompts, tokens, unet.config.sample_size, image_size
    )


class TextToImage:
    """The backend's `Generator`; latents are the VAE's, of the image at the model's native size."""

    def __init__(
        self,
        denoiser: Denoiser,
        guidance_scale: float,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        prompts: Prompts,
        tokens: dict[str, torch.Tensor],
        latent_size: int,
        image_size: int,
    ) -> None:
        self._denoiser, self._vae, self._text_encoder = denoiser, vae, text_encoder
        self._guidance_scale, self._prompts, self._tokens = guidance_scale, prompts, tokens
        self._latent_size, self._image_size = latent_size, image_size
        self._native_size = latent_size * 2 ** (len(vae.config.block_out_channels) - 1)
        self._embeddings: dict[str, torch.Tensor] = {}

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, 4, h, w]: scaled to the native size, the mode of the VAE's posterior."""
        with torch.inference_mode():
            native = _resize(images.to(self._vae.device).float() / 127.5 - 1, self._native_size).clamp(-1, 1)
            posterior = self._vae.encode(self._to_vae(native)).latent_dist
            return posterior.mode().float() * self._vae.config.scaling_factor

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise the latents to `strength`, denoise with the class's prompt, decode; see `Generator.generate`.

        Source: targeted-augmentation paper, section 4.4 and Algorithm 1, with another model than its GLIDE; the
        latents are not clipped.
        """
        texts = [self._prompts(label, seed) for label, seed in zip(labels.tolist(), seeds, strict=True)]
        condition = torch.stack([self._embedding(text) for text in texts])
        null = self._embedding("").expand_as(condition)
        made = self._denoiser(latents, *classifier_free((condition,), (null,), self._guidance_scale), strength, seeds)
        with torch.inference_mode():
            native = self._vae.decode(self._to_vae(made / self._vae.config.scaling_factor)).sample.float()
            image = _resize(native.clamp(-1, 1), self._image_size).clamp(-1, 1)
            return ((image + 1) * 127.5).round().to(torch.uint8)

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of latents that are zero."""
        shape = (len(labels), self._vae.config.latent_channels, self._latent_size, self._latent_size)
        return self.generate(torch.zeros(shape, device=self._vae.device), labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`."""
        return {
            "prompt": self._prompts(label, seed),
            "native_size": self._native_size,
            "guidance_scale": float(self._guidance_scale),
            **self._denoiser.describe(strength),
        }

    def _to_vae(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self._denoiser.dtype).contiguous(memory_format=self._denoiser.memory_format)

    def _embedding(self, text: str) -> torch.Tensor:
        """Return the text encoder's states [77, D] of a prompt.

        They are computed one by one, once in a run, so that they do not depend on which prompts come together.
        """
        if text not in self._embeddings:
            with torch.inference_mode():
                states = self._text_encoder(self._tokens[text][None].to(self._text_encoder.device))
            self._embeddings[text] = states.last_hidden_state[0].to(self._denoiser.dtype)
        return self._embeddings[text]


def _check_family(folder: Path) -> None:
    path = folder / "model_index.json"
    if not path.is_file():
        raise GdaError(f"{path} does not exist; allowed: a folder of {_LAYOUT}")
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise GdaError(f"{path}: not the index of a model ({error}); allowed: a folder of {_LAYOUT}") from error
    if found not in _PIPELINES:
        raise GdaError(f"{path}: found a {found}; allowed: {' or '.join(_PIPELINES)}, that is, {_LAYOUT}")


def _read_weights(part: Any, folder: Path, **options: Any) -> Any:
    """Read a network, every weight of it, in evaluation mode; from this folder alone and never by running its code."""
    try:
        network, found = part.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise GdaError(f"{folder}: {' '.join(str(error).split())[:200]}; allowed: {_LAYOUT}") from error
    if found["missing_keys"]:
        raise GdaError(f"{folder}: the weights lack {min(found['missing_keys'])}; allowed: {_LAYOUT}")
    return network.eval()


def _read_schedule(folder: Path) -> tuple[list[float], Any]:
    """Read alpha_bar per timestep, and what the network predicts."""
    try:
        scheduler = DDPMScheduler.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise GdaError(f"{folder}: {' '.join(str(error).split())[:200]}; allowed: {_LAYOUT}") from error
    alpha_bars, prediction_type = scheduler.alphas_cumprod.double().tolist(), scheduler.config.prediction_type
    if prediction_type not in _PREDICTIONS:
        raise GdaError(f"{folder}: found prediction_type {prediction_type}; allowed: {', '.join(_PREDICTIONS)}")
    if len(alpha_bars) != NUM_TRAIN_TIMESTEPS or not 0 < alpha_bars[-1] < 1:
        raise GdaError(
            f"{folder}: found {len(alpha_bars)} timesteps down to alpha_bar {alpha_bars[-1]:.2g}; "
            f"allowed: {NUM_TRAIN_TIMESTEPS} that end above 0"
        )
    return alpha_bars, prediction_type


def _tokenize(folder: Path, prompts: Sequence[str]) -> torch.Tensor:
    """Turn prompts into token ids, int64 [N, 77]."""
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise GdaError(f"{folder}: {' '.join(str(error).split())[:200]}; allowed: {_LAYOUT}") from error
    longest = tokenizer.model_max_length
    for prompt in prompts:
        if (length := len(tokenizer(prompt, verbose=False).input_ids)) > longest:
            raise GdaError(f"generate.prompt: {prompt!r} has {length} tokens; the model reads {longest}: shorten it")
    return tokenizer(list(prompts), padding="max_length", max_length=longest, return_tensors="pt").input_ids


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Scale images, float [B, 3, H, W], to `size` pixels of a side, antialiased."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
