"""How a backend makes images: loaded as its settings say, in batches of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gdacli.errors import GdaError
from gdacli.fitted_backend import FittedBackend
from gdacli.generators import FILES, Generator, backend
from gdacli.prompts import make_prompts
from gdacli.weights import locate_pinned

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_PROMPTS = ("prompt", "class_prompts")


def denoiser_dtype(settings: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """Return what `generate.dtype` means on a device."""
    import torch

    named = settings["dtype"]
    return getattr(torch, ("bfloat16" if device.type == "cuda" else "float32") if named == "auto" else named)


def load_generator(
    settings: Mapping[str, Any],
    fitted: FittedBackend,
    *,
    class_names: Sequence[str],
    image_size: int,
    device: torch.device,
) -> Generator:
    """Load a backend's model.

    Args:
        settings: the keys of `Generate.of_images`.
        fitted: what `gdacli fit` wrote for it.
        class_names: of the labels; they reach the prompts.
        image_size: side of the images in pixels.
        device: where it is to run.

    Raises:
        GdaError: a file that the settings name is not here, the model does not fit, or lacks a method.
    """
    import torch

    named = settings["memory_format"]
    last = named == "channels_last" or (named == "auto" and device.type == "cuda")
    loaded = backend(settings["backend"], fitted.facts.file).load(
        fitted.folder,
        class_names=class_names,
        image_size=image_size,
        device=device,
        dtype=denoiser_dtype(settings, device),
        memory_format=torch.channels_last if last else torch.contiguous_format,
        **_options(settings, fitted, class_names),
    )
    needed = ("sample", "describe") if fitted.facts.noise_only else ("encode", "generate", "describe")
    for method in needed:
        if not callable(getattr(loaded, method, None)):
            raise GdaError(
                f"generate.backend: {settings['backend']} loads a {type(loaded).__name__} without {method}: "
                "docs/own-generator.md shows what it needs"
            )
    return loaded


def _options(settings: Mapping[str, Any], fitted: FittedBackend, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what the backend's `load` takes besides folder, classes, size, device, dtype and memory format."""
    own = fitted.facts.options
    names = ["solver", "num_inference_steps", "guidance_scale", "noise_schedule", "compile"]
    options = {name: settings[name] for name in (*names, *own) if name not in ("revision", *_PROMPTS)}
    if "prompt" in own:
        templates = settings["prompt"] or [fitted.facts.prompt or "{class_name}"]
        options["prompts"] = make_prompts(class_names, templates, settings["class_prompts"])
    return {**options, **{name: None for name in FILES if name in own}, **locate_pinned(fitted.pins)}


def padded_batches(items: Iterable[T], size: int) -> Iterator[tuple[list[T], list[T]]]:
    """Yield batches of at most `size`, each also filled up to `size` with its last item."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch, batch + batch[-1:] * (size - len(batch))


def encoded_images(
    generator: Generator, images: Iterable[tuple[T, np.ndarray]], batch_size: int
) -> Iterator[tuple[T, torch.Tensor]]:
    """Yield the latent of each image, uint8 [3, H, W], under what names it."""
    import torch

    for batch, padded in padded_batches(images, batch_size):
        encoded = generator.encode(torch.from_numpy(np.stack([image for _, image in padded])))
        yield from ((name, row) for (name, _), row in zip(batch, encoded, strict=False))


def make_batch(
    generator: Generator,
    latents: Sequence[torch.Tensor] | None,
    labels: Sequence[int],
    strength: float,
    seeds: Sequence[int],
    *,
    backend_name: str,
    image_size: int,
) -> torch.Tensor:
    """Make a batch of images, and hold a backend to what it must return: one may be the project's own.

    Args:
        generator: of `load_generator`.
        latents: of the B sources; None makes images from noise alone.
        labels: of the B images.
        strength: in (0, 1]; has no say without sources.
        seeds: of the B images.
        backend_name: for the message.
        image_size: side of the images in pixels.

    Returns:
        uint8 [B, 3, H, W].
    """
    import torch

    classes = torch.tensor(labels)
    if latents is None:
        made = generator.sample(classes, seeds)
    else:
        made = generator.generate(torch.stack(list(latents)), classes, strength, seeds)
    expected = ("torch.uint8", [len(labels), 3, image_size, image_size])
    found = (str(made.dtype), list(made.shape))
    if found != expected:
        raise GdaError(
            f"generate.backend: {backend_name} made {found[0]} {found[1]}; allowed: {expected[0]} {expected[1]}"
        )
    return made
