"""The plots of the report, as SVG whose bytes depend on the figures alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdacli.report import Report

_COLOURS = (
    "#4c566a",
    "#b4690e",
    "#2f7d5b",
    "#b5365b",
    "#3567b0",
    "#7b52ab",
    "#8a8a1c",
    "#1f8a9c",
    "#a0522d",
    "#666666",
)


def interval_plot(report: Report) -> str:
    """Draw the error of each arm: a dot per seed, the mean, and its interval."""
    figure, axes = _figure(0.9 + 0.42 * len(report.arms))
    for row, arm in enumerate(report.arms):
        colour = _COLOURS[row % len(_COLOURS)]
        if arm.error.low is not None:
            axes.plot(
                [arm.error.low, arm.error.high], [row, row], color=colour, lw=3, alpha=0.35, solid_capstyle="round"
            )
        axes.plot(arm.errors, [row] * len(arm.errors), "o", ms=4, color=colour, alpha=0.6, mew=0)
        axes.plot([arm.error.mean], [row], "D", ms=7, color=colour)
    axes.set_yticks(range(len(report.arms)), [arm.name for arm in report.arms])
    axes.set_ylim(len(report.arms) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0), min(high, 100))  # an interval of few seeds may go beyond what an error can be
    axes.set_xlabel(f"{report.split} error, %")
    axes.grid(axis="x", alpha=0.25)
    return _svg(figure)


def curve_plot(report: Report) -> str:
    """Draw the train error of each arm over updates."""
    figure, axes = _figure(3.2)
    for row, (name, curve) in enumerate(report.curves.items()):
        axes.plot(curve["updates"], curve["error"], color=_COLOURS[row % len(_COLOURS)], lw=1.6, label=name)
    axes.set_xlabel("updates")
    axes.set_ylabel("train error, %")
    _from_zero(axes, [error for curve in report.curves.values() for error in curve["error"]])
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=3)
    return _svg(figure)


def probe_plot(report: Report) -> str:
    """Draw the train error of the probe per epoch, with the separation epoch."""
    figure, axes = _figure(2.6)
    epochs, curves = report.probe_curve["epoch"], {"error": "after the epoch", "batch_error": "on its batches"}
    for colour, (name, label) in zip(_COLOURS[4:], curves.items(), strict=False):
        axes.plot(epochs, report.probe_curve[name], "o-", ms=4, color=colour, lw=1.6, label=label)
    axes.axvline(report.selection["separation_epoch"], color=_COLOURS[3], lw=1.2, ls="--", label="separation epoch")
    axes.set_xlabel("epoch")
    axes.set_ylabel("train error, %")
    _from_zero(axes, report.probe_curve["error"] + report.probe_curve["batch_error"])
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return _svg(figure)


def _from_zero(axes: Any, values: Sequence[float]) -> None:
    """Let the y axis start at 0 and leave room above the highest value."""
    axes.set_ylim(0, 1.1 * max(*values, 1e-3))


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "gdacli", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
