from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gdacli.gradient_variance import gradient_moments, minibatch_gradient_moments
from gdacli.loading import InMemory
from gdacli.models import Classifier, create_model

NUM_CLASSES = 3
MEAN, STD = (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)  # gradients then vary in many directions, and estimates vary little
SETTINGS: dict[str, Any] = {
    "num_batches": 600, "epoch": 1, "num_classes": NUM_CLASSES, "batch_size": 8, "balance": "none",
    "label_smoothing": 0.0, "dtype": "float32", "augmentations": {}, "seed": 0,
}  # fmt: skip


@given(st.integers(2, 12), st.integers(0, 1000), st.sampled_from([0.0, 1e3]))
def test_running_sums_give_what_all_gradients_at_once_give(count, seed, offset):
    rows = offset + torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    variance, norm_sq = gradient_moments([row[:2], row[2:].reshape(3, 1)] for row in rows)
    assert variance == pytest.approx(rows.var(0).sum().item(), rel=1e-9)
    assert norm_sq == pytest.approx((rows.mean(0).square() - rows.var(0) / count).sum().item(), rel=1e-9, abs=1e-9)


def test_one_gradient_has_no_variance():
    with pytest.raises(ValueError, match="at least two gradients, found 1"):
        gradient_moments([[torch.ones(3)]])


def logistic() -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    """Give a linear model of 40 images of 2 x 2 pixels, the images and labels."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 2, 2)).to(torch.uint8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, NUM_CLASSES))
    return Classifier(net, MEAN, STD), images, torch.arange(40) % NUM_CLASSES


def gradients_per_image(model: Classifier, images: torch.Tensor, labels: torch.Tensor, smoothing: float) -> Any:
    """Return float64 [N, 13 C]: (probabilities - targets) times the input, and times 1 for the bias."""
    pixels = ((images.double() / 255 - MEAN[0]) / STD[0]).flatten(1)
    x = torch.cat([pixels, torch.ones(len(images), 1, dtype=torch.float64)], 1)
    linear = model.net[1]
    logits = x[:, :-1] @ linear.weight.double().T + linear.bias.double()
    targets = nn.functional.one_hot(labels, NUM_CLASSES) * (1 - smoothing) + smoothing / NUM_CLASSES
    return torch.einsum("nc,nd->ncd", logits.softmax(1) - targets, x).flatten(1).detach()


@pytest.mark.parametrize(
    ("repeats", "batch_size", "smoothing"),
    [
        (torch.ones(40, dtype=torch.int64), 8, 0.0),
        (torch.ones(40, dtype=torch.int64), 32, 0.2),
        (torch.where(torch.arange(40) < 10, 5, 1), 20, 0.0),  # upsampled
    ],
)
def test_a_linear_model_has_the_variance_of_a_draw_without_replacement(repeats, batch_size, smoothing):
    model, images, labels = logistic()
    options = {**SETTINGS, "batch_size": batch_size, "label_smoothing": smoothing}
    variance, norm_sq = minibatch_gradient_moments(model, InMemory(images), labels, repeats, **options)
    mix = gradients_per_image(model, images, labels, smoothing).repeat_interleave(repeats, 0)
    expected = mix.var(0).sum().item() / batch_size * (1 - batch_size / len(mix))
    assert variance == pytest.approx(expected, rel=0.05)
    assert norm_sq == pytest.approx(mix.mean(0).square().sum().item(), abs=0.1 * expected)


def test_balanced_sampling_draws_with_replacement():
    model, images, labels = logistic()
    labels = (torch.arange(40) >= 30).long()
    options = {**SETTINGS, "balance": "sampling"}
    repeats = torch.ones(40, dtype=torch.int64)
    variance, norm_sq = minibatch_gradient_moments(model, InMemory(images), labels, repeats, **options)
    each = gradients_per_image(model, images, labels, 0.0)
    weights = torch.where(labels == 0, 1 / 60, 1 / 20).double()[:, None]
    mean = (weights * each).sum(0)
    expected = (weights * (each - mean).square()).sum().item() / 8
    assert variance == pytest.approx(expected, rel=0.05)
    assert norm_sq == pytest.approx(mean.square().sum().item(), abs=0.1 * expected)


def test_a_balanced_loss_weighs_the_gradients():
    model, images, labels = logistic()
    labels = (torch.arange(40) >= 30).long()
    repeats = torch.where(labels == 0, 1, 2)
    options = {**SETTINGS, "balance": "loss"}
    variance, _ = minibatch_gradient_moments(model, InMemory(images), labels, repeats, **options)
    weights = torch.where(labels == 0, 50 / (2 * 30), 50 / (2 * 20)).double()[:, None]
    mix = (weights * gradients_per_image(model, images, labels, 0.0)).repeat_interleave(repeats, 0)
    assert variance == pytest.approx(mix.var(0).sum().item() / 8 * (1 - 8 / len(mix)), rel=0.05)


def test_copies_add_variance_around_the_population_but_not_around_their_own_mix():
    """Theorem 4.3: 50 images once and 50 five times, batches of 10 + 50, per-image gradients of variance 1."""
    single, repeated, k, batch, dimension = 50, 50, 5, 60, 40
    generator = torch.Generator().manual_seed(0)
    num_second = batch * k * repeated // (single + k * repeated)

    def data() -> torch.Tensor:
        return torch.randn(single + repeated, dimension, generator=generator, dtype=torch.float64) / dimension**0.5

    def stratified(each: torch.Tensor) -> list[torch.Tensor]:
        first = torch.randperm(single, generator=generator)[: batch - num_second]
        second = single + torch.randperm(k * repeated, generator=generator)[:num_second] // k
        return [each[torch.cat([first, second])].mean(0)]

    around_population, _ = gradient_moments(stratified(data()) for _ in range(1500))
    per_image = num_second / repeated
    spread = per_image * (1 - 1 / repeated) * (k * repeated - num_second) / (k * repeated - 1)  # hypergeometric
    exact = (batch - num_second + repeated * (spread + per_image**2)) / batch**2
    assert exact == pytest.approx(0.02759, abs=1e-5)
    assert around_population == pytest.approx(exact, rel=0.02)
    assert around_population > 1.5 / batch
    fixed = data()
    around_mix, _ = gradient_moments(stratified(fixed) for _ in range(1500))
    assert around_mix < 1 / batch


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_the_model_and_the_random_numbers_as_they_were(training):
    torch.set_num_threads(1)
    model = create_model("convnet", 2, {"width": 4}, 0)
    model.net.features.append(nn.Dropout(0.5))
    model.train(training)
    images, labels = torch.randint(0, 256, (30, 3, 8, 8)).to(torch.uint8), torch.arange(30) % 2
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {**SETTINGS, "num_batches": 5, "num_classes": 2, "augmentations": {"crop": {"padding": 1}, "mixup": {}}}
    random = torch.get_rng_state()

    def measure(**others: Any) -> tuple[float, float]:
        repeats = torch.ones(30, dtype=torch.int64)
        return minibatch_gradient_moments(model, InMemory(images), labels, repeats, **{**options, **others})

    first = measure()
    assert first[0] > 0
    assert torch.equal(random, torch.get_rng_state())
    assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert measure() == first
    assert measure(seed=1) != first
