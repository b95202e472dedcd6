"""Suspects: training images whose label is probably wrong, by what models say that did not see them in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gdacli.rng import uniform
from gdacli.row_files import Rows, blocks


@dataclass(frozen=True)
class Suspects:
    """What out-of-fold predictions say of the labels of N images."""

    flagged: np.ndarray
    """Bool [N]: the label is probably wrong."""
    quality: np.ndarray
    """float64 [N] in [0, 1], the probability of the label: lower = more likely wrong."""
    suggested: np.ndarray
    """int64 [N], the class of highest probability."""


def assign_folds(keys: Sequence[str], labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Deal the images of each class to the folds in turn, in the order of a hash of their keys.

    Args:
        keys: [N].
        labels: int [N].
        num_folds: K >= 2.
        seed: of the hash.

    Returns:
        int64 [N] in [0, K). The folds' shares of a class differ by one image at most, and so do their sizes.
    """
    by_hash = np.argsort([uniform("fold", seed, key) for key in keys], kind="stable")
    by_class = by_hash[np.argsort(labels[by_hash], kind="stable")]
    folds = np.empty(len(keys), np.int64)
    folds[by_class] = np.arange(len(keys)) % num_folds  # one class goes on where the one before it ended
    return folds


def find_suspects(labels: np.ndarray, probabilities: Rows) -> Suspects:
    """Flag the images of lowest label quality, as many as confident learning counts label errors.

    The label of an image that is alone in its class cannot be judged, for no other fold has the class: it is not
    flagged.

    Args:
        labels: int [N] in [0, C).
        probabilities: float [N, C], out of fold: of a model that was not trained on the image. Read in blocks.

    Source: Northcutt et al. 2021 (confident learning), by cleanlab's LabelInspector, which is
    `cleanlab.filter.find_label_issues(filter_by="low_self_confidence")` in bounded memory. Deviation from cleanlab's
    default filter, which prunes per pair of classes and here lost more clean images for the same flips.
    """
    from cleanlab.experimental.label_issues_batched import LabelInspector

    inspector = LabelInspector(num_class=probabilities.shape[1], verbose=False, n_jobs=1)
    cut = list(blocks(*probabilities.shape))
    suggested = np.empty(len(labels), np.int64)
    for part in cut:
        inspector.update_confident_thresholds(labels[part], probabilities[part])
    for part in cut:
        block = probabilities[part]
        inspector.score_label_quality(labels[part], block)
        suggested[part] = block.argmax(axis=1)
    flagged = np.zeros(len(labels), bool)
    flagged[inspector.get_label_issues()] = True
    flagged &= (suggested != labels) & (np.bincount(labels)[labels] > 1)
    return Suspects(flagged, inspector.get_quality_scores().astype(np.float64), suggested)
