"""Synthetic images of arrays: `gdacli fit` and `gdacli generate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.api.arrays import (
    channels_last,
    checked,
    class_numbers,
    computing,
    in_layout_of,
    names_of,
    refuse,
    square,
)
from gdacli.console import progress
from gdacli.errors import GdaError

_OF_POOLS = ("image_format", "image_quality", "filter", "clip_model", "reuse", "executor", "workers", "seed", "backend")
_OF_CHECKS = ("check_every", "check_images", "patience", "save_seconds", "lora")


def fit(
    images: Any,
    labels: Any,
    folder: str | Path,
    *,
    backend: str = "class_conditional",
    class_names: Sequence[str] | None = None,
    device: str = "auto",
    threads: int = 2,
    **settings: Any,
) -> Path:
    """Train an embedded generator on real images, as `gdacli fit` does.

    Args:
        images: uint8 [N, H, W, 3] or [N, 3, H, W], square: those of the train split alone.
        labels: int [N] in [0, C).
        folder: gets `<backend>/`, as `data/generator` does.
        backend: class_conditional or gan.
        class_names: C of them; None numbers the classes up to the highest label.
        device, threads: of section `compute`.
        settings: the keys of section `fit` (updates, block_out_channels, seed...); checks along the way need a project.

    Returns:
        `<folder>/<backend>`, for `generate`.

    Raises:
        GdaError: a setting is wrong, or the images do not fit the network.
    """
    from gdacli.artifacts import new_directory
    from gdacli.fitted import fit_progress, forward_dtype
    from gdacli.gan_section import GAN
    from gdacli.generators import EMBEDDED
    from gdacli.generators import backend as load_backend
    from gdacli.sections import Fit

    if backend not in EMBEDDED:
        raise GdaError(f"backend: found {backend!r}, allowed: {', '.join(EMBEDDED)}; others are pinned in a project")
    refuse(settings, _OF_CHECKS, "fit")
    own = checked(Fit, "fit", settings)
    array = square(images)
    numbers = class_numbers(labels, len(array), None if class_names is None else len(class_names))
    num_classes = len(names_of(class_names, numbers))
    options = own.of_training(backend)
    target = Path(folder) / backend
    with (
        computing(device, threads) as where,
        new_directory(target) as temporary,
        fit_progress(options["updates"], None) as on_update,
    ):
        import torch

        if backend != GAN:
            options["dtype"] = forward_dtype(own.dtype, where)
        load_backend(backend, None).fit(
            torch.from_numpy(array).to(where),
            torch.from_numpy(numbers).to(where),
            num_classes=num_classes,
            folder=temporary,
            on_update=on_update,
            **options,
        )
    return target


def image_seeds(keys: Sequence[str], strength: float, *, variant: int = 0, seed: int = 0) -> list[int]:
    """Return the seeds with which a project's pool makes variants of images.

    Args:
        keys: of the source images in the project; a name of your own for each elsewhere.
        strength: of the variants, in thousandths at the finest.
        variant: its number, where a source has several of a strength.
        seed: the base seed, `generate.seed`.
    """
    from gdacli.arms import milli
    from gdacli.pool import image_seed

    return [image_seed(seed, key, milli(strength), variant) for key in keys]


def generate(
    images: Any,
    labels: Any,
    *,
    generator: str | Path,
    class_names: Sequence[str],
    strength: float = 0.5,
    seeds: int | Sequence[int] = 0,
    device: str = "auto",
    threads: int = 2,
    **settings: Any,
) -> np.ndarray:
    """Make a variant of each image, as `gdacli generate` does: the same image, seed and settings give the same bits.

    Args:
        images: the sources, uint8 [N, H, W, 3] or [N, 3, H, W], square, of the size that the generator knows.
        labels: int [N] in [0, C).
        generator: what `fit` returned, or the folder of a backend in a project: `data/generator/<backend>`.
        class_names: C of them, as the generator was fitted; they reach the prompts of those that take some.
        strength: how much noise is added before denoising, t*/T in (0, 1], thousandths at the finest.
        seeds: N of them in [0, 2**63), such as those of `image_seeds`; or one, from which each image gets its own by
            its place.
        device, threads: of section `compute`; batch_size (64) must be a multiple of 16 times the threads.
        settings: the other keys of section `generate` that decide an image (num_inference_steps, guidance_scale,
            prompt...).

    Returns:
        uint8 [N, ...], in the layout of `images`.

    Raises:
        GdaError: a setting is wrong, the generator was not fitted or does not fit, or makes no variants of images.
    """
    from gdacli.arms import milli

    array = square(images)
    numbers = class_numbers(labels, len(array), len(class_names))
    if not 0 < strength <= 1 or abs(1000 * strength - milli(strength)) > 1e-6:
        raise GdaError(f"strength: found {strength}, allowed: above 0, up to 1, at most three decimals")
    of_place = partial(image_seeds, [str(row) for row in range(len(array))], strength)
    own = of_place(seed=seeds) if isinstance(seeds, int) else _given(seeds, len(array))
    where = {"device": device, "threads": threads}
    made = _make(array, numbers, own, strength, Path(generator), class_names, array.shape[2], where, settings)
    return in_layout_of(made, images)


def sample(
    labels: Any,
    *,
    generator: str | Path,
    class_names: Sequence[str],
    image_size: int,
    seeds: int | Sequence[int] = 0,
    device: str = "auto",
    threads: int = 2,
    **settings: Any,
) -> np.ndarray:
    """Make an image of each label from noise alone, as an arm with `add: sampled` does.

    Args:
        labels: int [N] in [0, C).
        image_size: side of the images in pixels, as the generator was fitted.
        generator, class_names, seeds, device, threads, settings: see `generate`.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        GdaError: as `generate`; or the generator needs a source.
    """
    from gdacli.pool import sampled_seed

    numbers = class_numbers(labels, None, len(class_names))
    num = range(len(numbers))
    own = [sampled_seed(seeds, row) for row in num] if isinstance(seeds, int) else _given(seeds, len(num))
    where = {"device": device, "threads": threads}
    made = _make(None, numbers, own, 1.0, Path(generator), class_names, image_size, where, settings)
    return channels_last(made)


def _given(seeds: Sequence[int], num: int) -> list[int]:
    found = [int(seed) for seed in seeds]
    if len(found) != num or not all(0 <= seed < 2**63 for seed in found):
        raise GdaError(f"seeds: found {len(found)}, allowed: {num}, one an image, each from 0 to 2**63 - 1")
    return found


def _make(
    sources: np.ndarray | None,
    labels: np.ndarray,
    seeds: Sequence[int],
    strength: float,
    folder: Path,
    class_names: Sequence[str],
    image_size: int,
    where: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> np.ndarray:
    """Make images in batches of one shape, as the engine of `gdacli generate` does; uint8 [N, 3, H, W]."""
    from gdacli.fitted_backend import read_fitted
    from gdacli.generation import encoded_images, load_generator, make_batch, padded_batches
    from gdacli.generators import check_batch_size
    from gdacli.schedules import num_denoising_steps
    from gdacli.sections import Generate

    refuse(settings, _OF_POOLS, "generate")
    own = checked(Generate, "generate", {"backend": folder.name, **_pinned(folder), **settings})
    try:
        check_batch_size(own.batch_size, **where)
    except ValueError as error:
        raise GdaError(str(error)) from error
    chosen = own.of_images()
    fitted = read_fitted(chosen, folder.parent)
    if sources is not None and fitted.facts.noise_only:
        raise GdaError(f"generator: {folder} makes images from noise alone: use `sample`")
    if sources is None and fitted.facts.needs_source:
        raise GdaError(f"generator: {folder} edits images and makes none from noise alone: use `generate`")
    if sources is not None and num_denoising_steps(strength, own.num_inference_steps) == 0:
        raise GdaError(
            f"strength: {strength} of num_inference_steps {own.num_inference_steps} is no denoising step; raise either"
        )
    made: list[np.ndarray] = []
    with computing(**where) as device, progress("generate", len(labels), "images") as advance:
        generator = load_generator(chosen, fitted, class_names=list(class_names), image_size=image_size, device=device)
        for batch, padded in padded_batches(range(len(labels)), own.batch_size):
            latents = None
            if sources is not None:  # of the batch alone: those of all may take more memory than the images
                named = [(row, sources[row]) for row in batch]
                of_row = dict(encoded_images(generator, named, own.batch_size))
                latents = [of_row[row] for row in padded]
            images = make_batch(
                generator,
                latents,
                labels[padded].tolist(),
                strength,
                [seeds[row] for row in padded],
                backend_name=own.backend,
                image_size=image_size,
            )
            made.append(images[: len(batch)].cpu().numpy())
            advance(len(batch))
    return np.concatenate(made)


def _pinned(folder: Path) -> dict[str, Any]:
    """Return the settings that name what `gdacli fit` pinned: the model and its form."""
    from gdacli.artifacts import read_json, require
    from gdacli.generators import backend_facts
    from gdacli.weights import PIN

    require(folder, "gdacli fit")
    if not (folder / PIN).exists():
        return {}
    pins = read_json(folder / PIN)
    form = {name: pins["model"][name] for name in ("revision", "variant") if "model" in pins}
    if "model" in pins and "safety_checker" in backend_facts(folder.name).options:
        form["safety_checker"] = pins["model"]["safety_checker"]
    return {**{option: pin["name"] for option, pin in pins.items()}, **form}
