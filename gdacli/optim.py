"""Optimizers, learning-rate schedules, and the moving average of weights."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn


def make_optimizer(
    parameters: Iterable[nn.Parameter], name: str, *, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> torch.optim.Optimizer:
    """Return SGD (`sgd`) or AdamW (`adamw`, whose first beta is `momentum`) over all of `parameters`."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, betas=(momentum, 0.999), weight_decay=weight_decay)
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov)


def learning_rate(
    schedule: str,
    lr: float,
    update: int,
    updates: int,
    warmup: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
) -> float:
    """Return the learning rate of an update.

    Args:
        schedule: `constant`; `piecewise`: divided by 10 at each milestone; `cosine`: down to 0; `one_cycle`: from lr /
            25 up to lr, down to lr / 250,000, both as half cosines (torch's OneCycleLR with its defaults; the momentum
            stays).
        lr: the highest learning rate.
        update: in [0, updates).
        updates: in all.
        warmup: share of the updates in which the rate rises (linearly, from the first update on, but for `one_cycle`,
            whose `pct_start` it is); what follows is not shifted.
        milestones: of `piecewise`, shares of the updates, in (0, 1).

    Source: 50 % and 75 %: the targeted-augmentation paper's cited setup (METHODS).
    """
    if schedule == "one_cycle":
        top = max(warmup * updates - 1, 0.0)
        if update < top:
            return _half_cosine(lr / 25, lr, update / top)
        return _half_cosine(lr, lr / 25e4, (update - top) / max(updates - 1 - top, 1.0))
    progress = update / updates
    rise = min(1.0, (update + 1) / (warmup * updates)) if warmup else 1.0
    if schedule == "piecewise":
        return rise * lr * 10.0 ** -sum(progress >= milestone for milestone in milestones)
    if schedule == "cosine":
        return rise * _half_cosine(lr, 0.0, progress)
    return rise * lr


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the weights and running statistics of `average` towards the model's: decay x old + (1 - decay) x new."""
    new = model.state_dict()
    pairs = [(old, new[name]) for name, old in average.state_dict().items()]
    with torch.no_grad():
        floating = [(old, value) for old, value in pairs if old.is_floating_point()]
        torch._foreach_lerp_([old for old, _ in floating], [value for _, value in floating], 1 - decay)
        for old, value in pairs:
            if not old.is_floating_point():
                old.copy_(value)


@contextlib.contextmanager
def moved(parameters: Sequence[torch.Tensor], steps: Sequence[torch.Tensor], scale: float = 1.0) -> Iterator[None]:
    """Within, each of the parameters is off by its step times `scale`; afterwards its bits are as before."""
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        torch._foreach_add_(list(parameters), list(steps), alpha=scale)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), kept)
