import copy
from typing import Any

import pytest
import torch
from torch import nn

from gdacli.optim import average_into, learning_rate, make_optimizer


def test_schedules():
    assert [learning_rate("piecewise", 0.1, update, 100) for update in (0, 49, 50, 74, 75, 99)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert [learning_rate("cosine", 0.1, update, 4) for update in (0, 2, 4)] == pytest.approx([0.1, 0.05, 0])
    assert learning_rate("constant", 0.1, 9, 10) == 0.1
    epochs = [0, 59, 60, 119, 120, 159, 160, 199]  # the paper's 60, 120 and 160 of 200
    rates = [learning_rate("piecewise", 0.01, epoch, 200, milestones=[0.3, 0.6, 0.8]) for epoch in epochs]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert learning_rate("piecewise", 0.1, 9, 10, milestones=[]) == 0.1


@pytest.mark.parametrize("schedule", ["constant", "piecewise", "cosine"])
def test_warmup_rises_linearly_and_shifts_nothing(schedule):
    with_warmup, without = (
        [learning_rate(schedule, 0.1, update, 20, warmup) for update in range(20)] for warmup in (0.2, 0.0)
    )
    assert with_warmup[:4] == pytest.approx([share * rate for share, rate in zip((0.25, 0.5, 0.75, 1), without)])
    assert with_warmup[4:] == without[4:]


@pytest.mark.parametrize(("steps", "warmup"), [(40, 0.25), (7, 0.3), (391, 0.025)])
def test_one_cycle_is_torchs(steps, warmup):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.2)
    options: dict = {"total_steps": steps, "pct_start": warmup, "cycle_momentum": False}
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, **options)
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate("one_cycle", 0.2, step, steps, warmup) == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        theirs.step()


def test_momentum_is_the_first_beta_of_adamw():
    optimizer = make_optimizer(
        [nn.Parameter(torch.zeros(1))], "adamw", lr=0.1, momentum=0.8, nesterov=False, weight_decay=0.3
    )
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["betas"], group["weight_decay"]) == ("AdamW", (0.8, 0.999), 0.3)


def test_the_average_follows_weights_and_statistics():
    model: Any = nn.BatchNorm1d(2)
    average = copy.deepcopy(model)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.running_mean.fill_(10.0)
    model.num_batches_tracked.fill_(5)
    average_into(average, model, 0.9)
    assert average.weight.tolist() == pytest.approx([1.2, 1.2])
    assert average.running_mean.tolist() == pytest.approx([1.0, 1.0])
    assert average.num_batches_tracked.item() == 5
