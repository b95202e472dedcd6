"""Images to latents and back, for the families that have a VAE."""

from typing import Any

import torch

_ALONE_FROM = 512
"""Pixels of a side from which on images go through the VAE one by one: its activations for a whole batch of them would
need more memory than the denoiser's, and one of them keeps a device busy."""


class Autoencoder:
    """A VAE with the shift and the scale between its latents and the denoiser's.

    Args:
        vae: of diffusers.
        size: pixels of a side of the images.
        device: where its input goes.
        memory_format: of its input.
    """

    def __init__(self, vae: Any, size: int, device: torch.device, memory_format: torch.memory_format) -> None:
        config = vae.config
        self._vae, self._alone, self._device, self._memory_format = vae, size >= _ALONE_FROM, device, memory_format
        self._shift: Any = config.shift_factor or 0.0
        self._scale: Any = config.scaling_factor
        if config.latents_mean is not None and config.latents_std is not None:
            mean, std = (torch.tensor(each, device=device) for each in (config.latents_mean, config.latents_std))
            self._shift, self._scale = mean[:, None, None], config.scaling_factor / std[:, None, None]
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self.latent_shape: tuple[int, ...] = (config.latent_channels, size // self.factor, size // self.factor)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Float32 [B, 3, n, n] in [-1, 1] => float32 [B, C, h, w]: the mode of the posterior."""
        codes = [self._vae.encode(self._ready(each)).latent_dist.mode().float() for each in self._parts(images)]
        return (torch.cat(codes) - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Float32 [B, C, h, w] => float32 [B, 3, n, n] in about [-1, 1]."""
        codes = latents / self._scale + self._shift
        return torch.cat([self._vae.decode(self._ready(each)).sample.float() for each in self._parts(codes)])

    def _parts(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.split(1 if self._alone else len(x))

    def _ready(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self._device, self._vae.dtype).contiguous(memory_format=self._memory_format)
