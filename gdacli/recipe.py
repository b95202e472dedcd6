"""How synthetic images are made and from what: all that a worker must know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.errors import GdaError
from gdacli.fitted_backend import FittedBackend, read_fitted, weights_of
from gdacli.generators import FILES, Facts
from gdacli.images import ENCODING
from gdacli.prepared import Prepared
from gdacli.prompts import make_prompts
from gdacli.rng import digest
from gdacli.schedules import num_denoising_steps
from gdacli.scores import scoring_identity
from gdacli.weights import SINGLE, locate, weights_digest

_DETERMINING = (
    "backend",
    "solver",
    "num_inference_steps",
    "guidance_scale",
    "batch_size",
    "dtype",
    "memory_format",
    "compile",
    "image_format",
    "threads",
)

_OF_DENOISING = ("solver", "num_inference_steps", "guidance_scale")
"""Those of _DETERMINING, beside `noise_schedule`, that decide nothing where images are made from noise alone."""

_ELSEWHERE = (*FILES, "revision", "variant", "cpu_offload", "trusted_sha256")
"""Options that the hash of the weights stands for, or that decide where an image is made alone."""


@dataclass(frozen=True)
class Recipe:
    """Plain values only, so that it travels to other processes and machines; its paths are absolute."""

    settings: dict[str, Any]
    """What decides an image besides source, class, strength and seed: the keys of `Generate.of_images`, `threads`."""
    facts: Facts
    """Of the backend."""
    weights: str
    """Hash of the generator's weights and of all other files that its settings name."""
    model: str
    """The generator's folder in the project, or the pretrained model's name, with the LoRA weights that change it."""
    folder: Path
    """What `gdacli fit` wrote."""
    pins: dict[str, dict[str, Any]]
    """Of `weights.pin_files`."""
    class_names: Sequence[str]
    image_size: int
    source: Path
    probe: Path
    scoring: str
    """Hash of what scores the images."""
    clip_model: str | None
    device: str
    """auto, cpu, cuda, cuda:1..."""
    work: str
    """The work directory, a folder or an fsspec URL."""
    reuse: Sequence[str]

    @property
    def identity(self) -> str:
        """Hash of all that determines an image besides its source, class, strength and seed.

        Settings by name, so that a new one changes no image that was made without it; where the model lies has no say.
        """
        denoises = not self.facts.noise_only
        names = [name for name in _DETERMINING if denoises or name not in _OF_DENOISING]
        if self.settings["image_format"] != "png":
            names.append("image_quality")
        if denoises and self.settings["noise_schedule"] != "native":
            names.append("noise_schedule")
        settings = {name: self.settings[name] for name in names}
        options = {name: self.settings[name] for name in self.facts.options if name not in _ELSEWHERE}
        # An empty negative prompt is not none: of none, Stable Diffusion XL is told zeros.
        given = {name: value for name, value in options.items() if value or value == ""}
        return digest(settings, given, self.weights, self.facts.version, ENCODING)

    @property
    def extension(self) -> str:
        """Of the images."""
        return self.settings["image_format"]

    def num_steps(self, strength: int) -> int:
        """Return how many denoising steps an image of a strength in thousandths takes; 0 where nothing is denoised."""
        if self.facts.noise_only:
            return 0
        return num_denoising_steps(strength / 1000, self.settings["num_inference_steps"])

    def unchanged_backend(self) -> FittedBackend:
        """Return the backend, whose files lie here as they did where gdacli was started.

        Raises:
            GdaError: they are others.
        """
        if weights_of(self.folder, self.pins) != self.weights:
            raise GdaError(f"{self.folder} has other weights here than where gdacli was started: bring them up to date")
        return FittedBackend(self.facts, self.folder, self.pins, self.weights)


def read_recipe(
    settings: Mapping[str, Any],
    prepared: Prepared,
    *,
    generators: Path,
    probe: Path,
    clip_model: str | None,
    device: str,
    work: str,
    reuse: Sequence[str],
) -> Recipe:
    """Put together what the settings name.

    Args:
        settings: the keys of `Generate.of_images`, and `threads`.
        prepared: the sources.
        generators: the folder in which `gdacli fit` wrote the backend's own.
        probe: the folder of the probe, which scores the images.
        clip_model: folder or Hub id, or None.
        device: auto, cpu, cuda.
        work: of `store.work_location`.
        reuse: pools to take images from.

    Raises:
        GdaError: a stage has not run, or was run for another model.
    """
    fitted = read_fitted(settings, generators)
    facts, folder, pins = fitted.facts, fitted.folder, fitted.pins
    make_prompts(prepared.class_names, [], settings["class_prompts"])  # fails early
    named = [pins[option]["name"] for option in ("model", "lora") if option in pins]
    if (folder / "lora").exists():
        named.append("fit.lora")
    clip_weights = None
    if clip_model is not None:
        clip_weights = weights_digest(locate(clip_model, None, "generate.clip_model", SINGLE), SINGLE)
    return Recipe(
        settings=dict(settings),
        facts=facts,
        weights=fitted.weights,
        model=" + ".join(named) or str(folder),
        folder=folder.absolute(),
        pins=pins,
        class_names=tuple(prepared.class_names),
        image_size=prepared.square_size(),
        source=prepared.folder.absolute(),
        probe=probe.absolute(),
        scoring=scoring_identity(probe, clip_weights),
        clip_model=clip_model,
        device=device,
        work=work,
        reuse=tuple(each if "://" in each else str(Path(each).expanduser().absolute()) for each in reuse),
    )
