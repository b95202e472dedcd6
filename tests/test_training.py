import io
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdacli.batches import batch_bounds, epoch_order
from gdacli.errors import GdaError
from gdacli.loading import InMemory
from gdacli.models import Classifier, create_model
from gdacli.training import Epoch, predict, train_classifier


@given(st.integers(2, 500), st.integers(2, 64))
def test_an_epoch_shows_every_sample_once_and_no_batch_holds_one(num_samples, batch_size):
    bounds = batch_bounds(num_samples, batch_size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_samples
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    assert all(2 <= end - start <= batch_size + 1 for start, end in bounds)


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Give images whose upper (0) or lower (1) half is lighter."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (60, 3, 8, 8), generator=generator)
    labels = torch.arange(60) % 2
    images[labels == 0, :, :4] += 100
    images[labels == 1, :, 4:] += 100
    return images.to(torch.uint8), labels


SAM = {"rho": 0.1, "adaptive": False, "m": None, "weight_decay_in_ascent": True, "batch_norm": "both"}
SETTINGS: dict[str, Any] = {
    "num_classes": 2, "updates": 30, "batch_size": 16, "optimizer": "sgd", "lr": 0.05, "momentum": 0.9,
    "nesterov": False, "weight_decay": 5e-4, "sam": None, "schedule": "piecewise", "warmup": 0.0,
    "label_smoothing": 0.0, "clip_norm": None, "ema_decay": None, "balance": "none", "dtype": "float32",
    "compile": False, "augmentations": {"crop": {"padding": 1}}, "seed": 0,
}  # fmt: skip


def train(repeats: torch.Tensor | None = None, dropout: bool = False, **options: Any) -> tuple[dict, list[Epoch]]:
    torch.set_num_threads(1)
    images, labels = halves()
    model = create_model("convnet", 2, {"width": 4}, 0)
    if dropout:
        model.net.features.append(torch.nn.Dropout(0.5))
    epochs: list[Epoch] = []
    repeats = torch.ones(60, dtype=torch.int64) if repeats is None else repeats
    source = InMemory(images)
    train_classifier(model, source, labels, repeats, **{**SETTINGS, "on_epoch": epochs.append, **options})
    wrong = (predict(model, source.in_order()).argmax(1) != labels).float().mean().item()
    return {"state": model.state_dict(), "error": wrong}, epochs


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one["state"][name], two["state"][name]) for name in one["state"])


def test_it_learns_and_counts():
    result, epochs = train()
    assert result["error"] < 0.05
    assert [(epoch.epoch, epoch.updates, epoch.images) for epoch in epochs] == [
        (1, 4, 60), (2, 8, 120), (3, 12, 180), (4, 16, 240), (5, 20, 300), (6, 24, 360), (7, 28, 420), (8, 30, 452),
    ]  # fmt: skip
    assert epochs[-1].lr == pytest.approx(0.0005)
    assert epochs[-1].loss < epochs[0].loss


def test_equal_seeds_give_equal_weights_and_others_do_not():
    one, two, other = train(seed=1)[0], train(seed=1)[0], train(seed=2)[0]
    assert same(one, two)
    assert not same(one, other)


def test_repeats_are_seen_more_often():
    repeats = torch.where(torch.arange(60) < 10, 3, 1)
    _, epochs = train(repeats=repeats, updates=5)
    assert [(epoch.updates, epoch.images) for epoch in epochs] == [(5, 80)]


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(
        GdaError, match=r"loss or weights are no longer numbers after epoch \d+ \(lr 1e\+30\): lower lr"
    ):
        train(lr=1e30)


VARIANTS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "lr": 0.02, "schedule": "cosine", "warmup": 0.2},
    {"nesterov": True, "schedule": "one_cycle", "warmup": 0.25},
    {"sam": SAM},
    {"sam": {**SAM, "m": 4, "adaptive": True, "rho": 1.0, "batch_norm": "first", "weight_decay_in_ascent": False}},
    {"sam": SAM, "optimizer": "adamw", "lr": 0.02, "clip_norm": 1.0},
    {"label_smoothing": 0.1, "clip_norm": 2.0, "ema_decay": 0.5},
    {"balance": "sampling", "dtype": "bfloat16"},
]


@pytest.fixture(scope="module")
def plain() -> dict:
    return train(updates=25)[0]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_way_of_training_learns_and_none_is_another(options, plain):
    result, _ = train(updates=25, **options)
    assert result["error"] < 0.05
    assert not same(result, plain)


def test_a_balanced_loss_weighs_the_classes():
    repeats = torch.where(torch.arange(60) % 2 == 0, 3, 1)
    weighed, _ = train(repeats=repeats, updates=8, balance="loss")
    assert not same(weighed, train(repeats=repeats, updates=8)[0])
    equal, _ = train(updates=8, balance="loss")
    assert same(equal, train(updates=8)[0])


class Saved:
    """Keeps every state as a file would, and can interrupt the training after one."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.states: list[bytes] = []
        self.stop_at = stop_at

    def due(self) -> bool:
        return True

    def save(self, state: dict[str, Any]) -> None:
        if state["update"] == self.stop_at:
            raise KeyboardInterrupt
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.states.append(buffer.getvalue())


@pytest.mark.parametrize(
    ("options", "stop_at"),  # in the middle of an epoch, and at its start
    [
        ({"keep_best": True, "clip_norm": 1.0, "augmentations": {}}, 6),
        ({"ema_decay": 0.5, "balance": "sampling"}, 8),
        ({"optimizer": "adamw", "schedule": "one_cycle", "warmup": 0.25, "dtype": "bfloat16"}, 7),
        ({"sam": {**SAM, "m": 4, "batch_norm": "first"}}, 4),
        ({"dropout": True, "augmentations": {"snap_mix": {}}}, 5),
    ],
    ids=str,
)
def test_a_training_that_goes_on_gives_the_bits_of_one_that_was_not_interrupted(options, stop_at):
    options = {"updates": 10, "validate": lambda model: (model.net.head.weight.sum().item() % 7, 0.5), **options}
    whole, epochs = train(**options)
    saved = Saved(stop_at)
    with pytest.raises(KeyboardInterrupt):
        train(keeper=saved, **options)
    state = torch.load(io.BytesIO(saved.states[-1]), weights_only=True)
    assert state["update"] == stop_at - 1
    resumed, seen = train(state=state, **options)
    assert same(resumed, whole)
    assert seen == epochs


def test_the_best_weights_on_validation_are_kept():
    errors = iter([40.0, 10.0, 30.0, 10.0])
    states = []

    def validate(model: Classifier) -> tuple[float, float]:
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(errors), 0.25

    result, epochs = train(updates=16, validate=validate, keep_best=True)
    assert [epoch.validation_error for epoch in epochs] == [40, 10, 30, 10]
    assert {epoch.validation_loss for epoch in epochs} == {0.25}
    assert same(result, {"state": states[1]})


def test_the_order_of_an_epoch_hangs_on_seed_and_epoch():
    labels, repeats = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 2, 1, 1])
    one = epoch_order(labels, repeats, 3, 5)
    assert torch.equal(one, epoch_order(labels, repeats, 3, 5))
    assert sorted(one.tolist()) == [0, 1, 1, 2, 3]
    assert any(not torch.equal(one, epoch_order(labels, repeats, 3, epoch)) for epoch in range(10))


def test_balanced_sampling_shows_each_class_equally_often_and_its_images_by_their_repeats():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    repeats = torch.where(torch.arange(1000) < 450, 2, 1)
    order = epoch_order(labels, repeats, 0, 1, equal_classes=True)
    assert len(order) == 1450
    shares = torch.bincount(labels[order]) / len(order)
    assert torch.allclose(shares, torch.tensor(1 / 3), atol=0.05)
    assert (order < 450).sum() / (labels[order] == 0).sum() == pytest.approx(2 / 3, abs=0.08)


def test_a_batch_that_does_not_fit_names_the_size_that_does():
    images, labels = halves()
    model = create_model("convnet", 2, {"width": 4}, 0)

    class Small(torch.nn.Module):
        """A network on a device with room for 6 images."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model.net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 6:
                raise torch.OutOfMemoryError("out of memory")
            return self.net(x)

    small = Classifier(Small())
    repeats = torch.ones(60, dtype=torch.int64)
    with pytest.raises(
        GdaError, match=r"batch_size: 16 images of 3 x 8 x 8 do not fit the memory of cpu; 4 does: set it"
    ):
        train_classifier(small, InMemory(images), labels, repeats, **{**SETTINGS, "on_epoch": lambda epoch: None})
