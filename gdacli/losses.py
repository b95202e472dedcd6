"""Training objectives on logits and soft targets."""

import torch
import torch.nn.functional as F


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, *, class_weights: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the cross-entropy of each image in nats, float32 [B].

    Args:
        logits: float [B, C].
        targets: float [B, C], rows that sum to 1 (SnapMix's need not).
        class_weights: float [C], factors of the loss; None is 1.
        smoothing: share of each label spread evenly over all classes, in [0, 1).
    """
    return F.cross_entropy(logits.float(), targets, class_weights, reduction="none", label_smoothing=smoothing)


def balanced_weights(labels: torch.Tensor, repeats: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return weights of the classes that make each count the same in the loss, with a mean of 1 over an epoch.

    Args:
        labels: int64 [N].
        repeats: int64 [N], how often an epoch shows each image.
        num_classes: C.

    Returns:
        float32 [C]: images an epoch / (classes x images of the class an epoch).
    """
    counts = torch.zeros(num_classes, dtype=torch.int64).index_add_(0, labels, repeats)
    return counts.sum() / ((counts > 0).sum() * counts.clamp(min=1)).float()
