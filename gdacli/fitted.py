"""What trainings of generators share: how one went, where its state is kept, when it has stalled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

State = dict[str, Any]
"""Tensors, numbers, and lists and dicts of them."""


class Keeper(Protocol):
    """Saves the state of a training, from which one that was killed goes on."""

    def due(self) -> bool:
        """Say if it is time to save."""
        ...

    def save(self, state: State) -> None:
        """Save."""
        ...


@dataclass(frozen=True)
class Fitted:
    """How a training went."""

    updates: int
    """Optimizer steps that were made: fewer than were allowed if it stopped early."""
    kept_update: int
    """After which the weights are those that were saved."""
    losses: list[list[float]]
    """[update, loss]."""
    checks: list[list[float]]
    """[update, distance]."""


def stalled(checks: Sequence[Sequence[float]], patience: int | None) -> bool:
    """Say if the last `patience` checks brought no distance below all before them.

    >>> stalled([[10, 3.0], [20, 1.0], [30, 2.0], [40, 1.0]], patience=2)
    True
    """
    if patience is None or len(checks) <= patience:
        return False
    distances = [distance for _, distance in checks]
    return min(distances[-patience:]) >= min(distances[:-patience])
