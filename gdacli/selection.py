"""Selection strategies: which training images are learned late.

A strategy is a function `(dynamics, labels, rng) -> (score, chosen)`:
  dynamics: float [E, N, C], the logits of the training images at E >= 1 recorded epochs; the last is the separation
    epoch. The images are those the probe trained on, as in the paper.
  labels: int [N] in [0, C).
  rng: used only where the strategy is random.
  score: float64 [N], higher = augment first.
  chosen: bool [N], the strategy's natural choice.
To add one: write the function and its line in STRATEGIES.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Strategy = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the loss of each image, float64 [N] in nats, from logits [N, C] and labels int [N]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def select_cluster(dynamics: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Per class, split the logits by k-means (k=2) and choose the cluster of higher mean loss.

    The score is the distance to the early-learned centroid minus that to the late-learned one (> 0 = late-learned).
    A class that cannot be split (one image, identical logits, an empty cluster) is taken whole if its mean loss is
    above the mean of all images, and left out whole if not; its scores are its losses relative to that mean.

    Source: targeted-augmentation paper, Algorithm 1. The paper does not state the initialisation: k-means++, 10 times.
    """
    logits = dynamics[-1].astype(np.float64)
    losses = cross_entropy(logits, labels)
    score = losses - losses.mean()
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        seed = int(rng.integers(2**31))
        means = _two_means(logits[members], seed)
        if means is None:
            chosen[members] = losses[members].mean() > losses.mean()
            continue
        late = int(losses[members][means.labels_ == 1].mean() > losses[members][means.labels_ == 0].mean())
        distance = means.transform(logits[members])
        score[members] = distance[:, 1 - late] - distance[:, late]
        chosen[members] = means.labels_ == late
    return score, chosen


def _two_means(logits: np.ndarray, seed: int) -> Any:
    """Return scikit-learn's fitted k-means with two clusters, None if the rows fall into one."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if (logits == logits[0]).all():
        return None
    with threadpool_limits(1), warnings.catch_warnings():  # several threads add up in varying order
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that differ by less than rounding
        means = KMeans(n_clusters=2, n_init=10, random_state=seed).fit(logits)
    return means if len(np.unique(means.labels_)) == 2 else None


def select_high_loss(
    dynamics: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images whose loss is above the mean over all images; the score is the loss.

    Source: targeted-augmentation paper, Table 7, which does not state the size: the mean is ours.
    """
    losses = cross_entropy(dynamics[-1], labels)
    return losses, losses > losses.mean()


def select_misclassified(
    dynamics: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the misclassified images; the score ranks them first, by loss: wrong + loss / (1 + loss).

    Source: targeted-augmentation paper, Table 7.
    """
    losses = cross_entropy(dynamics[-1], labels)
    wrong = dynamics[-1].argmax(axis=1) != labels
    return wrong + losses / (1 + losses), wrong


def select_random(dynamics: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Give every image a random score in [0, 1) and choose none: the size comes from `like` or `select.share`.

    Source: targeted-augmentation paper, the arm "Syn-rand".
    """
    return rng.random(len(labels)), np.zeros(len(labels), bool)


def select_all(dynamics: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose every image, with equal scores.

    Source: targeted-augmentation paper, the arm "Syn-all".
    """
    return np.zeros(len(labels)), np.ones(len(labels), bool)


STRATEGIES: dict[str, Strategy] = {
    "cluster": select_cluster,
    "high_loss": select_high_loss,
    "misclassified": select_misclassified,
    "random": select_random,
    "all": select_all,
}
RANKINGS = frozenset({"high_loss", "misclassified", "random"})
"""The strategies that `select.share` sizes; `cluster` and `all` have a size of their own."""


def centroids(logits: np.ndarray, labels: np.ndarray, late: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the mean logits of each class's early- and late-learned images.

    Args:
        logits: float [N, C] at the separation epoch.
        labels: int [N].
        late: bool [N], the choice of `select_cluster`.
        num_classes: K.

    Returns:
        float64 [K, 2, C], early first; NaN where a class has no such image.
    """
    result = np.full((num_classes, 2, logits.shape[1]), np.nan)
    for label in range(num_classes):
        for group in (0, 1):
            members = (labels == label) & (late == bool(group))
            if members.any():
                result[label, group] = logits[members].astype(np.float64).mean(axis=0)
    return result


def is_late(logits: np.ndarray, labels: np.ndarray, centroid: np.ndarray) -> np.ndarray:
    """Call images late-learned if their logits are nearer to their class's late centroid than to its early one.

    Args:
        logits: float [N, C] of the probe.
        labels: int [N].
        centroid: float [K, 2, C] of `centroids`.

    Returns:
        bool [N]. A class with one centroid has one group.
    """
    distance = np.linalg.norm(centroid[labels] - logits[:, None, :], axis=2)
    distance = np.where(np.isnan(distance), np.inf, distance)
    return distance[:, 1] < distance[:, 0]
