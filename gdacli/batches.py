"""The order of an epoch's images, and how it is cut into batches."""

import torch

from gdacli.rng import derive_seed


def batch_bounds(num_samples: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut an epoch into batches: per batch the first sample and the one after the last.

    A last batch of one sample joins the one before it (batch normalisation cannot do with one).
    """
    starts = list(range(0, max(num_samples - 1, 1), batch_size))
    return list(zip(starts, [*starts[1:], num_samples], strict=True))


def epoch_order(
    labels: torch.Tensor, repeats: torch.Tensor, seed: int, epoch: int, equal_classes: bool = False
) -> torch.Tensor:
    """Return the rows that an epoch shows, in order; they depend on the seed and the epoch alone.

    Args:
        labels: int64 [N].
        repeats: int64 [N], how often an epoch shows each image.
        seed: of the training.
        epoch: from 1.
        equal_classes: draw as many, with replacement, each class as often as any other.

    Returns:
        int64 [sum of repeats].
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    samples = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
    if equal_classes:
        counts = torch.bincount(labels[samples]).double()
        ends = (1 / counts)[labels[samples]].cumsum(0)
        draws = torch.rand(len(samples), generator=generator, dtype=torch.float64) * ends[-1]
        return samples[torch.searchsorted(ends, draws, right=True).clamp(max=len(samples) - 1)]
    return samples[torch.randperm(len(samples), generator=generator)]
