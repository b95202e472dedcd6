"""The variance of mini-batch gradients: how far the gradient of a batch is from that of its arm's whole mix."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from gdacli.augment import augment
from gdacli.batches import batch_bounds, epoch_order
from gdacli.loading import ImageSource
from gdacli.losses import balanced_weights, cross_entropy
from gdacli.memory import guard_memory
from gdacli.models import Classifier
from gdacli.rng import derive_seed


def gradient_moments(gradients: Iterable[Sequence[torch.Tensor]]) -> tuple[float, float]:
    """Return the variance of gradients, and the squared length of their mean.

    Both are unbiased, and summed over all parameters. The memory holds the mean and the gradient at hand.

    Args:
        gradients: n >= 2 independent draws, each a float tensor per parameter.

    Returns:
        E|g - E g|^2 with n - 1 in the denominator, and |E g|^2, whose estimate is below 0 where the mean of n gradients
        is shorter than its noise.

    Raises:
        ValueError: there are fewer than two.

    Source: Welford 1962.
    """
    count = 0
    mean: list[torch.Tensor] = []
    squares = torch.zeros((), dtype=torch.float64)
    for gradient in gradients:
        count += 1
        if count == 1:
            mean = [part.detach().clone() for part in gradient]
            squares = squares.to(mean[0].device)
            continue
        away = torch._foreach_sub([part.detach() for part in gradient], mean)
        squares += (count - 1) / count * _squared_length(away)
        torch._foreach_add_(mean, away, alpha=1 / count)
    if count < 2:
        raise ValueError(f"a variance needs at least two gradients, found {count}")
    variance = squares.item() / (count - 1)
    return variance, _squared_length(mean).item() - variance / count


def _squared_length(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    lengths = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return torch.stack(lengths).square().sum()


def minibatch_gradient_moments(
    model: Classifier,
    images: ImageSource,
    labels: torch.Tensor,
    repeats: torch.Tensor,
    *,
    num_batches: int,
    epoch: int,
    num_classes: int,
    batch_size: int,
    balance: str,
    label_smoothing: float,
    dtype: str,
    augmentations: Mapping[str, Mapping[str, Any]],
    seed: int,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Return `gradient_moments` of mini-batches as `training.train_classifier` draws them, at the weights as they are.

    Each batch is the first one of an order of its own, so that they are independent; a batch itself holds, as in a
    training, no sample of the mix twice unless it is repeated there. The gradient is that of the loss alone: without
    weight decay, clipping, momentum or SAM's ascent. The model, its running statistics and torch's random numbers are
    afterwards as before.

    Args:
        model: on its device; batch normalisation takes the statistics of the batch.
        images: N images, whose batches are on the device of the model.
        labels: int64 [N] in [0, num_classes), on the CPU.
        repeats: int64 [N], how often an epoch shows each image.
        num_batches: n >= 2.
        epoch: whose augmentations are drawn, from 1.
        seed: of the batches, their augmentations and dropout.
        on_batch: called after each batch.

    Others are those of `training.train_classifier`.

    Raises:
        GdaError: a batch does not fit the memory.
    """
    device = next(model.parameters()).device
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    class_weights = balanced_weights(labels, repeats, num_classes).to(device) if balance == "loss" else None
    generator = torch.Generator()
    first, end = batch_bounds(int(repeats.sum()), batch_size)[0]
    count = end - first

    def gradient(x: torch.Tensor, targets: torch.Tensor, count: int) -> Sequence[torch.Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(x)
        losses = cross_entropy(logits, targets, class_weights=class_weights, smoothing=label_smoothing)
        return torch.autograd.grad(losses.sum() / count, parameters, materialize_grads=True)

    def gradients() -> Iterator[Sequence[torch.Tensor]]:
        orders = [
            epoch_order(labels, repeats, derive_seed(seed, number), epoch, equal_classes=balance == "sampling")[:count]
            for number in range(num_batches)
        ]
        order = torch.cat(orders)
        arriving = images.batches(epoch, order, [(place, place + count) for place in range(0, len(order), count)])
        for number, pixels in enumerate(arriving):
            torch.manual_seed(derive_seed(seed, "network", number))
            generator.manual_seed(derive_seed(seed, "augment", number))
            truth = labels[orders[number]].to(device)
            targets = F.one_hot(truth, num_classes).float()
            x, targets = augment(pixels, targets, generator, augmentations, epoch=epoch, attention=model.attention)
            yield guard_memory(gradient, x, targets, count, alone=True)
            on_batch()

    with _undisturbed(model):
        return gradient_moments(gradients())


@contextlib.contextmanager
def _undisturbed(model: Classifier) -> Iterator[None]:
    """Within, the model trains; afterwards its mode, its buffers and torch's random numbers are as before."""
    device = next(model.parameters()).device
    training = model.training
    kept = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            model.train()
            yield
        finally:
            model.train(training)
            with torch.no_grad():
                for buffer, before in zip(model.buffers(), kept, strict=True):
                    buffer.copy_(before)
