"""The generator of the project, for trainings that make images while they run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdacli.errors import GdaError
from gdacli.fitted_backend import FittedBackend, read_fitted
from gdacli.generators import FILES, backend, backend_facts, backend_names
from gdacli.prepared import Prepared
from gdacli.rng import digest
from gdacli.tables import read_columns
from gdacli.weights import locate_pinned

if TYPE_CHECKING:
    import torch

    from gdacli.latent import LatentGenerator


@dataclass(frozen=True)
class LiveGenerator:
    """A generator that is not loaded yet."""

    name: str
    fitted: FittedBackend
    options: Mapping[str, Any]
    """Those of the backend that name no file."""
    class_names: Sequence[str]
    image_size: int
    """Of the prepared images."""

    @property
    def identity(self) -> str:
        """Hash of all that determines its images besides z, the label and the number of steps."""
        settings = {name: value for name, value in self.options.items() if name != "trusted_sha256"}
        return digest(self.name, self.fitted.facts.version, self.fitted.weights, settings)

    def load(self, device: "torch.device", num_inference_steps: int) -> "LatentGenerator":
        """Load it.

        Raises:
            GdaError: it knows other classes or sizes than the data, or it is damaged.
        """
        own = self.fitted.facts
        files = {option: None for option in FILES if option in own.options} | locate_pinned(self.fitted.pins)
        return backend(self.name, own.file).latent_generator(
            self.fitted.folder,
            class_names=self.class_names,
            image_size=self.image_size,
            device=device,
            num_inference_steps=num_inference_steps,
            **self.options,
            **files,
        )


def live_for(
    objective: str, mix: Path, settings: Mapping[str, Any], generators: Path, prepared: Prepared
) -> LiveGenerator | None:
    """Return the generator that a training makes its synthetic images with; None where it needs none.

    Args:
        objective: of the training.
        mix: of its arm; one with synthetic images needs no others.
        settings: the keys of `Generate.of_images`.
        generators: the folder in which `gdacli fit` wrote the backend's own.
        prepared: the real images.

    Raises:
        GdaError: `gdacli fit` has not run, or the backend has no latent space.
    """
    if objective in ("cross_entropy", "real_consistency"):
        return None
    if "synthetic" in read_columns(mix, ["origin"])["origin"].to_pylist():
        return None
    if not backend_facts(settings["backend"]).latent:
        raise GdaError(
            f"train.objective: {objective} needs synthetic images, and generate.backend {settings['backend']} cannot "
            f"make them while a model trains; allowed: {', '.join(latent_backends())}, or an arm that adds stored ones"
        )
    fitted = read_fitted(settings, generators)
    options = {name: settings[name] for name in fitted.facts.options if name not in (*FILES, "revision", "variant")}
    return LiveGenerator(settings["backend"], fitted, options, prepared.class_names, prepared.square_size())


def latent_backends() -> list[str]:
    """Return the backends that objectives can generate with."""
    return [name for name in backend_names() if backend_facts(name).latent]
