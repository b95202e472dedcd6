"""A class-conditional (or unconditional) diffusion model in pixel space, trained on the train split alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel

from gdacli.denoiser import Denoiser, PredictionType, classifier_free, compiled
from gdacli.errors import GdaError
from gdacli.generators.class_conditional.latent import latent_generator
from gdacli.generators.class_conditional.network import load_network, make_denoiser
from gdacli.generators.class_conditional.training import fit
from gdacli.pixels import from_model, to_model
from gdacli.prompts import readable
from gdacli.schedules import NoiseSchedule

__all__ = ["fit", "latent_generator", "load", "of_network"]

VERSION = 1
OPTIONS = ()
LATENT = True


def load(
    folder: Path,
    *,
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
) -> "ClassConditional":
    """Load what `fit` saved; see `gdacli.generators` for the arguments.

    Raises:
        GdaError: the model was trained on another number of classes or another image size, or has no classes to guide
            with.
    """
    unet, prediction_type = load_network(folder, class_names=class_names, image_size=image_size, dtype=dtype)
    unet.to(device=device, memory_format=memory_format)
    if unet.config.num_class_embeds is None and guidance_scale != 1:
        raise GdaError(f"{folder}: the model is unconditional: set generate.guidance_scale to 1, or run `gdacli fit`")
    return of_network(
        unet,
        prediction_type=prediction_type,
        class_names=class_names,
        solver=solver,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        noise_schedule=noise_schedule,
        memory_format=memory_format,
        compile=compile,
    )


def of_network(
    unet: UNet2DModel,
    *,
    prediction_type: PredictionType,
    class_names: Sequence[str],
    solver: str,
    num_inference_steps: int,
    guidance_scale: float,
    noise_schedule: NoiseSchedule,
    memory_format: torch.memory_format,
    compile: bool,
) -> "ClassConditional":
    """Return the generator of a network in eval mode, on its device and in its dtype; see `load`."""
    denoiser = make_denoiser(
        unet,
        compiled(unet) if compile else unet,
        prediction_type=prediction_type,
        solver=solver,
        num_inference_steps=num_inference_steps,
        noise_schedule=noise_schedule,
        memory_format=memory_format,
    )
    return ClassConditional(denoiser, class_names, unet.config.sample_size, guidance_scale, unet.device)


class ClassConditional:
    """The backend's `Generator`; pixels are their own latents, in [-1, 1]."""

    def __init__(
        self,
        denoiser: Denoiser,
        class_names: Sequence[str],
        image_size: int,
        guidance_scale: float,
        device: torch.device,
    ) -> None:
        self._denoiser, self._class_names = denoiser, class_names
        self._image_size, self._guidance_scale, self._device = image_size, guidance_scale, device

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, 3, H, W] in [-1, 1]."""
        return to_model(images.to(self._device))

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise the images to `strength`, denoise with guidance; see `Generator.generate`.

        Source: targeted-augmentation paper, section 4.4 and Algorithm 1; classifier-free guidance on epsilon, x_0
        clipped to [-1, 1] (as in GLIDE's sampler).
        """
        labels = labels.to(self._device)
        null = torch.full_like(labels, len(self._class_names))
        guided = classifier_free((labels,), (null,), self._guidance_scale)
        made = self._denoiser(latents, *guided, strength, seeds)
        return from_model(made, self._image_size)

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of a grey image, of which alpha_bar leaves nothing."""
        grey = torch.zeros(len(labels), 3, self._image_size, self._image_size, device=self._device)
        return self.generate(grey, labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`; the prompt is the class in words, which the class embedding stands for.

        An unconditional model is told nothing: its variants' class is their source's, and in the prompt all the same,
        for what compares image and prompt.
        """
        return {
            "prompt": readable(self._class_names[label]),
            "guidance_scale": float(self._guidance_scale),
            **self._denoiser.describe(strength),
        }
