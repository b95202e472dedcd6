"""How synthetic images are made and from what: all that a worker must know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.artifacts import read_json, require
from gdacli.diffusion import num_denoising_steps
from gdacli.errors import GdaError
from gdacli.generators import BACKENDS
from gdacli.images import ENCODING
from gdacli.prepared import Prepared
from gdacli.prompts import DEFAULT_PROMPT
from gdacli.rng import digest
from gdacli.scores import scoring_identity
from gdacli.weights import PIN, PIPELINE, SINGLE, locate, weights_digest

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


@dataclass(frozen=True)
class Recipe:
    """Plain values only, so that it travels to other processes and machines; its paths are absolute."""

    settings: dict[str, Any]
    """What decides an image besides source, class, strength and seed: the keys of `Generate.of_images`, `threads`."""
    weights: str
    """Hash of the generator's weights."""
    model: str
    """The generator's folder in the project, or the pretrained model's name."""
    model_location: tuple[str, str | None]
    """Folder or Hub id, revision."""
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
        names = [*_DETERMINING]
        if self.settings["image_format"] != "png":
            names.append("image_quality")
        prompt = self.prompt if self.settings["backend"] == "text_to_image" else None
        settings = {name: self.settings[name] for name in names}
        return digest(settings, prompt, self.weights, BACKENDS[self.settings["backend"]], ENCODING)

    @property
    def prompt(self) -> str:
        """Of text_to_image."""
        return self.settings["prompt"] or DEFAULT_PROMPT

    @property
    def extension(self) -> str:
        """Of the images."""
        return self.settings["image_format"]

    def evaluations(self, strength: int) -> int:
        """Return how often the denoiser runs for one image of a strength in thousandths."""
        steps = num_denoising_steps(strength / 1000, self.settings["num_inference_steps"])
        return steps * (1 if self.settings["guidance_scale"] == 1 else 2)

    def backend_options(self) -> dict[str, Any]:
        """Return what the backend's `load` takes besides folder, device, dtype and memory format."""
        names = ["solver", "num_inference_steps", "guidance_scale", "compile"]
        options = {name: self.settings[name] for name in names}
        if self.settings["backend"] == "text_to_image":
            options["prompt"] = self.prompt
        return {**options, "class_names": self.class_names, "image_size": self.image_size}


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
    folder = require(generators / settings["backend"], "gdacli fit")
    if settings["backend"] == "text_to_image":
        pin = read_json(require(folder / PIN, "gdacli fit"))
        asked = {name: settings[name] for name in ("model", "revision")}
        if asked != {name: pin[name] for name in asked}:
            raise GdaError(f"{folder / PIN}: made for {pin['model']!r}, generate.model is {asked}: run `gdacli fit`")
        model, location = pin["model"], (pin["model"], pin["commit"] or pin["revision"])
        found = locate(*location, "generate.model", PIPELINE)
        weights = weights_digest(found, PIPELINE)
        if weights != pin["sha256"]:
            raise GdaError(f"generate.model: {found} has other weights than `gdacli fit` wrote down: run it again")
    else:
        weights = weights_digest(folder, PIPELINE)
        model, location = str(folder), (str(folder.absolute()), None)
    clip_weights = None
    if clip_model is not None:
        clip_weights = weights_digest(locate(clip_model, None, "generate.clip_model", SINGLE), SINGLE)
    return Recipe(
        settings=dict(settings),
        weights=weights,
        model=model,
        model_location=location,
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
