"""What trainings wrote of their epochs, and what it says of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gdacli.artifacts import require

_OF_A_GUESS = 0.75
_OF_THE_FIRST = 0.05


def read_history(path: Path) -> dict[str, list[float]]:
    """Read a CSV file of numbers, such as a training's `history.csv`: column -> a value per epoch."""
    with require(path, "gdacli train").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def mean_history(paths: Sequence[Path]) -> dict[str, list[float]]:
    """Return the mean of each column over the histories of an arm's trainings."""
    histories = [read_history(path) for path in paths]
    return {name: np.mean([history[name] for history in histories], axis=0).tolist() for name in histories[0]}


def collapsed(errors: Sequence[float], synthetic_losses: Sequence[float], num_classes: int) -> bool:
    """Say if a training for consistency has found its trivial solution: features that are the same for all images.

    That is so where the train error ends at 75 % of a guess's or above, and the synthetic term below 5 % of what it was
    in the first epoch: views of images agree, and tell nothing. A training of one epoch says nothing.

    Args:
        errors: in %, per epoch, on the train images.
        synthetic_losses: of the objective's term on its synthetic images, per epoch, without its weight.
        num_classes: of them; a guess errs in all but one.
    """
    guess = 100 * (1 - 1 / num_classes)
    return (
        len(errors) > 1
        and errors[-1] >= _OF_A_GUESS * guess
        and synthetic_losses[-1] < _OF_THE_FIRST * synthetic_losses[0]
    )
