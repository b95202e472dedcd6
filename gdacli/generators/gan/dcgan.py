"""A deep convolutional GAN, told classes by embedding and projection.

Source: Radford et al. 2016; the projection is Miyato and Koyama 2018. Different: a further 3 x 3 convolution at the
images' own size in both networks, so that those of 8 pixels, of one level, have a network at all.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class Synthesis(nn.Module):
    """W, float32 [B, W] => images [B, 3, H, H] in [-1, 1].

    Args:
        w_dim: W.
        levels: side and channels of each, from the smallest.
    """

    def __init__(self, w_dim: int, levels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        side, channels = levels[0]
        start = [nn.Linear(w_dim, channels * side**2, bias=False), nn.Unflatten(1, (channels, side, side))]
        layers: list[nn.Module] = [*start, nn.BatchNorm2d(channels), nn.ReLU()]
        for (_, channels), (_, halved) in pairwise(levels):
            layers += [nn.ConvTranspose2d(channels, halved, 4, 2, 1, bias=False), nn.BatchNorm2d(halved), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(levels[-1][1], 3, 3, padding=1), nn.Tanh())
        self.apply(_start_small)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.layers(w)


class Discriminator(nn.Module):
    """Images [B, 3, H, H] in [-1, 1] and labels [B] => logits [B]; higher = taken for real.

    Args:
        levels: as for `Synthesis`.
        num_classes: None for one that is told no class.
    """

    def __init__(self, levels: Sequence[tuple[int, int]], num_classes: int | None) -> None:
        super().__init__()
        side, channels = levels[0][0], levels[-1][1]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        for _, doubled in reversed(levels[:-1]):
            layers += [nn.Conv2d(channels, doubled, 4, 2, 1, bias=False), nn.BatchNorm2d(doubled), nn.LeakyReLU(0.2)]
            channels = doubled
        layers += [Spread(), nn.Conv2d(channels + 1, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.logit = nn.Linear(channels * side**2, 1)
        self.embedding = nn.Embedding(num_classes, channels * side**2) if num_classes is not None else None
        self.apply(_start_small)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = self.layers(images)
        logits = self.logit(features).squeeze(1)
        return logits if self.embedding is None else logits + (features * self.embedding(labels)).sum(1)


class Spread(nn.Module):
    """Append a channel of how much a batch's features differ, so that samples that are all alike are seen to be.

    Source: Karras et al. 2018, "Progressive Growing of GANs", section 3.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Float [B, C, H, W] => [B, C + 1, H, W]."""
        spread = (features.var(0, correction=0) + 1e-8).sqrt().mean()
        return torch.cat([features, spread.expand_as(features[:, :1])], 1)


def discriminator_loss(
    discriminator: nn.Module,
    real: torch.Tensor,
    labels: torch.Tensor,
    made: torch.Tensor,
    made_labels: torch.Tensor,
) -> torch.Tensor:
    """Return the cross-entropy of real and of generated images, summed; 2 log 2 = 1.386 where it cannot tell them."""
    return F.softplus(-discriminator(real, labels)).mean() + F.softplus(discriminator(made, made_labels)).mean()


def generator_loss(discriminator: nn.Module, made: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the non-saturating loss."""
    return F.softplus(-discriminator(made, labels)).mean()


def _start_small(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
