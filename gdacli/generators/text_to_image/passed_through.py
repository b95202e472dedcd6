"""Models of other families: passed through to their own image-to-image pipeline of diffusers, called as it is."""

import inspect
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from gdacli.errors import GdaError
from gdacli.generators import UNKNOWN
from gdacli.pixels import from_model, resize, to_model
from gdacli.prompts import Prompts
from gdacli.schedules import num_denoising_steps

NATIVE = "native"
"""The solver: the model's own."""

_ALONE_FROM = 512


class PassedThrough:
    """A `Generator` whose latents are the source images in [-1, 1]; their noise and its removal are the pipeline's.

    Args:
        pipeline: of diffusers, on its device.
        settings: `solver`, `noise_schedule`, `num_inference_steps`, `guidance_scale`, `negative_prompt`, `native_size`,
            `image_size`, `compile`, as `load` got them.
        prompts: what the images are said to show.

    Raises:
        GdaError: a setting that such a pipeline cannot meet.
    """

    def __init__(self, pipeline: Any, prompts: Prompts, **settings: Any) -> None:
        self._pipeline, self._prompts, self._settings = pipeline, prompts, settings
        name = type(pipeline).__name__
        taken = inspect.signature(pipeline.__call__).parameters
        if not {"prompt", "image", "strength", "num_inference_steps", "generator"} <= taken.keys():
            raise GdaError(f"generate.model: {name} takes no image with a strength; allowed: image-to-image models")
        if settings["solver"] != NATIVE:
            raise GdaError(
                f"generate.solver: found {settings['solver']}; {name} is passed through to its own pipeline of "
                f"diffusers, which brings its solver: set {NATIVE}"
            )
        if settings["noise_schedule"] != NATIVE:
            raise GdaError(
                f"generate.noise_schedule: found {settings['noise_schedule']}; allowed with {name}, which is passed "
                f"through to its own pipeline: {NATIVE}"
            )
        if settings["compile"]:
            raise GdaError(f"generate.compile: {name} is passed through to its own pipeline as it is: set false")
        asked: dict[str, Any] = {"guidance_scale": settings["guidance_scale"]}
        if settings["negative_prompt"] is not None:
            asked["negative_prompt"] = settings["negative_prompt"]
        for key in asked.keys() - taken.keys():
            if asked[key] not in (None, 1):
                raise GdaError(f"generate.{key}: found {asked[key]}; the pipeline of {name} takes none: leave it out")
        self._asked = {key: value for key, value in asked.items() if key in taken}
        size = _native_size(pipeline, settings["native_size"])
        self._native_size, self._sized = size, {key: size for key in ("height", "width") if key in taken}
        if size >= _ALONE_FROM and hasattr(getattr(pipeline, "vae", None), "enable_slicing"):
            pipeline.vae.enable_slicing()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, 3, H, W] in [-1, 1]."""
        return to_model(images)

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Call the pipeline on a batch, with a generator per row; see `Generator.generate`."""
        total = self._settings["num_inference_steps"]
        asked = dict(self._asked)
        if "negative_prompt" in asked:
            asked["negative_prompt"] = [asked["negative_prompt"]] * len(seeds)
        made = self._pipeline(
            prompt=[self._prompts(label, seed) for label, seed in zip(labels.tolist(), seeds, strict=True)],
            image=resize(latents, self._native_size).clamp(-1, 1) / 2 + 0.5,
            strength=exact_strength(self._pipeline, num_denoising_steps(strength, total), total),
            num_inference_steps=total,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **asked,
            **self._sized,
        ).images
        return from_model(torch.from_numpy(made).permute(0, 3, 1, 2) * 2 - 1, self._settings["image_size"])

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of a grey image."""
        size = self._settings["image_size"]
        return self.generate(torch.zeros(len(labels), 3, size, size), labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`; the pipeline decides on start and alpha_bar, the solver is the scheduler's name."""
        return {
            "prompt": self._prompts(label, seed),
            "negative_prompt": self._settings["negative_prompt"] or "",
            "native_size": self._native_size,
            "guidance_scale": float(self._settings["guidance_scale"]),
            "start_timestep": UNKNOWN,
            "num_steps": num_denoising_steps(strength, self._settings["num_inference_steps"]),
            "alpha_bar": UNKNOWN,
            "solver": type(self._pipeline.scheduler).__name__,
        }


def exact_strength(pipeline: Any, num_steps: int, total: int) -> float:
    """Return the strength of which a pipeline of diffusers takes `num_steps` of `total` steps.

    Some take int(total * strength) steps, others leave int(total - total * strength) out, and either may be one off
    the quotient: the pipeline itself is asked.

    Args:
        pipeline: or its class.
        num_steps: at least 1, at most `total`.
        total: steps of strength 1.

    Raises:
        GdaError: it does not do so with any strength.
    """
    ours = type(pipeline) if not isinstance(pipeline, type) else pipeline
    scheduler = SimpleNamespace(timesteps=list(range(total)), order=1)
    if hasattr(ours, "get_timesteps"):
        others = [None] * (len(inspect.signature(ours.get_timesteps).parameters) - 3)  # the device
        for strength in (num_steps / total, math.nextafter(num_steps / total, 1), math.nextafter(num_steps / total, 0)):
            taken, _ = ours.get_timesteps(SimpleNamespace(scheduler=scheduler), total, strength, *others)
            if len(taken) == num_steps:
                return strength
    raise GdaError(
        f"generate.model: {ours.__name__} does not say how many steps a strength takes; allowed: another model"
    )


def _native_size(pipeline: Any, native_size: int | None) -> int:
    if native_size is not None:
        return native_size
    network: Any = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    sides = (getattr(pipeline, "default_sample_size", None), getattr(network, "config", {}).get("sample_size"))
    side, factor = next((each for each in sides if isinstance(each, int)), 0), getattr(pipeline, "vae_scale_factor", 0)
    if not side * factor:
        raise GdaError(
            f"generate.native_size: missing; {type(pipeline).__name__} does not say at how many pixels it works: set it"
        )
    return side * factor
