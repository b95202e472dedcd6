"""A light GAN for few images: skip-layer excitation, and a discriminator that must also give its images back.

Source: Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
sections 3.1 and 3.2. Different: no noise is injected, so that an image is a function of z; the reconstruction is
compared by absolute difference, not by a perceptual distance, and whole, not also in parts; classes (the paper has
none) by embedding and projection.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gdacli.generators.gan.dcgan import Spread

_DECODED_LEVELS = 3


class Synthesis(nn.Module):
    """W, float32 [B, W] => images [B, 3, H, H] in [-1, 1]; arguments as in `dcgan.Synthesis`."""

    def __init__(self, w_dim: int, levels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        side, channels = levels[0]
        self.start = nn.Sequential(
            nn.Linear(w_dim, 2 * channels * side**2, bias=False),
            nn.Unflatten(1, (2 * channels, side, side)),
            nn.BatchNorm2d(2 * channels),
            nn.GLU(1),
        )
        pairs = list(pairwise(levels))
        self.doublings = nn.ModuleList(_doubling(before, after) for (_, before), (_, after) in pairs)
        self.gap = len(levels) // 2
        skips = zip(levels, levels[self.gap :], strict=False)
        self.excitations = nn.ModuleList(_excitation(low, high) for (_, low), (_, high) in skips)
        self.to_pixels = nn.Sequential(nn.Conv2d(levels[-1][1], 3, 3, padding=1), nn.Tanh())

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = [self.start(w)]
        for level, double in enumerate(self.doublings, 1):
            doubled = double(features[-1])
            skipped = level - self.gap
            if skipped >= 0:
                doubled = doubled * self.excitations[skipped](features[skipped])
            features.append(doubled)
        return self.to_pixels(features[-1])


class Discriminator(nn.Module):
    """Images [B, 3, H, H] in [-1, 1] and labels [B] => logits [B, S * S] of its parts; higher = taken for real.

    Arguments as in `dcgan.Discriminator`.
    """

    def __init__(self, levels: Sequence[tuple[int, int]], num_classes: int | None) -> None:
        super().__init__()
        channels = [each for _, each in levels]
        stem = [spectral_norm(nn.Conv2d(3, channels[-1], 3, padding=1)), nn.LeakyReLU(0.2)]
        halvings = [_Halving(before, after) for after, before in reversed(list(pairwise(channels)))]
        last = [Spread(), spectral_norm(nn.Conv2d(channels[0] + 1, channels[0], 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*stem, *halvings, *last)
        self.logit = spectral_norm(nn.Conv2d(channels[0], 1, 1))
        self.embedding = spectral_norm(nn.Embedding(num_classes, channels[0])) if num_classes is not None else None
        decoded = channels[: _DECODED_LEVELS + 1]
        self.decoder = nn.Sequential(
            *(_doubling(before, after) for before, after in pairwise(decoded)),
            nn.Conv2d(decoded[-1], 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.logits(self.layers(images), labels)

    def logits(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the logits of features [B, C, S, S]."""
        logits = self.logit(features).flatten(1)
        if self.embedding is None:
            return logits
        return logits + (features.mean((2, 3)) * self.embedding(labels)).sum(1, keepdim=True)


def discriminator_loss(
    discriminator: Discriminator,
    real: torch.Tensor,
    labels: torch.Tensor,
    made: torch.Tensor,
    made_labels: torch.Tensor,
) -> torch.Tensor:
    """Return the hinge loss, 2 where it cannot tell images, and the error of what it gives back of the real ones."""
    features = discriminator.layers(real)
    hinge = F.relu(1 - discriminator.logits(features, labels)).mean()
    hinge = hinge + F.relu(1 + discriminator(made, made_labels)).mean()
    decoded = discriminator.decoder(features)
    return hinge + F.l1_loss(decoded, F.interpolate(real, size=decoded.shape[2:], mode="area"))


def generator_loss(discriminator: Discriminator, made: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the hinge loss of the generator."""
    return -discriminator(made, labels).mean()


class _Halving(nn.Module):
    """Half the side, by convolutions and, beside them, by the mean."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            spectral_norm(nn.Conv2d(before, after, 4, 2, 1, bias=False)),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(after, after, 3, padding=1, bias=False)),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
        )
        self.beside = nn.Sequential(
            nn.AvgPool2d(2),
            spectral_norm(nn.Conv2d(before, after, 1, bias=False)),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.main(x) + self.beside(x)) / 2


def _doubling(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(before, 2 * after, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * after),
        nn.GLU(1),
    )


def _excitation(low: int, high: int) -> nn.Sequential:
    """Return what gives each channel of a higher level its weight, from a lower level."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Conv2d(low, high, 4), nn.SiLU(), nn.Conv2d(high, high, 1), nn.Sigmoid()
    )
