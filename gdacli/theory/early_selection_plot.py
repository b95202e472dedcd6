"""The plot of `gdacli theory selection`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdacli.plots import COLOURS
from gdacli.theory.outcome import Row
from gdacli.theory.presentation import clean, draw_band
from gdacli.theory.separation import STRATEGIES

_COLOURS = dict(zip(STRATEGIES, (COLOURS[4], COLOURS[1], COLOURS[3], COLOURS[9]), strict=True))


def quality_plot(quality: Sequence[Row], training: Sequence[Row], settings: Sequence[Row]) -> Any:
    """Draw the quality of the choices over epochs, why it is so, and when a choice is good in each setting.

    Args:
        quality, training, settings: the rows of `early_selection.run`; the settings begin with the one as set.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.6), layout="constrained")
    (found, parts), (why, windows) = figure.subplots(2, 2)
    _draw_f1(found, quality, settings)
    _draw_parts(parts, quality)
    _draw_training(why, training)
    _draw_windows(windows, settings, [row["epoch"] for row in training])
    for axes in (found, parts, why, windows):
        axes.set_xscale("log")
        axes.set_xlabel("separation epoch (full-batch updates)")
        clean(axes)
    figure.suptitle("When early outputs tell which examples are learned late (means over repeats, 95 % intervals)")
    return figure


def _draw_f1(axes: Any, quality: Sequence[Row], settings: Sequence[Row]) -> None:
    for strategy, colour in _COLOURS.items():
        draw_band(axes, [row for row in quality if row["strategy"] == strategy], "epoch", "f1", colour, strategy)
    stop = settings[0]["auto_epoch"]
    if stop is not None:
        axes.axvline(stop, color="#111111", lw=1, ls=":", label="the probe stops\nby itself (mean)")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("F1 of the choice")
    axes.set_title("How good the choice is", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _draw_parts(axes: Any, quality: Sequence[Row]) -> None:
    for strategy in STRATEGIES[:-1]:
        rows = [row for row in quality if row["strategy"] == strategy]
        draw_band(axes, rows, "epoch", "precision", _COLOURS[strategy], "", "-")
        draw_band(axes, rows, "epoch", "recall", _COLOURS[strategy], "", "--")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("precision, recall")
    axes.set_title("Precision (lines) and recall (dashes)", fontsize=10)


def _draw_training(axes: Any, training: Sequence[Row]) -> None:
    draw_band(axes, training, "epoch", "fast_error", COLOURS[2], "fast-learnable examples")
    draw_band(axes, training, "epoch", "slow_error", COLOURS[5], "slow-learnable examples")
    axes.set_ylim(0, 80)
    axes.set_ylabel("training error, %")
    axes.set_title("Why: what is learned, and what is then memorised", fontsize=10)
    margins = axes.twinx()
    epochs = [row["epoch"] for row in training]
    for name, style, label in (
        ("slow_margin", "--", "margin of the slow ones (right axis)"),
        ("slow_margin_of_feature", ":", "of it from their feature, not their noise"),
    ):
        margins.plot(epochs, [row[name] for row in training], style, lw=1.6, color=COLOURS[7], label=label)
    margins.set_ylim(top=1.6 * max(float(row["slow_margin"] or 0) for row in training))
    margins.set_ylabel("mean margin y f(x)")
    margins.spines[["top"]].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *margins.get_legend_handles_labels()[0]]
    margins.legend(handles=handles, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.62, 1))


def _draw_windows(axes: Any, settings: Sequence[Row], epochs: Sequence[Any]) -> None:
    names = list(dict.fromkeys(row["setting"] for row in settings))
    drawn = STRATEGIES[:-1]
    for row in settings:
        if row["strategy"] not in drawn:
            continue
        place = names.index(row["setting"]) + 0.22 * (drawn.index(str(row["strategy"])) - 1)
        colour = _COLOURS[str(row["strategy"])]
        if row["first_good_epoch"] is not None:
            ends = [row["first_good_epoch"], row["last_good_epoch"]]
            axes.plot(ends, [place] * 2, "o-", color=colour, lw=4, ms=4, solid_capstyle="butt")
        if row["strategy"] == drawn[0] and row["auto_epoch"] is not None:
            label = "probe stops" if row is settings[0] else None
            axes.plot([row["auto_epoch"]], [place], "D", color="#111111", ms=5, zorder=3, label=label)
    for strategy in drawn:
        axes.plot([], [], lw=4, color=_COLOURS[strategy], label=strategy)
    axes.set_xlim(0.9 * epochs[0], 1.1 * epochs[-1])
    axes.set_ylim(len(names) - 0.4, -1.0)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("When the choice is good, as the data change", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=4, columnspacing=1, handlelength=1.2, loc="upper left")
