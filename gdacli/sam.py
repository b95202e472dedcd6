"""Sharpness-aware minimisation: the gradient is taken where the loss is highest nearby."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gdacli.batches import batch_bounds
from gdacli.optim import moved

Gradients = list[torch.Tensor]

Outcome = tuple[Gradients, torch.Tensor, torch.Tensor]
"""The gradient of (sum of losses) / B, the losses [b], the logits [b, C]."""

GradientsOf = Callable[[torch.Tensor, torch.Tensor, int], Outcome]
"""(x [b, 3, H, W], targets [b, C], B) => its outcome."""


def sam_gradients(
    gradients: GradientsOf,
    model: nn.Module,
    parameters: Sequence[torch.Tensor],
    x: torch.Tensor,
    targets: torch.Tensor,
    count: int,
    *,
    rho: float,
    adaptive: bool,
    m: int | None,
    decay: float,
    batch_norm: str,
    sum_: Callable[[Gradients], None],
) -> Outcome:
    """Return a process's part of SAM's gradient, and losses and logits of the first pass.

    Args:
        gradients: of the loss at the parameters' values.
        model: whose batch normalisation is meant by `batch_norm`.
        parameters: moved meanwhile; their bits are the same before and after.
        x: the process's share [b, 3, H, W] of a batch of `count` images.
        targets: soft labels [b, C].
        count: images of the batch.
        rho: length of the ascent step.
        adaptive: see `ascended`.
        m: images that share an ascent step (a last one alone joins the group before); None is the whole batch, of all
            processes.
        decay: weight decay that is part of the loss: in the ascent, and in the gradient at the point reached.
        batch_norm: passes that move the running statistics, `both` or `first`. With m, they move once a batch, by the
            mean of what its groups would do.
        sum_: adds gradients over all processes, in place.

    Source: Foret et al. 2021, Algorithm 1; m: section 4.1 there. Decay in the loss and statistics that move in both
    passes are of the code that the targeted-augmentation paper cites (METHODS).
    """
    total: Gradients = []
    statistics = [] if m is None else _running_statistics(model)
    kept = [each.clone() for each in statistics]
    means = [torch.zeros_like(each) for each in statistics]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    bounds = [(0, len(x))] if m is None else batch_bounds(len(x), m)
    for first, end in bounds:
        part, part_targets = x[first:end], targets[first:end]
        for each, before in zip(statistics, kept, strict=True):
            each.copy_(before)
        ascent, losses, logits = gradients(part, part_targets, count if m is None else max(len(part), 1))
        if m is None:
            sum_(ascent)
        add_decay(ascent, parameters, decay)
        second = running_statistics_kept(model) if batch_norm == "first" else contextlib.nullcontext()
        with ascended(parameters, ascent, rho=rho, adaptive=adaptive), second:
            descent, _, _ = gradients(part, part_targets, count)
            add_decay(descent, parameters, decay * len(part) / count)
        total = descent if not total else list(torch._foreach_add(total, descent))
        seen.append((losses, logits))
        for mean, each in zip(means, statistics, strict=True):
            mean.add_(each, alpha=len(part) / count)
    sum_(means)
    for each, mean in zip(statistics, means, strict=True):
        each.copy_(mean)
    return total, torch.cat([losses for losses, _ in seen]), torch.cat([logits for _, logits in seen])


@contextlib.contextmanager
def ascended(parameters: Sequence[torch.Tensor], gradients: Gradients, *, rho: float, adaptive: bool) -> Iterator[None]:
    """Within, the parameters are where the loss is highest nearby, to first order; afterwards they are as before.

    The gradients are used up: they become the step.

    w + rho g / (||g|| + 1e-12), with one Euclidean norm over all parameters; `adaptive`: with T = |w| for every weight,
    w + rho T^2 g / (||T g|| + 1e-12).

    Source: Foret et al. 2021, Eq. 2; adaptive: Kwon et al. 2021, Eq. 8 with T = |w|; the 1e-12 is of the code that the
    targeted-augmentation paper cites.
    """
    scales = torch._foreach_abs([parameter.detach() for parameter in parameters]) if adaptive else None
    if scales:
        torch._foreach_mul_(gradients, scales)
    factor = rho / (torch.nn.utils.get_total_norm(gradients) + 1e-12)
    if scales:
        torch._foreach_mul_(gradients, scales)
    torch._foreach_mul_(gradients, factor)
    with moved(parameters, gradients):
        yield


def add_decay(gradients: Gradients, parameters: Sequence[torch.Tensor], decay: float) -> None:
    """Add the gradient of decay / 2 x ||w||^2, in place."""
    if decay:
        torch._foreach_add_(gradients, [parameter.detach() for parameter in parameters], alpha=decay)


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Return those that move; frozen ones do not."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    found = [statistics for layer in layers for statistics in (layer.running_mean, layer.running_var)]
    return [statistics for statistics in found if statistics is not None]


@contextlib.contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within, batch normalisation uses the batch's statistics and leaves its running ones as they are."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    kept = [(layer, layer.momentum) for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in kept:
            layer.momentum = momentum
