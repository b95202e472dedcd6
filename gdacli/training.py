"""The training loop, and predictions."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from gdacli.augment import augment
from gdacli.errors import GdaError
from gdacli.losses import cross_entropy


@dataclass(frozen=True)
class Epoch:
    """What is known of an epoch after it: mean loss (nats) and error (%) on the augmented batches it trained on."""

    epoch: int
    updates: int
    """Since the start, as is `images`: the number of images seen, repeats counted."""
    images: int
    lr: float
    loss: float
    error: float


def learning_rate(schedule: str, lr: float, progress: float) -> float:
    """Return the learning rate at a share of the training, `progress` in [0, 1).

    `piecewise`: lr x 1, 0.1, 0.01, switching at 50 % and 75 % (targeted-augmentation paper's cited setup).
    """
    if schedule == "piecewise":
        return lr * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * progress))
    return lr


def num_batches(num_samples: int, batch_size: int) -> int:
    """Return the number of updates in an epoch; a last batch of one sample joins the one before it."""
    return max(1, math.ceil((num_samples - 1) / batch_size)) if num_samples > 1 else 1


def train_classifier(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    repeats: torch.Tensor,
    *,
    num_classes: int,
    updates: int,
    batch_size: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    schedule: str,
    augmentations: Mapping[str, Mapping[str, Any]],
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train `model` in place with SGD.

    Args:
        model: on the device of `images`.
        images: uint8 [N, 3, H, W].
        labels: int64 [N] in [0, num_classes).
        repeats: int64 [N], how often an epoch shows each image.
        updates: optimizer steps in all; the last epoch may be cut short.
        weight_decay: on all parameters, in the gradient.
        augmentations: name -> options.
        seed: of the order and of the augmentations.
        on_epoch: called after each epoch.

    Raises:
        GdaError: the loss or a weight is not a number.

    Source: the cited setup of the targeted-augmentation paper (METHODS: inputs in [0, 1], no normalisation).
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay)
    samples = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
    per_epoch = num_batches(len(samples), batch_size)
    update = epoch = images_seen = 0
    while update < updates:
        model.train()
        order = samples[torch.randperm(len(samples), generator=generator)]
        loss_sum = torch.zeros((), device=images.device)
        wrong = torch.zeros((), device=images.device)
        seen = 0
        for batch in _batches(order, batch_size, min(per_epoch, updates - update)):
            rate = learning_rate(schedule, lr, update / updates)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batch.to(images.device)
            targets = F.one_hot(labels[batch], num_classes).float()
            x, targets = augment(images[batch].float() / 255, targets, generator, augmentations)
            logits = model(x)
            loss = cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update += 1
            seen += len(batch)
            loss_sum += loss.detach() * len(batch)
            wrong += (logits.detach().argmax(1) != labels[batch]).sum()
        epoch += 1
        images_seen += seen
        finite = math.isfinite(loss_sum.item()) and all(part.isfinite().all() for part in model.state_dict().values())
        if not finite:
            raise GdaError(f"loss or weights are no longer numbers after epoch {epoch} (lr {rate:g}): lower lr")
        on_epoch(Epoch(epoch, update, images_seen, rate, loss_sum.item() / seen, 100 * wrong.item() / seen))


def predict(
    model: nn.Module,
    images: torch.Tensor,
    batch_size: int = 256,
    output: Callable[[nn.Module, torch.Tensor], torch.Tensor] = lambda model, x: model(x),
) -> torch.Tensor:
    """Return the logits, float32 [N, C] on the CPU, of images uint8 [N, 3, H, W], without augmentation.

    `output` takes something else from the model, such as `models.unit_features`.
    """
    model.eval()
    with torch.inference_mode():
        return torch.cat([output(model, part.float() / 255).float().cpu() for part in images.split(batch_size)])


def _batches(order: torch.Tensor, batch_size: int, count: int) -> Iterator[torch.Tensor]:
    for index in range(count):
        stop = (index + 1) * batch_size
        if len(order) - stop == 1:
            stop += 1
        yield order[index * batch_size : stop]
