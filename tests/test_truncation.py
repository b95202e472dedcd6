"""Multi-modal truncation of a generator with a mapping."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gdacli.errors import GdaError
from gdacli.truncation import Truncated, find_centres, truncate

CPU = torch.device("cpu")


class TwoSpaces(nn.Module):
    """Map z to w around a place of its class; draw w as an image."""

    latent_dim: int = 4
    conditional: bool = True

    def __init__(self, num_classes: int = 3, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.places = 10 * torch.randn(num_classes, width)
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3 * 4 * 4)

    def mapping(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.places[labels] + torch.tanh(self.first(z))

    def synthesis(self, w: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.last(w)).view(-1, 3, 4, 4)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.synthesis(self.mapping(z, labels), labels)


class OneSpace(nn.Module):
    latent_dim: int = 4
    conditional: bool = False

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return z.view(-1, 1, 2, 2).expand(-1, 3, -1, -1)


def centres(generator: Any, num_centres: int = 3, num_samples: int = 300, seed: int = 0) -> torch.Tensor:
    return find_centres(
        generator, num_classes=3, num_centres=num_centres, num_samples=num_samples, seed=seed, device=CPU
    )


def draw(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(9) % 3


def test_centres_are_those_of_the_modes_and_of_the_seed():
    generator = TwoSpaces()
    found = centres(generator)
    assert (found.shape, found.dtype, found.requires_grad) == ((3, 6), torch.float32, False)
    distances = torch.cdist(generator.places, found)
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2]  # one for each class, whose w lie far apart
    assert distances.min(1).values.max() < 1.5
    assert torch.equal(found, centres(generator))
    assert not torch.equal(found, centres(generator, seed=1))


def test_images_are_those_of_the_truncated_w():
    generator = TwoSpaces()
    found, (z, labels) = centres(generator, num_centres=5), draw()
    w = generator.mapping(z, labels)
    for psi in (1.0, 0.5, 0.0):
        truncated = Truncated(generator, found, psi)
        assert (truncated.latent_dim, truncated.conditional) == (4, True)
        assert torch.equal(truncated(z, labels), generator.synthesis(truncate(w, found, psi), labels))
    assert torch.equal(Truncated(generator, found, 1.0)(z, labels), generator(z, labels))
    assert list(Truncated(generator, found, 1.0).parameters()) == list(generator.parameters())


@given(st.integers(0, 99), st.floats(0, 1))
def test_the_distance_to_the_nearest_centre_shrinks_by_psi(seed, psi):
    numbers = torch.Generator().manual_seed(seed)
    w = torch.randn(7, 4, generator=numbers, dtype=torch.float64)
    places = torch.randn(5, 4, generator=numbers, dtype=torch.float64)
    made = truncate(w, places, psi)
    before, after = torch.cdist(w, places).min(1), torch.cdist(made, places)
    left = after.gather(1, before.indices[:, None])[:, 0]
    assert left.numpy() == pytest.approx(psi * before.values.numpy(), abs=1e-6)
    assert torch.equal(truncate(w, places, 1.0), w)
    assert torch.equal(truncate(w, places, 0.0), places[before.indices])


def test_the_gradient_is_that_of_the_pull_alone():
    generator, (z, labels) = TwoSpaces(), draw()
    found = centres(generator)
    z.requires_grad_()
    w = generator.mapping(z, labels)
    w.retain_grad()
    truncate(w, found, 0.25).sum().backward()
    assert w.grad is not None
    assert w.grad.numpy() == pytest.approx(np.full((9, 6), 0.25))
    Truncated(generator, found, 0.25)(z, labels).square().sum().backward()
    assert z.grad is not None
    assert z.grad.any(1).all()


def test_what_cannot_be_truncated_is_one_line():
    for act in (lambda: centres(OneSpace()), lambda: Truncated(OneSpace(), torch.zeros(2, 4), 0.5)):
        with pytest.raises(GdaError, match="truncation: the live generator has no second latent space w") as raised:
            act()
        assert "\n" not in str(raised.value)
    with pytest.raises(GdaError, match="truncation: 4 samples are too few for 5 centres"):
        centres(TwoSpaces(), num_centres=5, num_samples=4)
