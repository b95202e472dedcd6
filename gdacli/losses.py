"""Training objectives on logits and soft targets."""

import torch
import torch.nn.functional as F


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats.

    Args:
        logits: float [B, C].
        targets: float [B, C], rows that sum to 1.
    """
    return F.cross_entropy(logits, targets)
