"""Flux: a transformer that matches flows between noise and a VAE's latents, told the states of CLIP and T5."""

from typing import Any

import torch
import torch.nn.functional as F

from gdacli.autoencoder import Autoencoder
from gdacli.denoiser import Condition, PredictionType, compiled
from gdacli.errors import GdaError
from gdacli.generators.text_to_image.shift import read_shift
from gdacli.schedules import NUM_TRAIN_TIMESTEPS, Flow, NoiseSchedule

_MAX_TOKENS = 512


class Flux:
    """A `Family`; see `StableDiffusion` for the arguments. The network gets latents [C, h, w] in 2 x 2 patches."""

    prediction_type: PredictionType = "flow"
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
        self.network: torch.nn.Module = pipeline.transformer
        transformer = pipeline.transformer
        self._forward = compiled(transformer) if compile else transformer
        self._pipeline, self._device = pipeline, device
        patch = 2 * pipeline.vae_scale_factor
        self.native_size = native_size or pipeline.default_sample_size * pipeline.vae_scale_factor
        if self.native_size % patch:
            raise GdaError(f"generate.native_size: found {native_size}; allowed for this model: multiples of {patch}")
        if transformer.config.in_channels != 4 * pipeline.vae.config.latent_channels:
            raise GdaError(
                f"{pipeline.name_or_path}: the transformer takes {transformer.config.in_channels} channels, the VAE "
                f"makes {pipeline.vae.config.latent_channels} in 2 x 2 patches; allowed: a text-to-image model"
            )
        self._codes = Autoencoder(pipeline.vae, self.native_size, device, memory_format)
        self.latent_shape: tuple[int, ...] = self._codes.latent_shape
        self.encode, self.decode = self._codes.encode, self._codes.decode
        self._side = self.native_size // patch
        self._shift = read_shift(pipeline, self._side**2)
        self.embeds_guidance = transformer.config.guidance_embeds
        self._guidance = (torch.tensor(guidance_scale, device=device),) if self.embeds_guidance else ()
        self.tokenizer = pipeline.tokenizer_2
        self.max_tokens = min(_MAX_TOKENS, self.tokenizer.model_max_length)  # 512 of dev, 256 of schnell
        places = torch.arange(self._side, dtype=transformer.dtype, device=device)
        self._places = torch.cartesian_prod(torch.zeros(1, dtype=transformer.dtype, device=device), places, places)

    def threshold(self, clean: torch.Tensor) -> torch.Tensor:
        """Leave the latents as they are: they have no bounds."""
        return clean

    def schedule(self, noise_schedule: NoiseSchedule) -> Flow:
        """See `Family`."""
        return Flow(self._shift, noise_schedule)

    @torch.no_grad()
    def embed(self, prompt: str | None) -> Condition:
        """T5's states [L, D], CLIP's pooled [P], then the guidance scale [] if told.

        CLIP reads the first 77 tokens of a longer prompt.
        """
        states, pooled, _ = self._pipeline.encode_prompt(
            prompt or "", device=self._device, max_sequence_length=self.max_tokens
        )
        dtype = self.network.dtype
        return (states[0].to(dtype), pooled[0].to(dtype), *self._guidance)

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        """See `Family`."""
        output = self._forward(
            hidden_states=F.pixel_unshuffle(noisy, 2).flatten(2).transpose(1, 2),
            timestep=times / NUM_TRAIN_TIMESTEPS,
            guidance=told[2] if self.embeds_guidance else None,
            pooled_projections=told[1],
            encoder_hidden_states=told[0],
            txt_ids=torch.zeros(told[0].shape[1], 3, dtype=noisy.dtype, device=noisy.device),
            img_ids=self._places,
            return_dict=False,
        )[0]
        return F.pixel_shuffle(output.transpose(1, 2).unflatten(2, (self._side, self._side)), 2)
