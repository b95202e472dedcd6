"""SAM against a closed form, and against the published two-step update."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_optimizer import SAM
from torch import nn

from gdacli.models import create_model, freeze
from gdacli.sam import ascended, running_statistics_kept, sam_gradients


def quadratic(w: nn.Parameter, curvature: torch.Tensor):
    """Return the `gradients` of 1/2 w^T A w, whatever the images are."""

    def gradients(x: torch.Tensor, targets: torch.Tensor, count: int):
        losses = (0.5 * w @ curvature @ w).expand(len(x))
        return list(torch.autograd.grad(losses.sum() / count, [w])), losses.detach(), torch.zeros(len(x), 2)

    return gradients


OPTIONS: dict[str, Any] = {
    "rho": 0.3,
    "adaptive": False,
    "m": None,
    "decay": 0.0,
    "batch_norm": "both",
    "sum_": lambda gradients: None,
}
CURVATURE = torch.diag(torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64))


def on_quadratic(**options):
    w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    before = w.detach().clone()
    x, targets = torch.zeros(6, 3, 2, 2), torch.zeros(6, 2)
    gradients, losses, _ = sam_gradients(
        quadratic(w, CURVATURE), nn.Identity(), [w], x, targets, 6, **{**OPTIONS, **options}
    )
    assert torch.equal(w.detach(), before), "the weights are the same bits afterwards"
    assert len(losses) == 6
    return gradients[0], before


def test_on_a_quadratic_it_is_the_closed_form():
    gradient, w = on_quadratic()
    slope = CURVATURE @ w
    assert torch.allclose(gradient, CURVATURE @ (w + 0.3 * slope / slope.norm()), rtol=1e-12)


def test_adaptive_on_a_quadratic():
    gradient, w = on_quadratic(adaptive=True)
    slope = CURVATURE @ w
    step = 0.3 * w.square() * slope / (w.abs() * slope).norm()
    assert torch.allclose(gradient, CURVATURE @ (w + step), rtol=1e-12)


def test_decay_in_the_loss_is_a_steeper_quadratic():
    gradient, w = on_quadratic(decay=0.7)
    steeper = CURVATURE + 0.7 * torch.eye(3, dtype=torch.float64)
    slope = steeper @ w
    assert torch.allclose(gradient, steeper @ (w + 0.3 * slope / slope.norm()), rtol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_groups_of_equal_images_climb_as_the_whole_batch_does(m):
    assert torch.allclose(on_quadratic(m=m, decay=0.7)[0], on_quadratic(decay=0.7)[0], rtol=1e-12)


def network() -> Any:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    return layers.double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 5, (8,), generator=generator)


def gradients_of(model: nn.Module):
    parameters = list(model.parameters())

    def gradients(x: torch.Tensor, targets: torch.Tensor, count: int):
        logits = model(x)
        losses = F.cross_entropy(logits, targets, reduction="none")
        return list(torch.autograd.grad(losses.sum() / count, parameters)), losses.detach(), logits.detach()

    return gradients, parameters


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_is_the_published_two_step_update(adaptive):
    x, labels = batch()
    ours = network()
    theirs = copy.deepcopy(ours)
    gradients, parameters = gradients_of(ours)
    step = torch.optim.SGD(parameters, 0.1, 0.9)
    published = SAM(
        theirs.parameters(), torch.optim.SGD, rho=0.2, adaptive=adaptive, lr=0.1, momentum=0.9, weight_decay=0
    )
    for _ in range(10):
        result, _, _ = sam_gradients(
            gradients, ours, parameters, x, labels, 8, **{**OPTIONS, "rho": 0.2, "adaptive": adaptive}
        )
        for parameter, gradient in zip(parameters, result, strict=True):
            parameter.grad = gradient
        step.step()
        F.cross_entropy(theirs(x), labels).backward()
        published.first_step(zero_grad=True)
        F.cross_entropy(theirs(x), labels).backward()
        published.second_step(zero_grad=True)
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, theirs.state_dict()[name], rtol=1e-6, atol=1e-8), name


@pytest.mark.parametrize(("batch_norm", "moves"), [("both", 2), ("first", 1)])
def test_the_running_statistics_move_in_the_passes_that_are_named(batch_norm, moves):
    x, labels = batch()
    model, by_hand = network(), network()
    gradients, parameters = gradients_of(model)
    sam_gradients(gradients, model, parameters, x, labels, 8, **{**OPTIONS, "batch_norm": batch_norm})
    by_hand(x)
    if moves == 2:
        by_hand_gradients, by_hand_parameters = gradients_of(by_hand)
        by_hand[1].running_mean.copy_(torch.zeros(4)), by_hand[1].running_var.copy_(torch.ones(4))
        slope, _, _ = by_hand_gradients(x, labels, 8)
        with ascended(by_hand_parameters, slope, rho=0.3, adaptive=False):
            by_hand(x)
    assert torch.allclose(model[1].running_mean, by_hand[1].running_mean, rtol=1e-12)
    assert torch.allclose(model[1].running_var, by_hand[1].running_var, rtol=1e-12)
    assert model[1].momentum == 0.1


def test_statistics_can_be_kept_in_a_pass():
    model = network()
    model(batch()[0])
    before = model[1].running_mean.clone()
    with running_statistics_kept(model):
        model(2 * batch()[0])
    assert torch.equal(model[1].running_mean, before)


def test_no_group_holds_one_image_and_frozen_statistics_keep_their_bits():
    model = create_model("convnet", 5, {"width": 4}, 0)
    model(torch.rand(8, 3, 8, 8))
    freeze(model, "backbone")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = []

    def gradients(x: torch.Tensor, targets: torch.Tensor, count: int):
        sizes.append(len(x))
        losses = F.cross_entropy(model(x), targets, reduction="none")
        return list(torch.autograd.grad(losses.sum() / count, parameters)), losses.detach(), torch.zeros(len(x), 5)

    x, labels = torch.rand(7, 3, 8, 8), torch.arange(7) % 5
    sam_gradients(gradients, model.train(), parameters, x, labels, 7, **{**OPTIONS, "m": 3})
    assert sizes == [3, 3, 4, 4]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
