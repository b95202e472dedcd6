import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gdacli.gradient_variance import minibatch_gradient_moments
from gdacli.loading import InMemory
from gdacli.models import create_model, save_weights
from gdacli.plots import gradient_variance_plot
from gdacli.replays import gradient_rows
from gdacli.rng import derive_seed
from gdacli.training_store import TrainingStore
from gdacli.trainings import Training, fit

LOOP: dict[str, Any] = {
    "batch_size": 16, "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "label_smoothing": 0.1,
    "clip_norm": None, "balance": "none", "dtype": "float32", "compile": False, "optimizer": "sgd", "sam": None,
    "augmentations": {"crop": {"padding": 1}},
}  # fmt: skip
COURSE: dict[str, Any] = {
    "schedule": "piecewise", "warmup": 0.0, "ema_decay": None, "validate": None, "keep_best": False,
}  # fmt: skip
SAM = {"rho": 0.1, "adaptive": False, "m": None, "weight_decay_in_ascent": True, "batch_norm": "first"}


def training(seed: int = 0, **options: Any) -> Training:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), generator=generator).to(torch.uint8)
    model = create_model("convnet", 2, {"width": 4}, 0)
    model.net.features.append(torch.nn.Dropout(0.2))
    return Training(
        model=model,
        images=InMemory(images),
        labels=torch.arange(60) % 2,
        repeats=torch.where(torch.arange(60) < 10, 2, 1),
        num_classes=2,
        updates=12,
        per_epoch=5,
        seed=seed,
        objective=None,
        loop={**LOOP, **{key: value for key, value in options.items() if key in LOOP}},
        course={**COURSE, **{key: value for key, value in options.items() if key in COURSE}},
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingStore:
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    return TrainingStore("0" * 64, 30)


def checkpoint(folder: Path, trained: Training) -> Path:
    fit(trained, on_epoch=lambda epoch: None, on_update=lambda update, count: None)
    folder.mkdir(exist_ok=True)
    save_weights(trained.model, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"ema_decay": 0.5, "augmentations": {"snap_mix": {}}},
        {"optimizer": "adamw", "lr": 0.01, "sam": SAM, "balance": "sampling", "dtype": "bfloat16"},
        {"keep_best": True, "validate": lambda model: (model.net.head.weight.sum().item() % 7, 0.5), "clip_norm": 1.0},
    ],
    ids=["ema", "sam", "best"],
)
def test_a_replay_measures_every_epoch_and_ends_with_the_weights_of_the_training(options, store, tmp_path, capsys):
    folder = checkpoint(tmp_path / "trained", training(**options))
    rows = gradient_rows("one-0", store, folder, 4, lambda: training(**options))
    assert [(row.epoch, row.updates) for row in rows] == [(0, 0), (1, 5), (2, 10), (3, 12)]
    assert all(row.gradient_variance > 0 for row in rows)
    shown = capsys.readouterr().err
    assert "replay one-0: 28/28 batches" in shown
    assert "other weights" not in shown


def test_what_was_measured_is_found_again(store, tmp_path, capsys):
    folder = checkpoint(tmp_path / "trained", training())

    def never() -> Training:
        raise AssertionError

    rows = gradient_rows("one-0", store, folder, 3, training)
    assert gradient_rows("one-0", store, folder, 3, never) == rows
    with pytest.raises(AssertionError):  # another number of batches is another measurement
        gradient_rows("one-0", store, folder, 2, never)
    capsys.readouterr()
    kept = next(store.folder.glob("*.json"))
    kept.write_text(kept.read_text()[:-9])
    assert gradient_rows("one-0", store, folder, 3, training) == rows
    assert f"warning: {kept} is damaged; it is measured again" in capsys.readouterr().err


def test_weights_of_another_training_are_said_each_time(store, tmp_path, capsys):
    folder = checkpoint(tmp_path / "trained", training(seed=1))
    for _ in range(2):
        gradient_rows("one-0", store, folder, 2, training)
        assert f"note: one-0: replayed for its gradient variance it ended with other weights than {folder} holds" in (
            capsys.readouterr().err
        )


def test_the_first_row_is_of_the_first_weights(store, tmp_path):
    folder = checkpoint(tmp_path / "trained", training())
    first = gradient_rows("one-0", store, folder, 3, training)[0]
    new = training()
    names = ("batch_size", "balance", "label_smoothing", "dtype", "augmentations")
    variance, norm_sq = minibatch_gradient_moments(
        new.model, new.images, new.labels, new.repeats, num_batches=3, epoch=1, num_classes=2,
        seed=derive_seed(0, "gradient_variance", 0), **{name: LOOP[name] for name in names},
    )  # fmt: skip
    assert (first.gradient_variance, first.gradient_norm_sq) == (variance, norm_sq)


def test_the_plot_is_logarithmic_and_names_every_arm():
    curves: dict[str, dict[str, list[float]]] = {
        "one": {"updates": [0, 10, 20], "gradient_variance": [1.0, 0.1, 0.01]},
        "two": {"updates": [0, 20], "gradient_variance": [0.5, 0.5]},
    }
    svg = gradient_variance_plot(curves)
    assert svg == gradient_variance_plot(curves)
    assert ">one<" in svg
    assert ">two<" in svg
    line = re.search(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n"', svg)
    assert line is not None
    heights = [float(line[group]) for group in (2, 4, 6)]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=1e-3)
