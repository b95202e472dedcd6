"""DiffuseMix: half of an image edited by InstructPix2Pix, half the source, and a fractal blended in."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from gdacli.autoencoder import Autoencoder
from gdacli.denoiser import Condition, Denoiser, compiled
from gdacli.generators.diffusemix.fractals import Fractals, list_fractals
from gdacli.generators.diffusemix.masks import MASKS, draw_mask, edited_share
from gdacli.generators.diffusemix.mix import mix
from gdacli.generators.diffusemix.model import Parts, read_parts
from gdacli.pixels import from_model, resize, to_model
from gdacli.prompts import Prompts
from gdacli.schedules import NoiseSchedule, Timesteps

VERSION = 1
OPTIONS = (
    "model",
    "revision",
    "prompt",
    "class_prompts",
    "native_size",
    "image_guidance_scale",
    "fractals",
    "fractal_weight",
)
PROMPT = "Autumn"
MODEL = "pipeline"
NEEDS_SOURCE = True


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
    native_size: int | None,
    image_guidance_scale: float,
    fractals: Path | None,
    fractal_weight: float,
) -> "DiffuseMix":
    """Load an InstructPix2Pix model; see `gdacli.generators` for the other arguments.

    Args:
        model: folder with model_index.json, unet, vae, text_encoder, tokenizer and scheduler; a safety checker is not
            read, and none is run.
        prompts: the edits, as instructions.
        native_size: pixels of a side at which the model edits; None is its own.
        image_guidance_scale: how much the edit keeps to the source; 1 is none.
        fractals: folder of images to blend in; None makes them.
        fractal_weight: their share in each pixel, in [0, 1).

    Raises:
        GdaError: another family of models, a part that is missing or damaged, a prompt longer than the model reads, or
            a folder without fractals.
    """
    texts = ["", *dict.fromkeys(text for choices in prompts.choices for text in choices)]
    parts = read_parts(model, texts, dtype)
    for module in (parts.unet, parts.vae):
        module.to(device=device, memory_format=memory_format)
    network = compiled(parts.unet) if compile else parts.unet

    def predict(noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        text, image = told
        beside = torch.cat([noisy, image], 1).contiguous(memory_format=memory_format)
        return network(beside, times, text, return_dict=False)[0]

    denoiser = Denoiser(
        predict=predict,
        schedule=Timesteps(parts.alpha_bars, noise_schedule),
        prediction_type=parts.prediction_type,
        threshold=None,
        learned_variance=False,
        solver=solver,
        num_inference_steps=num_inference_steps,
        dtype=dtype,
        memory_format=memory_format,
    )
    return DiffuseMix(
        denoiser,
        parts.vae,
        _embed(parts, device),
        prompts,
        Fractals(None if fractals is None else list_fractals(fractals), image_size),
        guidance_scale=guidance_scale,
        image_guidance_scale=image_guidance_scale,
        fractal_weight=fractal_weight,
        native_size=native_size or parts.native_size,
        image_size=image_size,
    )


class DiffuseMix:
    """The backend's `Generator`; it edits images and makes none from noise alone.

    What it calls latents is a flat row: the VAE's latents of the source at the native size, then the source's pixels.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        vae: AutoencoderKL,
        embeddings: dict[str, torch.Tensor],
        prompts: Prompts,
        fractals: Fractals,
        *,
        guidance_scale: float,
        image_guidance_scale: float,
        fractal_weight: float,
        native_size: int,
        image_size: int,
    ) -> None:
        self._denoiser, self._prompts, self._fractals = denoiser, prompts, fractals
        self._device, self._scaling = vae.device, vae.config.scaling_factor
        self._codes = Autoencoder(vae, native_size, vae.device, denoiser.memory_format)
        self._scales = (guidance_scale, image_guidance_scale)
        self._fractal_weight = fractal_weight
        self._native_size, self._image_size = native_size, image_size
        self._embeddings = {text: states.to(denoiser.dtype) for text, states in embeddings.items()}
        self._shares = {mask: torch.from_numpy(edited_share(mask, image_size)).to(self._device) for mask in MASKS}

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, N]: the VAE's latents and the pixels."""
        with torch.inference_mode():
            pixels = images.to(self._device)
            codes = self._codes.encode(resize(to_model(pixels), self._native_size))
            return torch.cat([codes.flatten(1), pixels.flatten(1).float()], 1)

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Edit the sources, put half of each beside the other half of its edit, blend in a fractal.

        Prompt, mask and fractal are drawn by the image's seed. See `Generator.generate`.

        Source: DiffuseMix, Islam et al. 2024 (arXiv 2405.14881), section 3, and its official code, which is what the
        targeted-augmentation paper ran (appendix F.1). That code works at 256 pixels; this edits at the native size and
        mixes at the size of the data set.
        """
        edited = self.edit(latents, labels, strength, seeds).float()
        with torch.inference_mode():
            shares = torch.stack([self._shares[draw_mask(seed)] for seed in seeds])[:, None]
            fractals = torch.stack([torch.from_numpy(self._fractals(seed)) for seed in seeds]).to(edited.device)
            return mix(self._pixels(latents), edited, shares, fractals.float(), self._fractal_weight)

    def edit(self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]) -> torch.Tensor:
        """Edit whole images by their prompts: what `generate` mixes, with its arguments.

        Returns:
            uint8 [B, 3, H, W].

        Source: Brooks et al. 2023 (InstructPix2Pix), section 3.2 and Eq. 3. The prompt goes in as it is, as in
        DiffuseMix's code. Strength 1 starts from noise alone, as theirs do (of the variance that the schedule has
        there, 1 - alpha_bar, not 1); a smaller one, which they do not have, from the noised source, as everywhere here.
        """
        texts = [self._prompts(label, seed) for label, seed in zip(labels.tolist(), seeds, strict=True)]
        text = torch.stack([self._embeddings[each] for each in texts])
        codes = self._latents(latents)
        start = codes if strength < 1 else torch.zeros_like(codes)
        image = (codes / self._scaling).to(self._denoiser.dtype)  # the source as a condition is not scaled
        conditions, guidance = edit_guidance(text, self._embeddings[""].expand_as(text), image, *self._scales)
        made = self._denoiser(start, conditions, guidance, strength, seeds)
        with torch.inference_mode():
            return from_model(self._codes.decode(made), self._image_size)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`."""
        text, image = self._scales
        return {
            "prompt": self._prompts(label, seed),
            "native_size": self._native_size,
            "guidance_scale": float(text),
            "image_guidance_scale": float(image),
            "mask": draw_mask(seed),
            "fractal": self._fractals.name(seed),
            "fractal_weight": float(self._fractal_weight),
            **self._denoiser.describe(strength),
        }

    def _latents(self, rows: torch.Tensor) -> torch.Tensor:
        shape = self._codes.latent_shape
        return rows[:, : math.prod(shape)].unflatten(1, shape)

    def _pixels(self, rows: torch.Tensor) -> torch.Tensor:
        size = self._image_size
        return rows[:, -3 * size * size :].unflatten(1, (3, size, size))


def edit_guidance(
    text: torch.Tensor, no_text: torch.Tensor, image: torch.Tensor, text_scale: float, image_scale: float
) -> tuple[list[Condition], list[float]]:
    """Return conditions and guidance for a `Denoiser`, only those that count.

    Args:
        text: states of the prompts, [B, L, D]. no_text: of the empty one.
        image: latents of the sources, [B, C, h, w].
        text_scale: s_T, 1 is none. image_scale: s_I, 1 is none.

    Source: Brooks et al. 2023, Eq. 3, e(0, 0) + s_I (e(I, 0) - e(0, 0)) + s_T (e(I, T) - e(I, 0)): that is
    s_T e(I, T) + (s_I - s_T) e(I, 0) + (1 - s_I) e(0, 0), whose factors add up to 1, so any of them can be the base.
    """
    weighed = [
        (text_scale, (text, image)),
        (image_scale - text_scale, (no_text, image)),
        (1 - image_scale, (no_text, torch.zeros_like(image))),
    ]
    kept = [(weight, condition) for weight, condition in weighed if weight != 0]
    return [condition for _, condition in kept], [weight for weight, _ in kept[:-1]]


def _embed(parts: Parts, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the text encoder's states [77, D] of each prompt, one by one: prompts do not depend on each other."""
    encoder = parts.text_encoder.to(device)
    with torch.inference_mode():
        return {text: encoder(ids[None].to(device)).last_hidden_state[0] for text, ids in parts.tokens.items()}
