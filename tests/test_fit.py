"""Training of the class-conditional generator: going on after a kill, checks, early stop, what it is told."""

import csv
import io
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, shape
from diffusers import UNet2DModel
from fork_server import commands
from safetensors.torch import load_file

from gdacli.artifacts import sha256_file
from gdacli.denoiser import seeded_noise
from gdacli.diffusion import add_noise
from gdacli.errors import GdaError
from gdacli.features import array_features
from gdacli.gauge import Gauge
from gdacli.generators.class_conditional import fit, load, of_network
from gdacli.generators.class_conditional.network import make_network
from gdacli.held_out import hold_out
from gdacli.models import create_model
from gdacli.pixels import from_model, to_model
from gdacli.schedules import cosine_alpha_bars
from gdacli.sections import Fit
from gdacli.shards import read_shard

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SAMPLING: dict[str, Any] = {
    "class_names": CLASSES,
    "solver": "dpmsolver++",
    "num_inference_steps": 10,
    "noise_schedule": "native",
}
PLAIN: dict[str, Any] = {"memory_format": torch.contiguous_format, "compile": False}


def shapes_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [N] and images uint8 [N, 3, 16, 16]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return labels, np.stack([shape(int(label), rng) for label in labels]).transpose(0, 3, 1, 2).copy()


def train(folder: Path, **options: Any):
    labels, images = shapes_of(48, 0)
    settings: dict[str, Any] = {
        "num_classes": 3, "updates": 6, "batch_size": 4, "lr": 2e-3, "ema_decay": 0.9, "class_dropout": 0.1,
        "block_out_channels": [8, 8], "layers_per_block": 1, "flip": True, "seed": 0,
        "on_update": lambda update, loss: None,
    }  # fmt: skip
    return fit(torch.from_numpy(images), torch.from_numpy(labels), folder=folder, **{**settings, **options})


class Memory:
    """Keeps every state as a file would."""

    def __init__(self) -> None:
        self.states: list[bytes] = []

    def due(self) -> bool:
        return True

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.states.append(buffer.getvalue())

    def state(self, number: int) -> dict[str, Any]:
        return torch.load(io.BytesIO(self.states[number]), weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fit_that_goes_on_gives_the_bits_of_one_that_was_not_interrupted(tmp_path, dtype):
    """With all that is random in it: dropout, mirroring, the null class, the noise; and with attention."""
    keeper = Memory()
    options: dict[str, Any] = {
        "dropout": 0.2, "attention_resolutions": [8], "dtype": dtype, "check_every": 2, "patience": 9,
    }  # fmt: skip

    def check(network, update):
        torch.randn(3)  # what a check draws changes nothing
        return [5.0, 2.0, 3.0][update // 2 - 1]

    whole = train(tmp_path / "whole", keeper=keeper, check=check, **options)
    state = keeper.state(4)
    assert 2 <= state["update"] < 6
    again = train(tmp_path / "again", state=state, check=check, **options)
    assert whole == again
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "again" / WEIGHTS).read_bytes()
    assert json.loads((tmp_path / "whole/unet/config.json").read_text())["down_block_types"][1] == "AttnDownBlock2D"


def test_early_stop_keeps_the_weights_of_the_best_check(tmp_path):
    distances, seen = iter([3.0, 1.0, 1.0, 2.0, 0.5]), []
    keeper = Memory()

    def check(network, update):
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        assert not network.training
        return next(distances)

    fitted = train(tmp_path / "a", updates=100, check_every=2, patience=2, check=check, keeper=keeper)
    assert (fitted.updates, fitted.kept_update) == (8, 4)
    assert fitted.checks == [[2, 3.0], [4, 1.0], [6, 1.0], [8, 2.0]]
    assert [update for update, _ in fitted.losses] == [2, 4, 6, 8]  # a stop finds a loss to report
    saved = load_file(tmp_path / "a" / WEIGHTS)
    assert all(torch.equal(saved[name], value) for name, value in seen[1].items())
    assert not all(torch.equal(saved[name], value) for name, value in seen[3].items())
    again = train(tmp_path / "b", updates=100, check_every=2, patience=2, check=check, state=keeper.state(-1))
    assert again == fitted  # it had stopped already
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_bfloat16_is_computed_and_float32_is_saved(tmp_path):
    full, half = (
        train(tmp_path / str(dtype), updates=2, dtype=dtype).losses[0][1] for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < abs(half - full) < 0.05 * full
    assert {value.dtype for value in load_file(tmp_path / "torch.bfloat16" / WEIGHTS).values()} == {torch.float32}


def test_without_patience_checks_change_no_weight(tmp_path):
    train(tmp_path / "a")
    seen = {}

    def check(network, update):
        seen.update(network.state_dict())
        return float(update)

    fitted = train(tmp_path / "b", check_every=4, check=check)
    assert (fitted.kept_update, fitted.checks) == (6, [[4, 4.0], [6, 6.0]])
    saved = load_file(tmp_path / "b" / WEIGHTS)
    assert all(torch.equal(saved[name], value) for name, value in seen.items())  # the averaged ones
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attention_resolutions": [5]}, "fit.attention_resolutions: found 5; 2 levels of 16 pixels have .* 16, 8: "),
        ({"attention_head_dim": 16}, "fit.attention_head_dim: found 16, which does not divide the 8 channels"),
        ({"block_out_channels": [8] * 6}, "fit.block_out_channels: 6 levels halve 16 pixels 5 times"),
        ({"lr": 1e30, "updates": 50, "batch_size": 1}, "fit: the loss is no longer a number after update 50: lower "),
    ],
    ids=["resolution", "heads", "levels", "lr"],
)
def test_what_cannot_be_trained_is_one_line(tmp_path, options, match):
    with pytest.raises(GdaError, match=match):
        train(tmp_path, **options)


def test_an_unconditional_model_is_told_no_class(tmp_path):
    train(tmp_path, conditional=False)
    options: dict[str, Any] = {"image_size": 16, "device": torch.device("cpu"), "dtype": torch.float32, **PLAIN}
    with pytest.raises(GdaError, match=r"the model is unconditional: set generate\.guidance_scale to 1"):
        load(tmp_path, guidance_scale=2.0, **SAMPLING, **options)
    generator = load(tmp_path, guidance_scale=1.0, **SAMPLING, **options)
    labels, images = shapes_of(16, 1)
    latents, seeds = generator.encode(torch.from_numpy(images)), list(range(16))
    made = generator.generate(latents, torch.from_numpy(labels), 0.5, seeds)
    assert (made.shape, made.dtype) == ((16, 3, 16, 16), torch.uint8)
    assert torch.equal(made, generator.generate(latents, torch.from_numpy((labels + 1) % 3), 0.5, seeds))
    assert not torch.equal(made, generator.generate(latents, torch.from_numpy(labels), 0.9, seeds))


@pytest.fixture(scope="module")
def gauge() -> Gauge:
    torch.set_num_threads(1)
    model = create_model("convnet", 3, {"width": 8}, 0, image_size=16).eval()
    training, new = shapes_of(300, 2), shapes_of(120, 3)

    def embed(images):
        return array_features(model, images)

    held_out = hold_out(training, new, embed, num_images=120, seed=0)
    return Gauge(held_out, embed, *training, class_names=CLASSES, mirrored=True, seed=0)


class Fixed:
    """A generator whose samples are given: those of a seed."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = torch.from_numpy(images)

    def sample(self, labels, seeds):
        return self._images[[seed % len(self._images) for seed in seeds]]


def test_a_generator_that_returns_train_images_is_found(gauge, tmp_path):
    noise = np.random.default_rng(0).integers(-2, 3, gauge.train_images.shape)
    noisy = np.clip(gauge.train_images[..., ::-1] + noise, 0, 255)
    sheets = tmp_path / "fit.png", tmp_path / "nearest.png"
    for copies in (gauge.train_images, noisy.astype(np.uint8)):
        found = gauge.quality(Fixed(copies), *sheets)
        assert all(each["suspect"] and each["nearer_share"] > 0.9 for each in found["memorisation"].values())
    found = gauge.quality(Fixed(shapes_of(500, 7)[1]), *sheets)
    assert not any(each["suspect"] for each in found["memorisation"].values())
    assert (found["measured_against"], found["num_samples"]) == ("validation", 120)
    assert found["frechet_distance"] < 3 * found["real_frechet_distance"]
    assert all(sheet.read_bytes().startswith(b"\x89PNG") for sheet in sheets)


def test_a_key_that_came_later_leaves_finished_fits_finished():
    assert "prediction_type" not in Fit().of_weights("class_conditional")
    assert Fit(prediction_type="v_prediction").of_weights("class_conditional")["prediction_type"] == "v_prediction"
    assert Fit().of_training("class_conditional")["prediction_type"] == "epsilon"


def test_the_distance_falls_with_training(gauge, tmp_path):
    torch.manual_seed(0)
    levels: dict[str, Any] = {"block_out_channels": [8, 8], "layers_per_block": 1, "attention_resolutions": []}
    network = make_network(16, 3, attention_head_dim=8, dropout=0, **levels)
    untrained = of_network(network.eval(), prediction_type="epsilon", guidance_scale=1.0, **SAMPLING, **PLAIN)
    train(tmp_path, updates=80, batch_size=16)
    options: dict[str, Any] = {"image_size": 16, "device": torch.device("cpu"), "dtype": torch.float32, **PLAIN}
    trained = load(tmp_path, guidance_scale=1.0, **SAMPLING, **options)
    before, after = (gauge.check(each, tmp_path / "fit.png") for each in (untrained, trained))
    assert gauge.held_out.real_distance < after < 0.7 * before


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_saved_network_is_read_by_what_it_was_trained_to_say(tmp_path, prediction_type):
    train(tmp_path, prediction_type=prediction_type)
    options: dict[str, Any] = {"image_size": 16, "device": torch.device("cpu"), "dtype": torch.float32, **PLAIN}
    one_step = {**SAMPLING, "solver": "ddim", "num_inference_steps": 2}
    generator = load(tmp_path, guidance_scale=1.0, **one_step, **options)
    labels, images = (torch.from_numpy(each) for each in shapes_of(16, 1))
    made = generator.generate(generator.encode(images), labels, 0.5, range(16))
    unet = UNet2DModel.from_pretrained(tmp_path / "unet").eval()
    alpha_bar = cosine_alpha_bars()[499]
    clean = to_model(images)
    noise = seeded_noise(clean, range(16))()
    with torch.inference_mode():
        noisy = add_noise(clean, alpha_bar, noise)
        said = unet(noisy, 499, labels).sample
    signal, rest = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    expected = signal * noisy - rest * said if prediction_type == "v_prediction" else (noisy - rest * said) / signal
    assert (made.int() - from_model(expected.clamp(-1, 1), 16).int()).abs().max() <= 1


def test_without_validation_images_it_is_other_train_images(gauge, tmp_path):
    nothing = np.empty(0, np.int64), np.empty((0, 3, 16, 16), np.uint8)
    training = gauge.train_labels, gauge.train_images
    held = hold_out(training, nothing, gauge.embed, num_images=1000, seed=0)
    assert (held.split, len(held.rows), len(set(held.rows.tolist()))) == ("train", 150, 150)
    assert (held.images == gauge.train_images[held.rows]).all()
    assert held.real_distance > 0  # of the other half
    found = replace(gauge, held_out=held).quality(Fixed(shapes_of(150, 7)[1]), tmp_path / "a.png", tmp_path / "b.png")
    assert all(each["threshold"] > 0.01 for each in found["memorisation"].values())  # no image is its own neighbour
    with pytest.raises(GdaError, match="found 3 train images, needs 4 or more"):
        hold_out((training[0][:3], training[1][:3]), nothing, gauge.embed, num_images=9, seed=0)


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_killed_fit_goes_on_and_a_finished_one_is_taken(project, shapes, tmp_path):
    project.write(
        data={"source": str(shapes), "validation_fraction": 0.3},
        fit={"check_every": 10, "save_seconds": 0, "updates": 20},
    )
    project.ok("prepare", "probe")
    process = subprocess.Popen(
        [str(commands() / "gdacli"), "fit", "-C", str(project.folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "GDACLI_WORK": str(tmp_path / "work")},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "work").rglob("state.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    data = project.folder / "data"
    assert not (data / "generator/class_conditional").exists()
    resumed = project("fit")
    assert resumed.code == 0, resumed.stderr
    assert "fit: goes on after update " in resumed.stderr
    weights, metrics = data / "generator/class_conditional" / WEIGHTS, data / "metrics/fit.json"
    files = [weights, metrics, data / "plots/fit.csv", data / "plots/fit_quality.csv"]
    sheets = [data / "preview/fit.png", data / "preview/fit_nearest.png"]
    files += sheets
    sums = [sha256_file(file) for file in files]
    for sheet in sheets:
        sheet.write_bytes(b"of another fit")
    taken = project("fit")
    assert sums == [sha256_file(file) for file in files]
    assert "fit: was finished before" in taken.stderr
    for folder in (tmp_path / "work/trainings").iterdir():
        folder.rename(tmp_path / "aside")
    whole = project("fit")
    assert "goes on" not in whole.stderr + taken.stderr
    assert sums == [sha256_file(file) for file in files]
    assert json.loads(metrics.read_text())["measured_against"] == "validation"
    assert [row[0] for row in rows(data / "plots/fit_quality.csv")] == ["updates", "10", "20"]
    assert (data / "preview/fit.png").read_bytes().startswith(b"\x89PNG")
    assert not list(project.folder.rglob(".tmp-*"))
    assert "Fréchet distance" in whole.stdout
    assert "nearer to a train image than 99 % of real images are" in whole.stdout


def test_variants_of_an_unconditional_model_have_their_sources_label(project):
    for name in ("prepare", "probe", "select"):
        project.ok(name)
    told = [part for value in ("fit.conditional=false", "generate.guidance_scale=1") for part in ("-S", value)]
    fitted = project("fit", *told, "-S", "fit.check_every=3", "-S", "fit.patience=1")
    assert fitted.code == 0, fitted.stderr
    assert "note: fit.patience: there is no validation split, so the checks are against train images" in fitted.stderr
    made = project("generate", *told)
    assert made.code == 0, made.stderr
    data = project.folder / "data"
    labels = {s.key: s.label for path in (data / "source").glob("train-*.tar") for s in read_shard(path)}
    made = [sample for path in (data / "synthetic").glob("train-*.tar") for sample in read_shard(path)]
    assert made
    assert all(sample.label == labels[sample.meta["source_key"]] for sample in made)
