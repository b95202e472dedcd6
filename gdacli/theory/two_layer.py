"""`gdacli theory two-layer`: what SAM, upsampling and generation learn in the paper's model, and what its theorems say.

Source: the targeted-augmentation paper, sections 3 and 4 and appendices A to D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gdacli.console import progress
from gdacli.theory import identity_errors, variance_grid
from gdacli.theory.batch_variance import full_variance
from gdacli.theory.comparisons import compared
from gdacli.theory.identity_errors import Failure, tolerance
from gdacli.theory.learning_curves import (
    ARMS,
    MEASURES,
    Curve,
    expected_iterations,
    learning_curves,
    recorded_iterations,
)
from gdacli.theory.monte_carlo import MonteCarlo, monte_carlo
from gdacli.theory.outcome import Outcome, Row
from gdacli.theory.two_layer_plots import draw
from gdacli.theory.two_layer_setting import DIMENSIONS, INITIAL_SD, Setting, check
from gdacli.theory.two_layer_summary import summary
from gdacli.theory.variance_grid import VIEWS, Cell

COMPARED = (*((arm, "gradient descent") for arm in ARMS[1:]), ("generation", "upsampling"))


def run(setting: Setting, batch_size: int | None) -> Outcome:
    """Train the four arms, check the theorems, and say what was found.

    Args:
        setting: all that determines it.
        batch_size: B of Theorem 4.3; None for the allowed size nearest to N / 4.

    Raises:
        GdaError: a combination for which the paper's quantities are not defined.
    """
    from threadpoolctl import threadpool_limits

    check(setting)
    own = variance_grid.own_batch(setting, batch_size)
    at = recorded_iterations(setting.iterations)
    with threadpool_limits(1):  # on matrices of this size threads wait for each other more than they help
        with progress("theory: four arms", len(ARMS) * (setting.iterations + 1), "iterations") as advance:
            curves = learning_curves(setting, at, advance)
        num = 2 * (len(DIMENSIONS) + len(identity_errors.RADII))
        with progress("theory: identities", num, "settings") as advance:
            exact = identity_errors.exact_errors(setting)
            failures = identity_errors.failures_by_dimension(setting, advance)
            failures += identity_errors.failures_by_rho(setting, advance)
            aligns_less = identity_errors.sam_aligns_less(setting)
            tolerated = identity_errors.tolerated_noise(setting)
        with progress("theory: variance", len(variance_grid.grid(setting, own)), "batches") as advance:
            cells = variance_grid.measure_grid(setting, own, advance)
    figures: dict[str, Any] = {
        "end": {arm: {name: asdict(monte_carlo(curves[arm].measures[name][-1])) for name in MEASURES} for arm in ARMS},
        "start": {arm: asdict(monte_carlo(curves[arm].measures["noise_align"][0])) for arm in ARMS},
        "differences": differences(curves),
        "expected_iterations": _finite(expected_iterations(setting, float(_start(curves)))),
        "equation_2": equation_2_figures(curves["SAM"], at),
        "largest_errors": exact,
        "rate": rate(failures, setting.num_examples),
        "noise_align_of_sam": [asdict(each) for each in aligns_less],
        "tolerance": {
            "paper": setting.k + 1,
            "at_this_size": tolerance(setting.num_examples, setting.num_slow, setting.k),
            "of_setting": setting.generated_factor,
        },
        "variance": variance_figures(cells, own),
    }
    rows: dict[str, Sequence[Row]] = {
        "": curve_rows(curves, at),
        "identities": [_exact_row(setting, name, error) for name, error in exact.items()] + _failure_rows(failures),
        "differences": figures["differences"],
        "tolerance": [
            {"factor": each.factor, "expected": each.expected, **_named("found", each.found)} for each in tolerated
        ],
        "variance": [variance_row(cell) for cell in cells],
    }
    settings = asdict(setting) | {"initial_sd": INITIAL_SD, "batch_size": own.batch}
    figure = draw(setting, curves, at, failures, cells, own)
    return Outcome("two-layer", settings, figures, rows, figure, summary(setting, figures, failures))


def differences(curves: dict[str, Curve]) -> list[Row]:
    """Compare arms pairwise on the same repeats: every measure at the end, NoiseAlign also at the start.

    At the start all arms have the same weights. The loss is left out: it is of different sets.
    """
    places = [("end", -1, name) for name in MEASURES if name != "train_loss"] + [("start", 0, "noise_align")]
    return compared(
        [
            (
                {"arm": arm, "reference": other, "at": at, "measure": name},
                curves[arm].measures[name][place],
                curves[other].measures[name][place],
            )
            for arm, other in COMPARED
            for at, place, name in places
        ],
        "higher",
        "lower",
    )


def equation_2_figures(curve: Curve, at: Sequence[int]) -> list[dict[str, Any]]:
    """Return equation 2's ratio over filters and repeats of a run, at each recorded iteration.

    `mean` and `median` are over the filters for which it is defined (None if there are none), `undefined` is the share
    of the others, and `measured` is what it speaks of, measured.
    """
    found = []
    for iteration, ratios, measured in zip(at, curve.equation_2, curve.amplification, strict=True):
        defined = ratios[np.isfinite(ratios)]
        found.append(
            {
                "iteration": iteration,
                "mean": float(defined.mean()) if defined.size else None,
                "median": float(np.median(defined)) if defined.size else None,
                "undefined": 1 - defined.size / ratios.size,
                "measured": asdict(monte_carlo(measured)),
            }
        )
    return found


def rate(failures: Sequence[Failure], num_examples: int) -> float:
    """Return the slope of the log median error of gradient descent's identity over log d, from d = 3 N on."""
    rows = [
        each
        for each in failures
        if each.noise == "normal off the features"
        and each.identity == "noise gradient, gradient descent"
        and each.dimension >= 3 * num_examples
    ]
    dimensions, medians = [each.dimension for each in rows], [each.median.mean for each in rows]
    return float(np.polyfit(np.log(dimensions), np.log(medians), 1)[0])


def variance_figures(cells: Sequence[Cell], own: variance_grid.Strata) -> dict[str, Any]:
    """Return the user's batch, and how the draws and the printed bound compare with the closed forms over the grid."""
    (cell,) = (cell for cell in cells if cell.strata == own)
    deviations = np.abs([[each.deviation(view) for view in VIEWS] for each in cells])
    return {
        "own": {
            **asdict(own),
            "batch": own.batch,
            "exact": cell.exact,
            "printed": cell.printed,
            "full": full_variance(own),
            "found": {view: asdict(found) for view, found in cell.found.items()},
        },
        "compared": deviations.size,
        "beyond_3_standard_errors": int((deviations > 3).sum()),
        "largest_deviation": float(deviations.max()),
        "bound_over_exact": max(each.printed / each.exact["population"] for each in cells),
    }


def curve_rows(curves: dict[str, Curve], at: Sequence[int]) -> list[Row]:
    """Return the rows of two-layer.csv: an arm at an iteration, means with intervals."""
    rows: list[Row] = []
    for arm, curve in curves.items():
        ratios = equation_2_figures(curve, at)
        for place, iteration in enumerate(at):
            row: dict[str, Any] = {"arm": arm, "iteration": iteration}
            means = {name: monte_carlo(curve.measures[name][place]) for name in MEASURES}
            for name, found in means.items():
                row |= _named(name, found)
            fast, slow = means["fast_alignment"].mean, means["slow_alignment"].mean
            row["slow_to_fast"] = slow / fast if fast > 0 else None  # of the means
            row |= {f"equation_2_{name}": ratios[place][name] for name in ("mean", "median", "undefined")}
            row |= _named("measured_amplification", monte_carlo(curve.amplification[place]))
            rows.append(row)
    return rows


def variance_row(cell: Cell) -> Row:
    """Return a row of two-layer-variance.csv."""
    s = cell.strata
    row: dict[str, Any] = {
        "k": s.k,
        "alpha": s.num_fast / (s.num_fast + s.num_slow),
        "examples": s.num_fast + s.num_slow,
        "batch": s.batch,
        "batch_fast": s.batch_fast,
        "batch_slow": s.batch_slow,
        "printed": cell.printed,
        "full": full_variance(s),
    }
    for view in VIEWS:
        found = cell.found[view]
        row |= {f"{view}_exact": cell.exact[view], f"{view}_found": found.mean}
        row |= {f"{view}_standard_error": found.standard_error, f"{view}_deviation": cell.deviation(view)}
    return row


def _start(curves: dict[str, Curve]) -> float:
    return float(curves["gradient descent"].measures["slow_alignment"][0].mean())


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) and value > 0 else None for name, value in values.items()}


def _named(name: str, found: MonteCarlo) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _exact_row(setting: Setting, identity: str, error: float) -> Row:
    of_sam = "SAM" in identity
    empty = dict.fromkeys(("median", "median_standard_error", "p95", "p95_standard_error"))
    return {
        "identity": identity,
        "noise": "orthogonal",
        "dimension": setting.orthogonal_dimension,
        "rho": setting.rho if of_sam else None,
        "logits": "held" if of_sam or identity.startswith("feature") else "-",
        "iteration": 0,
        "largest": error,
        **empty,
    }


def _failure_rows(failures: Sequence[Failure]) -> list[Row]:
    return [
        {
            "identity": each.identity,
            "noise": each.noise,
            "dimension": each.dimension,
            "rho": each.rho,
            "logits": each.logits,
            "iteration": each.iteration,
            "largest": None,
            "median": each.median.mean,
            "median_standard_error": each.median.standard_error,
            "p95": each.high.mean,
            "p95_standard_error": each.high.standard_error,
        }
        for each in failures
    ]
