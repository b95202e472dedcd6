"""One contract for every backend with a latent space, on a tiny model; then what one of them alone promises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLASSES
from tiny_exports import exported_options

from gdacli.errors import GdaError
from gdacli.generators import backend, backend_facts, backend_names
from gdacli.generators.class_conditional.latent import FirstNoise
from gdacli.generators.class_conditional.network import make_network
from gdacli.latent import LatentGenerator

LIVE = [name for name in backend_names() if backend_facts(name).latent]


@pytest.fixture(params=LIVE)
def name(request) -> str:
    return request.param


def load(name: str, folder: Path, **options: Any) -> LatentGenerator:
    settings = {"class_names": CLASSES, "image_size": 16, "device": torch.device("cpu"), "num_inference_steps": 4}
    settings |= exported_options(folder) if name == "exported" else {}
    return backend(name, None).latent_generator(folder, **settings | options)


@pytest.fixture
def generator(name, make_generator) -> LatentGenerator:
    return load(name, make_generator(name))


def draw(generator: LatentGenerator, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(count, generator.latent_dim, generator=torch.Generator().manual_seed(3))
    return z, torch.arange(count) % len(CLASSES)


def test_images_are_pixels_and_depend_on_z_and_label(generator):
    z, labels = draw(generator)
    made = generator(z, labels)
    assert (made.shape, made.dtype) == ((6, 3, 16, 16), torch.float32)
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(made, generator(z, labels))
    assert (generator(-z, labels) != made).flatten(1).any(1).all()
    assert (generator(z, (labels + 1) % 3) != made).flatten(1).any(1).all() == generator.conditional


def test_the_weights_are_frozen_and_z_has_a_gradient(generator):
    z, labels = draw(generator)
    z.requires_grad_()
    parameters = list(generator.parameters())
    assert parameters
    assert not any(weight.requires_grad for weight in parameters)
    generator(z, labels).square().sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert (z.grad != 0).any(1).all()
    assert all(weight.grad is None for weight in parameters)


def test_the_weights_have_a_gradient_if_someone_asks(name, make_generator):
    generator = load(name, make_generator(name))
    for weight in generator.parameters():
        weight.requires_grad_()
    generator(*draw(generator)).square().sum().backward()
    found = [weight.grad for weight in generator.parameters() if weight.grad is not None]
    assert sum(bool((gradient != 0).any()) for gradient in found) > 1


def test_a_row_depends_on_its_own_z_and_label(generator):
    z, labels = draw(generator)
    z.requires_grad_()
    made = generator(z, labels)
    order = torch.tensor([4, 2])
    assert generator(z[order], labels[order]).detach().numpy() == pytest.approx(made[order].detach().numpy(), abs=1e-5)
    (gradient,) = torch.autograd.grad(made[2].sum(), z)
    assert gradient.any(1).nonzero().flatten().tolist() == [2]


def tiny(num_classes: int | None, steps: int = 3) -> FirstNoise:
    torch.manual_seed(0)
    unet = make_network(
        4,
        num_classes,
        block_out_channels=[8],
        layers_per_block=1,
        attention_resolutions=[],
        attention_head_dim=8,
        dropout=0.1,
    )
    return FirstNoise(unet.double().eval().requires_grad_(False), "v_prediction", steps)


@pytest.mark.parametrize("num_classes", [3, None])
def test_the_gradient_of_the_first_noise_is_that_of_finite_differences(num_classes):
    generator = tiny(num_classes)
    assert generator.conditional == (num_classes is not None)
    labels = torch.tensor([0, 2])
    z = torch.randn(2, generator.latent_dim, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 4, 4, dtype=torch.float64)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return (weights * generator(z, labels)).sum()

    (gradient,) = torch.autograd.grad(loss(z), z)
    assert gradient.abs().max() > 0.01
    for seed in range(5):
        way = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        slope = (loss(z + 1e-7 * way) - loss(z - 1e-7 * way)) / 2e-7
        assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-4, abs=1e-6)


def kept_bytes(generator: FirstNoise, z: torch.Tensor) -> int:
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        generator(z, torch.zeros(len(z), dtype=torch.int64))
    return kept


def test_checkpoints_change_no_gradient_and_keep_little(monkeypatch):
    z = torch.randn(2, 48, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2])
    (gradient,) = torch.autograd.grad(tiny(3)(z, labels).square().sum(), z)
    few = kept_bytes(tiny(3, steps=4), z)
    monkeypatch.setattr(
        "gdacli.generators.class_conditional.latent.checkpoint",
        lambda function, *inputs, use_reentrant, preserve_rng_state, **options: function(*inputs, **options),
    )
    plain = tiny(3)
    assert torch.equal(torch.autograd.grad(plain(z, labels).square().sum(), z)[0], gradient)
    assert few < kept_bytes(tiny(3, steps=1), z) / 3  # less than a third of one evaluation


def test_the_first_noise_makes_the_image_that_sampling_makes(make_generator):
    folder, seeds = make_generator("class_conditional"), [5, 6, 7]
    labels = torch.arange(3)
    z = torch.stack([torch.randn(3 * 16 * 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    made = load("class_conditional", folder, num_inference_steps=6)(z, labels)
    sampler = backend("class_conditional", None).load(
        folder,
        class_names=CLASSES,
        image_size=16,
        solver="ddim",
        num_inference_steps=6,
        guidance_scale=1.0,
        noise_schedule="native",
        device=torch.device("cpu"),
        dtype=torch.float32,
        memory_format=torch.contiguous_format,
        compile=False,
    )
    assert torch.equal((255 * made).round().to(torch.uint8), sampler.sample(labels, seeds))


def test_a_single_step_is_refused(make_generator):
    """Its images are black or white throughout: the first estimate divides by the square root of 2e-9."""
    with pytest.raises(GdaError, match=r"num_inference_steps: found 1; allowed: 2 or more"):
        load("class_conditional", make_generator("class_conditional"), num_inference_steps=1)
