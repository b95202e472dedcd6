"""The gan backend: training that goes on, images as a function of z, augmentation, what its project can ask for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fit import Memory, shapes_of

from gdacli.errors import GdaError
from gdacli.fitted import Fitted
from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.gan_section import Gan
from gdacli.generators.gan import fit, latent_generator, load
from gdacli.generators.gan.diff_augment import color, cut_out, diff_augment, translate
from gdacli.generators.gan.network import ARCHITECTURES, Form, Network
from gdacli.generators.gan.training import mode_seeking_loss
from gdacli.shards import read_shard

WEIGHTS = "network/model.safetensors"
CPU = torch.device("cpu")


def train(folder: Path, **options: Any) -> Fitted:
    labels, images = shapes_of(48, 0)
    defaults: dict[str, Any] = {
        "num_classes": 3, "updates": 6, "batch_size": 8, "latent_dim": 8, "width": 4, "ema_decay": 0.9, "flip": True,
        "seed": 0, "on_update": lambda update, loss: None,
    }  # fmt: skip
    given_options = {**Gan().model_dump(), **defaults, **options}
    return fit(torch.from_numpy(images), torch.from_numpy(labels), folder=folder, **given_options)


def latent(folder: Path):
    return latent_generator(folder, class_names=CLASSES, image_size=16, device=CPU, num_inference_steps=3)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    train(folder, architecture=request.param, updates=10, lr=2e-3, width=8)
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fit_that_goes_on_gives_the_bits_of_one_that_was_not_interrupted(tmp_path, architecture):
    keeper = Memory()
    options: dict[str, Any] = {"architecture": architecture, "check_every": 2, "patience": 9}

    def check(network, update):
        torch.randn(3)  # what a check draws changes nothing
        assert not network.training
        return [5.0, 2.0, 3.0][update // 2 - 1]

    whole = train(tmp_path / "whole", keeper=keeper, check=check, **options)
    state = keeper.state(3)
    assert 1 < state["update"] < 6
    again = train(tmp_path / "again", state=state, check=check, **options)
    assert whole == again
    assert (whole.updates, whole.kept_update) == (6, 4)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "again" / WEIGHTS).read_bytes()


def test_the_mode_seeking_loss_falls_as_images_differ_with_their_noise():
    z, images = torch.randn(4, 5), torch.rand(4, 3, 8, 8)
    same = images[:2].repeat(2, 1, 1, 1)
    assert mode_seeking_loss(z, images) < mode_seeking_loss(z, same + 0.1 * (images - same)) < 1e5 + 1
    assert mode_seeking_loss(z, same) == pytest.approx(1e5, rel=1e-3)
    assert mode_seeking_loss(z, images) < mode_seeking_loss(2 * z, images)


def test_it_stops_when_checks_are_no_better(tmp_path):
    distances = iter([3.0, 1.0, 1.0, 2.0, 0.5])
    fitted = train(tmp_path, updates=100, check_every=2, patience=2, check=lambda *_: next(distances), width=2)
    assert (fitted.updates, fitted.kept_update) == (8, 4)


def test_samples_come_nearer_to_real_images_than_those_of_an_untrained_network(tmp_path):
    _, real = shapes_of(300, 5)
    labels = torch.arange(300) % 3

    def seen(images: np.ndarray) -> GaussianStatistics:
        return GaussianStatistics.of(images.reshape(300, 3, 4, 4, 4, 4).mean((3, 5)).reshape(300, -1) / 255)

    def distance(updates: int) -> float:
        folder = tmp_path / str(updates)
        train(folder, updates=updates, architecture="dcgan", batch_size=16, lr=1e-3, flip=False)
        generator = load(folder, class_names=CLASSES, image_size=16, device=CPU)
        return frechet_distance(seen(generator.sample(labels, list(range(300))).numpy()), seen(real))

    assert distance(90) < 0.7 * distance(1)


def test_an_image_is_synthesis_of_mapping_and_changes_smoothly_with_z(trained):
    generator = latent(trained)
    assert not any(weight.requires_grad for weight in generator.parameters())
    assert {weight.dtype for weight in generator.parameters()} == {torch.float32}
    labels = torch.tensor([0, 1, 2, 1])
    z = torch.randn(4, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    images = generator(z, labels)
    assert (images.shape, images.dtype) == ((4, 3, 16, 16), torch.float32)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images, generator.synthesis(generator.mapping(z, labels), labels))
    assert not torch.equal(images, generator(z, labels.flip(0)))
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    exact = generator.double()
    z, direction, weight = z.double(), direction.double(), torch.linspace(-1, 1, 768).double().view(1, 3, 16, 16)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad((exact(z, labels) * weight).sum(), z)
    step = 1e-5 * direction
    both = [(exact(z.detach() + sign * step, labels) * weight).sum((1, 2, 3)) for sign in (1, -1)]
    expected = (both[0] - both[1]) / 2e-5
    assert torch.allclose((gradient * direction).sum(1), expected, rtol=1e-3, atol=1e-6)
    assert (expected.abs() > 1e-4).all()


def test_a_row_does_not_hang_on_the_others(trained):
    generator = latent(trained)
    z, labels = torch.randn(8, generator.latent_dim), torch.arange(8) % 3
    alone = torch.cat([generator(z[row : row + 1], labels[row : row + 1]) for row in range(8)])
    assert torch.allclose(generator(z, labels), alone, atol=1e-6)


def test_an_unconditional_one_does_not_look_at_labels(tmp_path):
    train(tmp_path, conditional=False, updates=2)
    generator = latent(tmp_path)
    assert not generator.conditional
    z, labels = torch.randn(3, 8), torch.tensor([0, 1, 2])
    assert torch.equal(generator(z, labels), generator(z, labels.flip(0)))
    load(tmp_path, class_names=CLASSES[:2], image_size=16, device=CPU)  # of classes it knows nothing


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"class_names": CLASSES[:2]}, "the model knows 3 classes, the data has 2: run `gdacli fit`"),
        ({"image_size": 32}, "the model makes 16 pixels, the data has 32: run `gdacli fit`"),
    ],
    ids=["classes", "size"],
)
def test_a_model_of_other_data_is_refused(trained, options, match):
    told: dict[str, Any] = {"class_names": CLASSES, "image_size": 16, "device": CPU, **options}
    with pytest.raises(GdaError, match=match):
        load(trained, **told)
    with pytest.raises(GdaError, match=match):
        latent_generator(trained, num_inference_steps=3, **told)


def test_what_cannot_be_trained_or_read_is_one_line(tmp_path):
    with pytest.raises(GdaError, match=r"fit: a loss is no longer a number after update 50: lower fit\.gan\.lr"):
        train(tmp_path, updates=50, lr=1e30, width=1, batch_size=2, architecture="dcgan")
    with pytest.raises(GdaError, match=r"network: no network of a gan \(.*No such file.*\): run `gdacli fit`"):
        latent(tmp_path)
    (tmp_path / "network").mkdir()
    (tmp_path / "network/config.json").write_text(json.dumps({"architecture": "none"}))
    with pytest.raises(GdaError, match="no network of a gan") as raised:
        latent(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [8, 12, 28, 40])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_size_of_4_to_7_times_a_power_of_two_has_networks(architecture, size):
    form = Form(architecture, size, 3, 5, 2)
    discriminator = ARCHITECTURES[architecture].Discriminator(form.levels(), 3)
    labels = torch.tensor([0, 2])
    images = Network(form)(torch.randn(2, 5), labels)
    assert images.shape == (2, 3, size, size)
    assert len(discriminator(images, labels)) == 2


@pytest.mark.parametrize("size", [4, 7, 9, 18, 33])
def test_other_sizes_are_one_line(size):
    with pytest.raises(GdaError, match=f"gan makes no images of {size} pixels; allowed: 4, 5, 6 or 7 times a power"):
        Form("dcgan", size, 3, 5, 2).levels()


def test_augmentation_is_random_per_image_and_lets_gradients_through():
    images = (torch.rand(1, 3, 16, 16) - 0.5).expand(6, -1, -1, -1).clone().requires_grad_()
    seen = diff_augment(images, torch.Generator().manual_seed(0))
    assert torch.equal(seen, diff_augment(images, torch.Generator().manual_seed(0)))
    assert len({row.detach().numpy().tobytes() for row in seen}) == 6
    weight = torch.randn(seen.shape)
    (gradient,) = torch.autograd.grad((seen * weight).sum(), images)
    step = torch.randn(images.shape)
    moved = diff_augment((images + step).detach(), torch.Generator().manual_seed(0))  # linear in the images
    expected = ((moved - seen) * weight).sum((1, 2, 3))
    assert torch.allclose((gradient * step).sum((1, 2, 3)), expected, atol=1e-3)
    assert (expected.abs() > 1e-3).all()


def test_colours_that_change_nothing_change_nothing_and_grey_is_grey():
    images = torch.rand(2, 3, 4, 4)
    none, one = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    assert torch.allclose(color(images, none, one, one), images, atol=1e-6)
    grey = color(images, none, none, one)
    assert torch.allclose(grey, images.mean(1, keepdim=True).expand_as(images), atol=1e-6)
    assert torch.allclose(color(images, none, one, none), images.mean((1, 2, 3), keepdim=True), atol=1e-6)


@settings(max_examples=20)
@given(st.integers(-5, 5), st.integers(-5, 5))
def test_moved_and_cut_pixels_are_where_they_should_be(down, right):
    images = torch.arange(1.0, 26).view(1, 1, 5, 5)
    moved = translate(images, torch.tensor([down]), torch.tensor([right]))
    cut = cut_out(images, torch.tensor([down]), torch.tensor([right]), 2, 3)
    for row in range(5):
        for column in range(5):
            source = row - down, column - right
            inside = all(0 <= place < 5 for place in source)
            assert moved[0, 0, row, column] == (images[0, 0, source[0], source[1]] if inside else 0)
            hidden = 0 <= source[0] < 2 and 0 <= source[1] < 3
            assert cut[0, 0, row, column] == (0 if hidden else images[0, 0, row, column])


TOLD = ["-S", "generate.backend=gan", "-S", "compare.arms=[original, flood]", "-S", "generate.filter.constant=false"]


def test_a_project_samples_from_it_and_denoising_has_no_say(project, shapes):
    project.write(
        data={"source": str(shapes)},
        fit={"gan": {"architecture": "fastgan", "updates": 4, "width": 4, "batch_size": 8}, "check_every": 2},
    )
    project.ok("prepare", "probe", "select")
    fitted = project("fit", *TOLD)
    assert fitted.code == 0, fitted.stderr
    assert "fit: a gan takes fit.gan and, of the rest of fit, save_seconds, check_every" in fitted.stderr
    data = project.folder / "data"
    assert json.loads((data / "metrics/fit.json").read_text())["backend"] == "gan"
    assert "was finished before" in project("fit", *TOLD, "-S", "fit.updates=9", "-S", "fit.lr=1").stderr
    planned = project("plan", *TOLD, "--json")
    assert planned.code == 0, planned.stderr
    counts = json.loads(planned.stdout)
    assert (counts["denoising_steps"], counts["pool"]["to_make"]) == (0, 5)
    made = project("generate", *TOLD)
    assert "5 made, 0 reused" in made.stdout, made.stderr
    other = ["generate.solver=ddpm", "generate.num_inference_steps=2", "generate.guidance_scale=1"]
    again = project("generate", *TOLD, *(part for each in other for part in ("-S", each)))
    assert "0 made, 5 reused" in again.stdout, again.stderr
    (sample, *_) = [each for path in (data / "synthetic").glob("*.tar") for each in read_shard(path)]
    assert (sample.meta["backend"], sample.meta["num_steps"], sample.meta["start_timestep"]) == ("gan", 0, -1.0)


def test_an_unconditional_one_gives_no_labelled_samples(project):
    refused = project("plan", *TOLD, "-S", "fit.conditional=false").error
    assert (
        "arms.flood: its images are made from noise alone, but fit.conditional false makes a model without" in refused
    )
    refused = project("plan", "-S", "generate.backend=gan").error
    assert "arms.targeted: add: synthetic makes variants of images, which generate.backend gan does not" in refused
    refused = project("plan", *TOLD, "-S", "fit.gan.architecture=biggan").error
    assert "fit.gan.architecture: found 'biggan'; Input must be 'dcgan' or 'fastgan'" in refused.replace(
        "; must", "; Input must"
    )
