"""The network that is published: a mapping of noise and class to w, and one of the syntheses of w to images."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gdacli.errors import GdaError
from gdacli.generators.gan import dcgan, fastgan

ARCHITECTURES = {"dcgan": dcgan, "fastgan": fastgan}

_CONFIG, _WEIGHTS = Path("network/config.json"), Path("network/model.safetensors")


@dataclass(frozen=True)
class Form:
    """What decides a network's shape."""

    architecture: str
    image_size: int
    num_classes: int | None
    """None: it is told no class."""
    latent_dim: int
    """Of z, and of w."""
    width: int
    """Channels at the images' own size; twice as many at each half of it, at most 8 times."""

    def levels(self) -> list[tuple[int, int]]:
        """Return side and channels of each level, from the smallest to the images' own size.

        >>> Form("dcgan", 24, 3, 100, 16).levels()
        [(6, 64), (12, 32), (24, 16)]

        Raises:
            GdaError: the images' side is not 4, 5, 6 or 7 times a power of two, from 8 on.
        """
        sides = [self.image_size]
        while sides[0] % 2 == 0 and sides[0] >= 8:
            sides.insert(0, sides[0] // 2)
        if len(sides) == 1 or sides[0] > 7:
            raise GdaError(
                f"generate.backend: gan makes no images of {self.image_size} pixels; allowed: 4, 5, 6 or 7 times a "
                "power of two, from 8 on: change data.image_size"
            )
        return [(side, self.width * min(8, self.image_size // side)) for side in sides]


class Network(nn.Module):
    """A `latent.MappedGenerator`; in eval mode an image is a function of its own z (or w) and class alone."""

    to_images: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form, self.latent_dim, self.conditional = form, form.latent_dim, form.num_classes is not None
        size = form.latent_dim
        self.embedding = nn.Embedding(form.num_classes, size) if form.num_classes is not None else None
        self.to_w = nn.Sequential(
            nn.Linear(2 * size if self.conditional else size, size), nn.SiLU(), nn.Linear(size, size)
        )
        self.to_images = ARCHITECTURES[form.architecture].Synthesis(size, form.levels())

    def mapping(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `latent.MappedGenerator.mapping`."""
        return self.to_w(z if self.embedding is None else torch.cat([z, self.embedding(labels)], 1))

    def synthesis(self, w: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `latent.MappedGenerator.synthesis`; of the class, w holds all that matters."""
        return self.to_images(w) / 2 + 0.5

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Z float32 [B, Z], labels int64 [B] => images float32 [B, 3, H, W] in [0, 1]."""
        return self.synthesis(self.mapping(z, labels), labels)


def save_network(network: Network, folder: Path) -> None:
    """Write `network/config.json` and `network/model.safetensors`."""
    (folder / _CONFIG).parent.mkdir(parents=True)
    (folder / _CONFIG).write_text(json.dumps(asdict(network.form), indent=2) + "\n", encoding="utf-8")
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def load_network(folder: Path, *, num_classes: int, image_size: int, device: torch.device) -> Network:
    """Load what `save_network` wrote: float32, in eval mode, with weights that require no gradient.

    Raises:
        GdaError: it was trained on another number of classes or another image size, or is no such network.
    """
    try:
        form = Form(**json.loads((folder / _CONFIG).read_text(encoding="utf-8")))
        network = Network(form)
        network.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GdaError(f"{folder / _CONFIG.parent}: no network of a gan ({reason}): run `gdacli fit`") from error
    if form.num_classes is not None and form.num_classes != num_classes:
        raise GdaError(
            f"{folder}: the model knows {form.num_classes} classes, the data has {num_classes}: run `gdacli fit`"
        )
    if form.image_size != image_size:
        raise GdaError(
            f"{folder}: the model makes {form.image_size} pixels, the data has {image_size}: run `gdacli fit`"
        )
    return network.to(device).eval().requires_grad_(False)
