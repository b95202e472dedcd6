from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdacli.errors import GdaError
from gdacli.loading import InMemory
from gdacli.models import create_model
from gdacli.training import Epoch, batch_bounds, learning_rate, predict, train_classifier


@given(st.integers(2, 500), st.integers(2, 64))
def test_an_epoch_shows_every_sample_once_and_no_batch_holds_one(num_samples, batch_size):
    bounds = batch_bounds(num_samples, batch_size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_samples
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    assert all(2 <= end - start <= batch_size + 1 for start, end in bounds)


def test_schedules():
    assert [learning_rate("piecewise", 0.1, p) for p in (0, 0.49, 0.5, 0.74, 0.75, 0.99)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert [learning_rate("cosine", 0.1, p) for p in (0, 0.5, 1)] == pytest.approx([0.1, 0.05, 0])
    assert learning_rate("constant", 0.1, 0.9) == 0.1


def train(seed: int = 0, repeats: torch.Tensor | None = None, **options: Any) -> tuple[dict, list[Epoch]]:
    """Learn whether the upper or the lower half of an image is lighter."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (60, 3, 8, 8), generator=generator)
    labels = torch.arange(60) % 2
    images[labels == 0, :, :4] += 100
    images[labels == 1, :, 4:] += 100
    model = create_model("convnet", 2, {"width": 4}, 0)
    epochs: list[Epoch] = []
    settings: dict[str, Any] = {
        "num_classes": 2, "updates": 30, "batch_size": 16, "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "piecewise", "augmentations": {"crop": {"padding": 1}}, "seed": seed, "on_epoch": epochs.append,
        **options,
    }  # fmt: skip
    repeats = torch.ones(60, dtype=torch.int64) if repeats is None else repeats
    source = InMemory(images.to(torch.uint8))
    train_classifier(model, source, labels, repeats, **settings)
    wrong = (predict(model, source.in_order()).argmax(1) != labels).float().mean().item()
    return {"state": model.state_dict(), "error": wrong}, epochs


def test_it_learns_and_counts():
    result, epochs = train()
    assert result["error"] < 0.05
    assert [(epoch.epoch, epoch.updates, epoch.images) for epoch in epochs] == [
        (1, 4, 60), (2, 8, 120), (3, 12, 180), (4, 16, 240), (5, 20, 300), (6, 24, 360), (7, 28, 420), (8, 30, 452),
    ]  # fmt: skip
    assert epochs[-1].lr == pytest.approx(0.0005)
    assert epochs[-1].loss < epochs[0].loss


def test_equal_seeds_give_equal_weights_and_others_do_not():
    one, two, other = train(1)[0], train(1)[0], train(2)[0]
    assert all(torch.equal(one["state"][name], two["state"][name]) for name in one["state"])
    assert not torch.equal(one["state"]["net.head.weight"], other["state"]["net.head.weight"])


def test_repeats_are_seen_more_often():
    repeats = torch.where(torch.arange(60) < 10, 3, 1)
    _, epochs = train(repeats=repeats, updates=5)
    assert [(epoch.updates, epoch.images) for epoch in epochs] == [(5, 80)]


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(
        GdaError, match=r"loss or weights are no longer numbers after epoch \d+ \(lr 1e\+30\): lower lr"
    ):
        train(lr=1e30)
