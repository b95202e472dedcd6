"""The search: a problem in which one latent direction says whether an image is of its class."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_objectives import make, step_of, train
from torch import nn
from torch.autograd.function import once_differentiable

from gdacli.distributed import World
from gdacli.finder import ARCHITECTURES, Finder, kl_to_prior
from gdacli.loading import InMemory
from gdacli.losses import cross_entropy
from gdacli.models import Classifier, create_model
from gdacli.objectives import SyntheticObjective, gda, pcr
from gdacli.pseudo_sampling import PseudoSampling
from gdacli.synthetic_images import Generated, Stored
from gdacli.training import train_classifier

NUM_SEEDS = 14
UPDATES = 12


class Leaky(nn.Module):
    """A generator that leaks classes: the image is of its class where z_0 is high, of the other where it is low.

    The other three coordinates are contrasts between left and right, which say nothing.
    """

    latent_dim = 4
    conditional = True

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        faithful = torch.sigmoid(4 * z[:, 0])[:, None]
        of_class = F.one_hot(labels, 2).float()
        halves = faithful * of_class + (1 - faithful) * of_class.flip(1)
        side = torch.tensor([1.0, 1.0, -1.0, -1.0])
        shades = 0.2 + 0.1 * z[:, 1:].tanh()[:, :, None, None] * side
        return shades + 0.4 * halves[:, None, :, None].repeat_interleave(2, 2).expand(-1, 3, 4, 4)


class Linear(nn.Module):
    """The smallest network that has features and a last layer."""

    num_features = 48

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 2)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.forward_features(x))


def real_images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give faint images of two classes in noise, uint8."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.35 * torch.rand(count, 3, 4, 4, generator=generator)
    images[labels == 0, :, :2] += 0.1
    images[labels == 1, :, 2:] += 0.1
    return (255 * images).to(torch.uint8), labels


def validation_loss_and_finder(seed: int, search: bool) -> tuple[float, Finder]:
    """Train with found or with uniform samples; returns the validation loss and the finder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Classifier(Linear())
    images, labels = real_images(8, seed)
    held_out, truth = real_images(200, 1000 + seed)
    generated = Generated(
        Leaky(), num_classes=2, batch_size=32, image_size=4, strong=None, latent_noise=0.0, dtype="float32",
        device=torch.device("cpu"), seed=seed, world=World(),
    )  # fmt: skip
    finder = Finder(4, "residual_mlp", 16, seed)
    supply: Any = generated
    if search:
        validation = Stored(
            InMemory(held_out), truth, batch_size=32, augmentations={}, strong=None, seed=seed, world=World()
        )
        supply = PseudoSampling(
            generated, gda, weight=1.0, finder=finder, validation=validation, criterion=None, lr=6e-2, kl_weight=1e-2,
            kl_reduction="mean", gradient="finite_differences", epsilon=0.01, inner_lr=None,
        )  # fmt: skip
    train_classifier(
        model, InMemory(images), labels, torch.ones(8, dtype=torch.int64), num_classes=2, updates=UPDATES, batch_size=8,
        optimizer="sgd", lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0, sam=None, schedule="constant",
        warmup=0.0, label_smoothing=0.0, clip_norm=None, ema_decay=None, balance="none", dtype="float32", compile=False,
        augmentations={}, seed=seed, on_epoch=lambda epoch: None,
        objective=SyntheticObjective(gda, supply, weight=1.0),
    )  # fmt: skip
    with torch.no_grad():
        return F.cross_entropy(model(held_out.float() / 255), truth).item(), finder


def test_the_finder_learns_the_direction_that_informs_and_the_validation_loss_falls():
    differences, shifts = [], []
    for seed in range(NUM_SEEDS):
        found, finder = validation_loss_and_finder(seed, search=True)
        uniform, _ = validation_loss_and_finder(seed, search=False)
        differences.append(found - uniform)
        z = torch.randn(500, 4, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            shifts.append((finder(z) - z).mean(0))
    assert sum(difference < 0 for difference in differences) == NUM_SEEDS
    shift = torch.stack(shifts)
    assert (shift[:, 0] > 0.2).all()
    assert shift[:, 0].mean() > 3 * shift[:, 1:].mean(0).abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_finder_is_what_its_name_says(architecture):
    finder, again = Finder(5, architecture, 7, 3), Finder(5, architecture, 7, 3)
    z = torch.randn(6, 5)
    assert torch.equal(finder(z), again(z))
    away = (finder(z) - z).abs().max()
    assert (away.item() == 0) is architecture.startswith("residual"), "a search starts from uniform samples"
    layers = [layer for layer in finder.net.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == (3 if "mlp" in architecture else 1)
    if "mlp" in architecture:
        assert [layer.out_features for layer in layers] == [7, 7, 5]


def test_the_divergence_from_the_prior_in_numbers():
    z = torch.tensor([[1.0, -2.0], [3.0, 2.0]])  # means 2, 0; variances 1, 4
    by_coordinate = [0.5 * 4, 0.5 * (4 - 1 - torch.tensor(4.0).log().item())]
    assert kl_to_prior(z, "sum").item() == pytest.approx(sum(by_coordinate), rel=1e-6)
    assert kl_to_prior(z).item() == pytest.approx(sum(by_coordinate) / 2, rel=1e-6)
    gaussian = torch.distributions.Normal(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 2.0]))
    prior = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    assert kl_to_prior(z, "sum").item() == pytest.approx(
        torch.distributions.kl_divergence(gaussian, prior).sum().item(), rel=1e-6
    )


class Once(torch.autograd.Function):
    """What can be differentiated but once, as what torch.compile makes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def test_the_gradient_one_step_ahead_is_that_of_the_step_written_out():
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    objective = make("gda_mps", gradient="exact")  # lambda 0.5
    search: Any = objective._supply
    generator = torch.Generator().manual_seed(0)
    real = [torch.randn(parameter.shape, generator=generator) for parameter in model.parameters()]
    step = replace(
        step_of(model, objective),
        real=real,
        forward=lambda x: tuple(map(Once.apply, model.logits_and_last_features(x))),
    )
    seen = search.generated.views_of(drawn := search.generated.draw(0), drawn.z).cut_off()
    found, of_strong = search._ahead(step, seen)
    assert not of_strong.any()

    logits = model(seen.plain)
    loss = cross_entropy(logits, F.one_hot(seen.labels, 2).float()).mean()
    own = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    pairs = zip(model.named_parameters(), real, own, strict=True)
    ahead = {name: parameter - 0.1 * (of_real + 0.5 * mine) for (name, parameter), of_real, mine in pairs}
    batch = search._validation.views_of(0, 1)
    validation_loss = F.cross_entropy(torch.func.functional_call(model, ahead, (batch.plain,)), batch.labels)
    (wanted,) = torch.autograd.grad(validation_loss, seen.plain)
    assert wanted.abs().max() > 1e-6
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


@pytest.mark.parametrize("criterion", [gda, pcr])
def test_a_criterion_is_raised(criterion):
    model = create_model("convnet", 2, {"width": 4}, 0)
    model.load_state_dict(train(None)[0]["state"])  # one that tells the classes apart has something to lose
    model.train()
    objective = make("mgr", criterion=criterion, kl_weight=0.0, lr=0.05)
    search: Any = objective._supply
    for update in range(15):
        search.views(step_of(model, objective, update))
    losses = []
    with torch.no_grad():
        drawn = search.generated.draw(100)
        for z in (drawn.z, search.found(drawn.z)):
            losses.append(criterion(model.logits_and_last_features, search.generated.views_of(drawn, z)).mean())
    assert losses[1] > losses[0]


def test_the_divergence_falls():
    model = create_model("convnet", 2, {"width": 4}, 0).train()
    objective = make("mgr", criterion=gda, kl_weight=100.0, lr=0.05, finder=Finder(4, "linear", None, 0))
    search: Any = objective._supply
    z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    first = kl_to_prior(search.found(z)).item()
    for update in range(30):
        search.views(step_of(model, objective, update))
    assert kl_to_prior(search.found(z)).item() < first / 2
