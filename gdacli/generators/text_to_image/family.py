"""What one family of models does its own way; all else is shared."""

from typing import Any, Protocol

import torch
from torch import nn

from gdacli.denoiser import Condition, PredictionType
from gdacli.schedules import NoiseSchedule, Schedule


class Family(Protocol):
    """A model as the shared loop sees it.

    `encode`, `decode` and `embed` keep no gradients; `predict` does where torch is told to.
    """

    network: nn.Module
    """The denoiser."""
    native_size: int
    """Pixels of a side at which the model works."""
    latent_shape: tuple[int, ...]
    """Of one image."""
    prediction_type: PredictionType
    learned_variance: bool
    embeds_guidance: bool
    """Whether the network is told the guidance scale, in place of a second, unconditional evaluation."""
    tokenizer: Any
    """That of the longest prompts, and how many tokens those have:"""
    max_tokens: int

    def threshold(self, clean: torch.Tensor) -> torch.Tensor:
        """Bring each estimate of the clean latents, [B, ...], to where such latents can lie."""

    def schedule(self, noise_schedule: NoiseSchedule) -> Schedule:
        """Return the noise levels that the model was trained on."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images, float32 [B, 3, n, n] in [-1, 1] at the native size, into latents, float32 [B, ...]."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn latents, float32 [B, ...], into images, float32 [B, 3, n, n], in about [-1, 1]."""

    def embed(self, prompt: str | None) -> Condition:
        """Return what the network is told of one prompt, without a batch dimension; None: of no prompt."""

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        """See `Denoiser.predict`."""
