"""Multi-modal truncation: latents are pulled towards the nearest of several centres, for fewer and better images."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from gdacli.errors import GdaError
from gdacli.latent import LatentGenerator, MappedGenerator

_BATCH = 1024


def find_centres(
    generator: LatentGenerator,
    *,
    num_classes: int,
    num_centres: int,
    num_samples: int,
    seed: int,
    device: torch.device,
) -> torch.Tensor:
    """Cluster the w of a generator by k-means.

    Args:
        generator: with a mapping, on `device`.
        num_classes: whose labels the draws have, each as often, but for rounding.
        num_centres: K, at most `num_samples`; 64 in the source. With classes take several times as many as these.
        num_samples: of w that are drawn; 60,000 in the source.
        seed: of the draws and of k-means.
        device: of the generator and of the result.

    Returns:
        float32 [K, W]; the same on every device but for rounding, as draws and clusters are made on the CPU.

    Raises:
        GdaError: the generator has no mapping, or there are fewer samples than centres.

    Source: Mokady et al. 2022 (Self-Distilled StyleGAN), multi-modal truncation. Theirs is not class-conditional; here
    one set of centres serves all classes, and the draws are balanced over them. One start of k-means++.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    mapped = require_mapping(generator)
    if num_samples < num_centres:
        raise GdaError(f"train.synthetic.truncation: {num_samples} samples are too few for {num_centres} centres")
    numbers = torch.Generator().manual_seed(seed)
    z = torch.randn(num_samples, generator.latent_dim, generator=numbers)
    labels = torch.arange(num_samples) % num_classes
    with torch.no_grad():
        drawn = [
            mapped.mapping(*(part.to(device) for part in parts)).cpu()
            for parts in zip(z.split(_BATCH), labels.split(_BATCH), strict=True)
        ]
    with threadpool_limits(1):  # more threads add up in another order
        found = KMeans(num_centres, n_init=1, random_state=seed % 2**32).fit(torch.cat(drawn).numpy())
    return torch.from_numpy(found.cluster_centers_).float().to(device)


def truncate(w: torch.Tensor, centres: torch.Tensor, psi: float) -> torch.Tensor:
    """Pull latents towards the nearest centre: c + psi (w - c); which one is nearest is not differentiated.

    Args:
        w: float [B, W].
        centres: float [K, W].
        psi: in [0, 1]; 1 changes nothing, 0 gives the centre.

    Returns:
        float [B, W].

    Source: Mokady et al. 2022; Euclidean distance.
    """
    nearest = centres[torch.cdist(w.detach(), centres).argmin(1)]
    return torch.lerp(nearest, w, psi)


class Truncated:
    """A `LatentGenerator`: another one, whose w are truncated between its mapping and its synthesis.

    Args:
        generator: with a mapping.
        centres: float32 [K, W] of `find_centres`.
        psi: in [0, 1]; smaller is nearer to the centres.

    Raises:
        GdaError: the generator has no mapping.

    Source: meta-generative-regularization paper, appendix B.7.
    """

    def __init__(self, generator: LatentGenerator, centres: torch.Tensor, psi: float) -> None:
        self._generator = require_mapping(generator)
        self._centres, self._psi = centres, psi
        self.latent_dim, self.conditional = generator.latent_dim, generator.conditional

    def __call__(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `LatentGenerator`."""
        w = self._generator.mapping(z, labels)
        return self._generator.synthesis(truncate(w, self._centres, self._psi), labels)

    def parameters(self) -> Iterator[nn.Parameter]:
        """See `LatentGenerator`."""
        return self._generator.parameters()


def require_mapping(generator: LatentGenerator) -> MappedGenerator:
    """Return a generator that has a mapping.

    Raises:
        GdaError: it has none.
    """
    if not callable(getattr(generator, "mapping", None)):
        raise GdaError(
            "train.synthetic.truncation: the live generator has no second latent space w to truncate in; allowed: one "
            "with a mapping (backend gan, or exported with generate.mapping); leave truncation out for others"
        )
    return cast(MappedGenerator, generator)
