"""A generative adversarial network, class-conditional or not, trained on the train split alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gdacli.denoiser import seeded_noise
from gdacli.generators import UNKNOWN
from gdacli.generators.gan.network import Network, load_network
from gdacli.generators.gan.training import fit
from gdacli.latent import MappedGenerator
from gdacli.pixels import from_model
from gdacli.prompts import readable

__all__ = ["fit", "latent_generator", "load", "of_network"]

VERSION = 1
OPTIONS = ()
NOISE_ONLY = True
LATENT = True


def load(
    folder: Path, *, class_names: Sequence[str], image_size: int, device: torch.device, **of_denoisers: Any
) -> "Gan":
    """Load what `fit` saved; see `gdacli.generators` for the arguments.

    Its weights and arithmetic are float32; there is nothing to denoise.

    Raises:
        GdaError: the model was trained on another number of classes or another image size.
    """
    network = load_network(folder, num_classes=len(class_names), image_size=image_size, device=device)
    return of_network(network, class_names=class_names)


def of_network(network: Network, *, class_names: Sequence[str], **of_denoisers: Any) -> "Gan":
    """Return the generator of a network in eval mode, on its device; see `load`."""
    return Gan(network, class_names)


def latent_generator(
    folder: Path, *, class_names: Sequence[str], image_size: int, device: torch.device, num_inference_steps: int
) -> MappedGenerator:
    """Load what `fit` saved as a function of z; see `gdacli.generators`. It takes one evaluation, not steps.

    Raises:
        GdaError: as for `load`.
    """
    return load_network(folder, num_classes=len(class_names), image_size=image_size, device=device)


class Gan:
    """The backend's `Generator`, of noise alone."""

    def __init__(self, network: Network, class_names: Sequence[str]) -> None:
        self._network, self._class_names = network, class_names

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """See `Generator.sample`; an unconditional model does not look at the labels."""
        device = next(self._network.parameters()).device
        z = seeded_noise(torch.empty(len(labels), self._network.latent_dim, device=device), seeds)()
        with torch.inference_mode():
            images = self._network(z, labels.to(device))
        return from_model(2 * images - 1, images.shape[2])

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`; of noise levels, steps and solvers there are none."""
        return {
            "prompt": readable(self._class_names[label]),
            "guidance_scale": 1.0,
            "start_timestep": UNKNOWN,
            "num_steps": 0,
            "alpha_bar": UNKNOWN,
            "solver": "none",
        }
