"""Which images are learned late: `gdacli select` on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.api.arrays import checked, class_numbers
from gdacli.errors import GdaError

if TYPE_CHECKING:
    from gdacli.dynamics import Dynamics
    from gdacli.selection import Selection


@dataclass(frozen=True)
class ProjectSelection:
    """What `gdacli select` wrote of a strategy, for the N train images of a project."""

    key: list[str]
    label: np.ndarray
    """int64 [N]."""
    score: np.ndarray
    """float64 [N], higher = augment first."""
    chosen: np.ndarray
    """Bool [N]."""


def select(
    dynamics: Dynamics | Any,
    labels: Any,
    strategy: str = "cluster",
    *,
    share: float | None = None,
    per_class: bool = False,
    quotas: Mapping[int, float] | None = None,
    candidates: Any = None,
    seed: int = 0,
) -> Selection:
    """Score images by a strategy and choose those that are learned late, as `gdacli select` does.

    Args:
        dynamics: of `probe`; or logits recorded by your own training on these images, after each of E epochs, float
            [E, N, C] (the last epoch is the separation epoch), or [N, C] of one.
        labels: int [N] in [0, C).
        strategy: a name of docs/selection.md.
        share: in (0, 1], of the images to choose; None is the strategy's own choice. `cluster` and `all` take it with
            `per_class` alone.
        per_class: take `share` in each class.
        quotas: class -> share of its images to choose, whatever the rest says.
        candidates: bool [N]; others are not chosen, such as images with wrong labels. None is all.
        seed: of what is random.

    Returns:
        `score`, float64 [N], higher = augment first; `chosen`, bool [N].

    Raises:
        GdaError: there is no such strategy, it has no size of its own and no share is given, or shapes do not fit.
    """
    from gdacli.dynamics import Dynamics, of_logits
    from gdacli.sections import Select
    from gdacli.selection import RANKINGS, STRATEGIES, UNSIZED
    from gdacli.selection import select as select_images

    if strategy not in STRATEGIES:
        raise GdaError(f"strategy: found {strategy!r}, allowed: {', '.join(STRATEGIES)}")
    checked(Select, "select", {"share": share, "per_class": per_class, "seed": seed})
    if strategy in UNSIZED and share is None and not quotas:
        raise GdaError(f"share: {strategy} ranks the images and has no size of its own: give share, such as 0.3")
    if share is not None and strategy not in RANKINGS and not per_class:
        raise GdaError(f"share: {strategy} has a size of its own: leave share out, or take it per_class")
    if not isinstance(dynamics, Dynamics):
        logits = np.asarray(dynamics)
        logits = logits[None] if logits.ndim == 2 else logits
        if logits.ndim != 3 or not np.issubdtype(logits.dtype, np.floating) or 0 in logits.shape:
            raise GdaError(
                f"dynamics: found {logits.dtype} {list(logits.shape)}, allowed: what `probe` returned, or float logits "
                "[E, N, C] or [N, C]"
            )
        if not np.isfinite(logits).all():
            raise GdaError("dynamics: found logits that are no numbers: lower the learning rate of what made them")
        dynamics = of_logits(logits, class_numbers(labels, logits.shape[1], logits.shape[2]))
    num, num_classes = dynamics.logits.shape
    numbers = class_numbers(labels, num, num_classes)
    allowed = np.ones(num, bool) if candidates is None else np.asarray(candidates)
    if allowed.dtype != bool or allowed.shape != (num,):
        raise GdaError(f"candidates: found {allowed.dtype} {list(allowed.shape)}, allowed: bool [{num}]")
    for label, quota in (quotas or {}).items():
        if not (0 <= label < num_classes and 0 < quota <= 1):
            raise GdaError(
                f"quotas: found {{{label}: {quota}}}, allowed: class 0 to {num_classes - 1} -> a share above 0, up to 1"
            )
    return select_images(
        strategy,
        dynamics,
        numbers,
        seed=seed,
        candidates=allowed,
        share=share,
        per_class=per_class,
        quotas=quotas or {},
    )
