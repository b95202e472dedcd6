"""The figures of `gdacli theory gmm`: the gap, the losses and the true test error, each over gamma, and the grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gdacli.plots import COLOURS
from gdacli.theory.presentation import clean

if TYPE_CHECKING:
    from gdacli.theory.gaussian_mixture_program import Sweep

_SHADES = ("#1b1f3b", "#2f4b7c", "#3f7cac", "#4aa59b", "#7bbf6a", "#c2b83a", "#e08e2c", "#c8472f")


def plot_case(sweep: Sweep, least_error: float) -> Any:
    """Draw one sweep over gamma: gap, losses, test error.

    Args:
        sweep: of one (d, m).
        least_error: of the best classifier there is, %.
    """
    figure = _figure(3.9)
    _draw_sweep(figure.subplots(1, 3), sweep, least_error)
    return figure


def plot_paper(sizes: Sequence[Sweep], dimensions: Sequence[Sweep], sweeps: Sequence[Sweep], least_error: float) -> Any:
    """Draw the paper's figures: the grids over m and over d, and the sweeps over gamma.

    Args:
        sizes: of one d, by m.
        dimensions: of one m, by d.
        sweeps: two of them.
        least_error: of the best classifier there is, %.
    """
    figure = _figure(11.4)
    axes = figure.subplots(3, 3)
    _draw_grid(axes[0, 0], sizes, "m", "mean_abs_gap")
    _draw_grid(axes[0, 1], dimensions, "d", "mean_abs_gap")
    _draw_grid(axes[0, 2], dimensions, "d", "test_error")
    axes[0, 0].set_title(f"d = {sizes[0].dimension}: gap against train points", fontsize=10)
    axes[0, 1].set_title(f"m = {dimensions[0].num_train}: gap against dimension", fontsize=10)
    axes[0, 2].set_title(f"m = {dimensions[0].num_train}: error against dimension", fontsize=10)
    for row, sweep in zip(axes[1:], sweeps, strict=True):
        _draw_sweep(row, sweep, least_error)
    return figure


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, height), layout="constrained")
    figure.supxlabel("Bars: 95 % intervals of the mean over train sets", fontsize=9, color="#555555")
    return figure


def _draw_grid(axes: Any, grid: Sequence[Sweep], over: str, name: str) -> None:
    """Draw a column of a grid, a line per gamma, with 95 % intervals."""
    places = [sweep.points[0][over] for sweep in grid]
    for row in range(len(grid[0].points)):
        points = [sweep.points[row] for sweep in grid]
        shade = _SHADES[round(row * (len(_SHADES) - 1) / (len(grid[0].points) - 1))]
        _line(axes, places, points, name, shade, f"{points[0]['gamma']:g}")
    axes.set_xscale("log")
    _ticks(axes, places)
    axes.set_xlabel({"m": "real train points m", "d": "dimension d"}[over])
    axes.set_ylabel({"mean_abs_gap": "mean |gap|, nats", "test_error": "true test error, %"}[name])
    axes.legend(title="gamma", frameon=False, fontsize=8, ncols=2)
    clean(axes)


def _draw_sweep(row: Sequence[Any], sweep: Sweep, least_error: float) -> None:
    gap, losses, error = row
    gammas = [point["gamma"] for point in sweep.points]
    case = f"d = {sweep.dimension}, m = {sweep.num_train}"

    _line(gap, gammas, sweep.points, "mean_abs_gap", COLOURS[4], "mean |gap|")
    _line(gap, gammas, sweep.points, "gap", COLOURS[1], "mean gap", "none")
    exact = [point["gap_exact"] for point in sweep.points]
    gap.plot(gammas, exact, color=COLOURS[1], lw=1.3, label="mean gap, exact")
    gap.axhline(sweep.mean_abs_gap_limit, color=COLOURS[4], lw=1, ls="--", label="limit of mean |gap|")
    gap.set_ylabel("gap: test loss - train loss, nats")
    _title(gap, case, sweep, "mean_abs_gap", "mean |gap| {:.3g} → {:.3g}")
    orders = gap.twinx()
    orders.plot(gammas, [point["bound_order"] for point in sweep.points], color="#999999", lw=1.2, ls=":")
    orders.set_ylabel("the paper's bound (orders only)", color="#777777")
    orders.tick_params(axis="y", colors="#777777")
    orders.set_ylim(bottom=0)
    gap.plot([], [], color="#999999", lw=1.2, ls=":", label="bound, orders only (right)")
    orders.spines["top"].set_visible(False)

    _line(losses, gammas, sweep.points, "train_loss", COLOURS[2], "train loss, generated included")
    _line(losses, gammas, sweep.points, "test_loss", COLOURS[3], "test loss", "none")
    exact = [point["test_loss_exact"] for point in sweep.points]
    losses.plot(gammas, exact, color=COLOURS[3], lw=1.3, label="test loss, exact")
    losses.set_ylabel("mean loss, nats")
    _title(losses, case, sweep, "train_loss", "train loss {:.3g} → {:.3g}")

    _line(error, gammas, sweep.points, "test_error", COLOURS[3], "with generated points")
    if_real = [point["error_if_real"] for point in sweep.points]
    error.plot(gammas, if_real, color=COLOURS[2], lw=1.3, ls="-.", label="with as many real points")
    error.axhline(least_error, color="#777777", lw=1, ls="--", label="least possible")
    error.set_ylim(0, 1.15 * max(point["test_error"] for point in sweep.points))
    error.set_ylabel("true test error, %")
    _title(error, case, sweep, "test_error", "test error {:.1f} % → {:.1f} %")

    for axes in (gap, losses, error):
        axes.set_xscale("symlog", linthresh=1, linscale=0.6)
        axes.set_xlim(-0.25, 1.3 * gammas[-1])
        _ticks(axes, gammas)
        axes.set_xlabel("gamma, generated points for each real one")
        clean(axes)
        axes.legend(frameon=False, fontsize=8)


def _title(axes: Any, case: str, sweep: Sweep, name: str, text: str) -> None:
    axes.set_title(f"{case}: {text.format(sweep.points[0][name], sweep.points[-1][name])}", fontsize=10)


def _line(
    axes: Any,
    places: Sequence[float],
    points: Sequence[dict[str, Any]],
    name: str,
    colour: str,
    label: str,
    style: str = "-",
) -> None:
    """Draw means with their 95 % intervals over train sets."""
    means, halves = [point[name] for point in points], [1.96 * point[f"{name}_se"] for point in points]
    axes.errorbar(
        places, means, halves, fmt="o", ls=style, ms=4, lw=1.5, capsize=2.5, elinewidth=1, color=colour, label=label
    )


def _ticks(axes: Any, places: Sequence[float]) -> None:
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.xaxis.set_minor_locator(_no_ticks())


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
