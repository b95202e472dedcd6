"""The hyper-gradient: against a closed form, and the two ways against each other."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gdacli.meta_gradient import exact, finite_differences
from gdacli.objectives import gda, pcr
from gdacli.synthetic_images import Views


def flat(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten() for each in parts])


def test_both_are_the_closed_form_of_a_quadratic():
    """L(theta, x) = 1/2 ||A theta - x||^2: grad_theta = A^T (A theta - x), so grad_x <grad_theta, v> = -A v."""
    generator = torch.Generator().manual_seed(0)
    a, theta, v, x = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 3), (3,), (3,), (5,))
    )
    theta.requires_grad_()
    x.requires_grad_()
    before = theta.detach().clone()

    def loss() -> torch.Tensor:
        return 0.5 * (a @ theta - x).square().sum()

    by_differences = finite_differences(loss, [theta], [v], [x])
    gradient = torch.autograd.grad(loss(), [theta], create_graph=True)
    for found in (by_differences, exact(gradient, [v], [x])):
        assert torch.allclose(found[0], -a @ v, rtol=1e-9, atol=1e-9)
    assert torch.equal(theta, before)


def test_no_direction_gives_no_gradient():
    theta, x = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    found = finite_differences(lambda: (theta * x).square().sum(), [theta], [torch.zeros(2)], [x])
    assert torch.equal(found[0], torch.zeros(2))


def both_ways(term: Callable, activation: type[nn.Module], dtype: torch.dtype, constant: float) -> tuple[float, float]:
    """Return cosine and relative error of finite differences against the exact gradient, of a small network."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), activation(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), activation(),
    ).to(dtype)  # fmt: skip
    head = nn.Linear(16, 3).to(dtype)
    parameters = [*body.parameters(), *head.parameters()]
    images = [torch.rand(8, 3, 8, 8, dtype=dtype).requires_grad_() for _ in range(2)]
    views = Views(images[0], images[1], torch.arange(8) % 3, 8)

    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = body(x).mean((2, 3))
        return head(features), features

    real = torch.rand(8, 3, 8, 8, dtype=dtype)
    direction = torch.autograd.grad(F.cross_entropy(outputs(real)[0], torch.arange(8) % 3), parameters)

    def loss() -> torch.Tensor:
        return term(outputs, views).sum() / 8

    gradient = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
    wanted = flat(exact(gradient, direction, images))
    found = flat(finite_differences(loss, parameters, direction, images, constant=constant))
    assert wanted.norm() > 0
    return F.cosine_similarity(found, wanted, dim=0).item(), ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("term", [pcr, gda])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 0.003), (torch.float32, 0.01)])
def test_finite_differences_agree_with_the_exact_ones_where_the_network_is_smooth(term, dtype, error, record_property):
    cosine, relative_error = both_ways(term, nn.Tanh, dtype, 0.01)
    record_property("relative_error", relative_error)
    assert cosine > 0.99
    assert relative_error < error


def test_with_relu_they_agree_only_within_its_linear_pieces():
    """A step of 0.01 crosses kinks, where the gradient with respect to the images jumps; docs/objectives.md."""
    near, far = both_ways(pcr, nn.ReLU, torch.float64, 1e-7), both_ways(pcr, nn.ReLU, torch.float64, 0.01)
    assert near[0] > 0.99
    assert far[0] < 0.9
