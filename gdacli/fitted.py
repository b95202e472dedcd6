"""What trainings of generators share: how one went, where its state is kept, when it has stalled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gdacli.console import progress, say

if TYPE_CHECKING:
    import torch

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


def forward_dtype(named: str, device: torch.device) -> torch.dtype:
    """Return what `fit.dtype` means on a device."""
    import torch

    fast = named == "bfloat16" or (named == "auto" and device.type == "cuda")
    return torch.bfloat16 if fast else torch.float32


@contextmanager
def fit_progress(updates: int, state: Mapping[str, Any] | None) -> Iterator[Callable[..., None]]:
    """Show how a training goes, from a saved state on; yields what to call with the update, its loss and a note."""
    shown = 0 if state is None else state["update"]
    with progress("fit", updates, "updates") as advance:
        if state is not None:
            say(f"fit: goes on after update {shown}")
            advance(shown, free=True)

        def on_update(update: int, loss: float, note: str = "") -> None:
            nonlocal shown
            advance(update - shown, note=f"loss {loss:.4f}{note}")
            shown = update

        yield on_update
