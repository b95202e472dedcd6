"""The user's own generator (StyleGAN2-ADA, BigGAN, StyleGAN-XL) as a file of torch.export; docs/exported.md."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gdacli.denoiser import seeded_noise
from gdacli.errors import GdaError
from gdacli.generators.exported.checks import RANGES, check_gradient, check_images
from gdacli.generators.exported.program import Program, read_program
from gdacli.pixels import from_model, resize
from gdacli.prompts import readable

VERSION = 1
OPTIONS = ("model", "mapping", "trusted_sha256", "output_range")
MODEL = "file"
NOISE_ONLY = True
LATENT = True


def load(
    folder: Path,
    *,
    class_names: Sequence[str],
    image_size: int,
    device: torch.device,
    compile: bool,
    model: Path,
    mapping: Path | None,
    trusted_sha256: Sequence[str],
    output_range: str,
    **settings: Any,
) -> "Exported":
    """Load the program; see `gdacli.generators` for the other arguments.

    Args:
        compile: must be off.
        model: the program that makes images of z, or of w if there is a `mapping`.
        mapping: the program that makes w of z, or None.
        trusted_sha256: of both files.
        output_range: a key of `checks.RANGES`.
        settings: of denoising, which it does not do; dtype and memory format, which the export decided.

    Raises:
        GdaError: a file is not trusted, or does not what it must (`read_program`, `check_images`); it takes no labels,
            though there are several.
    """
    if compile:
        raise GdaError("generate.compile: found true; backend exported runs the program as it is: set false")
    network = _read(model, mapping, trusted_sha256, output_range, len(class_names))
    if not network.takes_labels and len(class_names) > 1:
        raise GdaError(
            f"generate.model: {model} takes no labels, so that nobody knows the class of its images; allowed for the "
            "pool: a program of z and labels; objectives take one of z alone"
        )
    return Exported(network.to(device), class_names, image_size, device)


def latent_generator(
    folder: Path,
    *,
    class_names: Sequence[str],
    image_size: int,
    device: torch.device,
    num_inference_steps: int,
    model: Path,
    mapping: Path | None,
    trusted_sha256: Sequence[str],
    output_range: str,
) -> "Live | MappedLive":
    """Load the program as a `LatentGenerator`, with a `mapping` as a `MappedGenerator`; see `load`.

    Raises:
        GdaError: as `load` but for the labels, or its images have no gradient.
    """
    network = _read(model, mapping, trusted_sha256, output_range, len(class_names))
    check_gradient(network, str(model), network.latent_dim)
    network = network.to(device)
    if network.mapping is None:
        return Live(network, image_size)
    return MappedLive(network, network.mapping, image_size)


class Network:
    """One program, or two in a row: labels and z => images in [-1, 1].

    Args:
        synthesis: of the images.
        mapping: of the w that `synthesis` takes, or None where it takes z.
        black: what `synthesis` makes of it; white is 1.
    """

    def __init__(self, synthesis: Program, mapping: Program | None, black: float) -> None:
        self.synthesis, self.mapping, self._black = synthesis, mapping, black
        self.latent_dim = (mapping or synthesis).width
        self.takes_labels = synthesis.takes_labels or (mapping is not None and mapping.takes_labels)

    def __call__(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the images as the program makes them, float32 [B, 3, S, S]."""
        return self.synthesis(z if self.mapping is None else self.mapping(z, labels), labels)

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        """Return images of the program in [-1, 1], clipped."""
        return (2 * (images - self._black) / (1 - self._black) - 1).clamp(-1, 1)

    def to(self, device: torch.device) -> "Network":
        """Return it on a device."""
        mapping = None if self.mapping is None else self.mapping.to(device)
        return Network(self.synthesis.to(device), mapping, self._black)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""
        for program in (self.mapping, self.synthesis):
            if program is not None:
                yield from program.module.parameters()


class Exported:
    """The backend's `Generator`, of noise alone."""

    def __init__(self, network: Network, class_names: Sequence[str], image_size: int, device: torch.device) -> None:
        self._network, self._class_names = network, class_names
        self._image_size, self._device = image_size, device

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """See `Generator.sample`; a row's z is drawn on the CPU from its own seed."""
        z = seeded_noise(torch.empty(len(seeds), self._network.latent_dim, device=self._device), seeds)()
        with torch.inference_mode():
            made = self._network(z, labels.to(self._device))
            return from_model(self._network.scaled(made), self._image_size)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`; there are no noise levels, steps and solvers, and the dtype is the program's."""
        return {
            "prompt": readable(self._class_names[label]),
            "guidance_scale": 1.0,
            "start_timestep": -1.0,
            "num_steps": 0,
            "alpha_bar": -1.0,
            "solver": "none",
            "dtype": "float32",
        }


class Live:
    """A `LatentGenerator`."""

    def __init__(self, network: Network, image_size: int) -> None:
        self._network, self._image_size = network, image_size
        self.latent_dim, self.conditional = network.latent_dim, network.takes_labels

    def __call__(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `LatentGenerator`."""
        return self._pixels(self._network(z, labels))

    def parameters(self) -> Iterator[nn.Parameter]:
        """See `LatentGenerator`."""
        return self._network.parameters()

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        return (resize(self._network.scaled(images), self._image_size) + 1) / 2


class MappedLive(Live):
    """A `MappedGenerator`."""

    def __init__(self, network: Network, mapping: Program, image_size: int) -> None:
        super().__init__(network, image_size)
        self._mapping = mapping

    def mapping(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `MappedGenerator`."""
        return self._mapping(z, labels)

    def synthesis(self, w: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `MappedGenerator`."""
        return self._pixels(self._network.synthesis(w, labels))


def _read(model: Path, mapping: Path | None, trusted: Sequence[str], output_range: str, num_classes: int) -> Network:
    """Read and check the programs, on the CPU."""
    synthesis = read_program(model, "generate.model", trusted)
    first = None if mapping is None else read_program(mapping, "generate.mapping", trusted)
    network = Network(synthesis, first, RANGES[output_range])
    check_images(
        network,
        str(model),
        latent_dim=network.latent_dim,
        num_classes=num_classes,
        labels_count=network.takes_labels,
        black=RANGES[output_range],
    )
    return network
