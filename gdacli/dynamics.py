"""Training dynamics: what the probe says of each training image after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.artifacts import require
from gdacli.errors import GdaError
from gdacli.row_files import RowFile, Rows
from gdacli.tables import read_table

if TYPE_CHECKING:
    import torch

_WINDOW = 3
_SLOW = 0.2

QUANTITIES = ("loss", "correct", "margin", "el2n", "entropy")


@dataclass(frozen=True)
class Dynamics:
    """N images at E >= 1 epochs, the last of which is the separation epoch; float32, as the model saw them unchanged.

    Dynamics are of the images without augmentation, after each epoch. The papers of forgetting and AUM take them from
    the augmented batches of the epoch itself.
    """

    loss: np.ndarray
    """[E, N], cross-entropy in nats."""
    correct: np.ndarray
    """Bool [E, N]: the label has the highest logit (the first of equal ones)."""
    margin: np.ndarray
    """[E, N], the logit of the label minus the highest other one."""
    el2n: np.ndarray
    """[E, N] in [0, sqrt(2)], the length of (probabilities - one-hot label)."""
    entropy: np.ndarray
    """[E, N] in [0, ln C], of the probabilities in nats."""
    logits: Rows
    """[N, C] at the separation epoch; an array, or a file that is read piece by piece."""


def describe(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Say of each image what `Dynamics` holds, without its logits.

    Args:
        logits: float [B, C].
        labels: int64 [B] in [0, C), on the same device.

    Returns:
        float32 [B, 5], the QUANTITIES in order; `correct` is 0 or 1.

    Source: margin: Pleiss et al. 2020 (AUM), Equation 1. el2n: Paul et al. 2021, Definition 2.2.
    """
    import torch

    logits, label = logits.float(), labels[:, None]
    log_probabilities = logits.log_softmax(1)
    probabilities = log_probabilities.exp()
    loss = -log_probabilities.gather(1, label)[:, 0]
    correct = logits.argmax(1) == labels
    margin = logits.gather(1, label)[:, 0] - logits.scatter(1, label, -float("inf")).amax(1)
    el2n = probabilities.scatter_add(1, label, -probabilities.new_ones(label.shape)).norm(dim=1)
    entropy = -(probabilities * log_probabilities.clamp(min=-1e4)).sum(1)  # 0 times -inf is not a number
    return torch.stack([loss, correct.float(), margin, el2n, entropy], dim=1)


def of_logits(logits: np.ndarray, labels: np.ndarray) -> Dynamics:
    """Return the dynamics that logits show.

    Args:
        logits: float [E, N, C], recorded after each epoch; the last one is the separation epoch.
        labels: int [N] in [0, C).
    """
    import torch

    truth = torch.from_numpy(np.asarray(labels, np.int64))
    floats = (np.ascontiguousarray(each, np.float32) for each in logits)
    return of_quantities(np.stack([describe(torch.from_numpy(each), truth).numpy() for each in floats]), logits[-1])


def of_quantities(quantities: np.ndarray, logits: Rows) -> Dynamics:
    """Return dynamics of the QUANTITIES of `describe`, float32 [E, N, 5], and the last epoch's logits [N, C]."""
    named: dict[str, Any] = dict(zip(QUANTITIES, quantities.transpose(2, 0, 1), strict=True))
    return Dynamics(**(named | {"correct": named["correct"].astype(bool)}), logits=logits)


def slowdown(errors: Sequence[float], start: float) -> bool:
    """Say if the fall of the training error has slowed down by the last of these epochs.

    It has if the mean fall over the last three epochs is below a fifth of the mean fall since the start, after four
    epochs at least. A training that has not got better than the start has not slowed down, it has not begun.

    Args:
        errors: training error (%) after each epoch; that of the epoch's own batches is smoother than one measured at
            its end.
        start: error of a guess (%), what there was before the first epoch.

    Source: USEFUL (Nguyen et al. 2024) separates where the fall of the training error starts to slow, and finds that
    place by eye; the numbers are ours.

    >>> slowdown([60, 45, 36], 90), slowdown([60, 45, 36, 30], 90), slowdown([60, 45, 36, 30, 26, 23, 21, 20, 19], 90)
    (False, False, True)
    """
    if len(errors) <= _WINDOW:
        return False
    recent = (errors[-1 - _WINDOW] - errors[-1]) / _WINDOW
    since_start = (start - errors[-1]) / len(errors)
    return since_start > 0 and recent < _SLOW * since_start


def read_probe(folder: Path) -> tuple[list[str], np.ndarray, Dynamics]:
    """Read what `gdacli probe` recorded up to the separation epoch.

    Returns:
        keys [N], labels int64 [N], dynamics.

    Raises:
        GdaError: the probe has not run, or a file is damaged.
    """
    images = read_table(require(folder / "images.parquet", "gdacli probe"))
    logits = RowFile(require(folder / "logits.npy", "gdacli probe"))
    with np.load(require(folder / "dynamics.npz", "gdacli probe"), allow_pickle=False) as recorded:
        epochs = int(recorded["separation_epoch"])
        quantities: dict[str, Any] = {name: recorded[name][:epochs] for name in QUANTITIES}
    quantities["correct"] = quantities["correct"].astype(bool)
    if {len(logits), quantities["loss"].shape[1]} != {len(images["key"])}:
        raise GdaError(f"{folder}: its files are of different numbers of images: run `gdacli probe` again")
    return images["key"], images["label"], Dynamics(**quantities, logits=logits)
