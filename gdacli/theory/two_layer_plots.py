"""The picture of `gdacli theory two-layer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gdacli.plots import COLOURS
from gdacli.theory.identity_errors import Failure
from gdacli.theory.learning_curves import Curve
from gdacli.theory.monte_carlo import monte_carlo
from gdacli.theory.presentation import clean
from gdacli.theory.two_layer_setting import DIMENSIONS, Setting
from gdacli.theory.variance_grid import Cell, Strata

_STYLES = ("-", (0, (4, 2)), "-.", (0, (1, 1)))


def draw(
    setting: Setting,
    curves: dict[str, Curve],
    at: Sequence[int],
    failures: Sequence[Failure],
    cells: Sequence[Cell],
    own: Strata,
) -> Any:
    """Draw what the arms learn over time, how the identities fail with the dimension, and the variances over B / N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 6.6), layout="constrained")
    panels = figure.subplots(2, 3)
    _curve(panels[0, 0], curves, at, "slow_alignment", r"Slow feature (thin: fast), $\max_j \langle w_j, v\rangle$")
    _thin(panels[0, 0], curves, at, "fast_alignment")
    _curve(panels[0, 1], curves, at, "slow_noise", r"Noise of slow examples, $\max_j y_i \langle w_j, \xi_i\rangle$")
    _curve(panels[0, 2], curves, at, "slow_accuracy", "Fresh slow examples, % correct", 100)
    _curve(panels[1, 0], curves, at, "noise_align", "NoiseAlign: how much a step learns noise")
    panels[1, 0].set_yscale("log")
    _failures(panels[1, 1], failures, setting.num_examples)
    _variances(panels[1, 2], cells, own)
    for panel in panels.flat:
        clean(panel)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def _curve(axes: Any, curves: dict[str, Curve], at: Sequence[int], name: str, title: str, unit: float = 1) -> None:
    for number, (arm, curve) in enumerate(curves.items()):
        found = [monte_carlo(values * unit) for values in curve.measures[name]]
        colour = COLOURS[number]
        axes.plot(at, [each.mean for each in found], color=colour, ls=_STYLES[number], lw=1.8, label=arm)
        axes.fill_between(at, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.15, lw=0)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("iteration")


def _thin(axes: Any, curves: dict[str, Curve], at: Sequence[int], name: str) -> None:
    for number, curve in enumerate(curves.values()):
        axes.plot(at, curve.measures[name].mean(1), color=COLOURS[number], ls=_STYLES[number], lw=0.8)


def _failures(axes: Any, failures: Sequence[Failure], num_examples: int) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    names = {
        "noise gradient, gradient descent": "gradient descent's",
        "noise gradient, SAM": "SAM's",
        "upsampled = k x generated": "upsampled = k × generated",
    }
    for number, (identity, label) in enumerate(names.items()):
        rows = [each for each in failures if each.identity == identity and each.noise == "normal"]
        shares = [each.dimension / num_examples for each in rows]
        medians, errors = np.array([(each.median.mean, each.median.standard_error) for each in rows]).T
        style = _STYLES[number]
        axes.errorbar(
            shares, 100 * medians, 200 * errors, color=COLOURS[4 + number], ls=style, marker="o", ms=4, label=label
        )
    axes.set(xscale="log", yscale="log", xlabel="dimensions an example, d / N", ylabel="median relative error, %")
    axes.set_title("The noise identities, with normal noises", fontsize=10)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xticks(DIMENSIONS)
    axes.set_yticks(
        [tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000) if axes.get_ylim()[0] < tick < axes.get_ylim()[1]]
    )
    axes.legend(frameon=False, fontsize=8)


def _variances(axes: Any, cells: Sequence[Cell], own: Strata) -> None:
    ours = [cell for cell in cells if (cell.strata.k, cell.strata.num_fast) == (own.k, own.num_fast)]
    styles = ("-", "-", "--", "-.")
    batches = np.array([cell.strata.batch for cell in ours])
    shares = batches / (own.num_fast + own.num_slow)
    lines = {
        "population": "upsampling, exact",
        "generated": "generation, exact",
        "finite": "upsampling, around the set's own",
        "finite_generated": "generation, around the set's own",
    }
    axes.plot(
        shares,
        [c.printed * c.strata.batch for c in ours],
        ls=":",
        color="#111111",
        lw=2,
        label="upsampling, printed bound",
    )
    for number, (view, label) in enumerate(lines.items()):
        colour = COLOURS[(2, 3, 2, 3)[number]]
        axes.plot(shares, [c.exact[view] * c.strata.batch for c in ours], color=colour, ls=styles[number], label=label)
        means = np.array([c.found[view].mean for c in ours]) * batches
        errors = np.array([c.found[view].standard_error for c in ours]) * batches
        axes.errorbar(shares, means, 3 * errors, color=colour, ls="", marker="o", ms=3.5, capsize=2)
    axes.set(xlabel="batch size over N", ylabel="variance, in sigma² / B", ylim=(0, 1.55 * axes.get_ylim()[1]))
    axes.set_title(f"Mini-batch gradient, k = {own.k}: draws ± 3 s.e.", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
