"""Generator backends: each makes faithful variants of images at a given strength.

A backend is a package here or a file `generators/<name>.py` in the project; docs/generators.md shows how to add one.
At its top stand plain constants, which are read without running it (that would import torch):

- VERSION: raise it when the same weights, settings and seed give another image, so that images made before are not
  taken for new ones; a golden test guards it here.
- OPTIONS: which of `BACKEND_OPTIONS` it reads.
- PROMPT: its prompt where `generate.prompt` gives none; with `prompt` among the options.
- MODEL: what `generate.model` must be, `pipeline` (a folder in diffusers' layout) or `file`; left out, either.
- NEEDS_SOURCE: True if it edits images and has no `sample`; left out, it has one.
- NOISE_ONLY: True if it makes images from noise alone and has neither `encode` nor `generate`; left out, it has both.
  Nothing is denoised: neither solver, num_inference_steps, guidance_scale nor noise_schedule may have a say.
- LATENT: True if it also has `latent_generator`, for the objectives that generate while they train.

and the function

    load(folder, *, class_names, image_size, solver, num_inference_steps, guidance_scale, noise_schedule, device, dtype,
         memory_format, compile, **options) -> Generator

raises GdaError where something does not fit.

- folder: what `gdacli fit` wrote for it.
- image_size: pixels of a side of what `encode` gets, and of what `generate` and `sample` return.
- solver: a key of `diffusion.SOLVERS`. guidance_scale: 1 is none, and evaluates no unconditional half.
- noise_schedule: what a strength means; see `schedules`.
- dtype: of the denoiser's weights and activations; latents, noise and the solver's arithmetic stay float32.
- memory_format: torch.contiguous_format or torch.channels_last, of the weights and of the images that they see.
- compile: whether torch.compile makes the denoiser faster; the first batch then takes a minute or so more.
- options: those of OPTIONS by name; of FILES the local paths; for `prompt` and `class_prompts` the one argument
  `prompts`, (label, seed) -> prompt.

With LATENT there is also

    latent_generator(folder, *, class_names, image_size, device, num_inference_steps, **options) -> LatentGenerator

of `latent`, whose weights are float32 and frozen; image_size is that of the prepared images, num_inference_steps of a
diffusion model's deterministic steps; options: as of `load`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from gdacli.artifacts import sha256_file
from gdacli.errors import GdaError

if TYPE_CHECKING:
    import torch

FILES = ("model", "mapping", "lora", "fractals")
"""Options that name files: they are located and hashed by `gdacli fit`."""

BACKEND_OPTIONS = (
    *FILES,
    "revision",
    "variant",
    "lora_scale",
    "prompt",
    "class_prompts",
    "negative_prompt",
    "native_size",
    "safety_checker",
    "cpu_offload",
    "image_guidance_scale",
    "fractal_weight",
    "trusted_sha256",
    "output_range",
)
"""The keys of `generate` that some backends read and others do not."""

EMBEDDED = ("class_conditional", "gan")
"""The backends that `gdacli fit` trains on the train split; the first is the default of `generate.backend`."""

NONE = "none"
"""The backend that makes nothing: neither `fit` nor `generate` has work to do."""

UNKNOWN = -1.0
"""What `describe` says of start_timestep and alpha_bar where nobody knows them, or there are none."""

_CONSTANTS = ("VERSION", "OPTIONS", "PROMPT", "NEEDS_SOURCE", "MODEL", "NOISE_ONLY", "LATENT")

OWN = Path("generators")
"""The project's own backends, relative to its folder."""


@dataclass(frozen=True)
class Facts:
    """What a backend says of itself."""

    version: str
    """With the hash of its file, where that is the project's own."""
    options: tuple[str, ...]
    prompt: str | None
    file: Path | None
    """Of the project's own backend, absolute."""
    needs_source: bool = False
    """Whether it makes no image from noise alone."""
    model: str | None = None
    """`pipeline`, `file`, or None for either."""
    noise_only: bool = False
    """Whether it makes images from noise alone, and no variants."""
    latent: bool = False
    """Whether it has a latent space that can be searched."""


class Generator(Protocol):
    """What a backend's `load` returns."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images, uint8 [B, 3, H, W], into what the model noises, float32 [B, ...]; once per source image."""

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Make a variant of each image.

        Args:
            latents: float32 [B, ...] of `encode`; B is the same in every call, a multiple of 16.
            labels: int64 [B].
            strength: in (0, 1], the same for the whole batch.
            seeds: B seeds in [0, 2**63); a row depends on its own seed, latent and label alone.

        Returns:
            uint8 [B, 3, H, W].
        """

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make an image of each class label, int64 [B], from noise alone; returns uint8 [B, 3, H, W].

        Never called of a backend with NEEDS_SOURCE; the others never of one with NOISE_ONLY.
        """

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """Return what a sample's json says of how it was made: prompt, start timestep, steps, alpha_bar; pure."""


def backend_names() -> list[str]:
    """List the backends: those of gdacli, then the project's own."""
    here = sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))
    return here + sorted(path.stem for path in OWN.glob("*.py") if path.stem not in here)


def backend_facts(name: str) -> Facts:
    """Read what a backend says of itself, without running it.

    Raises:
        GdaError: there is no such backend, or a constant is missing or not what it must be.
    """
    inner = Path(__file__).parent / name / "__init__.py"
    path = inner if inner.exists() else (OWN / f"{name}.py").absolute()
    if not path.exists():
        raise GdaError(f"generate.backend: found {name!r}; allowed: {', '.join(backend_names())}")
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        raise GdaError(f"{path}:{error.lineno}: {error.msg}: this is no Python that runs") from error
    except (OSError, ValueError) as error:  # also bytes that are no UTF-8
        raise GdaError(f"{path}: {error}: this is no Python that runs") from error
    said = {
        node.targets[0].id: node.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    try:
        found = {key: ast.literal_eval(said[key]) if key in said else None for key in _CONSTANTS}
    except ValueError as error:
        raise GdaError(f"{path}: {', '.join(_CONSTANTS)} must be plain constants: write them out") from error
    version, options, model = found["VERSION"], found["OPTIONS"], found["MODEL"]
    if type(version) is not int or not isinstance(options, tuple) or not set(options) <= set(BACKEND_OPTIONS):
        raise GdaError(
            f"{path}: found VERSION {version!r} and OPTIONS {options!r}; allowed: an integer, and a tuple of "
            f"{', '.join(BACKEND_OPTIONS)}"
        )
    if model not in (None, "pipeline", "file"):
        raise GdaError(f"{path}: found MODEL {model!r}; allowed: 'pipeline' or 'file', or leave it out")
    own = path != inner
    return Facts(
        version=f"{version}-{sha256_file(path)[:16]}" if own else str(version),
        options=options,
        prompt=found["PROMPT"],
        file=path if own else None,
        needs_source=bool(found["NEEDS_SOURCE"]),
        model=model,
        noise_only=bool(found["NOISE_ONLY"]),
        latent=bool(found["LATENT"]),
    )


def check_batch_size(batch_size: int, device: str, threads: int) -> None:
    """Hold `generate.batch_size` to what fills the threads.

    Args:
        batch_size: found.
        device, threads: of section `compute`.

    Raises:
        ValueError: it does not.
    """
    share = 16 if device == "cuda" else 16 * threads
    if batch_size % share:
        raise ValueError(
            f"generate.batch_size: found {batch_size}; with compute.threads {threads} it must be a multiple of "
            f"{share}, so that an image's bits do not depend on its place in the batch"
        )


def backend(name: str, file: Path | None) -> ModuleType:
    """Import a backend.

    Args:
        name: of it.
        file: of `Facts`.

    Raises:
        GdaError: the project's own file has no `load`.
    """
    if file is None:
        return import_module(f"gdacli.generators.{name}")
    spec = spec_from_file_location(f"gdacli_project_generators.{name}", file)
    if spec is None or spec.loader is None:
        raise GdaError(f"{file}: not a file that Python can import")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their types
    spec.loader.exec_module(module)
    if not callable(getattr(module, "load", None)):
        raise GdaError(f"{file}: has no function `load`: docs/own-generator.md shows one")
    return module
