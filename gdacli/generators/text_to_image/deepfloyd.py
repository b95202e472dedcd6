"""DeepFloyd IF, its first stage: pixels of 64 x 64, told the states of a T5 text encoder."""

from typing import Any

import torch

from gdacli.denoiser import Condition, clip, compiled
from gdacli.diffusers_layout import read_timesteps
from gdacli.errors import GdaError
from gdacli.schedules import NoiseSchedule, Timesteps

_MAX_TOKENS = 77


class DeepFloyd:
    """A `Family`; see `StableDiffusion` for the arguments.

    The model's watermark, a logo that its own pipeline draws onto the image, is not applied.
    """

    embeds_guidance = False

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
        self.native_size = unet.config.sample_size
        if native_size not in (None, self.native_size):
            raise GdaError(f"generate.native_size: found {native_size}; allowed for this model: {self.native_size}")
        if unet.config.in_channels != 3 or pipeline.text_encoder is None:
            raise GdaError(f"{pipeline.name_or_path}: an upscaling stage; allowed: the first stage of DeepFloyd IF")
        self.latent_shape: tuple[int, ...] = (3, self.native_size, self.native_size)
        self._alpha_bars, self.prediction_type = read_timesteps(
            pipeline.scheduler, f"{pipeline.name_or_path}/scheduler"
        )
        config = pipeline.scheduler.config
        self.learned_variance = config.get("variance_type") in ("learned", "learned_range")
        self._ratio, self._highest = config.get("dynamic_thresholding_ratio"), config.get("sample_max_value")
        self._is_dynamic = config.get("thresholding", False)
        self.tokenizer, self.max_tokens = pipeline.tokenizer, _MAX_TOKENS

    def threshold(self, clean: torch.Tensor) -> torch.Tensor:
        """Threshold dynamically, each image by itself: Saharia et al. 2022, section 2.3; else clip to [-1, 1]."""
        if not self._is_dynamic:
            return clip(clean)
        bound = clean.flatten(1).abs().quantile(self._ratio, dim=1).clamp(1, self._highest)[:, None, None, None]
        return clean.clamp(-bound, bound) / bound

    def schedule(self, noise_schedule: NoiseSchedule) -> Timesteps:
        """See `Family`."""
        return Timesteps(self._alpha_bars, noise_schedule)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels are their own latents."""
        return images

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels are their own latents."""
        return latents

    @torch.no_grad()
    def embed(self, prompt: str | None) -> Condition:
        """States [77, D] of the prompt in lower case.

        diffusers' cleaning of captions is left out: it is for text from the web, and needs two more packages.
        """
        states, _ = self._pipeline.encode_prompt(prompt or "", do_classifier_free_guidance=False, device=self._device)
        return (states[0].to(self.network.dtype),)

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        """See `Family`."""
        output = self._forward(noisy, times, told[0], return_dict=False)[0]
        return output if self.learned_variance else output[:, : noisy.shape[1]]
