"""Text-to-image models of the Hub or a local folder: their own weights, prompted with the class name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from gdacli.denoiser import Condition, Denoiser, classifier_free
from gdacli.errors import GdaError
from gdacli.generators.text_to_image.deepfloyd import DeepFloyd
from gdacli.generators.text_to_image.family import Family
from gdacli.generators.text_to_image.flux import Flux
from gdacli.generators.text_to_image.parts import read_pipeline
from gdacli.generators.text_to_image.stable_diffusion import StableDiffusion
from gdacli.prompts import Prompts
from gdacli.schedules import NoiseSchedule

VERSION = 1
OPTIONS = ("model", "revision", "prompt", "class_prompts")
PROMPT = "a photo of {class_name}"

_FAMILIES: dict[str, Callable[..., Family]] = {
    "StableDiffusionImg2ImgPipeline": StableDiffusion,
    "LatentConsistencyModelImg2ImgPipeline": StableDiffusion,
    "StableDiffusionXLImg2ImgPipeline": StableDiffusion,
    "IFImg2ImgPipeline": DeepFloyd,
    "FluxImg2ImgPipeline": Flux,
}
"""By the class that diffusers has for images of such a model."""


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
        model: folder with model_index.json and a folder for each part.
        prompts: what the images are said to show.

    Raises:
        GdaError: a family of models without an image-to-image pipeline, a part that is missing or damaged, or a prompt
            longer than the model reads.
    """
    _, family = open_family(
        model,
        native_size=None,
        guidance_scale=guidance_scale,
        device=device,
        dtype=dtype,
        memory_format=memory_format,
        compile=compile,
    )
    _check_lengths(family, [text for choices in prompts.choices for text in choices])
    denoiser = Denoiser(
        predict=family.predict,
        schedule=family.schedule(noise_schedule),
        prediction_type=family.prediction_type,
        threshold=family.threshold,
        learned_variance=family.learned_variance,
        solver=solver,
        num_inference_steps=num_inference_steps,
        dtype=dtype,
        memory_format=memory_format,
    )
    return TextToImage(family, denoiser, guidance_scale, prompts, image_size, device)


def open_family(
    model: Path,
    *,
    native_size: int | None,
    guidance_scale: float,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    compile: bool,
) -> tuple[Any, Family]:
    """Read a model; returns diffusers' pipeline of its parts, and how its family uses them.

    Args:
        model: as for `load`.
        native_size: pixels of a side; None is what the model was trained at.
        guidance_scale: for models that are told it.
        device, dtype, memory_format, compile: as for `load`.

    Raises:
        GdaError: as for `load`.
    """
    pipeline = read_pipeline(model, dtype=dtype, variant=None, safety_checker=False)
    pipeline.to(device)
    for name in {"unet", "transformer", "vae"} & pipeline.components.keys():
        getattr(pipeline, name).to(memory_format=memory_format)
    family = _FAMILIES[type(pipeline).__name__](
        pipeline,
        native_size=native_size,
        guidance_scale=guidance_scale,
        device=device,
        memory_format=memory_format,
        compile=compile,
    )
    return pipeline, family


class TextToImage:
    """The backend's `Generator`; latents are the model's, of the image at its native size."""

    def __init__(
        self,
        family: Family,
        denoiser: Denoiser,
        guidance_scale: float,
        prompts: Prompts,
        image_size: int,
        device: torch.device,
    ) -> None:
        self._family, self._denoiser, self._prompts = family, denoiser, prompts
        self._guidance_scale, self._image_size, self._device = guidance_scale, image_size, device
        self._conditions: dict[str | None, Condition] = {}

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, ...]: scaled to the native size, then into the model's latents."""
        with torch.inference_mode():
            native = resize(images.to(self._device).float() / 127.5 - 1, self._family.native_size).clamp(-1, 1)
            return self._family.encode(native)

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise the latents to `strength`, denoise with the class's prompt, decode; see `Generator.generate`.

        Source: targeted-augmentation paper, section 4.4 and Algorithm 1, with another model than its GLIDE.
        """
        texts = [self._prompts(label, seed) for label, seed in zip(labels.tolist(), seeds, strict=True)]
        told = self._told(texts)
        scale = 1.0 if self._family.embeds_guidance else self._guidance_scale
        null = told if scale == 1 else self._told([None] * len(texts))
        made = self._denoiser(latents, *classifier_free(told, null, scale), strength, seeds)
        with torch.inference_mode():
            image = resize(self._family.decode(made).clamp(-1, 1), self._image_size).clamp(-1, 1)
            return ((image + 1) * 127.5).round().to(torch.uint8)

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of latents that are zero."""
        latents = torch.zeros(len(labels), *self._family.latent_shape, device=self._device)
        return self.generate(latents, labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`."""
        return {
            "prompt": self._prompts(label, seed),
            "native_size": self._family.native_size,
            "guidance_scale": float(self._guidance_scale),
            **self._denoiser.describe(strength),
        }

    def _told(self, texts: Sequence[str | None]) -> Condition:
        """Return what the network is told of prompts, tensors [B, ...].

        They are computed one by one, once in a run, so that they do not depend on which prompts come together.
        """
        for text in dict.fromkeys(texts):
            if text not in self._conditions:
                with torch.inference_mode():
                    self._conditions[text] = self._family.embed(text)
        return tuple(torch.stack(parts) for parts in zip(*(self._conditions[text] for text in texts), strict=True))


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Scale images, float [B, 3, H, W], to `size` pixels of a side, antialiased."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)


def _check_lengths(family: Family, prompts: Sequence[str]) -> None:
    for prompt in prompts:
        if (length := len(family.tokenizer(prompt, verbose=False).input_ids)) > family.max_tokens:
            raise GdaError(
                f"generate.prompt: {prompt!r} has {length} tokens; the model reads {family.max_tokens}: shorten it"
            )
