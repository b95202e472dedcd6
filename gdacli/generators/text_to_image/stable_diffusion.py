"""Stable Diffusion 1.x, 2.x and XL, and their LCM and turbo forms."""

from typing import Any

import torch

from gdacli.autoencoder import Autoencoder
from gdacli.denoiser import Condition, compiled
from gdacli.diffusers_layout import read_timesteps
from gdacli.errors import GdaError
from gdacli.schedules import NoiseSchedule, Timesteps


class StableDiffusion:
    """A `Family`: a UNet on the latents of a VAE, told the states of CLIP text encoders.

    XL is also told the pooled states and the sizes of the image. A consistency model's UNet (LCM) is told the guidance.

    Args:
        pipeline: of diffusers.
        native_size: pixels; None is that of the UNet's config.
        guidance_scale: for a UNet that is told it.
        device: where the input of the networks goes.
        memory_format: of the UNet's and the VAE's input.
        compile: whether to compile the UNet.

    Raises:
        GdaError: not a text-to-image model, or a size or a schedule that does not fit it.
    """

    learned_variance = False

    def __init__(
        self,
        pipeline: Any,
        *,
        native_size: int | None,
        guidance_scale: float,
        device: torch.device,
        memory_format: torch.memory_format,
        compile: bool,
    ) -> None:
        self.network: torch.nn.Module = pipeline.unet
        unet = pipeline.unet
        self._forward = compiled(unet) if compile else unet
        self._pipeline, self._device = pipeline, device
        self._is_xl = unet.config.addition_embed_type == "text_time"
        if unet.config.in_channels != pipeline.vae.config.latent_channels:
            raise GdaError(
                f"{pipeline.name_or_path}: the UNet takes {unet.config.in_channels} channels, the VAE makes "
                f"{pipeline.vae.config.latent_channels}; allowed: a text-to-image model, not one for inpainting, depth "
                "or editing"
            )
        if self._is_xl and (pipeline.config.requires_aesthetics_score or pipeline.text_encoder is None):
            raise GdaError(f"{pipeline.name_or_path}: a refiner; allowed: the base model of Stable Diffusion XL")
        factor = pipeline.vae_scale_factor
        self.native_size = native_size or unet.config.sample_size * factor
        if self.native_size % factor:
            raise GdaError(f"generate.native_size: found {native_size}; allowed for this model: multiples of {factor}")
        self._codes = Autoencoder(pipeline.vae, self.native_size, device, memory_format)
        self.latent_shape: tuple[int, ...] = self._codes.latent_shape
        self.encode, self.decode = self._codes.encode, self._codes.decode
        self._alpha_bars, self.prediction_type = read_timesteps(
            pipeline.scheduler, f"{pipeline.name_or_path}/scheduler"
        )
        self.tokenizer = pipeline.tokenizer
        self.max_tokens = self.tokenizer.model_max_length
        width = unet.config.time_cond_proj_dim
        self.embeds_guidance = width is not None
        self._guidance: Condition = ()
        if width is not None:  # diffusers counts from 1 as no guidance, the paper (Luo et al. 2023) from 0
            scale = torch.tensor([guidance_scale - 1])
            self._guidance = (pipeline.get_guidance_scale_embedding(scale, width)[0].to(device, unet.dtype),)

    def threshold(self, clean: torch.Tensor) -> torch.Tensor:
        """Leave the latents as they are: they have no bounds."""
        return clean

    def schedule(self, noise_schedule: NoiseSchedule) -> Timesteps:
        """See `Family`."""
        return Timesteps(self._alpha_bars, noise_schedule)

    @torch.no_grad()
    def embed(self, prompt: str | None) -> Condition:
        """States [77, D]; of XL also pooled [P] and sizes [6] (original, crop, target); then guidance [G] if told."""
        dtype = self.network.dtype
        if not self._is_xl:
            states, _ = self._pipeline.encode_prompt(prompt or "", self._device, 1, False)
            return (states[0].to(dtype), *self._guidance)
        states, _, pooled, _ = self._pipeline.encode_prompt(
            prompt or "", device=self._device, do_classifier_free_guidance=False
        )
        if prompt is None and self._pipeline.config.force_zeros_for_empty_prompt:
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        size = float(self.native_size)
        sizes = torch.tensor([size, size, 0.0, 0.0, size, size], device=self._device)
        return (states[0].to(dtype), pooled[0].to(dtype), sizes, *self._guidance)

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        """See `Family`."""
        options: dict[str, Any] = {"return_dict": False}
        if self._is_xl:
            options["added_cond_kwargs"] = {"text_embeds": told[1], "time_ids": told[2]}
        if self.embeds_guidance:
            options["timestep_cond"] = told[-1]
        return self._forward(noisy, times, told[0], **options)[0]
