"""How far selections made with several seeds agree, and how far they would by chance."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the size of the intersection over that of the union, of bool [N] and bool [N]; NaN for two empty sets."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else math.nan


def overlap_coefficient(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of the smaller set that the other holds too, of bool [N] and bool [N]; NaN for an empty one."""
    smaller = min(int(a.sum()), int(b.sum()))
    return int((a & b).sum()) / smaller if smaller else math.nan


def agreement(chosen: Sequence[np.ndarray], labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Say how far selections agree; shares in [0, 1], 1 = the same images.

    What is expected by chance is that of independent random choices of as many images of each class. Overlap
    coefficients and shares are exact expectations; a Jaccard index is that of the expected intersection.

    Args:
        chosen: two or more selections, bool [N] each.
        labels: int [N].
        class_names: of the labels.

    Returns:
        `sizes` (share selected, per selection), `jaccard` and `overlap` (means over the pairs), `by_all`, `by_some` and
        `by_none` (shares of the images), the same five under `chance`, `per_class` (mean Jaccard index, None where no
        selection holds any), and `lowest` (the class of the lowest one, None if there is none).
    """
    pairs = list(combinations(chosen, 2))
    votes = np.sum(chosen, axis=0)
    per_class: dict[str, float | None] = {}
    for label in np.unique(labels).tolist():
        members = labels == label
        indices = [index for a, b in pairs if not math.isnan(index := jaccard(a[members], b[members]))]
        per_class[class_names[label]] = float(np.mean(indices)) if indices else None
    known = {name: index for name, index in per_class.items() if index is not None}
    return {
        "sizes": [float(each.mean()) for each in chosen],
        "jaccard": _mean([jaccard(a, b) for a, b in pairs]),
        "overlap": _mean([overlap_coefficient(a, b) for a, b in pairs]),
        **_shares(float((votes == len(chosen)).mean()), float((votes == 0).mean())),
        "chance": _by_chance(chosen, labels),
        "per_class": per_class,
        "lowest": min(known, key=known.__getitem__) if known else None,
    }


def _by_chance(chosen: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, float | None]:
    counts = np.bincount(labels)
    counts, present = counts[counts > 0], counts > 0
    sizes = [np.bincount(labels[each], minlength=len(present))[present] for each in chosen]
    rates = [size / counts for size in sizes]
    jaccards, overlaps = [], []
    for (a, rate_a), (b, rate_b) in combinations(zip(sizes, rates, strict=True), 2):
        common = float((counts * rate_a * rate_b).sum())
        union = a.sum() + b.sum() - common
        jaccards.append(common / union if union else math.nan)
        overlaps.append(common / min(a.sum(), b.sum()) if min(a.sum(), b.sum()) else math.nan)
    by_all = float((counts * np.prod(rates, axis=0)).sum() / counts.sum())
    by_none = float((counts * np.prod([1 - rate for rate in rates], axis=0)).sum() / counts.sum())
    return {"jaccard": _mean(jaccards), "overlap": _mean(overlaps), **_shares(by_all, by_none)}


def _shares(by_all: float, by_none: float) -> dict[str, float | None]:
    return {"by_all": by_all, "by_some": 1 - by_all - by_none, "by_none": by_none}


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean of what is no NaN; None if nothing is left."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else None
