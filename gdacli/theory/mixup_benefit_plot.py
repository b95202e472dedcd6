"""The plot of `gdacli theory mixup`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdacli.plots import COLOURS
from gdacli.theory.outcome import Row
from gdacli.theory.presentation import clean, draw_band

_FIXED = {"erm": (COLOURS[0], "no mixup"), "mixup": (COLOURS[4], "mixup"), "two_weights": (COLOURS[2], "two weights")}
_STOPPED = (COLOURS[1], COLOURS[3], COLOURS[5], COLOURS[6], COLOURS[7], COLOURS[8])


def benefit_plot(curves: Sequence[Row], level: float) -> Any:
    """Draw test errors and what is learned over updates, and the errors at the end over the stop.

    Args:
        curves: the rows of `mixup_benefit.run`.
        level: test error on rare examples in %, from which they count as learned.
    """
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(str(row["arm"]) for row in curves))
    looks = _looks(arms)
    figure = Figure(figsize=(10, 7.6), layout="constrained")
    (rare, common), (learned, ends) = figure.subplots(2, 2)
    for axes, name, title in (
        (rare, "rare_error", "Test error on rare examples"),
        (common, "common_error", "Test error on common examples"),
        (learned, "rare_alignment", "How far the rare feature is learned"),
    ):
        for arm in arms:
            first = 0 if arm in _FIXED else int(arm.removeprefix("stop_"))  # until its stop it is that of mixup
            rows = [row for row in curves if row["arm"] == arm and int(row["update"] or 0) >= first]
            rows = sorted(rows, key=lambda row: int(row["update"] or 0))
            draw_band(axes, rows, "update", name, *looks[arm])
        axes.set_xscale("log")
        axes.set_xlabel("update (full batch)")
        axes.set_ylabel("test error, %" if name.endswith("error") else "largest |<w, rare feature>|")
        axes.set_title(title, fontsize=10)
    rare.axhline(level, color="#111111", lw=1, ls=":")
    rare.text(1, level + 1, "counts as learned", fontsize=8)
    rare.legend(frameon=False, fontsize=8, loc="lower left")
    _draw_ends(ends, curves, arms)
    for axes in (rare, common, learned, ends):
        clean(axes)
        axes.set_ylim(bottom=0)
    figure.suptitle("What mixup learns, and what stopping it early changes (means over repeats, 95 % intervals)")
    return figure


def _looks(arms: Sequence[str]) -> dict[str, tuple[str, str]]:
    stopped = [arm for arm in arms if arm not in _FIXED]
    return {arm: _FIXED[arm] for arm in _FIXED} | {
        arm: (_STOPPED[place % len(_STOPPED)], f"mixup until {arm.removeprefix('stop_')}")
        for place, arm in enumerate(stopped)
    }


def _draw_ends(axes: Any, curves: Sequence[Row], arms: Sequence[str]) -> None:
    """Draw the errors after the last update over the share of the training that had mixup."""
    last = max(int(row["update"] or 0) for row in curves)
    ends = {str(row["arm"]): row for row in curves if row["update"] == last}
    stops = {"erm": 0, **{arm: int(arm.removeprefix("stop_")) for arm in arms if arm not in _FIXED}, "mixup": last}
    for name, colour, label in (
        ("rare_error", COLOURS[3], "rare examples"),
        ("common_error", COLOURS[2], "common examples"),
        ("error", COLOURS[0], "all, in the shares of the training set"),
    ):
        rows = [ends[arm] for arm in stops]
        places = list(stops.values())
        axes.plot(places, [row[name] for row in rows], "o-", ms=4, lw=1.6, color=colour, label=label)
        axes.fill_between(
            places, *([row[f"{name}_{end}"] for row in rows] for end in ("low", "high")), color=colour, alpha=0.18, lw=0
        )
    axes.set_xlabel(f"last update with mixup, of {last} (0: none)")
    axes.set_ylabel("test error at the end, %")
    axes.set_title("When to stop", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
