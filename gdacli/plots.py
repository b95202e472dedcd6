"""The plots of the report, as SVG whose bytes depend on the figures alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gdacli.course import Course
    from gdacli.feature_map import FeatureMap
    from gdacli.report import Report

COLOURS = (
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


_SYNTHETIC = {"stored": "synthetic", "uniform": "generated, uniform samples", "found": "generated, found samples"}
_MOST_CLASSES = 40
_ENOUGH = 20  # predictions, for the accuracy of a bin to say something


def interval_plot(report: Report) -> str:
    """Draw the error of each arm: a dot per seed, the mean, and its two intervals."""
    figure, axes = _figure(0.9 + 0.46 * len(report.arms))
    for row, arm in enumerate(report.arms):
        colour = COLOURS[row % len(COLOURS)]
        if arm.error_interval is not None:
            axes.plot(arm.error_interval, [row, row], "|-", color=colour, lw=1.1, ms=9)
        if arm.error.low is not None:
            axes.plot([arm.error.low, arm.error.high], [row] * 2, color=colour, lw=7, alpha=0.25, solid_capstyle="butt")
        axes.plot(arm.errors, [row] * len(arm.errors), "o", ms=4, color=colour, alpha=0.7, mew=0)
        axes.plot([arm.error.mean], [row], "D", ms=7, color=colour)
    axes.set_yticks(range(len(report.arms)), [arm.name for arm in report.arms])
    axes.set_ylim(len(report.arms) - 0.5, -0.5)
    axes.set_xlabel(f"{report.split} error, %")
    axes.grid(axis="x", alpha=0.25)
    return _svg(figure)


def class_plot(report: Report) -> str:
    """Draw the error of each class, a dot per arm; of many classes those with the highest errors."""
    rows = worst_classes(report)
    figure, axes = _figure(1.2 + 0.27 * len(rows))
    for place, label in enumerate(rows):
        errors = [arm.class_errors[label] for arm in report.arms]
        axes.plot([min(errors), max(errors)], [place, place], color="#d5d9e0", lw=1.5, zorder=0)
    for number, arm in enumerate(report.arms):
        errors = [arm.class_errors[label] for label in rows]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(errors, range(len(rows)), "o", ms=6, color=colour, alpha=0.85, mew=0, label=arm.name)
    axes.set_yticks(range(len(rows)), [report.class_names[label] for label in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{report.split} error, %")
    axes.grid(axis="x", alpha=0.25)
    figure.legend(frameon=False, ncols=min(5, len(report.arms)), loc="outside upper left")
    return _svg(figure)


def worst_classes(report: Report) -> list[int]:
    """Return the labels that the class plot shows, in order; classes without images have no error."""
    means = np.mean([arm.class_errors for arm in report.arms], axis=0)
    known = np.flatnonzero(np.isfinite(means))
    worst = known[np.argsort(-means[known], kind="stable")][:_MOST_CLASSES]
    return sorted(worst.tolist())


def reliability_plot(report: Report) -> str:
    """Draw accuracy over confidence, a line per arm; on the diagonal confidence is what it says."""
    figure, axes = _figure(3.4)
    axes.plot([0, 100], [0, 100], color="#9aa3b2", lw=1, ls="--", label="calibrated")
    for number, arm in enumerate(report.arms):
        full = [(confidence, accuracy) for confidence, accuracy, count in arm.reliability if count >= _ENOUGH]
        confidence, accuracy = 100 * np.array(full).reshape(-1, 2).T
        axes.plot(confidence, accuracy, "o-", ms=3.5, lw=1.4, color=COLOURS[number % len(COLOURS)], label=arm.name)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("correct, %")
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=2)
    return _svg(figure)


def curve_plot(report: Report) -> str:
    """Draw the train error of each arm over updates."""
    figure, axes = _figure(3.2)
    for row, (name, curve) in enumerate(report.curves.items()):
        axes.plot(curve["updates"], curve["error"], color=COLOURS[row % len(COLOURS)], lw=1.6, label=name)
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
    for colour, (name, label) in zip(COLOURS[4:], curves.items(), strict=False):
        axes.plot(epochs, report.probe_curve[name], "o-", ms=4, color=colour, lw=1.6, label=label)
    axes.axvline(report.selection["separation_epoch"], color=COLOURS[3], lw=1.2, ls="--", label="separation epoch")
    axes.set_xlabel("epoch")
    axes.set_ylabel("train error, %")
    _from_zero(axes, report.probe_curve["error"] + report.probe_curve["batch_error"])
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return _svg(figure)


def gradient_variance_plot(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw the variance of the mini-batch gradient of each arm over updates, on a logarithmic axis.

    Args:
        curves: arm -> `updates` and `gradient_variance`, of equal lengths.
    """
    figure, axes = _figure(3.2)
    for row, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[row % len(COLOURS)]
        axes.plot(curve["updates"], curve["gradient_variance"], color=colour, lw=1.6, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("updates")
    axes.set_ylabel("variance of the mini-batch gradient")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=3)
    return _svg(figure)


def validation_plot(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw the validation loss of each arm over updates.

    Args:
        curves: arm -> `updates` and `validation_loss`, of equal lengths.
    """
    figure, axes = _figure(3.2)
    for row, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[row % len(COLOURS)]
        axes.plot(curve["updates"], curve["validation_loss"], color=colour, lw=1.6, label=name)
    axes.set_xlabel("updates")
    axes.set_ylabel("validation loss, nats")
    _from_zero(axes, [loss for curve in curves.values() for loss in curve["validation_loss"]])
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=3)
    return _svg(figure)


def distance_plot(courses: Mapping[str, Course]) -> str:
    """Draw the Fréchet distance of found images (a line per arm) and of those of uniform samples (dashed) over epochs.

    Args:
        courses: by arm; those without distances have no line.
    """
    figure, axes = _figure(3.2)
    for row, (name, course) in enumerate(courses.items()):
        if not course.distances:
            continue
        epochs, colour = [each.epoch for each in course.distances], COLOURS[row % len(COLOURS)]
        found, uniform = zip(*((each.found, each.uniform) for each in course.distances), strict=True)
        axes.plot(epochs, found, "o-", ms=3, lw=1.5, color=colour, label=f"{name}: found")
        axes.plot(epochs, uniform, "--", lw=1.2, alpha=0.6, color=colour, label=f"{name}: uniform")
    axes.set_xlabel("epoch")
    axes.set_ylabel("Fréchet distance")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=2)
    return _svg(figure)


def course_plot(course: Course) -> str:
    """Draw the feature maps of a training side by side: real images in grey, synthetic ones in a colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    for axes, (epoch, points) in zip(figure.subplots(1, len(course.maps), squeeze=False)[0], course.maps, strict=True):
        synthetic = _SYNTHETIC[course.origin]
        for name, places, colour in (
            ("real", points.real_points, "#9aa3b2"),
            (synthetic, points.synthetic_points, COLOURS[3]),
        ):
            axes.plot(*places.T, "o", ms=2.2, mew=0, color=colour, alpha=0.5, label=name, rasterized=True)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"after epoch {epoch}", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=2, loc="outside lower center", markerscale=2)
    return _svg(figure)


def feature_map_plot(points: FeatureMap, names: Sequence[str]) -> str:
    """Draw real images in grey, synthetic ones in a colour per group.

    Args:
        points: of `feature_map.feature_map`.
        names: of the group of each synthetic image, by its row; strengths are drawn first.
    """
    figure, axes = _figure(4.6)
    drawn = [names[row] for row in points.synthetic_rows.tolist()]
    groups = [("real", points.real_points, "#9aa3b2")]
    for colour, name in zip(cycle(COLOURS[1:]), sorted(set(drawn), key=_by_strength)):
        which = [row for row, each in enumerate(drawn) if each == name]
        label = f"strength {name}" if _is_number(name) else name
        groups.append((label, points.synthetic_points[which], "#111111" if name == "sampled" else colour))
    for name, places, colour in groups:
        # One picture of all points: as shapes they would be a quarter of a megabyte.
        axes.plot(*places.T, "o", ms=2.6, mew=0, color=colour, alpha=0.6, label=name, rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])
    for number, label in enumerate((axes.set_xlabel, axes.set_ylabel)):
        share = "" if points.variance is None else f" ({100 * points.variance[number]:.0f} % of the variance)"
        label(f"{'UMAP' if points.variance is None else 'principal component'} {number + 1}{share}")
    axes.legend(frameon=False, ncols=min(5, len(groups)), loc="lower center", bbox_to_anchor=(0.5, 1), markerscale=2)
    return _svg(figure)


def _by_strength(name: str) -> tuple[bool, bool, float, str]:
    return name == "sampled", not _is_number(name), float(name) if _is_number(name) else 0.0, name


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


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
