"""`gdacli theory gmm`: the paper's grids and gamma sweeps of the Gaussian mixture, or the sweep of one's own case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from gdacli.console import progress, table
from gdacli.errors import GdaError
from gdacli.theory.comparisons import UNDECIDED, compared
from gdacli.theory.gaussian_mixture import num_generated, simulate
from gdacli.theory.gaussian_mixture_exact import (
    bound,
    expected_gap,
    expected_test_error,
    expected_test_loss,
    mean_abs_gap,
    mean_abs_gap_limit,
)
from gdacli.theory.gaussian_mixture_plot import plot_case, plot_paper
from gdacli.theory.monte_carlo import monte_carlo
from gdacli.theory.outcome import Outcome, Row
from gdacli.theory.presentation import bullets, paragraph

SIZES = [(1, m) for m in (20, 50, 100, 200, 500)]
DIMENSIONS = [(d, 10) for d in (2, 10, 20, 50, 100)]
SWEEPS = [(50, 10), (1, 40)]
"""The paper's (d, m)."""


@dataclass(frozen=True)
class Sweep:
    """What was found for one dimension and train set, over gammas."""

    dimension: int
    num_train: int
    mean_abs_gap: float
    """Exact, without generated points."""
    mean_abs_gap_limit: float
    """Exact, as gamma grows."""
    points: list[dict[str, Any]]
    """The columns of the CSV, one entry a gamma, 0 first."""


def run(m: int | None, d: int | None, gammas: str, sigma: float, repeats: int, seed: int) -> Outcome:
    """Simulate the paper's grids and sweeps, or one (m, d), over gammas.

    Args:
        m: train points, both classes together; None for the paper's figure set.
        d: dimension of the features; given when m is.
        gammas: generated points for each real one, separated by commas; 0, without generated points, is added.
        sigma: standard deviation of each coordinate within a class; the class means are 2 apart.
        repeats: train sets, at least 2.
        seed: of all that is random.

    Raises:
        GdaError: m without d or d without m, or gammas that are not such numbers.
    """
    if (m is None) != (d is None):
        given, missing = ("--m", "--d") if d is None else ("--d", "--m")
        raise GdaError(f"{given}: found without {missing}, a case needs both: add {missing}, or leave both out")
    own = [(d, m)] if m is not None and d is not None else []
    settings = own or sorted({*SIZES, *DIMENSIONS, *SWEEPS})
    values = _gammas(gammas, min(size for _, size in settings))
    sweeps = {}
    with progress("theory gmm", len(settings) * repeats, "train sets") as advance:
        for dimension, size in settings:
            losses = simulate(
                seed,
                dimension=dimension,
                num_train=size,
                gammas=values,
                sigma=sigma,
                repeats=repeats,
                advance=advance,
            )
            sweeps[dimension, size] = _sweep(dimension, size, values, sigma, losses)
    best = 100 * float(ndtr(-1 / sigma))
    if own:
        shown, plot = [sweeps[own[0]]], plot_case(sweeps[own[0]], best)
    else:
        shown = [sweeps[each] for each in SWEEPS]
        plot = plot_paper([sweeps[each] for each in SIZES], [sweeps[each] for each in DIMENSIONS], shown, best)
    exact = ("dimension", "num_train", "mean_abs_gap", "mean_abs_gap_limit")
    return Outcome(
        program="gmm",
        settings={"m": m, "d": d, "gammas": values, "sigma": sigma, "repeats": repeats, "seed": seed},
        figures={
            "least_possible_error": best,
            "exact": [{name: getattr(each, name) for name in exact} for each in sweeps.values()],
            "points": [point for each in sweeps.values() for point in each.points],
        },
        rows={"": [point for each in sweeps.values() for point in each.points]},
        plot=plot,
        summary="\n\n".join([*(_in_words(each) for each in shown), _ending(best)]),
    )


def _gammas(text: str, smallest: int) -> list[float]:
    try:
        values = sorted({float(each) for each in text.split(",")} | {0.0})
    except ValueError:
        values = [math.nan]
    if not all(0 <= value <= 10_000 for value in values) or values == [0]:
        raise GdaError(f"--gammas: found {text!r}, needs numbers from 0 to 10000, not 0 alone: write such as 0,1,5")
    fewest = num_generated(values[1], smallest)
    if fewest < 2:
        raise GdaError(
            f"--gammas: {values[1]:g} of {smallest} points is {fewest}, needs 2 or more, one a class: take a larger one"
        )
    return values


def _sweep(dimension: int, size: int, gammas: Sequence[float], sigma: float, losses: Any) -> Sweep:
    errors = 100 * losses.test_error
    differences = compared([({}, each, errors[0]) for each in errors[1:]], "higher", "lower")
    points = []
    for row, gamma in enumerate(gammas):
        generated = num_generated(gamma, size)
        point: dict[str, Any] = {"d": dimension, "m": size, "gamma": gamma, "num_generated": generated}
        for name, values in (
            ("mean_abs_gap", np.abs(losses.gap[row])),
            ("gap", losses.gap[row]),
            ("train_loss", losses.train_loss[row]),
            ("test_loss", losses.test_loss[row]),
            ("test_error", errors[row]),
        ):
            found = monte_carlo(values)
            point |= {name: found.mean, f"{name}_se": found.standard_error}
            if name == "gap":
                point["gap_exact"] = expected_gap(dimension, size, generated)
            if name == "test_loss":
                point["test_loss_exact"] = expected_test_loss(dimension, size, generated)
        point |= _against_none(differences[row - 1] if row else None)
        point["error_if_real"] = 100 * expected_test_error(dimension, size + generated, sigma)
        point["bound_order"] = bound(dimension, size, gamma)
        points.append(point)
    return Sweep(dimension, size, mean_abs_gap(dimension, size), mean_abs_gap_limit(dimension, size), points)


def _against_none(difference: Row | None) -> dict[str, Any]:
    """Return the columns on the test error against that without generated points; None for that itself."""
    names = {"": "difference", "_low": "low", "_high": "high", "_p_value_holm": "p_value_holm", "_verdict": "verdict"}
    return {f"error_difference{end}": difference and difference[name] for end, name in names.items()}


def _in_words(sweep: Sweep) -> str:
    header = ["gamma", "mean |gap|", "gap", "exact", "train loss", "test loss", "test error, %"]
    header += ["against gamma 0 (95 %)", "if real, %"]
    rows = []
    for point in sweep.points:
        cells = [f"{point['gamma']:g}", *(_with_error(point, name) for name in ("mean_abs_gap", "gap"))]
        cells += [f"{point['gap_exact']:.3f}", _with_error(point, "train_loss"), f"{point['test_loss_exact']:.3f}"]
        cells += [_with_error(point, "test_error", 2), _difference(point) if point["gamma"] else ""]
        rows.append([*cells, f"{point['error_if_real']:.2f}"])
    title = f"d = {sweep.dimension}, m = {sweep.num_train} (± standard error over train sets)"
    return f"{title}\n{table(header, rows)}\n\n{bullets(_sentences(sweep))}"


def _with_error(point: dict[str, Any], name: str, digits: int = 3) -> str:
    return f"{point[name]:.{digits}f} ± {point[f'{name}_se']:.{digits}f}"


def _difference(point: dict[str, Any]) -> str:
    if point["error_difference_low"] is None:
        equal = point["error_difference_verdict"] == "equal"
        return "equal in all" if equal else f"{point['error_difference']:+.2f}"
    ends = f"{point['error_difference_low']:.2f} to {point['error_difference_high']:.2f}"
    return f"{point['error_difference']:+.2f} ({ends})"


def _sentences(sweep: Sweep) -> list[str]:
    first, last = sweep.points[0], sweep.points[-1]
    gamma = f"gamma {last['gamma']:g}"
    excess = [point["test_loss_exact"] - sweep.dimension / 2 for point in sweep.points]
    worst = int(np.argmax(excess))
    return [
        f"The gap is d/m = {first['gap_exact']:.3g} in expectation without generated points, {last['gap_exact']:.2g} "
        f"at {gamma}, and goes to 0. Its mean size is {first['mean_abs_gap']:.3g} and {last['mean_abs_gap']:.3g} "
        f"(exact: {sweep.mean_abs_gap:.3g} without, {sweep.mean_abs_gap_limit:.3g} in the limit, the errors of the fit "
        "itself).",
        f"The train loss goes from {first['train_loss']:.3g} to {last['train_loss']:.3g}. What the expected test loss "
        f"has beyond the true model's is {excess[0]:.3g} without generated points, {excess[worst] / excess[0]:.3g} "
        f"times that at gamma {sweep.points[worst]['gamma']:g}, {excess[-1] / excess[0]:.3g} times at {gamma}, and "
        "less at none.",
        f"True test error: {_verdict(sweep.points[1:])}",
        f"{last['num_generated']} more real points, in place of the generated ones of {gamma}, would bring it from "
        f"{first['error_if_real']:.2f} % to {last['error_if_real']:.2f} %.",
    ]


def _verdict(points: Sequence[dict[str, Any]]) -> str:
    """Say where the test error differs from that without generated points, Holm-corrected for the number of gammas."""
    if all(point["error_difference_verdict"] == "equal" for point in points):
        return "the same as without generated points in every repeat, at every gamma."

    def where(chosen: list[dict[str, Any]]) -> str:
        return "gamma " + ", ".join(f"{point['gamma']:g}" for point in chosen)

    higher, lower, undecided = (
        [point for point in points if point["error_difference_verdict"] in verdicts]
        for verdicts in (("higher",), ("lower",), ("equal", UNDECIDED))
    )
    parts = []
    if higher:
        most = max(higher, key=lambda point: point["error_difference"])
        size = f"{most['error_difference']:.2f} points at gamma {most['gamma']:g}"
        parts.append(f"significantly higher than without generated points at {where(higher)} (up to {size})")
    if undecided:
        parts.append(f"{UNDECIDED} at {where(undecided)}")
    parts.append(f"significantly lower at {where(lower)}" if lower else "significantly lower at none")
    return "; ".join(parts) + "."


def _ending(best: float) -> str:
    text = (
        f"The least possible error, with mu known, is {best:.2f} %. The generator is fitted on the same m points: what "
        "it generates holds no information on mu that is not in them. A generator that has seen other images is "
        "outside this model."
    )
    return paragraph(text)
