"""OpenAI's GLIDE base model, the generator of the targeted-augmentation paper: 64 pixels, prompted in words."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from gdacli.denoiser import Condition, Denoiser, classifier_free, clip, compiled
from gdacli.generators.glide.checkpoint import read_checkpoint
from gdacli.generators.glide.network import SIZE
from gdacli.generators.glide.text_transformer import TextTransformer
from gdacli.generators.glide.tokens import tokenize
from gdacli.pixels import from_model, resize, to_model
from gdacli.prompts import Prompts
from gdacli.schedules import GlideTimesteps, NoiseSchedule

VERSION = 1
OPTIONS = ("model", "prompt", "class_prompts", "native_size")
PROMPT = "a photo of {class_name}"
MODEL = "file"


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
    model: Path,
    prompts: Prompts,
    native_size: int | None,
) -> "Glide":
    """Load the released checkpoint; see `gdacli.generators` for the other arguments.

    Args:
        noise_schedule: either; `glide` is this model's own.
        model: base.pt, or the same weights as .safetensors.
        prompts: of each class.
        native_size: at which the UNet, a convolutional one, works; a multiple of 8. None is 64, as it was trained.

    Raises:
        GdaError: it is not that model, or a prompt is longer than it reads.
    """
    unet, text = read_checkpoint(model, dtype)
    for prompt in sorted({prompt for choices in prompts.choices for prompt in choices}):
        tokenize(prompt, text.length)
    unet.to(device=device, memory_format=memory_format)
    denoiser = make_denoiser(
        compiled(unet) if compile else unet,
        solver=solver,
        num_inference_steps=num_inference_steps,
        dtype=dtype,
        memory_format=memory_format,
    )
    return Glide(denoiser, text.to(device), prompts, native_size or SIZE, image_size, guidance_scale, device)


def make_denoiser(unet: Callable[..., Any], **settings: Any) -> Denoiser:
    """Return the loop of GLIDE's sampler over its UNet; `settings` as of `Denoiser`.

    Source: GLIDE's reference implementation: cosine schedule, learned variance, guidance on epsilon alone, each
    estimate of the clean image clipped to [-1, 1].
    """

    def predict(noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        states, vectors = told
        return unet(noisy, times, states, class_labels=vectors, return_dict=False)[0]

    return Denoiser(
        predict=predict,
        schedule=GlideTimesteps(),
        prediction_type="epsilon",
        threshold=clip,
        learned_variance=True,
        **settings,
    )


class Glide:
    """The backend's `Generator`; latents are pixels in [-1, 1] at the native size."""

    def __init__(
        self,
        denoiser: Denoiser,
        text: TextTransformer,
        prompts: Prompts,
        native_size: int,
        image_size: int,
        guidance_scale: float,
        device: torch.device,
    ) -> None:
        self._denoiser, self._text, self._prompts = denoiser, text, prompts
        self._native_size = native_size
        self._image_size, self._guidance_scale, self._device = image_size, guidance_scale, device
        self._embedding = lru_cache(maxsize=1024)(self._embed)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, 3, S, S] in [-1, 1], S the native size.

        Source: targeted-augmentation paper, section 4.4, and the code that it cites.
        """
        return resize(to_model(images.to(self._device)), self._native_size)

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise the images to `strength`, denoise with the prompts; see `Generator.generate`.

        Source: targeted-augmentation paper, section 4.4 and Algorithm 1. How the paper went back to the size of its
        data is not known; here bicubic and antialiased.
        """
        prompts = [self._prompts(label, seed) for label, seed in zip(labels.tolist(), seeds, strict=True)]
        guided = classifier_free(self._told(prompts), self._told([""] * len(prompts)), self._guidance_scale)
        made = self._denoiser(latents, *guided, strength, seeds)
        return from_model(made, self._image_size)

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of a grey image, of which alpha_bar leaves nothing."""
        grey = torch.zeros(len(labels), 3, self._native_size, self._native_size, device=self._device)
        return self.generate(grey, labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`."""
        return {
            "prompt": self._prompts(label, seed),
            "native_size": self._native_size,
            "guidance_scale": float(self._guidance_scale),
            **self._denoiser.describe(strength),
        }

    def _told(self, prompts: Sequence[str]) -> Condition:
        """Return what the UNet is told of the prompts: states [B, L, D] and vectors [B, E]."""
        states, vectors = zip(*(self._embedding(prompt) for prompt in prompts), strict=True)
        return torch.stack(states), torch.stack(vectors)

    def _embed(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed a prompt alone, so that it does not depend on which prompts come together."""
        tokens, mask = tokenize(prompt, self._text.length)
        with torch.inference_mode():
            states, vector = self._text(tokens[None].to(self._device), mask[None].to(self._device))
        return states[0].to(self._denoiser.dtype), vector[0].to(self._denoiser.dtype)
