"""A class-conditional (or unconditional) diffusion model in pixel space, trained on the train split alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel

from gdacli.denoiser import Condition, Denoiser, classifier_free, clip, compiled
from gdacli.errors import GdaError
from gdacli.generators.class_conditional.training import fit
from gdacli.pixels import from_model, to_model
from gdacli.prompts import readable
from gdacli.schedules import NoiseSchedule, Timesteps, cosine_alpha_bars

__all__ = ["fit", "load", "of_network"]

VERSION = 1
OPTIONS = ()


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
    unet = UNet2DModel.from_pretrained(
        folder / "unet", torch_dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False
    )
    unet.to(device=device, memory_format=memory_format).eval()
    embedded, size = unet.config.num_class_embeds, unet.config.sample_size
    if embedded is None and guidance_scale != 1:
        raise GdaError(f"{folder}: the model is unconditional: set generate.guidance_scale to 1, or run `gdacli fit`")
    if embedded is not None and embedded - 1 != len(class_names):
        raise GdaError(
            f"{folder}: the model knows {embedded - 1} classes, the data has {len(class_names)}: run `gdacli fit`"
        )
    if size != image_size:
        raise GdaError(f"{folder}: the model makes {size} pixels, the data has {image_size}: run `gdacli fit`")
    return of_network(
        unet,
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
    class_names: Sequence[str],
    solver: str,
    num_inference_steps: int,
    guidance_scale: float,
    noise_schedule: NoiseSchedule,
    memory_format: torch.memory_format,
    compile: bool,
) -> "ClassConditional":
    """Return the generator of a network in eval mode, on its device and in its dtype; see `load`."""
    network: Callable[..., Any] = compiled(unet) if compile else unet
    conditional = unet.config.num_class_embeds is not None

    def predict(noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        return network(noisy, times, *(told if conditional else (None,)), return_dict=False)[0]

    denoiser = Denoiser(
        predict=predict,
        schedule=Timesteps(cosine_alpha_bars(), noise_schedule),
        prediction_type="epsilon",
        threshold=clip,
        learned_variance=False,
        solver=solver,
        num_inference_steps=num_inference_steps,
        dtype=unet.dtype,
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
