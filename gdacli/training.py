"""The training loop, and predictions."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from gdacli.augment import augment
from gdacli.errors import GdaError
from gdacli.loading import ImageSource
from gdacli.losses import cross_entropy
from gdacli.models import Classifier


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


def batch_bounds(num_samples: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut an epoch into batches: per batch the first sample and the one after the last.

    A last batch of one sample joins the one before it (batch normalisation cannot do with one).
    """
    starts = list(range(0, max(num_samples - 1, 1), batch_size))
    return list(zip(starts, [*starts[1:], num_samples], strict=True))


def train_classifier(
    model: Classifier,
    images: ImageSource,
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
        model: on its device.
        images: N images, whose batches are on the device of the model.
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
    update = epoch = images_seen = 0
    while update < updates:
        model.train()
        order = samples[torch.randperm(len(samples), generator=generator)]
        loss_sum = torch.zeros((), device=labels.device)
        wrong = torch.zeros((), device=labels.device)
        seen = 0
        bounds = batch_bounds(len(order), batch_size)[: updates - update]
        for (first, end), pixels in zip(bounds, images.batches(epoch + 1, order, bounds), strict=True):
            rate = learning_rate(schedule, lr, update / updates)
            for group in optimizer.param_groups:
                group["lr"] = rate
            truth = labels[order[first:end].to(labels.device)]
            targets = F.one_hot(truth, num_classes).float()
            x, targets = augment(pixels.float() / 255, targets, generator, augmentations)
            logits = model(x)
            loss = cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update += 1
            seen += len(truth)
            loss_sum += loss.detach() * len(truth)
            wrong += (logits.detach().argmax(1) != truth).sum()
        epoch += 1
        images_seen += seen
        finite = math.isfinite(loss_sum.item()) and all(part.isfinite().all() for part in model.state_dict().values())
        if not finite:
            raise GdaError(f"loss or weights are no longer numbers after epoch {epoch} (lr {rate:g}): lower lr")
        on_epoch(Epoch(epoch, update, images_seen, rate, loss_sum.item() / seen, 100 * wrong.item() / seen))


def predict(
    model: Classifier,
    batches: Iterable[torch.Tensor],
    output: Callable[[Classifier, torch.Tensor], torch.Tensor] = Classifier.__call__,
) -> torch.Tensor:
    """Return the logits, float32 [N, C] on the CPU, of batches uint8 [B, 3, H, W], such as `source.in_order()`.

    `output` takes something else from the model, such as `Classifier.unit_features`.
    """
    model.eval()
    with torch.inference_mode():
        return torch.cat([output(model, batch.float() / 255).float().cpu() for batch in batches])
