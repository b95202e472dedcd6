"""Losses of each image, on logits and features."""

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


def pseudo_consistency(strong: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean distance of two views' features, float [B].

    Args:
        strong: float [B, D], features of the strongly augmented images.
        plain: float [B, D], of the same images as they are; both get gradients.

    Source: meta-generative-regularization paper, Eq. 5.
    """
    return (strong - plain).square().sum(1)


def uda_consistency(
    strong: torch.Tensor, plain: torch.Tensor, *, temperature: float, confidence: float
) -> torch.Tensor:
    """Return the divergence of two views' predictions in nats, float [B]: 0 where the plain one is not confident.

    Args:
        strong: logits float [B, C] of the strongly augmented images.
        plain: logits float [B, C] of the same images as they are; they get no gradient.
        temperature: of the plain prediction that is aimed at; below 1 sharpens it.
        confidence: probability that the plain prediction must have at temperature 1, in [0, 1).

    Source: Xie et al. 2020 (UDA), section 2.2 (sharpening, confidence-based masking), without signal annealing, which
    is of its supervised part.
    """
    plain = plain.detach()
    aim = F.log_softmax(plain / temperature, 1)
    divergence = F.kl_div(F.log_softmax(strong, 1), aim, reduction="none", log_target=True).sum(1)
    return divergence * (plain.softmax(1).amax(1) >= confidence)


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
