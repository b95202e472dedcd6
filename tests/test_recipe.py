"""What identifies the images of a run."""

from pathlib import Path
from typing import Any

import pytest

from gdacli.generators import BACKEND_OPTIONS, backend_facts, backend_names
from gdacli.recipe import Recipe
from gdacli.sections import Generate

VALUES: dict[str, list[Any]] = {
    "lora_scale": [1.0, 0.5],
    "prompt": [None, "", "a {class_name}", ["a {class_name}", "the {class_name}"]],
    "class_prompts": [{}, {"disc": "a disc"}, {"disc": ""}, {"ring": "a disc"}],
    "negative_prompt": [None, "", "blurred"],  # the empty one is another image with Stable Diffusion XL
    "native_size": [None, 16, 32],
    "safety_checker": [True, False],
    "image_guidance_scale": [1.5, 0.0, 1.0],
    "fractal_weight": [0.2, 0.0],
    "output_range": ["minus_one_to_one", "zero_to_one"],
    "noise_schedule": ["native", "glide"],
    "solver": ["dpmsolver++", "ddpm"],
    "num_inference_steps": [25, 26],
    "guidance_scale": [3.0, 0.0],
    "dtype": ["auto", "bfloat16"],
    "image_format": ["png", "webp"],
}
OF_DENOISING = {"noise_schedule", "solver", "num_inference_steps", "guidance_scale"}
"""What decides nothing where images are made from noise alone."""
BY_THE_WEIGHTS = {"model", "mapping", "revision", "variant", "lora", "fractals", "cpu_offload", "trusted_sha256"}
"""Whose files are hashed, or that change no image."""


def identity(settings: Generate, weights: str = "w", class_names: tuple[str, ...] = ("disc", "ring")) -> str:
    nowhere = Path("nowhere")
    return Recipe(
        settings={**settings.of_images(), "threads": 1},
        facts=backend_facts(settings.backend),
        weights=weights,
        model="",
        folder=nowhere,
        pins={},
        class_names=class_names,
        image_size=16,
        source=nowhere,
        probe=nowhere,
        scoring="",
        clip_model=None,
        device="cpu",
        work="",
        reuse=(),
    ).identity


@pytest.mark.parametrize("backend", backend_names())
def test_every_setting_that_changes_an_image_changes_its_identity(backend):
    options = backend_facts(backend).options
    base: dict[str, Any] = {"backend": backend} | ({"model": "a/b"} if "model" in options else {})
    assert set(VALUES) | BY_THE_WEIGHTS >= set(BACKEND_OPTIONS)
    for name, values in VALUES.items():
        if name in BACKEND_OPTIONS and name not in options:
            continue
        found = {identity(Generate(**base, **{name: value})) for value in values}
        without_a_say = name in OF_DENOISING and backend_facts(backend).noise_only
        assert len(found) == (1 if without_a_say else len(values)), name
    assert identity(Generate(**base), "other weights") != identity(Generate(**base))


def test_where_the_model_lies_and_how_it_fits_the_memory_changes_no_identity():
    first = Generate(backend="text_to_image", model="a/b", prompt="a {class_name}")
    other = Generate(
        backend="text_to_image", model="/c", variant="fp16", cpu_offload=True, prompt=["a {class_name}"], workers=3
    )
    assert identity(first) == identity(other)
