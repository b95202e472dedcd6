"""The variance of a mini-batch gradient over k, alpha and B / N: closed forms against draws."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from gdacli.theory.batch_variance import (
    Strata,
    batch_unit,
    finite_generated_variance,
    finite_variance,
    generated_variance,
    population_variance,
    printed_variance,
    simulated,
    strata,
)
from gdacli.theory.monte_carlo import MonteCarlo, monte_carlo
from gdacli.theory.two_layer_setting import Setting, Stream

FACTORS = (2, 3, 5)
ALPHAS = (0.5, 0.7, 0.9)
SHARES = (0.1, 0.25, 0.5, 0.75)
"""B / N_new, to be met as closely as whole B_1 and B_2 allow."""
TRIALS = 8000
_CHUNK = 2_000_000  # numbers drawn at once
VIEWS = {
    "population": population_variance,
    "finite": finite_variance,
    "generated": generated_variance,
    "finite_generated": finite_generated_variance,
}
"""What is drawn, and its closed form."""


@dataclass(frozen=True)
class Cell:
    """One set and batch."""

    strata: Strata
    exact: dict[str, float]
    """By view, in units of sigma^2."""
    printed: float
    """Theorem 4.3's figure for the view `population`."""
    found: dict[str, MonteCarlo]

    def deviation(self, view: str) -> float:
        """Return how many standard errors the draws are from the closed form."""
        if self.exact[view] == 0:  # the batch is the whole set: what is drawn is rounding
            return 0.0
        return (self.found[view].mean - self.exact[view]) / self.found[view].standard_error


def own_batch(setting: Setting, batch_size: int | None) -> Strata:
    """Return the user's set and batch; without a size, the allowed one that is nearest to N / 4.

    Raises:
        GdaError: the size makes no whole B_1 and B_2.
    """
    num_fast = setting.num_examples - setting.num_slow
    if batch_size is None:
        batch_size = _nearest(num_fast, setting.num_slow, setting.k, setting.num_examples / 4)
    return strata(num_fast, setting.num_slow, setting.k, batch_size)


def grid(setting: Setting, own: Strata) -> list[Strata]:
    """Return the sets and batches to look at: those of the grid and of the user's k and alpha, and the user's own."""
    cells = {own}
    for k in sorted({*FACTORS, setting.k}):
        for alpha in sorted({*ALPHAS, setting.alpha}):
            num_fast = round(alpha * setting.num_examples)
            num_slow = setting.num_examples - num_fast
            if num_fast and num_slow:
                size = num_fast + k * num_slow
                batches = (_nearest(num_fast, num_slow, k, share * size) for share in SHARES)
                cells |= {strata(num_fast, num_slow, k, batch) for batch in batches}
    return sorted(cells, key=lambda s: (s.k, s.num_fast, s.batch))


def measure(setting: Setting, s: Strata, trials: int) -> Cell:
    """Compare the closed forms of one cell with draws, whose stream is the cell's own."""
    rng = setting.rng(Stream.BATCHES, s.k, s.num_fast, s.num_slow, s.batch)
    num = ceil(trials * s.size / _CHUNK)
    parts = [simulated(s, rng, len(part)) for part in np.array_split(np.arange(trials), num)]
    found = {view: monte_carlo(np.concatenate([part[view] for part in parts])) for view in VIEWS}
    return Cell(s, {view: form(s) for view, form in VIEWS.items()}, printed_variance(s), found)


def measure_grid(setting: Setting, own: Strata, advance: Callable[[int], None]) -> list[Cell]:
    """Return every cell of the grid; `advance` is told after each."""
    cells = []
    for each in grid(setting, own):
        cells.append(measure(setting, each, TRIALS))
        advance(1)
    return cells


def _nearest(num_fast: int, num_slow: int, k: int, wanted: float) -> int:
    unit, size = batch_unit(num_fast, num_slow, k), num_fast + k * num_slow
    return min(max(round(wanted / unit), 1) * unit, size)
