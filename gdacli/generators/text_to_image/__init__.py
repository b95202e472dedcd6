"""Text-to-image models of the Hub or a local folder: their own weights, prompted with the class name."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from gdacli.denoiser import Condition, Denoiser, classifier_free
from gdacli.diffusers_layout import check_lengths
from gdacli.errors import GdaError
from gdacli.generators import Generator
from gdacli.generators.text_to_image.deepfloyd import DeepFloyd
from gdacli.generators.text_to_image.family import Family
from gdacli.generators.text_to_image.fine_tuning import train_layers
from gdacli.generators.text_to_image.flux import Flux
from gdacli.generators.text_to_image.lora import fuse_lora
from gdacli.generators.text_to_image.parts import read_pipeline
from gdacli.generators.text_to_image.passed_through import PassedThrough
from gdacli.generators.text_to_image.stable_diffusion import StableDiffusion
from gdacli.pixels import from_model, resize, to_model
from gdacli.prompts import Prompts
from gdacli.schedules import NoiseSchedule

VERSION = 1
OPTIONS = (
    "model",
    "revision",
    "variant",
    "lora",
    "lora_scale",
    "prompt",
    "class_prompts",
    "negative_prompt",
    "native_size",
    "safety_checker",
    "cpu_offload",
)
PROMPT = "a photo of {class_name}"
MODEL = "pipeline"

_NUM_KEPT = 256
"""Prompts whose embeddings stay on the device: one of T5 has 4 MB, and a data set may have a thousand classes."""

FAMILIES: dict[str, Callable[..., Family]] = {
    "StableDiffusionImg2ImgPipeline": StableDiffusion,
    "LatentConsistencyModelImg2ImgPipeline": StableDiffusion,
    "StableDiffusionXLImg2ImgPipeline": StableDiffusion,
    "IFImg2ImgPipeline": DeepFloyd,
    "FluxImg2ImgPipeline": Flux,
}
"""By the class that diffusers has for images of such a model; all others are passed through to theirs."""


def load(
    folder: Path,
    *,
    model: Path,
    variant: str | None,
    lora: Path | None,
    lora_scale: float,
    negative_prompt: str | None,
    native_size: int | None,
    safety_checker: bool,
    cpu_offload: bool,
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
) -> Generator:
    """Load a model that diffusers' AutoPipelineForImage2Image reads; see `gdacli.generators` for the other arguments.

    Args:
        model: folder with model_index.json and a folder for each part.
        variant: of the weights' files, where they have it.
        lora: file or folder of LoRA weights, where `folder` has none of `fine_tune`.
        lora_scale: of either.
        negative_prompt: what stands in place of no prompt; needs a second evaluation.
        native_size: pixels of a side at which the model works; None is what it was trained at.
        safety_checker: whether to blacken what the model's own says to.
        cpu_offload: whether only the part that is at work is on the GPU.
        prompts: what the images are said to show.

    Raises:
        GdaError: a family of models without an image-to-image pipeline, a part that is missing or damaged, a prompt
            longer than the model reads, or a setting that does not fit the model.
    """
    fitted = folder / "lora"
    pipeline = open_pipeline(
        model,
        variant=variant,
        lora=fitted if fitted.exists() else lora,
        lora_scale=lora_scale,
        safety_checker=safety_checker,
        cpu_offload=cpu_offload,
        device=device,
        dtype=dtype,
        memory_format=memory_format,
    )
    settings = {"native_size": native_size, "guidance_scale": guidance_scale}
    if type(pipeline).__name__ not in FAMILIES:
        return PassedThrough(
            pipeline,
            prompts,
            **settings,
            solver=solver,
            noise_schedule=noise_schedule,
            num_inference_steps=num_inference_steps,
            negative_prompt=negative_prompt,
            image_size=image_size,
            compile=compile,
        )
    if compile and cpu_offload:
        raise GdaError("generate.compile: does not go with cpu_offload, which moves the network: leave one out")
    family = FAMILIES[type(pipeline).__name__](
        pipeline, **settings, device=device, memory_format=memory_format, compile=compile
    )
    if negative_prompt is not None and family.embeds_guidance:
        raise GdaError(
            f"generate.negative_prompt: found {negative_prompt!r}; this model is told the guidance scale and evaluates "
            "no second prompt: leave it out"
        )
    texts = [*filter(None, [negative_prompt]), *(each for some in prompts.choices for each in some)]
    check_lengths(family.tokenizer, family.max_tokens, texts, "generate.prompt")
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
    return TextToImage(pipeline, family, denoiser, guidance_scale, prompts, negative_prompt, image_size, device)


def fine_tune(
    model: Path,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    prompts: Prompts,
    variant: str | None,
    native_size: int | None,
    dtype: torch.dtype,
    **settings: Any,
) -> list[list[float]]:
    """Train low-rank layers beside a model's attention; see `train_layers` for the other arguments and the result.

    Args:
        model, variant, native_size: as for `load`.
        images: uint8 [N, 3, H, W], on the device to train on.
        labels: int64 [N].
        prompts: what they are said to show.
        dtype: of the model's own weights.

    Raises:
        GdaError: as for `load`, or the model is of a family that is passed through.
    """
    pipeline = open_pipeline(
        model,
        variant=variant,
        lora=None,
        lora_scale=1.0,
        safety_checker=False,
        cpu_offload=False,
        device=images.device,
        dtype=dtype,
        memory_format=torch.contiguous_format,
    )
    kind = type(pipeline).__name__
    if kind not in FAMILIES:
        raise GdaError(f"fit.lora: found a model for {kind}; allowed: one for {', '.join(FAMILIES)}")
    family = FAMILIES[kind](
        pipeline,
        native_size=native_size,
        guidance_scale=1.0,
        device=images.device,
        memory_format=torch.contiguous_format,
        compile=False,
    )
    check_lengths(
        family.tokenizer, family.max_tokens, [each for some in prompts.choices for each in some], "fit.lora.prompt"
    )
    return train_layers(pipeline, family, images, labels, prompts=prompts, dtype=dtype, **settings)


def open_pipeline(
    model: Path,
    *,
    variant: str | None,
    lora: Path | None,
    lora_scale: float,
    safety_checker: bool,
    cpu_offload: bool,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Any:
    """Read a model onto its device; see `load`. One of `FAMILIES`, by the name of its class, says how to use it."""
    if cpu_offload and device.type != "cuda":
        raise GdaError(f"generate.cpu_offload: there is no GPU to spare on {device.type}: set false")
    pipeline = read_pipeline(model, dtype=dtype, variant=variant, safety_checker=safety_checker)
    if lora is not None:
        fuse_lora(pipeline, lora, lora_scale)
    for name in {"unet", "transformer", "vae"} & pipeline.components.keys():
        getattr(pipeline, name).to(memory_format=memory_format)
    if cpu_offload:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline


class TextToImage:
    """The backend's `Generator`; latents are the model's, of the image at its native size."""

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        denoiser: Denoiser,
        guidance_scale: float,
        prompts: Prompts,
        negative_prompt: str | None,
        image_size: int,
        device: torch.device,
    ) -> None:
        self._pipeline, self._family, self._denoiser = pipeline, family, denoiser
        self._guidance_scale, self._prompts, self._negative_prompt = guidance_scale, prompts, negative_prompt
        self._image_size, self._device = image_size, device
        self._embedding = lru_cache(_NUM_KEPT)(family.embed)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, ...]: scaled to the native size, then into the model's latents."""
        with torch.inference_mode():
            native = resize(to_model(images.to(self._device)), self._family.native_size)
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
        null = told if scale == 1 else self._told([self._negative_prompt] * len(texts))
        made = self._denoiser(latents, *classifier_free(told, null, scale), strength, seeds)
        with torch.inference_mode():
            images = from_model(self._checked(self._family.decode(made)), self._image_size)
        self._pipeline.maybe_free_model_hooks()  # with cpu_offload: what was at work last leaves the GPU
        return images

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of latents that are zero."""
        latents = torch.zeros(len(labels), *self._family.latent_shape, device=self._device)
        return self.generate(latents, labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`."""
        return {
            "prompt": self._prompts(label, seed),
            "negative_prompt": self._negative_prompt or "",
            "native_size": self._family.native_size,
            "guidance_scale": float(self._guidance_scale),
            **self._denoiser.describe(strength),
        }

    def _checked(self, images: torch.Tensor) -> torch.Tensor:
        """Blacken what the model's safety checker says to, as its pipeline does; float32 [B, 3, n, n]."""
        if self._pipeline.components.get("safety_checker") is None:
            return images
        seen = (images.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()
        safe = self._pipeline.run_safety_checker(seen, self._device, torch.float32)[0]
        return torch.from_numpy(safe).permute(0, 3, 1, 2) * 2 - 1

    def _told(self, texts: Sequence[str | None]) -> Condition:
        """Return what the network is told of prompts, tensors [B, ...].

        They are computed one by one, so that they do not depend on which prompts come together.
        """
        with torch.inference_mode():
            return tuple(torch.stack(parts) for parts in zip(*map(self._embedding, texts), strict=True))
